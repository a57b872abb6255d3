//! The operating system and the processor, as far as a lock needs them.
//!
//! One implementation serves the preload (`autolock_shim::linux`), one the model checker
//! (`tests/loom_mutex`). Nothing here may allocate, log or panic.

pub use autolock_abi::auto_lock::Parking;
use autolock_abi::sync::AtomicU32;

use crate::{node::Node, oncpu::OnCpu};

/// How a sleep on the lock word ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Woken by an unlock: this waiter now has the duty that the wake stood for.
    Woken,
    /// The word had changed before the sleep: nobody's wake was used up.
    Retry,
    /// A signal arrived: nobody's wake was used up, but the sleep had begun, and the sleeper may have been moved to another word.
    Interrupted,
    /// The time was over: nobody's wake was used up.
    TimedOut,
}

/// What a slow path reports, for statistics. Must cost nothing when they are off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A lock call found the mutex held.
    Contended,
    /// A waiter got the mutex while spinning.
    Spun,
    /// A waiter went to sleep.
    Parked,
    /// A waiter lost its CPU, and slept until it was woken: parked by the scheduler.
    Preempted,
    /// A sleeper woke by the backstop time-out and found that nobody attended to it.
    Backstop,
}

/// An absolute point in time until which a timed lock waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// `CLOCK_REALTIME` if true, else `CLOCK_MONOTONIC`.
    pub realtime: bool,
    /// Seconds on that clock; negative is in the past.
    pub sec: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nsec: i64,
}

/// A sleep without a limit.
pub const FOREVER: u64 = u64::MAX;

/// What the algorithm asks of the system.
pub trait Platform: 'static {
    /// Where knowledge about the holder comes from.
    type OnCpu: OnCpu;

    /// The calling thread's id, as glibc writes it into `__owner`.
    fn tid() -> i32;

    /// The same, or 0 in a thread that has not called [`Platform::tid`] yet, if that is cheaper.
    fn tid_or_zero() -> i32;

    /// The CPU that the calling thread runs on, as a hint; any value where it is unknown.
    fn cpu() -> u16;

    /// What others need beside the thread's id to ask the source about it ([`crate::oncpu::Holder::place`]): its CPU, unless the source knows better.
    #[inline]
    fn place() -> u16 {
        Self::cpu()
    }

    /// The calling thread has met contention, as a waiter or as a holder that others waited for: a source that knows only threads that it was told of
    /// is told. Cheap from the second time on.
    #[inline]
    fn enroll() {}

    /// Asks the scheduler to park the calling thread on `word`, as `parking` says, should it lose its CPU; for at most `limit_ns` (0: the system's limit) and
    /// not much beyond `deadline`. Returns whether that is possible.
    #[inline]
    fn arm(
        _word: &AtomicU32,
        _parking: Parking,
        _limit_ns: u64,
        _deadline: Option<&Deadline>,
    ) -> bool {
        false
    }

    /// Ends that.
    #[inline]
    fn disarm() {}

    /// How often the calling thread was parked; changes only while it is armed.
    #[inline]
    fn parks() -> u32 {
        0
    }

    /// The NUMA node of that CPU, as a hint; any value where it is unknown, and slower to come by than the CPU.
    fn node() -> u16;

    /// Whether the process has one thread only, as `__libc_single_threaded` says.
    fn single_threaded() -> bool;

    /// Nanoseconds on a monotonic clock.
    fn now_ns() -> u64;

    /// Whether `deadline` has passed.
    fn expired(deadline: &Deadline) -> bool;

    /// Tells the processor that this is a wait loop.
    fn pause();

    /// Leaves the CPU for `ns` nanoseconds, or somewhat longer.
    fn sleep(ns: u64);

    /// sched_yield(2). The default algorithm never calls it: a sandbox may forbid it.
    fn yield_now();

    /// Marks a point at which it hurts most to lose the CPU. Nothing, except on the torture platform, which loses it there.
    #[inline]
    fn preemption_point() {}

    /// A queue node for one acquisition, in no queue, its fields in any state. Never fails; does not allocate from the heap.
    fn take_node() -> &'static Node;

    /// Takes back a node that is in no queue. It need not come from the calling thread's [`Platform::take_node`].
    fn give_node(node: &'static Node);

    /// Sleeps on `word` while it is `expected`, for at most `backstop_ns` ([`FOREVER`]: no limit), or until `deadline` if that is earlier.
    fn wait(
        word: &AtomicU32,
        expected: u32,
        shared: bool,
        backstop_ns: u64,
        deadline: Option<&Deadline>,
    ) -> Wait;

    /// Wakes one sleeper, and says whether there was one. The word may be unmapped by now: only its address may be used.
    fn wake_one(word: *const AtomicU32, shared: bool) -> bool;

    /// Wakes all sleepers. The word may be unmapped by now: only its address may be used.
    fn wake_all(word: *const AtomicU32, shared: bool);

    /// Moves one sleeper from `gate` to `word`, if `gate` is still `expected`, without waking it, and says whether there was one.
    fn requeue_one(gate: &AtomicU32, expected: u32, word: &AtomicU32) -> bool;

    /// Reports that an unlock woke a waiter; there is no mutex any more.
    fn note_wake();

    /// Reports an event on a slow path.
    fn note(event: Event, mutex: &autolock_abi::Mutex);
}
