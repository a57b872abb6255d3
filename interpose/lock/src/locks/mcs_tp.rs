//! MCS time-published: waiters publish the time; a release passes over those whose time is old, for they are not running.
//!
//! Source: He, Scherer and Scott, "Preemption adaptivity in time-published queue-based spin locks", HiPC 2005.
//!
//! The queue is that of `queue`; a node's states are its own:
//!
//! | a node's state | meaning | transitions |
//! |---|---|---|
//! | `WAITING` | its owner waits, and writes the time down again and again | -> `GRANTED` or `REMOVED` by the holder (`unlock`) |
//! | `GRANTED` | its owner holds the lock | |
//! | `REMOVED` | in no queue; its owner was not seen running | -> `WAITING` by its owner, who enters the queue again, at the end |
//!
//! `unlock` walks along the queue to the first waiter whose time is fresh. A node on the way is removed when its successor is known: nothing
//! reads it afterwards, so it is its owner's again. If there is no such waiter the lock becomes free, and the last node is removed after that.
//! No node changes hands, so a node is given back by the thread that took it, after its release. After [`SCAN`] nodes the next one is granted
//! whatever its time: those that were removed come back at the end, and the walk must end.
//!
//! A waiter also guesses that the holder is not running, when the lock has not changed hands for [`HOLD_NS`], and yields its CPU. In the paper
//! the holder writes the time of its acquisition down; here the waiters time it, so that an uncontended acquisition reads no clock. The
//! paper's time-outs for callers are left out.
//!
//! Memory orderings: of the queue as in `queue`; the stores of `GRANTED` and `REMOVED` are Release and pair with the waiter's Acquire load:
//! `REMOVED` says that the holder has read the node's `next` for the last time. Times and `turn` are hints, thus Relaxed.
//!
//! Bad at: a waiter that is never running when its turn comes starves; waiters do not sleep, and read the clock all the time.

use core::marker::PhantomData;

use autolock_abi::sync::{
    Ordering::{Acquire, Relaxed, Release},
    hint,
};

use super::queue::{GRANTED, Queue, WAITING};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    node::Node,
    platform::Platform,
};

/// In the place of `PARKED`: nobody sleeps here.
const REMOVED: u32 = 2;

/// Who has not published for so long is not running. A running waiter publishes every 50 ns or so, an interrupt takes some microseconds.
const STALE_NS: u64 = 10_000;
/// A holder that holds for longer is not running.
const HOLD_NS: u64 = 50_000;
/// Waiters that a release passes over at most.
const SCAN: u32 = if cfg!(loom) { 2 } else { 128 };

/// See the module.
#[derive(Debug)]
pub struct McsTp<P> {
    queue: Queue,
    /// (hint) Counts the acquisitions.
    turn: hint::AtomicU32,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> McsTp<P> {
    fn hold(&self, node: &'static Node) {
        self.queue.hold(node);
        self.count();
    }

    /// By the holder alone, so it need not be one operation.
    fn count(&self) {
        let turn = self.turn.load(Relaxed);
        self.turn.store(turn.wrapping_add(1), Relaxed);
    }

    /// Waits until the node is granted or removed.
    fn wait(&self, node: &'static Node) -> u32 {
        let mut turn = self.turn.load(Relaxed);
        let mut since = node.time_ns.load(Relaxed);
        loop {
            let state = node.state.load(Acquire);
            if state != WAITING {
                return state;
            }
            let now = P::now_ns();
            node.time_ns.store(now, Relaxed);
            if now.saturating_sub(since) > HOLD_NS {
                since = now;
                let seen = self.turn.load(Relaxed);
                if core::mem::replace(&mut turn, seen) == seen {
                    P::yield_now();
                    continue;
                }
            }
            P::pause();
        }
    }
}

fn is_fresh<P: Platform>(node: &Node) -> bool {
    P::now_ns().saturating_sub(node.time_ns.load(Relaxed)) <= STALE_NS
}

impl<P: Platform> Algorithm for McsTp<P> {
    const INFO: Info = Info {
        name: "mcs_tp",
        about: "MCS; waiters publish the time, a release passes over those that stopped",
        source: "He, Scherer and Scott, HiPC 2005",
        order: Order::Unfair,
        waiting: Waiting::Yields,
    };

    fn new() -> Self {
        Self {
            queue: Queue::new(),
            turn: hint::AtomicU32::new(0),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        if self.try_lock() {
            P::preemption_point();
            return;
        }
        let node = P::take_node();
        loop {
            node.time_ns.store(P::now_ns(), Relaxed);
            if self.queue.enter::<P>(node) || self.wait(node) == GRANTED {
                break;
            }
        }
        self.hold(node);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        let acquired = self.queue.try_enter::<P>();
        if acquired {
            self.count();
        }
        acquired
    }

    unsafe fn unlock(&self) {
        let Some(mine) = self.queue.holder() else {
            return; // Not held: the caller broke the contract.
        };
        P::preemption_point();
        let mut last = mine;
        let mut passed_over = 0;
        loop {
            let next = self.queue.next_or_free::<P>(last);
            if !core::ptr::eq(last, mine) {
                last.state.store(REMOVED, Release);
            }
            let Some(next) = next else { break };
            if passed_over == SCAN || is_fresh::<P>(next) {
                P::preemption_point();
                next.state.store(GRANTED, Release);
                break;
            }
            passed_over += 1;
            last = next;
        }
        P::give_node(mine);
    }
}
