//! Models of the collection's locks: every interleaving of two or three threads up to a bound of preemptions.
//!
//! loom finds two threads in the critical section (the data behind the lock is a loom cell), missing orderings (the same), and a lock
//! that nobody can get any more (a deadlock). Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_locks`.
#![cfg(loom)]

#[allow(dead_code, reason = "the other half is for glibc's mutexes")]
mod loom_model;

use autolock_lock::{
    algorithm::Algorithm,
    locks::{FlexGuard, Mcs, Mutexee, RseqAutolock, RseqNormlock, Tas, UScl},
};
use loom::{cell::UnsafeCell, sync::Arc, thread};
use loom_model::Patient;

struct Shared<A> {
    lock: A,
    data: UnsafeCell<u32>,
}

// SAFETY: the cell is accessed by the lock's holder only, and loom checks just that.
unsafe impl<A: Algorithm> Sync for Shared<A> {}
// SAFETY: as above.
unsafe impl<A: Algorithm> Send for Shared<A> {}

impl<A: Algorithm> Shared<A> {
    fn critical_section(&self) {
        // SAFETY: loom notices any other access at the same time.
        self.data.with_mut(|data| unsafe { *data += 1 });
        // SAFETY: the caller holds the lock.
        unsafe { self.lock.unlock() };
    }
}

/// `threads` threads, the first included, each in the critical section once by `lock`, and, if `tries`, one more that tries.
fn model<A: Algorithm>(threads: u32, tries: bool, preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        let shared = Arc::new(Shared {
            lock: A::new(),
            data: UnsafeCell::new(0),
        });
        let start = |work: fn(&Shared<A>) -> u32| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || work(&shared))
        };
        let lock = |shared: &Shared<A>| {
            shared.lock.lock();
            shared.critical_section();
            1
        };
        let mut others: Vec<_> = (1..threads).map(|_| start(lock)).collect();
        if tries {
            others.push(start(|shared| {
                let got = shared.lock.try_lock();
                if got {
                    shared.critical_section();
                }
                u32::from(got)
            }));
        }
        let mine = lock(&shared);
        let sum: u32 = others.into_iter().map(|t| t.join().expect("joins")).sum();
        // SAFETY: nobody else is left.
        assert_eq!(shared.data.with(|data| unsafe { *data }), mine + sum);
        assert!(shared.lock.try_lock(), "left free");
    });
}

/// The models of locks: `two` for those whose waiters all spin on one word (three of them only give loom more turns), `three` for the rest.
macro_rules! models {
    ($($most:ident $name:ident: $lock:ty;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn two_lockers() {
                model::<$lock>(2, false, 3);
            }

            #[test]
            fn trylock_beside_lockers() {
                model::<$lock>(models!(@trying $most), true, 2);
            }

            models! { @$most $lock }
        })*
    };
    (@trying two) => { 1 };
    (@trying three) => { 2 };
    (@two $lock:ty) => {};
    (@three $lock:ty) => {
        #[test]
        fn three_lockers() {
            model::<$lock>(3, false, 2);
        }
    };
}

models! {
    two tas: Tas<Patient>;
    three mcs: Mcs<Patient>;
    three mutexee: Mutexee<Patient>;
    three u_scl: UScl<Patient>;
    three flexguard: FlexGuard<Patient>;
    two rseq_normlock: RseqNormlock<Patient>;
    three rseq_autolock: RseqAutolock<Patient>;
}

/// Looks and then takes: two can have looked.
struct Busted(autolock_abi::sync::AtomicU32);

impl Algorithm for Busted {
    const INFO: autolock_lock::algorithm::Info = autolock_lock::algorithm::Info {
        name: "busted",
        ..<Tas<Patient> as Algorithm>::INFO
    };

    fn new() -> Self {
        Self(autolock_abi::sync::AtomicU32::new(0))
    }

    fn lock(&self) {
        while !self.try_lock() {
            thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        use autolock_abi::sync::Ordering::{Acquire, Relaxed};
        let free = self.0.load(Acquire) == 0;
        if free {
            self.0.store(1, Relaxed);
        }
        free
    }

    unsafe fn unlock(&self) {
        self.0.store(0, autolock_abi::sync::Ordering::Release);
    }
}

#[test]
#[should_panic(expected = "Causality")]
fn the_model_notices_a_busted_lock() {
    model::<Busted>(2, false, 3);
}

/// The lock on a kernel that wakes nobody.
struct NeverWoken<A>(A);

impl<A: Algorithm> Algorithm for NeverWoken<A> {
    const INFO: autolock_lock::algorithm::Info = A::INFO;

    fn new() -> Self {
        loom_model::KERNEL
            .drop_gate_wakes
            .store(true, std::sync::atomic::Ordering::Relaxed);
        Self(A::new())
    }

    fn lock(&self) {
        self.0.lock();
    }

    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    unsafe fn unlock(&self) {
        // SAFETY: as the caller says.
        unsafe { self.0.unlock() }
    }
}

/// Every lock that sleeps must be found asleep for ever when wakes get lost: its model reaches the sleep.
const NEVER_WOKEN: &[(&str, fn())] = &[
    ("mutexee", || {
        model::<NeverWoken<Mutexee<Patient>>>(2, false, 2)
    }),
    ("u_scl", || model::<NeverWoken<UScl<Patient>>>(2, false, 2)),
    ("flexguard", || {
        model::<NeverWoken<FlexGuard<Patient>>>(2, false, 2)
    }),
    ("rseq_autolock", || {
        model::<NeverWoken<RseqAutolock<Patient>>>(2, false, 2)
    }),
];

const NEVER_WOKEN_CHILD: &str = "LOOM_LOCKS_NEVER_WOKEN";

/// loom aborts the process when it finds a deadlock, so each runs in a process of its own.
#[test]
fn the_model_notices_locks_that_nobody_wakes() {
    if let Ok(name) = std::env::var(NEVER_WOKEN_CHILD) {
        let (_, broken) = NEVER_WOKEN
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a known lock");
        broken();
        return;
    }
    for (name, _) in NEVER_WOKEN {
        let child = std::process::Command::new(std::env::current_exe().expect("this test's path"))
            .args([
                "--exact",
                "the_model_notices_locks_that_nobody_wakes",
                "--nocapture",
            ])
            .env(NEVER_WOKEN_CHILD, name)
            .output()
            .expect("this test starts");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success(), "not noticed: {name}");
        assert!(said.contains("deadlock"), "{name}: no deadlock in: {said}");
    }
}
