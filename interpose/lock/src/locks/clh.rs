//! CLH: a queue without links, each waiter spinning on the node before its own.
//!
//! Sources: Craig, "Building FIFO and priority-queuing spin locks from atomic swap", TR 93-02-02, University of Washington, 1993;
//! Magnusson, Landin and Hagersten, "Queue locks on cache coherent multiprocessors", IPPS 1994.
//!
//! ```text
//! holder's node: PENDING  <- watched by the 2nd: PENDING  <- watched by the 3rd: PENDING
//!                                                           ^ tail
//! ```
//!
//! | tail | meaning | transitions |
//! |---|---|---|
//! | null | free | -> node by whoever comes: `lock` by exchange, `try_lock` by compare-exchange |
//! | node | held; the node is the last in the queue | -> other node by `lock`'s exchange; -> null by `unlock`'s compare-exchange if it is the holder's own |
//!
//! | a node's state | meaning | transitions |
//! |---|---|---|
//! | `PENDING` | its owner waits or holds the lock | -> `DONE` by its owner (`unlock`), if somebody is behind |
//! | `DONE` | its owner has released the lock to whoever watches the node | |
//!
//! Nodes migrate: the waiter gives the node back that it watched, for its owner does not know when that has been looked at last. In the
//! papers the tail of a free lock is a node that is `DONE`, which the lock owns. Here it is null, as in MCS: a lock in memory that nobody
//! destroys keeps no node, and `try_lock` compares with null, which cannot have been in use in between (no ABA). The price is that an
//! uncontended release is a compare-exchange, not a store.
//!
//! Memory orderings: the exchange of the tail is Acquire, for the lock may be free (pairs with the Release of the compare-exchange in
//! `unlock`), and Release, so that the next one to come watches an initialised node; the store of `DONE` is Release and pairs with the
//! waiter's Acquire load. `holder` is Relaxed: only the holder reads or writes it.
//!
//! Bad at: as MCS: a waiter that is not running when its turn comes holds everybody up. The watched node may lie in another socket's memory.

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

const PENDING: u32 = 0;
const DONE: u32 = 1;

/// See the module.
#[derive(Debug)]
pub struct Clh<P> {
    tail: AtomicPtr<Node>,
    /// The holder's node, from its acquisition to its release.
    holder: AtomicPtr<Node>,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for Clh<P> {
    const INFO: Info = Info {
        name: "clh",
        about: "queue without links; each waiter spins on the node before its own",
        source: "Craig, TR 93-02-02, 1993; Magnusson et al., IPPS 1994",
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
        node.state.store(PENDING, Relaxed);
        let before = self.tail.swap(node.pointer(), AcqRel);
        P::preemption_point();
        // SAFETY: the tail is null or a node.
        if let Some(before) = unsafe { node::at(before) } {
            while before.state.load(Acquire) == PENDING {
                P::pause();
            }
            P::give_node(before);
        }
        self.holder.store(node.pointer(), Relaxed);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        if !self.tail.load(Relaxed).is_null() {
            return false;
        }
        let node = P::take_node();
        node.state.store(PENDING, Relaxed);
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
            node.state.store(DONE, Release);
        }
    }
}
