//! Whether a thread that has gone to lock surely waits inside by now: seen from outside, without a guess about time.
//!
//! Between its word that it is going and the lock call a thread does nothing else. So if it sleeps, it sleeps in there; and if it
//! has used a millisecond of its own CPU time since, it is past the few instructions on the way to the queue.

use super::child::sleeps;
use super::ground::Guarded;
use crate::clock;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

/// CPU time in a lock call after which a thread is in the queue.
const ON_ITS_WAY_NS: u64 = 1_000_000;

/// One thread's way into a lock that is held.
#[derive(Default)]
pub struct Waiter {
    going: AtomicBool,
    inside: AtomicBool,
    tid: AtomicI32,
    clock: AtomicI32,
    cpu_ns: AtomicU64,
}

impl Waiter {
    /// By the waiter: locks.
    pub fn lock(&self, guarded: &Guarded) {
        let mut clock = 0;
        // SAFETY: takes nothing and cannot fail.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: a thread that lives, a valid pointer.
        unsafe { libc::pthread_getcpuclockid(this, &raw mut clock) };
        // SAFETY: gettid(2) takes nothing and cannot fail.
        self.tid.store(unsafe { libc::gettid() }, Relaxed);
        self.clock.store(clock, Relaxed);
        self.cpu_ns.store(cpu_ns(clock), Relaxed);
        self.going.store(true, Release);
        guarded.lock();
        self.inside.store(true, Relaxed);
    }

    /// Returns when it surely waits, or false if it has got in.
    pub fn until_it_waits(&self) -> bool {
        loop {
            if self.inside.load(Relaxed) {
                return false;
            }
            if self.going.load(Acquire) && self.waits() {
                return true;
            }
            // Nothing depends on how long: it is the others' turn.
            clock::sleep(Duration::from_micros(100));
        }
    }

    fn waits(&self) -> bool {
        let used = cpu_ns(self.clock.load(Relaxed)).saturating_sub(self.cpu_ns.load(Relaxed));
        used > ON_ITS_WAY_NS || {
            let path = format!("/proc/self/task/{}/stat", self.tid.load(Relaxed));
            sleeps(&std::fs::read_to_string(path).unwrap_or_default())
        }
    }
}

fn cpu_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid pointer; the clock of a thread that lives.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
