//! MCS autolock: a waiter sleeps when the holder is not running; a release passes over waiters that are not running, for a while.
//!
//! Sources: the queue as in `mcs`; spinning only while the holder runs: FreeBSD's adaptive mutexes, `kern_mutex.c`; on a queue lock: the autolocks of this
//! project's research original. Passing over: as He, Scherer and Scott, HiPC 2005, but by the on-CPU source and without losing
//! one's place. The normlock beside it, which spins for ever in strict order, is `mcs` itself.
//!
//! States, transitions, why no wake is lost, and memory orderings: `queue`.
//!
//! - A waiter signs its node, and while it spins signs it again and again. It asks the on-CPU source about the holder, which is written down
//!   in the lock: a short spin if nothing is known, a longer one while it runs, none if it does not run. Then it sleeps.
//! - A release grants the first waiter if it is awake and not known to be off its CPU. Else it takes the nearest of the next [`SCAN`]
//!   that is so out of the queue, puts it in front, and grants that. The others keep their places and their order. Where there is none, or
//!   somebody is just linking itself to the one in question, the first is granted.
//! - Who sleeps goes on sleeping until it is granted. So the holder remembers the last of those sleepers that are first in the queue without a gap,
//!   and looks only behind it: a release does not walk along all who sleep.
//! - Bounded bypass: once the first waiter has been passed over for [`SLICE_NS`], it is granted whatever it does. So the waiter behind n
//!   others gets the lock within n + 1 slices and as many critical sections and wake-ups.
//!
//! Where the kernel parks waiters that lose their CPUs ([`crate::armed`]), they sleep as far as a release sees, and are passed over; the source knows every one of them.
//!
//! This is safe because the links behind the holder's node are the holder's (1 in `queue`), and whom it grants, and in which order,
//! concerns no waiter: each waits for its own node's state. Nodes do not change hands.
//!
//! Bad at: user space alone knows only that a waiter is not running if it last ran on the releaser's CPU: one that was preempted on another
//! CPU before it slept is granted, and waited for. A release at which nobody is ready has to wake a sleeper, even if a
//! thread that runs would come for the lock a moment later. An acquisition costs more than in MCS: the holder is written down.

use core::marker::PhantomData;

use autolock_abi::sync::{AtomicPtr, Ordering::Relaxed, hint};

use super::queue::{PARKED, Queue, WAITING, await_grant, grant, next, on_cpu, patience_ns, sign};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    node::{self, Node},
    oncpu::{HolderRecord, HolderState},
    platform::Platform,
};

/// Waiters that a release looks at beside the first and the sleepers behind it.
const SCAN: u32 = if cfg!(loom) { 2 } else { 16 };
/// How long the first waiter may be passed over.
const SLICE_NS: u64 = if cfg!(loom) { 1_500_000_000 } else { 200_000 };

/// See the module.
#[derive(Debug)]
pub struct McsAutolock<P> {
    queue: Queue,
    record: HolderRecord,
    /// When the first waiter was passed over for the first time, in nanoseconds; 0: it was not. The holder's.
    passed_over_ns: hint::AtomicU64,
    /// The first waiter and all behind it up to this one sleep; null: not known of any. The holder's.
    asleep_to: AtomicPtr<Node>,
    platform: PhantomData<fn(P)>,
}

fn is_ready<P: Platform>(node: &Node) -> bool {
    // Relaxed: `grant` finds out whether it sleeps by then.
    node.state.load(Relaxed) == WAITING && on_cpu::<P>(node) != HolderState::NotRunning
}

impl<P: Platform> McsAutolock<P> {
    fn hold(&self, node: &'static Node) {
        self.queue.hold(node);
        self.record.record::<P>();
    }

    /// Whom to grant; `first` is the first in the queue. It is the first afterwards.
    fn choose(&self, mine: &'static Node, first: &'static Node) -> &'static Node {
        if !is_ready::<P>(first)
            && let Some(ready) = self.pull_ahead(mine, first)
        {
            return ready;
        }
        self.passed_over_ns.store(0, Relaxed);
        if self.asleep_to.load(Relaxed) == first.pointer() {
            self.asleep_to.store(core::ptr::null_mut(), Relaxed);
        }
        first
    }

    /// Moves a waiter that is ready to the front, past `first`.
    fn pull_ahead(&self, mine: &'static Node, first: &'static Node) -> Option<&'static Node> {
        let (before, ready) = self.find_ready(first)?;
        let now = P::now_ns();
        let since = match self.passed_over_ns.load(Relaxed) {
            0 => now,
            since => since,
        };
        if now.saturating_sub(since) > SLICE_NS || !self.queue.remove(before, ready) {
            return None;
        }
        self.queue.insert_after::<P>(mine, ready);
        self.passed_over_ns.store(since.max(1), Relaxed);
        Some(ready)
    }

    /// The nearest waiter behind `first` that is ready, and the one before it.
    fn find_ready(&self, first: &'static Node) -> Option<(&'static Node, &'static Node)> {
        // SAFETY: null or a node.
        let known = unsafe { node::at(self.asleep_to.load(Relaxed)) };
        let mut before = known.unwrap_or(first);
        let mut asleep = true;
        for _ in 0..SCAN {
            // Relaxed: the node was linked, so the state is of this wait (1 in `queue`); PARKED ends with a grant only, which is ours.
            asleep = asleep && before.state.load(Relaxed) == PARKED;
            if asleep {
                self.asleep_to.store(before.pointer(), Relaxed);
            }
            let node = next(before)?;
            if is_ready::<P>(node) {
                return Some((before, node));
            }
            before = node;
        }
        None
    }
}

impl<P: Platform> Algorithm for McsAutolock<P> {
    const INFO: Info = Info {
        name: "mcs_autolock",
        about: "MCS; waiters sleep when the holder is not running, and are passed over when they do not run",
        source: "Mellor-Crummey and Scott 1991; FreeBSD's adaptive mutexes; He et al., HiPC 2005",
        order: Order::Bounded,
        waiting: Waiting::Sleeps,
    };

    fn new() -> Self {
        Self {
            queue: Queue::new(),
            record: HolderRecord::nobody(),
            passed_over_ns: hint::AtomicU64::new(0),
            asleep_to: AtomicPtr::new(core::ptr::null_mut()),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        let node = P::take_node();
        sign::<P>(node);
        if !self.queue.enter::<P>(node) {
            await_grant::<P, true>(&node.state, || {
                node.place.store(P::place(), Relaxed);
                patience_ns(self.record.state::<P>())
            });
        }
        self.hold(node);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        let acquired = self.queue.try_enter::<P>();
        if acquired {
            self.record.record::<P>();
        }
        acquired
    }

    unsafe fn unlock(&self) {
        let Some(mine) = self.queue.holder() else {
            return; // Not held: the caller broke the contract.
        };
        self.record.clear();
        P::preemption_point();
        if let Some(first) = self.queue.next_or_free::<P>(mine) {
            grant::<P>(&self.choose(mine, first).state);
            P::enroll(); // Somebody had to wait for me.
        }
        P::give_node(mine);
    }
}
