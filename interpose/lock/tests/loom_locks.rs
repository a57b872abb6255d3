//! Models of the collection's locks: every interleaving of two or three threads up to a bound of preemptions.
//!
//! loom finds two threads in the critical section (the data behind the lock is a loom cell), missing orderings (the same), and a lock
//! that nobody can get any more (a deadlock). Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_locks`.
#![cfg(loom)]

#[allow(dead_code, reason = "the other half is for glibc's mutexes")]
mod loom_model;

use autolock_lock::{
    algorithm::Algorithm,
    locks::{
        Aepfl, AutoTicket, BackoffAutolock, BackoffNormlock, BackoffSpinlock, Cptltkt,
        FutexBackoffSpinlock, FutexSpinlock, FutexYieldBackoffSpinlock, FutexYieldSpinlock, Mcs,
        Partitioned, PartitionedTicket, SpinAutolock, SpinNormlock, Spinlock, Tas, Ticket,
        TicketAutolock, TicketNormlock, YieldBackoffSpinlock, YieldSpinlock,
    },
};
use loom::{cell::UnsafeCell, sync::Arc, thread};
use loom_model::{ID, KERNEL, Model, Patient, PatientOn};
use std::sync::atomic::Ordering::Relaxed;

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
fn model<A: Algorithm>(threads: i32, tries: bool, preemptions: usize) {
    model_with::<A>(threads, 1, tries, preemptions, false);
}

/// The same, each locker in the critical section `rounds` times; if `deaf`, no wake reaches anybody. The lockers' thread ids are 1, 2, ...,
/// that of the one that tries is the next.
fn model_with<A: Algorithm>(
    threads: i32,
    rounds: u32,
    tries: bool,
    preemptions: usize,
    deaf: bool,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        KERNEL.drop_gate_wakes.store(deaf, Relaxed);
        let shared = Arc::new(Shared {
            lock: A::new(),
            data: UnsafeCell::new(0),
        });
        let start = |id, work: fn(&Shared<A>, u32) -> u32| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                ID.with(|mine| mine.set(id));
                work(&shared, rounds)
            })
        };
        let lock = |shared: &Shared<A>, rounds| {
            for _ in 0..rounds {
                shared.lock.lock();
                shared.critical_section();
            }
            rounds
        };
        let mut others: Vec<_> = (2..=threads).map(|id| start(id, lock)).collect();
        if tries {
            others.push(start(threads + 1, |shared, _| {
                let got = shared.lock.try_lock();
                if got {
                    shared.critical_section();
                }
                u32::from(got)
            }));
        }
        ID.with(|mine| mine.set(1));
        let mine = lock(&shared, rounds);
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

// Locks that spin without a bound run on `Patient`, locks whose waiters sleep on `Model`.
models! {
    two tas: Tas<Patient>;
    two spinlock: Spinlock<Patient>;
    two backoff_spinlock: BackoffSpinlock<Patient>;
    two yield_spinlock: YieldSpinlock<Patient>;
    two yield_backoff_spinlock: YieldBackoffSpinlock<Patient>;
    three futex_spinlock: FutexSpinlock<Model>;
    three futex_backoff_spinlock: FutexBackoffSpinlock<Model>;
    three futex_yield_spinlock: FutexYieldSpinlock<Model>;
    three futex_yield_backoff_spinlock: FutexYieldBackoffSpinlock<Model>;
    two spin_normlock: SpinNormlock<Patient>;
    three spin_autolock: SpinAutolock<Model>;
    two backoff_normlock: BackoffNormlock<Patient>;
    three backoff_autolock: BackoffAutolock<Model>;
    two ticket: Ticket<Patient>;
    three ticket_normlock: TicketNormlock<Patient>;
    three ticket_autolock: TicketAutolock<Model>;
    three ticket_autolock_whose_waiters_share_a_slot: AutoTicket<Model, true, 1>;
    three partitioned_ticket: PartitionedTicket<Patient>;
    three aepfl: Aepfl<Patient>;
    two partitioned_ticket_whose_waiters_share_a_slot: Partitioned<Patient, 1>;
    two cptltkt_on_two_nodes: Cptltkt<Patient>;
    two cptltkt_on_one_node: Cptltkt<PatientOn<9>>;
    three mcs: Mcs<Patient>;
}

/// Two of one node lock twice each: the lock is passed on within the node, then, at the bound, not, and is free for one of another node.
#[test]
fn cptltkt_ends_a_cohort() {
    model_with::<Cptltkt<PatientOn<3>>>(2, 2, true, 2, false);
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

/// Locks that sleep, with wakes that reach nobody. loom aborts the process when it finds a deadlock, so each runs in a process of its own.
const DEAF: &[(&str, fn())] = &[
    ("futex_spinlock", deaf::<FutexSpinlock<Model>>),
    (
        "futex_backoff_spinlock",
        deaf::<FutexBackoffSpinlock<Model>>,
    ),
    ("futex_yield_spinlock", deaf::<FutexYieldSpinlock<Model>>),
    (
        "futex_yield_backoff_spinlock",
        deaf::<FutexYieldBackoffSpinlock<Model>>,
    ),
    ("spin_autolock", deaf::<SpinAutolock<Model>>),
    ("backoff_autolock", deaf::<BackoffAutolock<Model>>),
    ("ticket_autolock", deaf::<TicketAutolock<Model>>),
];

fn deaf<A: Algorithm>() {
    model_with::<A>(2, 1, false, 3, true);
}

const CHILD: &str = "LOOM_LOCKS_DEAF";

#[test]
fn the_model_notices_lost_wakes() {
    if let Ok(name) = std::env::var(CHILD) {
        let (_, deaf) = DEAF
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a known lock");
        deaf();
        return;
    }
    for (name, _) in DEAF {
        let child = std::process::Command::new(std::env::current_exe().expect("this test's path"))
            .args(["--exact", "the_model_notices_lost_wakes", "--nocapture"])
            .env(CHILD, name)
            .output()
            .expect("this test starts");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success(), "not noticed: {name}");
        assert!(said.contains("deadlock"), "{name}: {said}");
    }
}
