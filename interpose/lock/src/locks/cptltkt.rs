//! Cohort lock of a partitioned ticket lock over ticket locks (C-PTL-TKT): a lock for all, and one for each NUMA node.
//!
//! Source: Dice, Marathe and Shavit, "Lock cohorting: a general technique for designing NUMA locks", PPoPP 2012.
//!
//! ```text
//!            global: partitioned ticket, held by a node
//!            /                  |                   \
//!   node 0: ticket       node 1: ticket       node 2: ticket ...      held by a thread of the node
//! ```
//!
//! A thread takes its node's lock, then the global one, unless its node has that already: a holder that has waiters on its node leaves the global lock to
//! them, up to [`PASSES_MAX`] times in a row; then, or without such waiters, it releases both. So the lock and the data behind it stay on one
//! node for a while, and nobody waits for more than so many critical sections of each other node.
//!
//! | `passes` of a node | meaning | transitions (by the holder of the node's lock) |
//! |---|---|---|
//! | 0 | the node's next holder must take the global lock | -> 1 in an unlock that leaves the global lock to the node |
//! | n | the node has the global lock, passed on n times | -> n + 1 likewise; -> 0 in an unlock that releases it |
//!
//! While a node's lock is free its `passes` is 0: only a holder that has seen a waiter leaves it otherwise, and that waiter comes. `try_lock` takes
//! both locks by their `try_lock`; it gives the node's lock back if the global one is held.
//!
//! `unlock` releases the node's lock first and the global one last, other than in the paper: until the global lock is released
//! nobody else holds the cohort lock, so its releasing store is the last access to it.
//!
//! The node is where the thread runs when it comes, in `unlock` what `home` says. It is the kernel's NUMA node modulo [`NODES`]; a wrong one costs time
//! only. On a machine with one node the lock is a ticket lock below a global lock that changes hands every [`PASSES_MAX`] + 1 acquisitions.
//!
//! Memory orderings: both locks' own (`ticket`, `partitioned`). `passes` and `home` are Relaxed: written and read under the node's lock, or by the holder.
//!
//! Bad at: space; two locks to take where there is no contention; queues of threads that do not run, as all of its kind.

use autolock_abi::sync::{AtomicU32, Ordering::Relaxed};

use super::{padded::Padded, partitioned::PartitionedTicket, ticket::Ticket};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    platform::Platform,
};

/// Nodes that are told apart; a power of two.
const NODES: usize = 8;
/// How many times in a row a node may pass the lock on.
const PASSES_MAX: u32 = if cfg!(loom) { 1 } else { 64 };

#[derive(Debug)]
struct Node<P> {
    lock: Ticket<P>,
    passes: AtomicU32,
}

/// See the module.
#[derive(Debug)]
pub struct Cptltkt<P> {
    global: PartitionedTicket<P>,
    /// The node whose lock the holder has.
    home: AtomicU32,
    nodes: [Padded<Node<P>>; NODES],
}

impl<P: Platform> Algorithm for Cptltkt<P> {
    const INFO: Info = Info {
        name: "cptltkt",
        about: "cohort: a partitioned ticket lock over a ticket lock for each NUMA node",
        source: "Dice, Marathe and Shavit, PPoPP 2012",
        order: Order::Bounded,
        waiting: Waiting::Spins,
    };

    fn new() -> Self {
        Self {
            global: PartitionedTicket::new(),
            home: AtomicU32::new(0),
            nodes: core::array::from_fn(|_| {
                Padded(Node {
                    lock: Ticket::new(),
                    passes: AtomicU32::new(0),
                })
            }),
        }
    }

    fn lock(&self) {
        let home = u32::from(P::node());
        let node = self.node(home);
        node.lock.lock();
        if node.passes.load(Relaxed) == 0 {
            self.global.lock();
        }
        self.home.store(home, Relaxed);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        let home = u32::from(P::node());
        let node = self.node(home);
        if !node.lock.try_lock() {
            return false;
        }
        P::preemption_point();
        if !self.global.try_lock() {
            // SAFETY: taken above.
            unsafe { node.lock.unlock() };
            return false;
        }
        self.home.store(home, Relaxed);
        true
    }

    unsafe fn unlock(&self) {
        P::preemption_point();
        let node = self.node(self.home.load(Relaxed));
        let passes = node.passes.load(Relaxed);
        if passes < PASSES_MAX && node.lock.has_waiters() {
            node.passes.store(passes + 1, Relaxed);
            // SAFETY: the holder has its node's lock.
            unsafe { node.lock.unlock() };
        } else {
            node.passes.store(0, Relaxed);
            // SAFETY: as above.
            unsafe { node.lock.unlock() };
            P::preemption_point();
            // SAFETY: the holder has the global lock, by its own hand or the one before's.
            unsafe { self.global.unlock() };
        }
    }
}

impl<P: Platform> Cptltkt<P> {
    #[inline]
    fn node(&self, number: u32) -> &Node<P> {
        // Below NODES, as the compiler sees too: no check is left.
        &self.nodes[number as usize & (NODES - 1)].0
    }
}
