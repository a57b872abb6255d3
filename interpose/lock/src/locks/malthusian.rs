//! Malthusian: MCS that keeps as few threads going round as keep the lock busy, and sets the others aside.
//!
//! Source: Dice, "Malthusian locks", EuroSys 2017: MCSCR with spin-then-park waiting.
//!
//! ```text
//! holder -> [node] next -> [node: WAITING] next -> [node: WAITING] <- tail      the queue
//!
//! youngest -> [node: PARKED] next -> [node: PARKED] <- eldest                   the passive set
//!                            <- previous
//! ```
//!
//! States of nodes and tail, why no wake is lost, memory orderings: `queue`. A waiter does not notice where its node is. What `unlock` does:
//!
//! | queue behind the holder | passive set | then |
//! |---|---|---|
//! | two or more | any | the first becomes passive, the second is granted |
//! | one | any | it is granted |
//! | none | not empty | the youngest is put into the queue and granted |
//! | none | empty | the lock becomes free |
//! | any | not empty, and it is the [`PROMOTE_EVERY`]th release | the eldest is put into the queue, first, and granted |
//!
//! The last line, which goes before the others, is the long-term fairness. The paper draws lots with the same rate; a counter gives a bound.
//!
//! The passive set belongs to the holder: its fields, and the links of the nodes in it, are Relaxed, and ordered by the lock itself. While it is
//! not empty the lock is never free: only the holder makes it so, and it looks there first.
//!
//! Bad at: short-term fairness: a passive waiter waits for some thousand releases for each one that is older.

use core::marker::PhantomData;

use autolock_abi::sync::{AtomicPtr, Ordering::Relaxed, hint};

use super::queue::{Queue, SPIN_NS, await_grant, grant, next};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    node::{self, Node},
    platform::Platform,
};

const PROMOTE_EVERY: u32 = if cfg!(loom) { 3 } else { 1000 };

/// See the module.
#[derive(Debug)]
pub struct Malthusian<P> {
    queue: Queue,
    passive: Passive,
    /// Counts the releases; the holder's.
    releases: hint::AtomicU32,
    platform: PhantomData<fn(P)>,
}

/// The waiters that were set aside. A node's `next` is the one set aside before it, `previous` the one after. For the holder alone.
#[derive(Debug)]
struct Passive {
    youngest: AtomicPtr<Node>,
    eldest: AtomicPtr<Node>,
}

impl Passive {
    fn push(&self, node: &'static Node) {
        let null = core::ptr::null_mut();
        let older = self.youngest.load(Relaxed);
        node.next.store(older, Relaxed);
        node.previous.store(null, Relaxed);
        // SAFETY: null or a node.
        let link = unsafe { node::at(older) }.map_or(&self.eldest, |older| &older.previous);
        link.store(node.pointer(), Relaxed);
        self.youngest.store(node.pointer(), Relaxed);
    }

    fn take_youngest(&self) -> Option<&'static Node> {
        // SAFETY: null or a node.
        let node = unsafe { node::at(self.youngest.load(Relaxed)) }?;
        let older = node.next.load(Relaxed);
        self.youngest.store(older, Relaxed);
        // SAFETY: null or a node.
        let link = unsafe { node::at(older) }.map_or(&self.eldest, |older| &older.previous);
        link.store(core::ptr::null_mut(), Relaxed);
        Some(node)
    }

    fn take_eldest(&self) -> Option<&'static Node> {
        // SAFETY: null or a node.
        let node = unsafe { node::at(self.eldest.load(Relaxed)) }?;
        let younger = node.previous.load(Relaxed);
        self.eldest.store(younger, Relaxed);
        // SAFETY: null or a node.
        let link = unsafe { node::at(younger) }.map_or(&self.youngest, |younger| &younger.next);
        link.store(core::ptr::null_mut(), Relaxed);
        Some(node)
    }
}

impl<P: Platform> Malthusian<P> {
    /// Who is next, at the front of the queue; None if the lock is free now.
    fn choose(&self, mine: &'static Node) -> Option<&'static Node> {
        let releases = self.releases.load(Relaxed).wrapping_add(1);
        self.releases.store(releases, Relaxed);
        let eldest = if releases.is_multiple_of(PROMOTE_EVERY) {
            self.passive.take_eldest()
        } else {
            None
        };
        if let Some(eldest) = eldest {
            self.queue.insert_after::<P>(mine, eldest);
            return Some(eldest);
        }
        if let Some(first) = next(mine) {
            let Some(second) = next(first) else {
                return Some(first);
            };
            self.passive.push(first);
            return Some(second);
        }
        if let Some(youngest) = self.passive.take_youngest() {
            self.queue.insert_after::<P>(mine, youngest);
            return Some(youngest);
        }
        self.queue.next_or_free::<P>(mine)
    }
}

impl<P: Platform> Algorithm for Malthusian<P> {
    const INFO: Info = Info {
        name: "malthusian",
        about: "MCS that sets surplus waiters aside; they spin a little, then sleep",
        source: "Dice, EuroSys 2017",
        order: Order::Bounded,
        waiting: Waiting::Sleeps,
    };

    fn new() -> Self {
        Self {
            queue: Queue::new(),
            passive: Passive {
                youngest: AtomicPtr::new(core::ptr::null_mut()),
                eldest: AtomicPtr::new(core::ptr::null_mut()),
            },
            releases: hint::AtomicU32::new(0),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        let node = P::take_node();
        if !self.queue.enter::<P>(node) {
            await_grant::<P, false>(&node.state, || SPIN_NS);
        }
        self.queue.hold(node);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        self.queue.try_enter::<P>()
    }

    unsafe fn unlock(&self) {
        let Some(mine) = self.queue.holder() else {
            return; // Not held: the caller broke the contract.
        };
        P::preemption_point();
        if let Some(chosen) = self.choose(mine) {
            grant::<P>(&chosen.state);
        }
        P::give_node(mine);
    }
}
