//! MCS: a queue of nodes, each waiter spinning on its own.
//!
//! Source: Mellor-Crummey and Scott, "Algorithms for scalable synchronization on shared-memory multiprocessors", ACM TOCS 9(1), 1991.
//!
//! ```text
//! holder -> [node: state any]  next -> [node: WAITING] next -> [node: WAITING] next = null
//!                                                              ^ tail
//! ```
//!
//! | tail | meaning | transitions |
//! |---|---|---|
//! | null | free | -> node by whoever comes: `lock` by exchange, `try_lock` by compare-exchange |
//! | node | held; the node is the last in the queue | -> other node by `lock`'s exchange; -> null by `unlock`'s compare-exchange if it is the holder's own |
//!
//! | a node's state | meaning | transitions |
//! |---|---|---|
//! | `WAITING` | its owner waits | -> `GRANTED` by the holder before it (`unlock`) |
//! | `GRANTED` | its owner holds the lock | |
//!
//! Memory orderings: `lock`'s exchange of the tail is Acquire, for the lock may be free (pairs with the Release of the compare-exchange in
//! `unlock`), and Release, so that a successor that links itself in finds an initialised node; the successor's store to `next` is Release
//! and pairs with the Acquire load in `unlock`; the store of `GRANTED` is Release and pairs with the waiter's Acquire load. `holder` is
//! Relaxed: only the holder reads or writes it.
//!
//! Bad at: a waiter that is not running when its turn comes holds everybody up; with more threads than CPUs the queue
//! moves at the scheduler's pace.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    node::{self, Node},
    platform::Platform,
};

const WAITING: u32 = 0;
const GRANTED: u32 = 1;

/// See the module.
#[derive(Debug)]
pub struct Mcs<P> {
    tail: AtomicPtr<Node>,
    /// The holder's node, from its acquisition to its release.
    holder: AtomicPtr<Node>,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for Mcs<P> {
    const INFO: Info = Info {
        name: "mcs",
        about: "queue of nodes; each waiter spins on its own",
        source: "Mellor-Crummey and Scott, ACM TOCS 1991",
        order: Order::Fifo,
        waiting: Waiting::Spins,
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
        node.next.store(core::ptr::null_mut(), Relaxed);
        node.state.store(WAITING, Relaxed);
        let before = self.tail.swap(node.pointer(), AcqRel);
        P::preemption_point();
        // SAFETY: the tail is null or a node.
        if let Some(before) = unsafe { node::at(before) } {
            before.next.store(node.pointer(), Release);
            while node.state.load(Acquire) == WAITING {
                P::pause();
            }
        }
        self.holder.store(node.pointer(), Relaxed);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        if !self.tail.load(Relaxed).is_null() {
            return false;
        }
        let node = P::take_node();
        node.next.store(core::ptr::null_mut(), Relaxed);
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
        if node.next.load(Acquire).is_null() {
            let free = core::ptr::null_mut();
            if self
                .tail
                .compare_exchange(node.pointer(), free, Release, Relaxed)
                .is_ok()
            {
                P::give_node(node);
                return;
            }
            // Somebody has exchanged the tail and is about to link itself in.
            while node.next.load(Acquire).is_null() {
                P::pause();
            }
        }
        // SAFETY: not null, so a node.
        if let Some(next) = unsafe { node::at(node.next.load(Acquire)) } {
            next.state.store(GRANTED, Release);
        }
        P::give_node(node);
    }
}
