//! Losing the CPU at the worst points that a lock of the collection knows of itself: Linux, with preemptions injected.
//!
//! May touch: the calling thread's random numbers in static TLS, sched_yield(2), short sleeps. Nothing here allocates.

use super::random::Random;
use autolock_lock::node::Node;
use autolock_lock::platform::{Deadline, Event, Parking, Platform, Wait};
use autolock_shim::linux::Linux;
use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// What is injected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Torment {
    /// Nothing: this is Linux.
    No,
    /// Preemptions, and garbage in nodes.
    Preemption,
    /// Futex waits that return early, too. They end a sleep that nobody would have ended, so a test for lost wake-ups goes without.
    EarlyReturns,
}

static PREEMPTION: AtomicBool = AtomicBool::new(false);
static EARLY_RETURNS: AtomicBool = AtomicBool::new(false);
/// Whether spinners give their CPU away now and then. For tests with more threads than CPUs in which not this is
/// tested: they see a hundred times as many hand-overs.
static GENTLE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// `None` outside a test: nothing is injected. Static TLS without a destructor, so it is there to a thread's very end.
    static RANDOM: Cell<Option<Random>> = const { Cell::new(None) };
    static PAUSES: Cell<u32> = const { Cell::new(0) };
}

/// Pauses of a spinner between two offers of its CPU.
const PATIENCE: u32 = 100;

/// For the whole process: there is one test in it.
pub fn configure(torment: Torment, gentle: bool) {
    PREEMPTION.store(torment != Torment::No, Relaxed);
    EARLY_RETURNS.store(torment == Torment::EarlyReturns, Relaxed);
    GENTLE.store(gentle, Relaxed);
}

/// The calling thread's numbers.
pub fn seed(seed: u64) {
    RANDOM.set(Some(Random::new(seed)));
}

fn draw() -> Option<u64> {
    if !PREEMPTION.load(Relaxed) {
        return None;
    }
    let mut random = RANDOM.get()?;
    let drawn = random.next();
    RANDOM.set(Some(random));
    Some(drawn)
}

fn spin(turns: u64) {
    for _ in 0..turns {
        spin_loop();
    }
}

/// Linux as a lock of the collection sees it when it is least lucky.
#[derive(Debug)]
pub struct Injecting;

impl Platform for Injecting {
    type OnCpu = <Linux as Platform>::OnCpu;

    fn tid() -> i32 {
        Linux::tid()
    }

    fn tid_or_zero() -> i32 {
        Linux::tid_or_zero()
    }

    fn cpu() -> u16 {
        Linux::cpu()
    }

    #[inline]
    fn place() -> u16 {
        Linux::place()
    }

    #[inline]
    fn enroll() {
        Linux::enroll();
    }

    #[inline]
    fn arm(word: &AtomicU32, parking: Parking, limit_ns: u64, deadline: Option<&Deadline>) -> bool {
        Linux::arm(word, parking, limit_ns, deadline)
    }

    #[inline]
    fn disarm() {
        Linux::disarm();
    }

    #[inline]
    fn parks() -> u32 {
        Linux::parks()
    }

    fn node() -> u16 {
        Linux::node()
    }

    fn single_threaded() -> bool {
        Linux::single_threaded()
    }

    fn now_ns() -> u64 {
        Linux::now_ns()
    }

    fn expired(deadline: &Deadline) -> bool {
        Linux::expired(deadline)
    }

    fn pause() {
        Linux::pause();
        if GENTLE.load(Relaxed) {
            let pauses = PAUSES.get() + 1;
            PAUSES.set(pauses % PATIENCE);
            if pauses == PATIENCE {
                Linux::yield_now();
            }
        }
    }

    fn sleep(ns: u64) {
        Linux::sleep(ns);
    }

    fn yield_now() {
        Linux::yield_now();
    }

    fn preemption_point() {
        let Some(drawn) = draw() else { return };
        let more = drawn >> 8;
        match drawn % 32 {
            0..16 => {}
            16..26 => (0..=more % 3).for_each(|_| Linux::yield_now()),
            26..30 => spin(more % 2000),
            _ => Linux::sleep(1000 + more % 60_000),
        }
    }

    /// "Its fields in any state": they are.
    fn take_node() -> &'static Node {
        let node = Linux::take_node();
        if let Some(drawn) = draw() {
            let either = |bit: u32| match drawn >> bit & 1 {
                0 => std::ptr::null_mut(),
                _ => node.pointer(),
            };
            node.next.store(either(32), Relaxed);
            node.previous.store(either(33), Relaxed);
            node.state.store((drawn % 5) as u32, Relaxed);
            node.tid.store((drawn >> 8) as i32, Relaxed);
            node.place.store((drawn >> 16) as u16, Relaxed);
            node.time_ns.store(drawn, Relaxed);
        }
        node
    }

    fn give_node(node: &'static Node) {
        Linux::give_node(node);
    }

    /// Sometimes returns without a sleep, as after a signal, or sleeps for much shorter than it may.
    fn wait(
        word: &AtomicU32,
        expected: u32,
        shared: bool,
        backstop_ns: u64,
        deadline: Option<&Deadline>,
    ) -> Wait {
        Self::preemption_point();
        let backstop_ns = match draw().filter(|_| EARLY_RETURNS.load(Relaxed)) {
            Some(drawn) if drawn % 8 == 0 => return Wait::Retry,
            Some(drawn) if drawn % 8 == 1 => backstop_ns.min(drawn >> 8 & 0xffff),
            _ => backstop_ns,
        };
        Linux::wait(word, expected, shared, backstop_ns, deadline)
    }

    fn wake_one(word: *const AtomicU32, shared: bool) -> bool {
        Self::preemption_point();
        Linux::wake_one(word, shared)
    }

    fn wake_all(word: *const AtomicU32, shared: bool) {
        Self::preemption_point();
        Linux::wake_all(word, shared);
    }

    fn requeue_one(gate: &AtomicU32, expected: u32, word: &AtomicU32) -> bool {
        Self::preemption_point();
        Linux::requeue_one(gate, expected, word)
    }

    fn note_wake() {}

    fn note(_: Event, _: &autolock_lock::Mutex) {}
}
