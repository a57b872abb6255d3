//! What a waiter does with what is known of the holder: when it goes to sleep. On a platform whose clock goes on by what its threads do, so every
//! figure is exact.
#![cfg(not(loom))]

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

use autolock_abi::{Mutex, kind, sync::AtomicU32, word};
use autolock_lock::{
    contended,
    node::Node,
    oncpu::{
        Holder,
        HolderState::{self, NotRunning, Running, Unknown},
        OnCpu,
    },
    platform::{Deadline, Event, Parking, Platform, Wait},
};

const ME: i32 = 1;
const HOLDER: i32 = 2;
const ATTENDANT: u32 = 3;
const MY_CPU: u16 = 0;
const PAUSE_NS: u64 = 40;
const CLOCK_NS: u64 = 20;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    /// What the source says, by the time.
    static SAYS: Cell<fn(u64) -> HolderState> = const { Cell::new(|_| Unknown) };
    static MUTEX: Cell<*const Mutex> = const { Cell::new(std::ptr::null()) };
    /// Whether the scheduler parks waiters.
    static PARKS: Cell<bool> = const { Cell::new(false) };
    static SLEPT_AT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn pass_time(ns: u64) {
    NOW.set(NOW.get() + ns);
}

struct Source;

impl OnCpu for Source {
    fn thread(holder: Holder) -> HolderState {
        if holder.tid == HOLDER {
            SAYS.get()(NOW.get())
        } else {
            Unknown
        }
    }
}

struct Machine;

impl Platform for Machine {
    type OnCpu = Source;

    fn tid() -> i32 {
        ME
    }
    fn tid_or_zero() -> i32 {
        ME
    }
    fn cpu() -> u16 {
        MY_CPU
    }
    fn node() -> u16 {
        0
    }
    fn single_threaded() -> bool {
        false
    }
    fn now_ns() -> u64 {
        pass_time(CLOCK_NS);
        NOW.get()
    }
    fn expired(_: &Deadline) -> bool {
        false
    }
    fn pause() {
        pass_time(PAUSE_NS);
    }
    fn sleep(ns: u64) {
        pass_time(ns);
    }
    fn yield_now() {}
    fn arm(_: &AtomicU32, _: Parking, _: u64, _: Option<&Deadline>) -> bool {
        PARKS.get()
    }
    fn take_node() -> &'static Node {
        Box::leak(Box::default())
    }
    fn give_node(_: &'static Node) {}

    /// The first sleep is what is asked for: the holder releases, and whoever attends leaves the seat.
    fn wait(_: &AtomicU32, _: u32, _: bool, _: u64, _: Option<&Deadline>) -> Wait {
        assert_eq!(SLEPT_AT.replace(Some(NOW.get())), None);
        // SAFETY: `first_sleep`'s own.
        let mutex = unsafe { &*MUTEX.get() };
        mutex.owner.store(0, Relaxed);
        mutex.word.store(word::UNLOCKED, Relaxed);
        mutex.seat.store(0, Relaxed);
        Wait::Woken
    }
    fn wake_one(_: *const AtomicU32, _: bool) -> bool {
        false
    }
    fn wake_all(_: *const AtomicU32, _: bool) {}
    fn requeue_one(_: &AtomicU32, _: u32, _: &AtomicU32) -> bool {
        false
    }
    fn note_wake() {}
    fn note(_: Event, _: &Mutex) {}
}

/// How long a waiter of a held mutex stays awake, in nanoseconds.
fn first_sleep(kind: u32, seat: u32, holder_place: u16, says: fn(u64) -> HolderState) -> u64 {
    let mutex = Mutex::new(kind);
    mutex.word.store(word::LOCKED, Relaxed);
    mutex.owner.store(HOLDER, Relaxed);
    mutex.holder_place.store(holder_place, Relaxed);
    mutex.seat.store(seat, Relaxed);
    NOW.set(0);
    SAYS.set(says);
    SLEPT_AT.set(None);
    MUTEX.set(&raw const mutex);
    assert!(contended::lock::<Machine>(&mutex, None));
    SLEPT_AT.get().expect("nobody released before")
}

fn as_attendant(says: fn(u64) -> HolderState) -> u64 {
    first_sleep(kind::NORMAL, 0, MY_CPU + 1, says)
}

fn as_newcomer(says: fn(u64) -> HolderState) -> u64 {
    first_sleep(kind::NORMAL, ATTENDANT, MY_CPU + 1, says)
}

/// Looks that every waiter makes, and a few clock readings.
const BRIEFLY: u64 = 6 * PAUSE_NS + 8 * CLOCK_NS;

#[test]
fn an_attendant_sleeps_at_once_when_the_holder_is_off_its_cpu() {
    assert!(as_attendant(|_| NotRunning) <= BRIEFLY);
    // And when it has just lost it.
    let slept = as_attendant(|now| if now < 20_000 { Running } else { NotRunning });
    assert!((20_000..20_000 + BRIEFLY).contains(&slept), "{slept}");
}

#[test]
fn an_attendant_is_patient_while_the_holder_runs_but_not_for_ever() {
    let unknown = as_attendant(|_| Unknown);
    assert!((12_000..14_000).contains(&unknown), "{unknown}");
    let running = as_attendant(|_| Running);
    assert!((50_000..52_000).contains(&running), "{running}");
    // What is not known any more does not count.
    let stale = as_attendant(|now| if now < 20_000 { Running } else { Unknown });
    assert!((20_000..20_000 + 1_000).contains(&stale), "{stale}");
}

#[test]
fn an_attendant_that_would_be_parked_is_more_patient_with_a_running_holder_alone() {
    PARKS.set(true);
    let running = as_attendant(|_| Running);
    assert!((100_000..102_000).contains(&running), "{running}");
    let unknown = as_attendant(|_| Unknown);
    assert!((12_000..14_000).contains(&unknown), "{unknown}");
    assert!(as_attendant(|_| NotRunning) <= BRIEFLY);
    PARKS.set(false);
}

#[test]
fn a_newcomer_goes_to_the_gate_at_once_when_the_holder_is_off_its_cpu() {
    assert!(as_newcomer(|_| NotRunning) <= BRIEFLY);
    let unknown = as_newcomer(|_| Unknown);
    assert!((3_000..4_000).contains(&unknown), "{unknown}");
}

#[test]
fn a_newcomer_is_patient_while_the_holder_runs_but_not_for_ever() {
    let running = as_newcomer(|_| Running);
    assert!((40_000..41_000).contains(&running), "{running}");
    let stale = as_newcomer(|now| if now < 20_000 { Running } else { Unknown });
    assert!((20_000..21_000).contains(&stale), "{stale}");
}

#[test]
fn a_waiter_of_a_process_shared_mutex_sleeps_at_once_when_the_holder_is_off_its_cpu() {
    let shared = |says| first_sleep(kind::NORMAL | kind::SHARED, 0, MY_CPU, says);
    assert_eq!(shared(|_| NotRunning), 0);
    assert_eq!(shared(|_| Unknown), 30 * PAUSE_NS);
    assert_eq!(shared(|_| Running), 30 * PAUSE_NS);
}

/// User space alone takes a holder that took the mutex here for one that does not run; it may have migrated.
#[test]
fn a_holder_that_took_the_mutex_on_my_cpu_runs_if_it_is_known_to() {
    let same_cpu = |says| first_sleep(kind::NORMAL, 0, MY_CPU, says);
    let unknown = same_cpu(|_| Unknown);
    assert!((500..1_500).contains(&unknown), "{unknown}");
    assert!(same_cpu(|_| Running) > 50_000);
}

/// A wrong answer, and a mutex that is free in spite of its owner: it is acquired, awake.
#[test]
fn whatever_is_known_a_free_mutex_is_acquired() {
    for kind in [kind::NORMAL, kind::NORMAL | kind::SHARED] {
        for says in [|_| NotRunning, |_| Running] {
            let mutex = Mutex::new(kind);
            mutex.owner.store(HOLDER, Relaxed);
            SAYS.set(says);
            SLEPT_AT.set(None);
            MUTEX.set(&raw const mutex);
            assert!(contended::lock::<Machine>(&mutex, None));
            assert_eq!(SLEPT_AT.get(), None);
        }
    }
}
