//! A lock in the style of FlexGuard: a word under an MCS queue whose waiters spin, until a holder loses its CPU; then they sleep on the word.
//!
//! Source: Laforet et al., "FlexGuard: Fast mutual exclusion independent of subscription", SOSP 2025.
//!
//! FlexGuard learns of preempted holders by an eBPF program of its own and blocks all waiters of all locks while there is one. Here a waiter asks the platform's
//! on-CPU source about the holder of *its* lock. Where that knows nothing a waiter spins for 50 us, and for 1 ms on a holder that is said to
//! run: a hint may cost time, never progress. A waiter whose holder is off its CPU leaves the queue from any place in it.
//!
//! ```text
//! word: HELD      head -> [node: GRANTED] next -> [node: LEFT] next -> [node: WAITING] next = null
//!                  polls the word          asleep on the word           ^ tail
//! ```
//!
//! | word | meaning | transitions |
//! |---|---|---|
//! | `FREE` | free | -> `HELD` by the queue's head and by whoever comes; -> `CONTENDED` by a waiter that has slept or is about to |
//! | `HELD` | held; nobody sleeps | -> `FREE` by the holder; -> `CONTENDED` by a waiter about to sleep |
//! | `CONTENDED` | held; somebody may sleep | -> `FREE` by the holder, who wakes one |
//!
//! | a node's state | meaning | transitions |
//! |---|---|---|
//! | `WAITING` | its owner polls it | -> `GRANTED` by the head that leaves; -> `LEFT` by its owner |
//! | `GRANTED` | its owner is the head and polls the word | |
//! | `LEFT` | its owner is gone | -> `GRANTED` by the head that leaves: it leaves on behalf of this node too, and gives it back |
//!
//! The queue only limits who polls the word; mutual exclusion is the word's alone. No lost wake-up: a woken waiter acquires with
//! `CONTENDED`, or writes it before it sleeps again.
//!
//! Memory orderings: acquisitions of the word are Acquire and pair with `unlock`'s Release exchange. In the queue: the exchange of the tail is
//! Release, so that a successor finds an initialised node, and Acquire, so that it links itself into one; the store to `next` is Release and pairs with the
//! Acquire load in `leave`; `GRANTED` and `LEFT` are exchanged with AcqRel: whoever gives a node back has seen its owner's last access.
//!
//! Bad at: a head that loses its CPU: those behind it spin until their patience ends. No order once somebody sleeps.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicPtr, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::bounded::{FOREVER_NS, Spin};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    node::{self, Node},
    oncpu::{HolderRecord, HolderState},
    platform::Platform,
};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

const WAITING: u32 = 0;
const GRANTED: u32 = 1;
const LEFT: u32 = 2;

/// How long a waiter spins on a holder of whom nothing is known, and on one that is said to run.
const UNKNOWN_NS: u64 = 50_000;
const RUNNING_NS: u64 = 1_000_000;

/// See the module.
#[derive(Debug)]
pub struct FlexGuard<P> {
    word: AtomicU32,
    holder: HolderRecord,
    tail: AtomicPtr<Node>,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for FlexGuard<P> {
    const INFO: Info = Info {
        name: "flexguard",
        about: "MCS queue over a word; waiters sleep when the holder has lost its CPU",
        source: "Laforet et al., SOSP 2025",
        order: Order::Unfair,
        waiting: Waiting::Sleeps,
    };

    fn new() -> Self {
        Self {
            word: AtomicU32::new(FREE),
            holder: HolderRecord::nobody(),
            tail: AtomicPtr::new(core::ptr::null_mut()),
            platform: PhantomData,
        }
    }

    #[inline]
    fn lock(&self) {
        if !self.acquire(HELD) {
            self.lock_contended();
        }
        P::preemption_point();
        self.holder.record::<P>();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        let acquired = self.acquire(HELD);
        if acquired {
            self.holder.record::<P>();
        }
        acquired
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.holder.clear();
        P::preemption_point();
        let word = &raw const self.word;
        if self.word.swap(FREE, Release) == CONTENDED {
            P::wake_one(word, false);
            P::enroll(); // Somebody had to wait for me.
        }
    }
}

impl<P: Platform> FlexGuard<P> {
    #[inline]
    fn acquire(&self, held: u32) -> bool {
        self.word.load(Relaxed) == FREE
            && self
                .word
                .compare_exchange(FREE, held, Acquire, Relaxed)
                .is_ok()
    }

    /// Whether to sleep: the holder is off its CPU, or has been waited for too long.
    fn should_sleep(&self, spin: &mut Spin) -> bool {
        spin.lasted_ns::<P>()
            .is_some_and(|ns| match self.holder.state::<P>() {
                HolderState::NotRunning => true,
                HolderState::Unknown => ns > UNKNOWN_NS,
                HolderState::Running => ns > RUNNING_NS,
            })
    }

    #[cold]
    #[inline(never)]
    fn lock_contended(&self) {
        P::enroll();
        // What to acquire with: who has slept does not know who else sleeps.
        let mut held = HELD;
        while !self.spin(held) {
            if self.word.swap(CONTENDED, Acquire) == FREE {
                return;
            }
            P::preemption_point();
            // However it ends: the wake may have been mine.
            P::wait(&self.word, CONTENDED, false, FOREVER_NS, None);
            held = CONTENDED;
        }
    }

    /// Through the queue to the word. Returns whether it acquired; either way it has left the queue.
    fn spin(&self, held: u32) -> bool {
        let mut spin = Spin::begin::<P>();
        let node = P::take_node();
        node.next.store(core::ptr::null_mut(), Relaxed);
        node.state.store(WAITING, Relaxed);
        let before = self.tail.swap(node.pointer(), AcqRel);
        P::preemption_point();
        // SAFETY: the tail is null or a node.
        if let Some(before) = unsafe { node::at(before) } {
            before.next.store(node.pointer(), Release);
            while node.state.load(Acquire) == WAITING {
                if self.should_sleep(&mut spin)
                    && node
                        .state
                        .compare_exchange(WAITING, LEFT, AcqRel, Acquire)
                        .is_ok()
                {
                    return false; // The node is now its predecessor's.
                }
                P::pause();
            }
        }
        let acquired = loop {
            if self.acquire(held) {
                break true;
            }
            if self.should_sleep(&mut spin) {
                break false;
            }
            P::pause();
        };
        P::preemption_point();
        self.leave(node);
        acquired
    }

    /// The head leaves, and with it those behind it that have left; who is still there becomes the head.
    fn leave(&self, head: &'static Node) {
        let mut node = head;
        loop {
            if node.next.load(Acquire).is_null() {
                let nobody = core::ptr::null_mut();
                if self
                    .tail
                    .compare_exchange(node.pointer(), nobody, AcqRel, Relaxed)
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
            let next = unsafe { node::at(node.next.load(Acquire)) };
            P::give_node(node);
            match next {
                Some(next) if next.state.swap(GRANTED, AcqRel) == LEFT => node = next,
                _ => return,
            }
        }
    }
}

/// Who leaves, leaves for those too that have left before; without that waiters only wait longer, and no deadlock tells.
#[cfg(loom)]
impl<P> Drop for FlexGuard<P> {
    fn drop(&mut self) {
        let empty = self.tail.load(Relaxed).is_null();
        assert!(empty || std::thread::panicking(), "the queue is left empty");
    }
}
