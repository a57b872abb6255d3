//! How many futex(2) calls a lock makes.
//!
//! By the kernel's tracepoint `syscalls:sys_enter_futex` where this process may open it, for any lock; else by the
//! platform that our own locks run on here, [`Counting`]: Linux, and a count in a thread-local variable beside each
//! call. Nothing is added where a lock makes no such call. The tracepoint makes every system call of the machine
//! somewhat slower while a round runs, which `--futex-calls own` avoids.
//!
//! May touch: tracefs to read, perf_event_open(2).

use crate::cli::FutexCalls;
use anyhow::{Context, Result};
use autolock_lock::locks::Collection;
use autolock_lock::node::Node;
use autolock_lock::platform::{Deadline, Event, Parking, Platform, Wait};
use autolock_shim::linux::Linux;
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use std::cell::Cell;
use std::sync::atomic::AtomicU32;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

/// Linux, counting the calling thread's futex(2) calls.
#[derive(Debug)]
pub struct Counting;

impl Platform for Counting {
    type OnCpu = <Linux as Platform>::OnCpu;

    #[inline]
    fn tid() -> i32 {
        Linux::tid()
    }

    #[inline]
    fn tid_or_zero() -> i32 {
        Linux::tid_or_zero()
    }

    #[inline]
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

    #[inline]
    fn single_threaded() -> bool {
        Linux::single_threaded()
    }

    #[inline]
    fn now_ns() -> u64 {
        Linux::now_ns()
    }

    fn expired(deadline: &Deadline) -> bool {
        Linux::expired(deadline)
    }

    #[inline]
    fn pause() {
        Linux::pause();
    }

    /// By futex(2), as [`Linux`] does it.
    fn sleep(ns: u64) {
        count();
        Linux::sleep(ns);
    }

    #[inline]
    fn yield_now() {
        Linux::yield_now();
    }

    #[inline]
    fn take_node() -> &'static Node {
        Linux::take_node()
    }

    #[inline]
    fn give_node(node: &'static Node) {
        Linux::give_node(node);
    }

    fn wait(
        word: &AtomicU32,
        expected: u32,
        shared: bool,
        backstop_ns: u64,
        deadline: Option<&Deadline>,
    ) -> Wait {
        count();
        Linux::wait(word, expected, shared, backstop_ns, deadline)
    }

    fn wake_one(word: *const AtomicU32, shared: bool) -> bool {
        count();
        Linux::wake_one(word, shared)
    }

    fn wake_all(word: *const AtomicU32, shared: bool) {
        count();
        Linux::wake_all(word, shared);
    }

    fn requeue_one(gate: &AtomicU32, expected: u32, word: &AtomicU32) -> bool {
        count();
        Linux::requeue_one(gate, expected, word)
    }

    #[inline]
    fn note_wake() {
        Linux::note_wake();
    }

    #[inline]
    fn note(event: Event, mutex: &autolock_lock::Mutex) {
        Linux::note(event, mutex);
    }
}

/// How the calls are counted in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The number of the tracepoint.
    Tracepoint(u64),
    Own,
    Off,
}

impl Method {
    /// What `asked` comes to on this machine; an error if it was asked for and is not permitted.
    pub fn choose(asked: FutexCalls) -> Result<Method> {
        match asked {
            FutexCalls::Off => Ok(Method::Off),
            FutexCalls::Own => Ok(Method::Own),
            FutexCalls::Auto => Ok(tracepoint().unwrap_or(Method::Own)),
            FutexCalls::Tracepoint => tracepoint(),
        }
    }

    /// For the run's record.
    pub fn describe(self) -> &'static str {
        match self {
            Method::Tracepoint(_) => "tracepoint syscalls:sys_enter_futex",
            Method::Own => "counted in our own locks",
            Method::Off => "not counted",
        }
    }

    /// Whether the calls of the lock of this name are known.
    pub fn knows(self, lock: &str) -> bool {
        match self {
            Method::Tracepoint(_) => true,
            Method::Own => Collection::<Counting>::ENTRIES
                .iter()
                .any(|entry| entry.info.name == lock),
            Method::Off => false,
        }
    }
}

fn tracepoint() -> Result<Method> {
    const FILES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let id = FILES
        .iter()
        .find_map(|folder| {
            let file = format!("{folder}/events/syscalls/sys_enter_futex/id");
            std::fs::read_to_string(file).ok()?.trim().parse().ok()
        })
        .context("--futex-calls tracepoint: no tracefs to read (as root: mount -t tracefs tracefs /sys/kernel/tracing)")?;
    open(id).context("--futex-calls tracepoint: perf_event_open(2) is not permitted (CAP_PERFMON, kernel.perf_event_paranoid)")?;
    Ok(Method::Tracepoint(id))
}

/// Counts the calling thread's calls, not running yet.
fn open(id: u64) -> std::io::Result<Counter> {
    Builder::new(Tracepoint::with_id(id))
        .include_kernel()
        .observe_self()
        .any_cpu()
        .build()
}

/// Counts the calls of the thread that made it.
pub enum Meter {
    Tracepoint(Counter),
    /// The thread's count at the start.
    Own(u64),
    Off,
}

impl Meter {
    /// Starts to count. A counter that cannot be opened after all counts nothing: the thread may be out of files.
    pub fn start(method: Method) -> Meter {
        match method {
            Method::Own => Meter::Own(CALLS.get()),
            Method::Off => Meter::Off,
            Method::Tracepoint(id) => open(id)
                .and_then(|mut counter| counter.enable().map(|()| Meter::Tracepoint(counter)))
                .unwrap_or(Meter::Off),
        }
    }

    /// Calls since the start, where known.
    pub fn stop(self) -> Option<u64> {
        match self {
            Meter::Own(start) => Some(CALLS.get() - start),
            Meter::Off => None,
            Meter::Tracepoint(mut counter) => {
                counter.disable().ok()?;
                counter.read().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Three calls, none of which sleeps: a word that has changed, nobody to wake, nobody to move.
    fn three_calls() {
        let word = AtomicU32::new(1);
        Counting::wait(&word, 0, false, 1_000_000, None);
        Counting::wake_one(&raw const word, false);
        Counting::requeue_one(&word, 1, &AtomicU32::new(0));
    }

    #[test]
    fn our_own_calls_are_counted_by_thread() {
        let meter = Meter::start(Method::Own);
        three_calls();
        std::thread::spawn(three_calls).join().expect("thread");
        assert_eq!(meter.stop(), Some(3));
        assert_eq!(Meter::start(Method::Off).stop(), None);
    }

    #[test]
    fn the_tracepoint_counts_the_same_where_it_is_permitted() {
        match Method::choose(FutexCalls::Tracepoint) {
            Err(error) => eprintln!("SKIPPED: {error:#}"),
            Ok(method) => {
                let meter = Meter::start(method);
                three_calls();
                assert_eq!(meter.stop(), Some(3));
            }
        }
    }

    #[test]
    fn only_our_own_locks_are_known_without_the_tracepoint() {
        assert!(Method::Own.knows("mcs") && !Method::Own.knows("glibc"));
        assert!(Method::Tracepoint(1).knows("glibc") && !Method::Off.knows("mcs"));
    }
}
