//! Model check of [`outer`]: a queue lock under glibc's word, beside glibc's own callers, condition variables' waits, timed and trying lockers.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test --release -p autolock-lock --test loom_outer`
#![cfg(loom)]

#[allow(dead_code, reason = "some of it is for the default algorithm")]
mod loom_model;

use autolock_abi::{
    Mutex,
    sync::{AtomicU32, Ordering::SeqCst},
    word,
};
use autolock_lock::{
    algorithm::Algorithm,
    locks::Mcs,
    outer::{self, Inner},
    platform::{Deadline, Platform},
};
use loom::{cell::UnsafeCell, sync::Arc, thread};
use loom_model::{ID, KERNEL, Model, Patient, glibc, time_passes};

loom::lazy_static! {
    static ref INNER: Mcs<Patient> = Mcs::new();
}

/// One inner lock, token 1.
struct Queue;

impl Inner for Queue {
    fn of(_: &Mutex) -> u32 {
        1
    }

    fn lock(_: u32) {
        INNER.lock();
    }

    fn try_lock(_: u32) -> bool {
        INNER.try_lock()
    }

    fn unlock(_: u32) {
        // SAFETY: only who holds it has the token in its mutex.
        unsafe { INNER.unlock() };
    }
}

struct Shared {
    mutex: Mutex,
    data: UnsafeCell<u32>,
    signal: AtomicU32,
}

// SAFETY: the data is touched under the mutex alone, which is what the model checks.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

type Actor = fn(&Shared);

impl Shared {
    fn touch(&self) {
        // SAFETY: the caller holds the mutex.
        self.data.with_mut(|data| unsafe { *data += 1 });
    }

    fn ours(&self) {
        outer::lock::<Model, Queue>(&self.mutex);
        self.touch();
        outer::unlock::<Model, Queue>(&self.mutex);
    }

    fn glibcs(&self) {
        glibc::lock(&self.mutex);
        self.touch();
        glibc::unlock(&self.mutex);
    }

    fn tries(&self) {
        while !outer::try_lock::<Model, Queue>(&self.mutex) {
            thread::yield_now();
        }
        self.touch();
        outer::unlock::<Model, Queue>(&self.mutex);
    }

    /// `pthread_cond_wait` until somebody signals.
    fn waits(&self) {
        self.waits_after(outer::release_inner::<Queue>);
    }

    fn waits_after(&self, prepare: fn(&Mutex)) {
        outer::lock::<Model, Queue>(&self.mutex);
        prepare(&self.mutex);
        glibc::unlock(&self.mutex);
        while self.signal.load(SeqCst) == 0 {
            let _ = Model::wait(&self.signal, 0, false, 0, None);
        }
        glibc::lock(&self.mutex);
        self.touch();
        outer::unlock::<Model, Queue>(&self.mutex);
    }

    fn signals(&self) {
        outer::lock::<Model, Queue>(&self.mutex);
        self.touch();
        // Not a store: see `autolock_abi::sync::store_release`.
        self.signal.swap(1, SeqCst);
        outer::unlock::<Model, Queue>(&self.mutex);
        Model::wake_one(&raw const self.signal, false);
    }
}

fn check(preemptions: usize, actors: &'static [Actor]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        let shared = Arc::new(Shared {
            mutex: Mutex::new(0),
            data: UnsafeCell::new(0),
            signal: AtomicU32::new(0),
        });
        KERNEL
            .words
            .lock()
            .expect("not poisoned")
            .push((&raw const shared.mutex.word).addr());
        let (first, others) = actors.split_first().expect("one at least");
        let threads: Vec<_> = others
            .iter()
            .map(|&actor| {
                let shared = shared.clone();
                thread::spawn(move || actor(&shared))
            })
            .collect();
        first(&shared);
        for thread in threads {
            thread.join().expect("an actor");
        }
        assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
        assert!(INNER.try_lock(), "the inner lock was left behind");
        // SAFETY: all actors have ended.
        let touched = shared.data.with(|data| unsafe { *data });
        assert_eq!(touched as usize, actors.len());
    });
}

#[test]
fn three_lockers() {
    check(1, &[Shared::ours, Shared::ours, Shared::ours]);
}

#[test]
fn beside_glibcs_own_lockers() {
    check(2, &[Shared::ours, Shared::glibcs, Shared::ours]);
}

#[test]
fn trylock_beside_lockers() {
    check(2, &[Shared::ours, Shared::tries]);
}

#[test]
fn condition_variable_wait() {
    check(2, &[Shared::waits, Shared::signals]);
    check(1, &[Shared::waits, Shared::signals, Shared::ours]);
}

#[test]
fn timed_waiter_gives_up() {
    const TIMED: i32 = 100;
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let shared = Arc::new(Shared {
            mutex: Mutex::new(0),
            data: UnsafeCell::new(0),
            signal: AtomicU32::new(0),
        });
        outer::lock::<Model, Queue>(&shared.mutex);
        let timed = shared.clone();
        let waiter = thread::spawn(move || {
            ID.with(|id| id.set(TIMED));
            let deadline = Deadline {
                realtime: false,
                sec: 0,
                nsec: 0,
            };
            if outer::lock_until::<Model>(&timed.mutex, &deadline) {
                timed.touch();
                outer::unlock::<Model, Queue>(&timed.mutex);
            }
        });
        let patient = shared.clone();
        let locker = thread::spawn(move || patient.ours());
        time_passes(TIMED);
        outer::unlock::<Model, Queue>(&shared.mutex);
        waiter.join().expect("the timed waiter");
        locker.join().expect("the patient waiter");
        assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
    });
}

/// A condition variable's wait that keeps the inner lock: whoever should signal waits for it.
const CHILD: &str = "LOOM_OUTER_BROKEN";

#[test]
fn the_model_notices_a_wait_with_the_inner_lock_in_hand() {
    if std::env::var_os(CHILD).is_some() {
        check(2, &[|shared| shared.waits_after(|_| {}), Shared::signals]);
        return;
    }
    let name = "the_model_notices_a_wait_with_the_inner_lock_in_hand";
    let child = std::process::Command::new(std::env::current_exe().expect("this test's path"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("this test starts");
    assert!(!child.status.success(), "not noticed");
    let said = String::from_utf8_lossy(&child.stderr);
    let complaints = ["deadlock", "maximum number of branches"];
    assert!(complaints.iter().any(|c| said.contains(c)), "{said}");
}
