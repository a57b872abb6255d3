//! Model check of the lock word, the seat and the gate: every interleaving (up to a bound on preemptions) of small programs, under
//! the C11 memory model, with a futex that has no time-outs, so that a lost wake-up is a deadlock and loom reports it.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test --release -p autolock-lock --test loom_mutex`
//!
//! glibc's own callers are actors here: [`glibc::lock`] and [`glibc::unlock`] do to the word what `pthread_cond_wait` does inside libc.
#![cfg(loom)]

mod broken;
#[path = "../loom_model/mod.rs"]
mod loom_model;
mod parked;

use std::sync::atomic::Ordering::Relaxed;

use autolock_abi::{Mutex, sync::Ordering::SeqCst, word};
use autolock_lock::{mutex, platform::Deadline};
use loom::{cell::UnsafeCell, sync::Arc, thread};
use loom_model::{ID, KERNEL, Model, glibc, park_ends, preempt, signal, time_passes};

/// A mutex and the data that it protects; loom reports two threads in the cell at once.
struct Shared {
    mutex: Mutex,
    data: UnsafeCell<u32>,
}

// SAFETY: the data is touched under the mutex alone, which is what the model checks.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn new(kind: u32) -> Arc<Self> {
        let shared = Arc::new(Self {
            mutex: Mutex::new(kind),
            data: UnsafeCell::new(0),
        });
        KERNEL
            .words
            .lock()
            .expect("not poisoned")
            .push((&raw const shared.mutex.word).addr());
        shared
    }

    fn kind(&self) -> u32 {
        self.mutex.kind.load(SeqCst)
    }

    fn touch(&self) {
        self.data.with_mut(|data| {
            // SAFETY: the caller holds the mutex.
            unsafe { *data += 1 }
        });
    }

    fn ours(&self) {
        mutex::lock::<Model>(&self.mutex, self.kind());
        self.touch();
        mutex::unlock::<Model>(&self.mutex, self.kind());
    }

    fn glibcs(&self) {
        glibc::lock(&self.mutex);
        self.touch();
        glibc::unlock(&self.mutex);
    }
}

fn check(preemptions: usize, program: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = count.clone();
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        program();
    });
    println!("{} executions", count.load(Relaxed));
}

/// Runs the actors beside each other and looks at what is left.
fn run(shared: &Arc<Shared>, actors: Vec<fn(&Shared)>) {
    run_beside(shared, actors, || ());
}

/// The same on a kernel that parks, and at some moment `scheduler` happens.
fn run_parked(shared: &Arc<Shared>, actors: Vec<fn(&Shared)>, scheduler: fn()) {
    KERNEL.parks.store(true, Relaxed);
    run_beside(shared, actors, scheduler);
}

fn run_beside(shared: &Arc<Shared>, actors: Vec<fn(&Shared)>, scheduler: fn()) {
    let expected = u32::try_from(actors.len()).expect("a few");
    let threads: Vec<_> = actors
        .into_iter()
        .map(|actor| {
            let shared = shared.clone();
            thread::spawn(move || actor(&shared))
        })
        .collect();
    scheduler();
    for thread in threads {
        thread.join().expect("an actor");
    }
    assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
    assert_eq!(
        shared.mutex.seat.load(SeqCst),
        0,
        "the seat is vacant when all have left"
    );
    assert_eq!(shared.mutex.parked.load(SeqCst), 0);
    shared.data.with(|data| {
        // SAFETY: all actors have ended.
        assert_eq!(unsafe { *data }, expected);
    });
}

/// What the policy may have learned of a mutex, in the bits of `memory.rs`, so that a short program reaches every way to wait.
const SPINS_ARE_IN_VAIN: u32 = 7 << 5;
const STREAKS_PAY: u32 = 3;
/// In the seat, as in `seat.rs`.
const HEIR: u32 = 1 << 30;

fn experienced(memory: u32) -> Arc<Shared> {
    let shared = Shared::new(PRIVATE);
    shared.mutex.policy.store(memory, Relaxed);
    shared.mutex.seq.store(1, Relaxed); // Not one of the waiters that spin all the same.
    shared
}

const PRIVATE: u32 = 0;
const SHARED: u32 = autolock_abi::kind::SHARED;

#[test]
fn two_lockers() {
    check(5, || {
        run(&Shared::new(PRIVATE), vec![Shared::ours, Shared::ours])
    });
}

#[test]
fn three_lockers_one_at_the_gate() {
    check(3, || {
        run(
            &Shared::new(PRIVATE),
            vec![Shared::ours, Shared::ours, Shared::ours],
        )
    });
}

/// A holder, an attendant, its heir, and one at the gate.
#[test]
fn four_lockers_one_of_them_an_heir() {
    check(2, || run_waiters(&experienced(0), 3, || ()));
}

/// A holder, to whom something happens before it releases, and others that wait for it.
fn run_waiters(shared: &Arc<Shared>, count: usize, happens: impl Fn()) {
    mutex::lock::<Model>(&shared.mutex, PRIVATE);
    let waiters: Vec<_> = (0..count)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || shared.ours())
        })
        .collect();
    happens();
    mutex::unlock::<Model>(&shared.mutex, PRIVATE);
    for waiter in waiters {
        waiter.join().expect("a waiter");
    }
    assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
    assert_eq!(shared.mutex.seat.load(SeqCst), 0);
    assert_eq!(shared.mutex.parked.load(SeqCst), 0);
}

/// The attendant sleeps on the word, and moves the next one there from the gate.
#[test]
fn three_lockers_that_sleep_at_once() {
    check(3, || {
        run(
            &experienced(SPINS_ARE_IN_VAIN),
            vec![Shared::ours, Shared::ours, Shared::ours],
        );
    });
}

/// The attendant waits out a slice, then offers its seat.
#[test]
fn three_lockers_in_streaks() {
    check(3, || {
        run(
            &experienced(STREAKS_PAY),
            vec![Shared::ours, Shared::ours, Shared::ours],
        );
    });
}

#[test]
fn sleepers_beside_glibcs_own_lockers() {
    check(3, || {
        run(
            &experienced(SPINS_ARE_IN_VAIN),
            vec![Shared::ours, Shared::glibcs, Shared::ours],
        );
    });
}

#[test]
fn process_shared_lockers() {
    check(3, || {
        run(
            &Shared::new(SHARED),
            vec![Shared::ours, Shared::ours, Shared::ours],
        )
    });
}

#[test]
fn beside_glibcs_own_lockers() {
    check(3, || {
        run(
            &Shared::new(PRIVATE),
            vec![Shared::ours, Shared::glibcs, Shared::ours],
        )
    });
}

#[test]
fn beside_two_of_glibcs_own_lockers() {
    check(3, || {
        run(
            &Shared::new(PRIVATE),
            vec![Shared::glibcs, Shared::ours, Shared::glibcs],
        )
    });
}

/// `pthread_cond_wait` on stock glibc: our lock, glibc's release inside the wait, glibc's re-acquisition, our unlock.
#[test]
fn condition_variable_wait() {
    check(3, || {
        let shared = Shared::new(PRIVATE);
        let waiting = shared.clone();
        let waiter = thread::spawn(move || {
            mutex::lock::<Model>(&waiting.mutex, PRIVATE);
            waiting.touch();
            glibc::unlock(&waiting.mutex);
            glibc::lock(&waiting.mutex);
            waiting.touch();
            mutex::unlock::<Model>(&waiting.mutex, PRIVATE);
        });
        let other = shared.clone();
        let locker = thread::spawn(move || other.ours());
        shared.ours();
        waiter.join().expect("the waiter");
        locker.join().expect("the locker");
        assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
    });
}

/// The thread id of the waiter whose time passes.
const TIMED: i32 = 100;

/// A timed waiter that gives up, at any moment, takes nobody's wake-up with it.
#[test]
fn timed_waiter_gives_up() {
    for (kind, memory) in [(PRIVATE, 0), (PRIVATE, SPINS_ARE_IN_VAIN), (SHARED, 0)] {
        check(3, move || {
            let shared = Shared::new(kind);
            shared.mutex.policy.store(memory, Relaxed);
            shared.mutex.seq.store(1, Relaxed);
            mutex::lock::<Model>(&shared.mutex, kind);
            let timed = shared.clone();
            let waiter = thread::spawn(move || {
                let deadline = Deadline {
                    realtime: false,
                    sec: 0,
                    nsec: 0,
                };
                ID.with(|id| id.set(TIMED));
                if mutex::lock_until::<Model>(&timed.mutex, kind, &deadline) {
                    mutex::unlock::<Model>(&timed.mutex, kind);
                }
            });
            let patient = shared.clone();
            let locker = thread::spawn(move || patient.ours());
            time_passes(TIMED);
            mutex::unlock::<Model>(&shared.mutex, kind);
            waiter.join().expect("the timed waiter");
            locker.join().expect("the patient waiter");
            assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
        });
    }
}

/// A timed waiter may have been moved from the gate to the word, and have the seat without knowing, when its time is up.
#[test]
fn timed_waiter_gives_up_on_the_word() {
    check(2, || {
        let shared = experienced(SPINS_ARE_IN_VAIN);
        mutex::lock::<Model>(&shared.mutex, PRIVATE);
        let patient = shared.clone();
        let locker = thread::spawn(move || patient.ours());
        let timed = shared.clone();
        let waiter = thread::spawn(move || {
            let deadline = Deadline {
                realtime: false,
                sec: 0,
                nsec: 0,
            };
            ID.with(|id| id.set(TIMED));
            if mutex::lock_until::<Model>(&timed.mutex, PRIVATE, &deadline) {
                mutex::unlock::<Model>(&timed.mutex, PRIVATE);
            }
        });
        mutex::unlock::<Model>(&shared.mutex, PRIVATE);
        time_passes(TIMED);
        shared.ours();
        waiter.join().expect("the timed waiter");
        locker.join().expect("the patient waiter");
        assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
    });
}

#[test]
fn trylock_beside_lockers() {
    check(3, || {
        let shared = Shared::new(PRIVATE);
        let trying = shared.clone();
        let tryer = thread::spawn(move || {
            if mutex::try_lock::<Model>(&trying.mutex, PRIVATE) {
                trying.touch();
                mutex::unlock::<Model>(&trying.mutex, PRIVATE);
            }
        });
        let other = shared.clone();
        let locker = thread::spawn(move || other.ours());
        shared.ours();
        tryer.join().expect("the tryer");
        locker.join().expect("the locker");
        assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
    });
}

/// A signal may hit a waiter that was moved from the gate to the word: it has the seat without knowing.
#[test]
fn a_signal_ends_a_sleep() {
    for memory in [0, SPINS_ARE_IN_VAIN, STREAKS_PAY] {
        check(2, move || {
            run_beside(
                &experienced(memory),
                vec![Shared::ours, Shared::ours, Shared::ours],
                signal,
            );
        });
    }
}
