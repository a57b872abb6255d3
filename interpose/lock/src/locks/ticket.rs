//! Ticket: draw a number, wait until it is served.
//!
//! Source: Reed and Kanodia, "Synchronization with eventcounts and sequencers", CACM 22(2), 1979; as a lock with proportional
//! backoff: Mellor-Crummey and Scott, ACM TOCS 9(1), 1991.
//!
//! | `next` | `serving` | meaning |
//! |---|---|---|
//! | n | n | free |
//! | n + w + 1 | n | held by the thread with ticket n; w wait |
//!
//! `next` grows by a fetch-add of whoever comes (`lock`), or by a compare-exchange if its ticket would be served at once (`try_lock`);
//! `serving` by a store of the holder (`unlock`). Both wrap; they begin shortly before that, so that every run of a test passes it.
//!
//! A waiter with w others before it makes a number of pauses in proportion to w between two looks: it could not be served sooner.
//!
//! Memory orderings: a load of `serving` is Acquire and pairs with the Release store of `unlock`, in `try_lock`, too, whose compare-exchange of
//! `next` is therefore Relaxed as the fetch-add is: `next` only numbers. `try_lock`'s number is served if it gets it: the ticket was served when it
//! looked, and stays so until its owner, which nobody is before the exchange, releases. (Only 2^32 acquisitions between the two would deceive it.)
//!
//! Bad at: every release makes all waiters read the line; a waiter that is not running when its turn comes holds everybody up: with more
//! threads than CPUs the queue moves at the scheduler's pace.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    platform::Platform,
};

/// The first ticket of every lock with tickets.
pub(super) const FIRST: u32 = u32::MAX - 1;
/// Pauses between two looks for each waiter before the next one, and for how many of them at most.
const PAUSES_PER_WAITER: u32 = if cfg!(loom) { 0 } else { 8 };
const WAITERS_MAX: u32 = 32;

/// See the module.
#[derive(Debug)]
pub struct Ticket<P> {
    next: AtomicU32,
    serving: AtomicU32,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for Ticket<P> {
    const INFO: Info = Info {
        name: "ticket",
        about: "tickets with proportional backoff; all poll one word",
        source: "Reed and Kanodia, CACM 1979; Mellor-Crummey and Scott, ACM TOCS 1991",
        order: Order::Fifo,
        waiting: Waiting::Spins,
    };

    fn new() -> Self {
        Self {
            next: AtomicU32::new(FIRST),
            serving: AtomicU32::new(FIRST),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        let ticket = self.next.fetch_add(1, Relaxed);
        P::preemption_point();
        loop {
            let before = ticket.wrapping_sub(self.serving.load(Acquire));
            if before == 0 {
                break;
            }
            for _ in 0..1 + PAUSES_PER_WAITER * (before - 1).min(WAITERS_MAX) {
                P::pause();
            }
        }
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        let serving = self.serving.load(Acquire);
        self.next
            .compare_exchange(serving, serving.wrapping_add(1), Relaxed, Relaxed)
            .is_ok()
    }

    unsafe fn unlock(&self) {
        P::preemption_point();
        // Relaxed: only the holder writes it.
        let mine = self.serving.load(Relaxed);
        self.serving.store(mine.wrapping_add(1), Release);
    }
}

impl<P: Platform> Ticket<P> {
    /// Whether somebody waits. For the holder, to whom a yes stays true until it releases.
    pub(super) fn has_waiters(&self) -> bool {
        let mine = self.serving.load(Relaxed);
        self.next.load(Relaxed) != mine.wrapping_add(1)
    }
}
