//! CLH autolock: the queue of `clh`; a waiter sleeps when the thread before it is not running.
//!
//! Sources: the queue as in `clh`; spinning only while the awaited thread runs: FreeBSD's adaptive mutexes, `kern_mutex.c`; on a queue lock: the
//! autolocks of this project's research original. The normlock beside it, which spins for ever, is `clh` itself.
//!
//! | tail | meaning | transitions |
//! |---|---|---|
//! | null | free | -> node by whoever comes: `lock` by exchange, `try_lock` by compare-exchange |
//! | node | held; the node is the last in the queue | -> other node by `lock`'s exchange; -> null by `unlock`'s compare-exchange if it is the holder's own |
//!
//! | a node's state | meaning | transitions |
//! |---|---|---|
//! | `WAITING` | its owner waits or holds the lock | -> `PARKED` by the one that watches it, -> `GRANTED` by its owner (`unlock`), if somebody watches it |
//! | `PARKED` | as above, and the one that watches it sleeps, or is about to | -> `GRANTED` by its owner, who then wakes |
//! | `GRANTED` | its owner has released the lock to whoever watches the node | |
//!
//! The thread that a waiter waits for is the owner of the node that it watches, whether that one waits itself or holds the lock. It has
//! signed its node, and signs again when it has acquired; the waiter asks the on-CPU source about it: a short spin if nothing is known, a
//! longer one while it runs, none if it does not run. Wakes are not lost and late ones harmless for the reasons 3 and 4 of `queue`, with the
//! one that watches a node in the place of its waiter.
//!
//! Memory orderings: as `clh`; the store of `DONE` there is here the exchange of `GRANTED`, Release, which pairs with the Acquire load in `await_grant`.
//!
//! Bad at: it stays first come, first served: with more threads than CPUs each hand-over wakes a sleeper.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicPtr,
    Ordering::{AcqRel, Relaxed, Release},
};

use super::queue::{WAITING, await_grant, grant, on_cpu, patience_ns, sign};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    node::{self, Node},
    platform::Platform,
};

/// See the module.
#[derive(Debug)]
pub struct ClhAutolock<P> {
    tail: AtomicPtr<Node>,
    /// The holder's node, from its acquisition to its release.
    holder: AtomicPtr<Node>,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for ClhAutolock<P> {
    const INFO: Info = Info {
        name: "clh_autolock",
        about: "CLH; a waiter sleeps when the thread before it is not running",
        source: "Craig 1993; Magnusson et al. 1994; FreeBSD's adaptive mutexes",
        order: Order::Fifo,
        waiting: Waiting::Sleeps,
    };

    fn new() -> Self {
        Self {
            tail: AtomicPtr::new(core::ptr::null_mut()),
            holder: AtomicPtr::new(core::ptr::null_mut()),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        let node = P::take_node();
        sign::<P>(node);
        node.state.store(WAITING, Relaxed);
        let before = self.tail.swap(node.pointer(), AcqRel);
        P::preemption_point();
        // SAFETY: the tail is null or a node.
        if let Some(before) = unsafe { node::at(before) } {
            await_grant::<P, true>(&before.state, || patience_ns(on_cpu::<P>(before)));
            P::give_node(before);
            sign::<P>(node);
        }
        self.holder.store(node.pointer(), Relaxed);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        if !self.tail.load(Relaxed).is_null() {
            return false;
        }
        let node = P::take_node();
        sign::<P>(node);
        node.state.store(WAITING, Relaxed);
        let free = core::ptr::null_mut();
        let taken = self
            .tail
            .compare_exchange(free, node.pointer(), AcqRel, Relaxed);
        if taken.is_err() {
            P::give_node(node);
            return false;
        }
        self.holder.store(node.pointer(), Relaxed);
        true
    }

    unsafe fn unlock(&self) {
        // SAFETY: the holder wrote its own node down.
        let Some(node) = (unsafe { node::at(self.holder.load(Relaxed)) }) else {
            return; // Not held: the caller broke the contract.
        };
        P::preemption_point();
        let free = core::ptr::null_mut();
        let freed = self
            .tail
            .compare_exchange(node.pointer(), free, Release, Relaxed);
        if freed.is_ok() {
            P::give_node(node);
        } else {
            // Somebody watches the node, and gives it back.
            grant::<P>(&node.state);
            P::enroll(); // Somebody had to wait for me.
        }
    }
}
