//! TTAS that ends in a sleep: a waiter spins for a budget of pauses, then sleeps on the word.
//!
//! | name | between two looks, while the budget lasts |
//! |---|---|
//! | `futex_spinlock` | one pause |
//! | `futex_backoff_spinlock` | a random number of pauses, up to a limit that doubles |
//! | `futex_yield_spinlock` | one pause; sched_yield(2) after every 32 of them |
//! | `futex_yield_backoff_spinlock` | both |
//!
//! Sources: spinning for about as long as a sleep costs: Karlin, Li, Manasse and Owicki, "Empirical studies of competitive
//! spinning for a shared-memory multiprocessor", SOSP 1991. The word: Drepper, "Futexes are tricky", 2004.
//!
//! The word's table, its memory orderings and why no wake-up is lost: `futex_word`.
//!
//! Bad at: every unlock with sleepers pays a system call, even if a spinner takes the lock before the woken one runs, which then
//! sleeps again; no order at all, a sleeper may starve.

use super::{
    between::{Between, SPIN_PAUSES},
    futex_word::FutexWord,
};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    platform::Platform,
};

/// See the module.
#[derive(Debug)]
pub struct FutexTtas<P, const YIELD: bool, const BACKOFF: bool> {
    word: FutexWord<P>,
}

/// A budget of pauses.
pub type FutexSpinlock<P> = FutexTtas<P, false, false>;
/// With backoff.
pub type FutexBackoffSpinlock<P> = FutexTtas<P, false, true>;
/// With sched_yield(2).
pub type FutexYieldSpinlock<P> = FutexTtas<P, true, false>;
/// With sched_yield(2) and backoff.
pub type FutexYieldBackoffSpinlock<P> = FutexTtas<P, true, true>;

impl<P: Platform, const YIELD: bool, const BACKOFF: bool> Algorithm
    for FutexTtas<P, YIELD, BACKOFF>
{
    const INFO: Info = Info {
        name: match (YIELD, BACKOFF) {
            (false, false) => "futex_spinlock",
            (false, true) => "futex_backoff_spinlock",
            (true, false) => "futex_yield_spinlock",
            (true, true) => "futex_yield_backoff_spinlock",
        },
        about: match (YIELD, BACKOFF) {
            (false, false) => "TTAS, then sleep on a futex",
            (false, true) => "TTAS with backoff, then sleep on a futex",
            (true, false) => "TTAS with sched_yield, then sleep on a futex",
            (true, true) => "TTAS with backoff and sched_yield, then sleep on a futex",
        },
        source: "Karlin et al., SOSP 1991; Drepper, Futexes are tricky, 2004",
        order: Order::Unfair,
        waiting: Waiting::Sleeps,
    };

    fn new() -> Self {
        Self {
            word: FutexWord::new(),
        }
    }

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_contended();
        }
        P::preemption_point();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.word.try_acquire()
    }

    #[inline]
    unsafe fn unlock(&self) {
        P::preemption_point();
        let _ = self.word.release();
    }
}

impl<P: Platform, const YIELD: bool, const BACKOFF: bool> FutexTtas<P, YIELD, BACKOFF> {
    #[cold]
    #[inline(never)]
    fn lock_contended(&self) {
        let mut between = Between::<P, YIELD, BACKOFF>::new();
        let mut pauses = 0;
        while pauses < SPIN_PAUSES {
            if self.word.is_free() && self.word.try_acquire() {
                return;
            }
            pauses += between.wait();
        }
        while !self.word.acquire_or_sleep() {}
    }
}
