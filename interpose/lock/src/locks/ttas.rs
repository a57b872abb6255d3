//! TTAS: test-and-test-and-set, and what a waiter may do between two tests.
//!
//! | name | between two looks |
//! |---|---|
//! | `spinlock` | one pause |
//! | `backoff_spinlock` | a random number of pauses, up to a limit that doubles |
//! | `yield_spinlock` | one pause; sched_yield(2) after every 32 of them |
//! | `yield_backoff_spinlock` | both |
//!
//! Sources: test-and-test-and-set: Rudolph and Segall, "Dynamic decentralized cache schemes for MIMD parallel processors", ISCA 1984.
//! Backoff: Anderson, "The performance of spin lock alternatives for shared-memory multiprocessors", IEEE TPDS 1(1), 1990.
//!
//! | word | meaning | transitions |
//! |---|---|---|
//! | 0 | free | -> 1 by an exchange of whoever comes (`lock`, `try_lock`) or of a waiter that has seen it free |
//! | 1 | held | -> 0 by a store of the holder (`unlock`) |
//!
//! Memory orderings: the exchange is Acquire and pairs with the Release store of `unlock`. A waiter's looks are Relaxed: the
//! exchange decides.
//!
//! Bad at: every release makes all waiters read the line and most of them try; no order at all; a preempted holder is waited for
//! by spinning, and with yields by making the scheduler spin. Backoff: the lock stays free for a while that nobody looks.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed},
    store_release,
};

use super::between::Between;
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    platform::Platform,
};

const FREE: u32 = 0;
const HELD: u32 = 1;

/// See the module.
#[derive(Debug)]
pub struct Ttas<P, const YIELD: bool, const BACKOFF: bool> {
    word: AtomicU32,
    platform: PhantomData<fn(P)>,
}

/// Plain test-and-test-and-set.
pub type Spinlock<P> = Ttas<P, false, false>;
/// With backoff.
pub type BackoffSpinlock<P> = Ttas<P, false, true>;
/// With sched_yield(2).
pub type YieldSpinlock<P> = Ttas<P, true, false>;
/// With sched_yield(2) and backoff.
pub type YieldBackoffSpinlock<P> = Ttas<P, true, true>;

impl<P: Platform, const YIELD: bool, const BACKOFF: bool> Algorithm for Ttas<P, YIELD, BACKOFF> {
    const INFO: Info = Info {
        name: match (YIELD, BACKOFF) {
            (false, false) => "spinlock",
            (false, true) => "backoff_spinlock",
            (true, false) => "yield_spinlock",
            (true, true) => "yield_backoff_spinlock",
        },
        about: match (YIELD, BACKOFF) {
            (false, false) => "test-and-test-and-set (TTAS); polls only read",
            (false, true) => "TTAS with random exponential backoff",
            (true, false) => "TTAS with sched_yield",
            (true, true) => "TTAS with random exponential backoff and sched_yield",
        },
        source: if BACKOFF {
            "Rudolph and Segall, ISCA 1984; Anderson, IEEE TPDS 1990"
        } else {
            "Rudolph and Segall, ISCA 1984"
        },
        order: Order::Unfair,
        waiting: if YIELD {
            Waiting::Yields
        } else {
            Waiting::Spins
        },
    };

    fn new() -> Self {
        Self {
            word: AtomicU32::new(FREE),
            platform: PhantomData,
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
        self.word.swap(HELD, Acquire) == FREE
    }

    #[inline]
    unsafe fn unlock(&self) {
        P::preemption_point();
        store_release(&self.word, FREE);
    }
}

impl<P: Platform, const YIELD: bool, const BACKOFF: bool> Ttas<P, YIELD, BACKOFF> {
    #[cold]
    #[inline(never)]
    fn lock_contended(&self) {
        let mut between = Between::<P, YIELD, BACKOFF>::new();
        while self.word.load(Relaxed) != FREE || !self.try_lock() {
            between.wait();
        }
    }
}
