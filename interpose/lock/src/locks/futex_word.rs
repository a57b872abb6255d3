//! The lock word of the locks whose waiters sleep on it: glibc's 0, 1, 2.
//!
//! Source: Drepper, "Futexes are tricky", 2004, whose third mutex it is; glibc's `lowlevellock.h`.
//!
//! | word | meaning | transitions |
//! |---|---|---|
//! | 0 `FREE` | free | -> 1 by a compare-exchange of a newcomer; -> 2 by one that has slept, or by the exchange before a sleep |
//! | 1 `HELD` | held; nobody sleeps, but for those whose wake is on its way | -> 0 by the holder's exchange; -> 2 by the exchange before a sleep |
//! | 2 `CONTENDED` | held; somebody may sleep | -> 0 by the holder's exchange, after which it wakes one |
//!
//! No wake-up is lost. Say that a waiter *answers* for the sleepers from its exchange to 2 until it sleeps, and again from its
//! wake on. While anybody sleeps, one of these holds: the word is 2, and the exchange to 0 will find it; or an unlocker has found it and
//! is about to wake one; or somebody answers. Each step keeps it: who answers acquires with the value 2 only, or writes 2 before it sleeps; a newcomer's
//! 1 comes in the place of a 0, which the 2 before became by an unlock that wakes. A sleep begins only if the word is still 2 when the kernel looks,
//! so the exchange to 0 that would have found the sleeper is still to come.
//!
//! Memory orderings: whatever acquires is Acquire and pairs with the Release exchange to 0. The exchange to 2 of a held lock carries nothing;
//! the holder's own exchange reads it. After that exchange the lock may be gone: the wake uses the address alone.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::platform::{FOREVER, Platform};

pub(super) const FREE: u32 = 0;
const HELD: u32 = 1;
pub(super) const CONTENDED: u32 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct FutexWord<P> {
    word: AtomicU32,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> FutexWord<P> {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU32::new(FREE),
            platform: PhantomData,
        }
    }

    /// Relaxed: whoever acquires then decides by an exchange.
    #[inline]
    pub(super) fn is_free(&self) -> bool {
        self.word.load(Relaxed) == FREE
    }

    /// 0 -> 1, by a newcomer.
    #[inline]
    pub(super) fn try_acquire(&self) -> bool {
        self.try_acquire_with(HELD)
    }

    /// 0 -> 1 by a newcomer, 0 -> 2 by one that has `slept` and answers for the others.
    #[inline]
    pub(super) fn try_acquire_as(&self, slept: bool) -> bool {
        self.try_acquire_with(if slept { CONTENDED } else { HELD })
    }

    /// For a waiter that agrees with the kernel on it.
    #[inline]
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.word
    }

    #[inline]
    fn try_acquire_with(&self, value: u32) -> bool {
        self.word
            .compare_exchange(FREE, value, Acquire, Relaxed)
            .is_ok()
    }

    /// Any -> 2; sleeps unless that acquired it. Returns whether it did.
    pub(super) fn acquire_or_sleep(&self) -> bool {
        if self.word.swap(CONTENDED, Acquire) == FREE {
            return true;
        }
        P::preemption_point();
        P::wait(&self.word, CONTENDED, false, FOREVER, None);
        false
    }

    /// 1 or 2 -> 0, and a wake if it was 2. By the holder. Returns whether there was one.
    #[inline]
    pub(super) fn release(&self) -> bool {
        let word = &raw const self.word;
        let wakes = self.word.swap(FREE, Release) == CONTENDED;
        if wakes {
            P::preemption_point();
            P::wake_one(word, false);
        }
        wakes
    }
}
