//! What the queue locks beside `mcs` share: the MCS queue, a node's states, how its waiter spins and then sleeps, how it is granted.
//!
//! ```text
//! holder -> [node: state any]  next -> [node: WAITING] next -> [node: PARKED] next = null
//!                                                              ^ tail
//! ```
//!
//! | tail | meaning | transitions |
//! |---|---|---|
//! | null | free | -> node: [`Queue::enter`] by exchange, [`Queue::try_enter`] by compare-exchange |
//! | node | held; the node is the last in the queue | -> other node: [`Queue::enter`]; -> null: [`Queue::next_or_free`]. By compare-exchange, by the holder |
//!
//! | a node's state | meaning | transitions |
//! |---|---|---|
//! | `WAITING` | its waiter waits, awake | -> `PARKED` by the waiter ([`await_grant`]), or by the kernel when it takes the waiter from its CPU ([`crate::armed`]); -> `GRANTED` by the holder ([`grant`]) |
//! | `PARKED` | its waiter sleeps, or is about to | -> `GRANTED` by the holder, which then wakes |
//! | `GRANTED` | its waiter holds the lock | |
//!
//! 1. From its acquisition to its release the holder alone reads and writes the links of the nodes behind its own, with one exception: who
//!    has exchanged the tail writes the `next` of the node that was the tail, once, from null. So the holder may change the order.
//! 2. A waiter stays in its wait until its state is no longer `WAITING` or `PARKED`: nobody uses its node for anything else before.
//! 3. No wake is lost: the waiter sleeps only while the state is `PARKED`, which the kernel compares; the exchange in `grant` returns
//!    `PARKED` if the waiter's compare-exchange came first, and then `grant` wakes; else that compare-exchange fails.
//!    So with a waiter that the kernel puts to sleep: its compare-exchange is the waiter's. It has nothing to do with the waiter's acquisition, which is a load:
//!    that the waiter is disarmed before it goes on matters for its node's next use alone.
//! 4. A wake may come late, when the node is in use again, in this lock or another. It wakes a sleeper without need, which looks at its state and
//!    sleeps again: whoever sleeps on a node's state does so in a loop. It takes nobody's wake away, for each state has one sleeper, and
//!    the wake of its own grant is still to come.
//!
//! Memory orderings: the exchange of the tail is Acquire, for the lock may be free (pairs with the Release of `next_or_free`'s
//! compare-exchange), and Release, so that the next one to come finds an initialised node; the store to `next` is Release and pairs with
//! the Acquire load in [`next`]; the exchange in `grant` is Release and pairs with the Acquire load in `await_grant`. `holder` is
//! Relaxed: only the holder reads or writes it.

use autolock_abi::{
    auto_lock::Parking,
    sync::{
        AtomicPtr, AtomicU32,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use crate::{
    armed::Armed,
    node::{self, Node},
    oncpu::{Holder, HolderState, OnCpu},
    platform::Platform,
};

pub const WAITING: u32 = 0;
pub const GRANTED: u32 = 1;
pub const PARKED: u32 = 2;

/// How long a waiter spins that knows nothing better: about what a sleep and a wake-up cost.
pub const SPIN_NS: u64 = 8_000;
/// How long for somebody who is said to be running.
const SPIN_FOR_RUNNING_NS: u64 = 100_000;
/// Looks at the state between two looks at the clock.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 8 };
/// No sleep here has a time-out.
const FOREVER_NS: u64 = u64::MAX;

/// The queue and the holder's place in it.
#[derive(Debug)]
pub struct Queue {
    tail: AtomicPtr<Node>,
    /// The holder's node, from its acquisition to its release.
    holder: AtomicPtr<Node>,
}

impl Queue {
    pub fn new() -> Self {
        Self {
            tail: AtomicPtr::new(core::ptr::null_mut()),
            holder: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Appends a node that is in no queue. Returns whether the lock was free and now is its owner's, who calls [`Queue::hold`].
    pub fn enter<P: Platform>(&self, node: &'static Node) -> bool {
        node.next.store(core::ptr::null_mut(), Relaxed);
        node.state.store(WAITING, Relaxed);
        let before = self.tail.swap(node.pointer(), AcqRel);
        P::preemption_point();
        // SAFETY: the tail is null or a node.
        let before = unsafe { node::at(before) };
        if let Some(before) = before {
            before.next.store(node.pointer(), Release);
        }
        before.is_none()
    }

    /// Acquires if the lock is free. Compares with null alone, so no node can be taken for another.
    pub fn try_enter<P: Platform>(&self) -> bool {
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
        self.hold(node);
        true
    }

    /// Writes the holder's node down.
    pub fn hold(&self, node: &'static Node) {
        self.holder.store(node.pointer(), Relaxed);
    }

    /// The holder's node, for the holder. None if the caller broke the contract.
    pub fn holder(&self) -> Option<&'static Node> {
        // SAFETY: null or the node that the holder wrote down.
        unsafe { node::at(self.holder.load(Relaxed)) }
    }

    /// The node after `last`. If there is none, the lock is free from now on: nothing of it may be touched any more.
    pub fn next_or_free<P: Platform>(&self, last: &'static Node) -> Option<&'static Node> {
        let found = next(last);
        if found.is_some() {
            return found;
        }
        let free = core::ptr::null_mut();
        let freed = self
            .tail
            .compare_exchange(last.pointer(), free, Release, Relaxed);
        match freed {
            Ok(_) => None,
            // Somebody has exchanged the tail and is about to link itself in.
            Err(_) => Some(await_link::<P>(last)),
        }
    }

    /// Puts `node`, which is in no queue but has a waiter, behind the holder's node.
    pub fn insert_after<P: Platform>(&self, mine: &'static Node, node: &'static Node) {
        let mut behind = next(mine);
        if behind.is_none() {
            node.next.store(core::ptr::null_mut(), Relaxed);
            // Release: who links itself to `node` writes its `next` after the null.
            let appended =
                self.tail
                    .compare_exchange(mine.pointer(), node.pointer(), Release, Relaxed);
            if appended.is_ok() {
                return;
            }
            behind = Some(await_link::<P>(mine));
        }
        if let Some(behind) = behind {
            // Relaxed: the next holder reads it after `grant`.
            node.next.store(behind.pointer(), Relaxed);
        }
    }

    /// Takes `node`, which stands behind `before`, out of the queue. Fails if somebody is just linking itself to it.
    pub fn remove(&self, before: &'static Node, node: &'static Node) -> bool {
        if let Some(behind) = next(node) {
            before.next.store(behind.pointer(), Relaxed);
            return true;
        }
        before.next.store(core::ptr::null_mut(), Relaxed);
        // Release: who links itself to `before` writes its `next` after the null.
        let removed =
            self.tail
                .compare_exchange(node.pointer(), before.pointer(), Release, Relaxed);
        if removed.is_err() {
            before.next.store(node.pointer(), Relaxed);
        }
        removed.is_ok()
    }
}

/// The node after `node`, if it is linked already. For the holder.
pub fn next(node: &'static Node) -> Option<&'static Node> {
    // SAFETY: null or a node.
    unsafe { node::at(node.next.load(Acquire)) }
}

/// The node after `node`, which is not the tail any more.
fn await_link<P: Platform>(node: &'static Node) -> &'static Node {
    loop {
        if let Some(next) = next(node) {
            return next;
        }
        P::pause();
    }
}

/// A spinning waiter that loses its CPU sleeps.
const PARKING: Parking = Parking::until(GRANTED, PARKED);

/// Waits until `state` is `GRANTED`: spins for `patience_ns`, which is asked anew at every look at the clock, then sleeps. `AUTO`: and sleeps if it loses its CPU.
pub fn await_grant<P: Platform, const AUTO: bool>(
    state: &AtomicU32,
    patience_ns: impl Fn() -> u64,
) {
    let start = P::now_ns();
    let mut looks: u32 = 0;
    let mut armed = Armed::<P>::new(state, PARKING, 0, None);
    if AUTO {
        P::enroll();
        armed.arm();
    }
    loop {
        if state.load(Acquire) == GRANTED {
            return; // And is disarmed.
        }
        if armed.was_parked() {
            break; // Woken without a grant: sleep on.
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS) && P::now_ns().wrapping_sub(start) >= patience_ns() {
            break;
        }
        P::pause();
    }
    drop(armed);
    // Relaxed, and the result is of no interest: the state is PARKED or GRANTED now, and the loop's load is Acquire.
    let _ = state.compare_exchange(WAITING, PARKED, Relaxed, Relaxed);
    while state.load(Acquire) != GRANTED {
        P::wait(state, PARKED, false, FOREVER_NS, None);
    }
}

/// Hands the lock to the waiter at `state`: the releasing store. Only the node may be touched afterwards, and may be in use again.
pub fn grant<P: Platform>(state: &'static AtomicU32) {
    P::preemption_point();
    if state.swap(GRANTED, Release) == PARKED {
        P::wake_one(state, false);
    }
}

/// Writes the calling thread down in its node, for [`on_cpu`].
pub fn sign<P: Platform>(node: &Node) {
    node.tid.store(P::tid(), Relaxed);
    node.place.store(P::place(), Relaxed);
}

/// What the platform's source knows of the thread that signed `node`. The node may be somebody else's by now: a hint.
pub fn on_cpu<P: Platform>(node: &Node) -> HolderState {
    let holder = Holder {
        tid: node.tid.load(Relaxed),
        place: node.place.load(Relaxed),
    };
    P::OnCpu::holder(holder, P::cpu())
}

/// How long to spin, in nanoseconds, for somebody of whom this is known.
pub const fn patience_ns(state: HolderState) -> u64 {
    match state {
        HolderState::Running => SPIN_FOR_RUNNING_NS,
        HolderState::Unknown => SPIN_NS,
        HolderState::NotRunning => 0,
    }
}
