//! The capture's clock: nanoseconds of `CLOCK_MONOTONIC`, read from the time-stamp counter where the kernel itself does so.
//!
//! The vDSO's `clock_gettime` costs 25 ns, the counter 15 (measured). The rate is found by comparing both over the first 10 ms and more, to within some millionths;
//! until then, and where the kernel does not trust the counter, times are `clock_gettime`'s.
//!
//! May touch: a file of sysfs at start.

use core::arch::x86_64::{__cpuid, _rdtsc};
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Nanoseconds for each tick, times 2^32; 0 if the counter is not used (yet).
static RATE: AtomicU64 = AtomicU64::new(0);
/// The instant that times are counted from, in ticks and nanoseconds.
static FROM_TICKS: AtomicU64 = AtomicU64::new(0);
/// See [`FROM_TICKS`].
static FROM_NS: AtomicU64 = AtomicU64::new(0);
/// The start of the calibration, in ticks; 0 if there is none.
static START_TICKS: AtomicU64 = AtomicU64::new(0);
/// Its nanoseconds.
static START_NS: AtomicU64 = AtomicU64::new(0);

/// How long the calibration takes at least, in nanoseconds.
const CALIBRATION_NS: u64 = 10_000_000;

fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction; `start` made sure that it is allowed.
    unsafe { _rdtsc() }
}

/// Nanoseconds of a clock of the kernel's.
fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid clock and a valid pointer: cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec
        .cast_unsigned()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec.cast_unsigned())
}

/// Nanoseconds of `CLOCK_MONOTONIC`, from the kernel's own function.
pub(crate) fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// The same at the last tick: up to 10 ms ago, for a third of the price.
pub(crate) fn coarse_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since the epoch.
#[must_use]
pub fn realtime_ns() -> i64 {
    read(libc::CLOCK_REALTIME).cast_signed()
}

/// Nanoseconds of the capture's clock.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    // Acquire: pairs with `calibrate`.
    let rate = RATE.load(Acquire);
    if rate == 0 {
        return calibrate();
    }
    let passed = ticks().wrapping_sub(FROM_TICKS.load(Relaxed));
    let ns = (u128::from(passed) * u128::from(rate)) >> 32;
    FROM_NS.load(Relaxed).wrapping_add(ns as u64)
}

/// Whether the time-stamp counter is in use.
#[must_use]
pub fn is_tsc() -> bool {
    RATE.load(Relaxed) != 0
}

/// Both clocks at one instant, within 1 us: none if something came between (an interrupt, another thread).
fn both() -> Option<(u64, u64)> {
    const TOGETHER_TICKS: u64 = 2_000; // Less than 1 us where the counter counts faster than 2 GHz.
    for _ in 0..8 {
        let before = ticks();
        let now = monotonic_ns();
        let passed = ticks().wrapping_sub(before);
        if passed < TOGETHER_TICKS {
            return Some((before.wrapping_add(passed / 2), now));
        }
    }
    None
}

#[cold]
#[inline(never)]
fn calibrate() -> u64 {
    let start = START_TICKS.load(Relaxed);
    let start_ns = START_NS.load(Relaxed);
    let now = monotonic_ns();
    if start == 0 || now.wrapping_sub(start_ns) < CALIBRATION_NS {
        return now;
    }
    let Some((ticks, now)) = both() else {
        return now; // The next call tries again.
    };
    // One thread does it: the second finds no start.
    if START_TICKS
        .compare_exchange(start, 0, Relaxed, Relaxed)
        .is_ok()
    {
        let passed = u128::from(now.wrapping_sub(start_ns));
        let rate = (passed << 32) / u128::from(ticks.wrapping_sub(start).max(1));
        FROM_TICKS.store(ticks, Relaxed);
        FROM_NS.store(now, Relaxed);
        // Release: pairs with `now_ns`.
        RATE.store(rate as u64, Release);
    }
    now
}

/// Begins the calibration, if the counter may be used. Called once, from the preload's constructor.
pub fn start() {
    if is_invariant()
        && is_allowed()
        && is_the_kernels()
        && let Some((ticks, ns)) = both()
    {
        START_NS.store(ns, Relaxed);
        START_TICKS.store(ticks, Relaxed);
    }
}

/// Whether the counter runs at one rate in all states: CPUID 0x80000007, EDX bit 8.
fn is_invariant() -> bool {
    const ADVANCED_POWER: u32 = 0x8000_0007;
    __cpuid(0x8000_0000).eax >= ADVANCED_POWER && __cpuid(ADVANCED_POWER).edx & 1 << 8 != 0
}

/// Whether reading the counter is not made a fault for this process.
fn is_allowed() -> bool {
    let mut allowed = libc::PR_TSC_ENABLE;
    // SAFETY: a valid pointer.
    let failed = unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut allowed) } != 0;
    failed || allowed == libc::PR_TSC_ENABLE
}

/// Whether the kernel's own clock is the counter: it has found it to be in step on all CPUs then.
fn is_the_kernels() -> bool {
    let path = c"/sys/devices/system/clocksource/clocksource0/current_clocksource";
    // SAFETY: a NUL-terminated path.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return false;
    }
    let mut name = [0_u8; 4];
    // SAFETY: the buffer has this size.
    let read = unsafe { libc::read(file, name.as_mut_ptr().cast(), name.len()) };
    // SAFETY: opened above.
    unsafe { libc::close(file) };
    read == 4 && &name == b"tsc\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_agree() {
        start();
        let begin = monotonic_ns();
        // Not to wait for anything: time itself is the subject.
        while monotonic_ns() - begin < 2 * CALIBRATION_NS {
            let _ = now_ns();
        }
        for _ in 0..1000 {
            let before = monotonic_ns();
            let between = now_ns();
            let after = monotonic_ns();
            let slack = 20_000; // The rate's error over this test's time, up to 1 us in 10 ms, however slow the machine.
            assert!(
                before <= between + slack && between <= after + slack,
                "{before} {between} {after}"
            );
        }
    }
}
