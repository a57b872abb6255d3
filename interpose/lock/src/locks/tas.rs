//! TAS: test-and-set, the simplest lock there is.
//!
//! Source: Anderson, "The performance of spin lock alternatives for shared-memory multiprocessors", IEEE TPDS 1(1), 1990.
//!
//! | word | meaning | transitions |
//! |---|---|---|
//! | 0 | free | -> 1 by an exchange of whoever comes (`lock`, `try_lock`) |
//! | 1 | held | -> 0 by a store of the holder (`unlock`) |
//!
//! Memory orderings: the exchange is Acquire and pairs with the Release store of `unlock`.
//!
//! Bad at: every poll is a write, so waiters take the cache line away from the holder; no order at all; a preempted holder is waited
//! for by spinning.

use core::marker::PhantomData;

use autolock_abi::sync::{AtomicU32, Ordering::Acquire, store_release};

use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    platform::Platform,
};

const FREE: u32 = 0;
const HELD: u32 = 1;

/// See the module.
#[derive(Debug)]
pub struct Tas<P> {
    word: AtomicU32,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for Tas<P> {
    const INFO: Info = Info {
        name: "tas",
        about: "test-and-set; every poll writes",
        source: "Anderson, IEEE TPDS 1990",
        order: Order::Unfair,
        waiting: Waiting::Spins,
    };

    fn new() -> Self {
        Self {
            word: AtomicU32::new(FREE),
            platform: PhantomData,
        }
    }

    #[inline]
    fn lock(&self) {
        while !self.try_lock() {
            P::pause();
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
