//! Time for the measuring loops: the TSC, its rate, and a busy wait.
//!
//! Reads the TSC and CLOCK_MONOTONIC, never sleeps except in `sleep`. x86-64 only, as
//! the locks under test are.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("driver measures x86-64 locks with the TSC");

/// The time-stamp counter.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: rdtsc reads a counter and exists on every x86-64; a process in which
    // prctl(PR_SET_TSC) forbids it dies with SIGSEGV, it reads no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Busy-waits for `cycles` of the TSC, politely to a sibling hyperthread.
#[inline(always)]
pub fn spin(cycles: u64) {
    let start = tsc();
    while tsc().wrapping_sub(start) < cycles {
        spin_loop();
    }
}

/// Sleeps for `duration` on CLOCK_MONOTONIC; signals do not shorten it.
pub fn sleep(duration: Duration) {
    let mut rest = libc::timespec {
        tv_sec: duration.as_secs() as libc::time_t,
        tv_nsec: duration.subsec_nanos() as libc::c_long,
    };
    loop {
        let request = rest;
        // SAFETY: both pointers are to live timespecs of this frame.
        let rc = unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &request, &mut rest) };
        if rc != libc::EINTR {
            return;
        }
    }
}

/// The TSC's rate, measured once against CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    cycles_per_ns: f64,
}

impl Clock {
    /// Takes about 50 ms. Each end is read thrice and the tightest pair kept.
    pub fn calibrate() -> Clock {
        let (tsc0, wall0) = paired_reading();
        sleep(Duration::from_millis(50));
        let (tsc1, wall1) = paired_reading();
        let ns = wall1.duration_since(wall0).as_nanos() as f64;
        Clock {
            cycles_per_ns: tsc1.wrapping_sub(tsc0) as f64 / ns,
        }
    }

    pub fn ns(&self, cycles: u64) -> f64 {
        cycles as f64 / self.cycles_per_ns
    }

    pub fn cycles(&self, ns: u64) -> u64 {
        (ns as f64 * self.cycles_per_ns) as u64
    }

    pub fn ghz(&self) -> f64 {
        self.cycles_per_ns
    }
}

fn paired_reading() -> (u64, Instant) {
    let read = || {
        let before = tsc();
        let wall = Instant::now();
        let after = tsc();
        (after.wrapping_sub(before), before, wall)
    };
    let (width, before, wall) = (0..3)
        .map(|_| read())
        .min_by_key(|&(width, ..)| width)
        .unwrap_or_else(read);
    (before.wrapping_add(width / 2), wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_and_nanoseconds_are_each_others_inverse() {
        let clock = Clock { cycles_per_ns: 2.5 };
        assert_eq!(clock.cycles(1000), 2500);
        assert!((clock.ns(2500) - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn the_counter_moves_forward_and_the_rate_is_that_of_a_cpu() {
        let ghz = Clock::calibrate().ghz();
        assert!((0.1..20.0).contains(&ghz), "{ghz} GHz");
        let start = tsc();
        spin(1000);
        assert!(tsc().wrapping_sub(start) >= 1000);
    }
}
