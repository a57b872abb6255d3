//! Models of the collection's locks: every interleaving of two or three threads up to a bound of preemptions.
//!
//! loom finds two threads in the critical section (the data behind the lock is a loom cell), missing orderings (the same), and a lock
//! that nobody can get any more (a deadlock). Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_locks`.
#![cfg(loom)]

#[allow(dead_code, reason = "the other half is for glibc's mutexes")]
mod loom_model;

use std::{ptr::null_mut, sync::atomic::Ordering::Relaxed};

use autolock_abi::sync::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Release},
};
use autolock_lock::{
    algorithm::Algorithm,
    locks::{
        Aepfl, AutoTicket, BackoffAutolock, BackoffNormlock, BackoffSpinlock, Clh, ClhAutolock,
        Cptltkt, FlexGuard, FutexBackoffSpinlock, FutexSpinlock, FutexYieldBackoffSpinlock,
        FutexYieldSpinlock, Malthusian, Mcs, McsAutolock, McsStp, McsTp, Mutexee, Partitioned,
        PartitionedTicket, RseqAutolock, RseqNormlock, SpinAutolock, SpinNormlock, Spinlock, Tas,
        Ticket, TicketAutolock, TicketNormlock, UScl, YieldBackoffSpinlock, YieldSpinlock,
    },
    node::{self, Node},
    platform::Platform,
};
use loom::{cell::UnsafeCell, sync::Arc, thread};
use loom_model::{ID, KERNEL, Model, Patient, PatientOn, preempt};

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
    model_with::<A>(threads, 1, tries, preemptions);
}

/// The same, each locker in the critical section `rounds` times. The lockers' thread ids are 1, 2, ...,
/// that of the one that tries is the next.
fn model_with<A: Algorithm>(threads: i32, rounds: u32, tries: bool, preemptions: usize) {
    model_beside::<A>(threads, rounds, tries, preemptions, None);
}

/// The same, once each, on a kernel that parks waiters, and parks one at some moment.
fn model_parked<A: Algorithm>(threads: i32, preemptions: usize) {
    model_beside::<A>(threads, 1, false, preemptions, Some(preempt));
}

fn model_beside<A: Algorithm>(
    threads: i32,
    rounds: u32,
    tries: bool,
    preemptions: usize,
    scheduler: Option<fn()>,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
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
        KERNEL.parks.store(scheduler.is_some(), Relaxed);
        let scheduler = scheduler.map(thread::spawn);
        // The first thread's clock is ahead of the others': it finds that what they publish is old, unless they look long enough.
        for _ in 0..3 {
            Patient::now_ns();
        }
        ID.with(|mine| mine.set(1));
        let mine = lock(&shared, rounds);
        let sum: u32 = others.into_iter().map(|t| t.join().expect("joins")).sum();
        if let Some(scheduler) = scheduler {
            scheduler.join().expect("joins");
        }
        // SAFETY: nobody else is left.
        assert_eq!(shared.data.with(|data| unsafe { *data }), mine + sum);
        assert!(shared.lock.try_lock(), "left free");
    });
}

/// The models of locks: `two` for those whose waiters all spin on one word (three of them only give loom more turns), `three` or `four` for the rest, and
/// `respinning` for those whose waiters go from one spin to another: with more preemptions loom lets two of three spin by turns, for ever.
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
    (@trying $more:ident) => { 2 };
    (@two $lock:ty) => {};
    (@three $lock:ty) => {
        #[test]
        fn three_lockers() {
            model::<$lock>(3, false, 2);
        }
    };
    (@four $lock:ty) => {
        models! { @three $lock }
        models! { @respinning $lock }
    };
    (@respinning $lock:ty) => {
        #[test]
        fn three_lockers_and_one_preemption() {
            model::<$lock>(3, false, 1);
        }

        #[test]
        fn four_lockers_and_one_preemption() {
            model::<$lock>(4, false, 1);
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
    four futex_spinlock: FutexSpinlock<Model>;
    three futex_backoff_spinlock: FutexBackoffSpinlock<Model>;
    three futex_yield_spinlock: FutexYieldSpinlock<Model>;
    three futex_yield_backoff_spinlock: FutexYieldBackoffSpinlock<Model>;
    two spin_normlock: SpinNormlock<Patient>;
    four spin_autolock: SpinAutolock<Model>;
    two backoff_normlock: BackoffNormlock<Patient>;
    three backoff_autolock: BackoffAutolock<Model>;
    two ticket: Ticket<Patient>;
    three ticket_normlock: TicketNormlock<Patient>;
    four ticket_autolock: TicketAutolock<Model>;
    three ticket_autolock_whose_waiters_share_a_slot: AutoTicket<Model, true, 1>;
    three partitioned_ticket: PartitionedTicket<Patient>;
    three aepfl: Aepfl<Patient>;
    two partitioned_ticket_whose_waiters_share_a_slot: Partitioned<Patient, 1>;
    two cptltkt_on_two_nodes: Cptltkt<Patient>;
    two cptltkt_on_one_node: Cptltkt<PatientOn<9>>;
    four mcs: Mcs<Patient>;
    four clh: Clh<Patient>;
    four clh_autolock: ClhAutolock<Patient>;
    four mcs_autolock: McsAutolock<Patient>;
    four mcs_stp: McsStp<Patient>;
    respinning mcs_tp: McsTp<Patient>;
    four malthusian: Malthusian<Patient>;
    three mutexee: Mutexee<Patient>;
    three u_scl: UScl<Patient>;
    three flexguard: FlexGuard<Patient>;
    two rseq_normlock: RseqNormlock<Patient>;
    three rseq_autolock: RseqAutolock<Patient>;
}

/// The locks whose waiters are armed.
macro_rules! parked_models {
    ($($name:ident: $lock:ty;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn two_lockers() {
                model_parked::<$lock>(2, 3);
            }

            #[test]
            fn three_lockers() {
                model_parked::<$lock>(3, 2);
            }
        })*
    };
}

parked_models! {
    parked_spin_autolock: SpinAutolock<Model>;
    parked_ticket_autolock: TicketAutolock<Model>;
    parked_ticket_autolock_whose_waiters_share_a_slot: AutoTicket<Model, true, 1>;
    parked_clh_autolock: ClhAutolock<Patient>;
    parked_mcs_autolock: McsAutolock<Patient>;
    parked_rseq_autolock: RseqAutolock<Patient>;
}

/// Two of one node lock twice each: the lock is passed on within the node, then, at the bound, not, and is free for one of another node.
#[test]
fn cptltkt_ends_a_cohort() {
    model_with::<Cptltkt<PatientOn<3>>>(2, 2, true, 2);
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

/// A lock whose granter forgets the wake.
struct Forgetful<A>(A);

impl<A: Algorithm> Algorithm for Forgetful<A> {
    const INFO: autolock_lock::algorithm::Info = A::INFO;

    fn new() -> Self {
        KERNEL.drop_gate_wakes.store(true, Relaxed);
        Self(A::new())
    }

    fn lock(&self) {
        self.0.lock();
    }

    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds it.
        unsafe { self.0.unlock() };
    }
}

/// A lock on a kernel that parks waiters and leaves their word as it was.
struct Markless<A>(A);

impl<A: Algorithm> Algorithm for Markless<A> {
    const INFO: autolock_lock::algorithm::Info = A::INFO;

    fn new() -> Self {
        KERNEL.leaves_no_mark.store(true, Relaxed);
        Self(A::new())
    }

    fn lock(&self) {
        self.0.lock();
    }

    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds it.
        unsafe { self.0.unlock() };
    }
}

/// MCS whose waiters sleep at once, and whose release always removes the first waiter, which then enters the queue again. A hasty one tells it before it has read where the
/// next one is.
struct Skipper<const HASTY: bool> {
    tail: AtomicPtr<Node>,
    holder: AtomicPtr<Node>,
}

const WAITING: u32 = 0;
const GRANTED: u32 = 1;
const REMOVED: u32 = 2;

fn tell(node: &'static Node, state: u32) {
    node.state.swap(state, Release);
    Patient::wake_one(&raw const node.state, false);
}

impl<const HASTY: bool> Skipper<HASTY> {
    fn next_or_free(&self, node: &'static Node) -> Option<&'static Node> {
        // SAFETY: null or a node.
        let next = || unsafe { node::at(node.next.load(Acquire)) };
        let (me, free) = (node.pointer(), null_mut());
        if next().is_none()
            && self
                .tail
                .compare_exchange(me, free, Release, Relaxed)
                .is_ok()
        {
            return None;
        }
        while next().is_none() {
            Patient::pause();
        }
        next()
    }
}

impl<const HASTY: bool> Algorithm for Skipper<HASTY> {
    const INFO: autolock_lock::algorithm::Info = <Mcs<Patient> as Algorithm>::INFO;

    fn new() -> Self {
        Self {
            tail: AtomicPtr::new(null_mut()),
            holder: AtomicPtr::new(null_mut()),
        }
    }

    fn lock(&self) {
        let node = Patient::take_node();
        loop {
            node.next.store(null_mut(), Release);
            node.state.store(WAITING, Release);
            let before = self.tail.swap(node.pointer(), AcqRel);
            // SAFETY: null or a node.
            let Some(before) = (unsafe { node::at(before) }) else {
                break;
            };
            before.next.store(node.pointer(), Release);
            while node.state.load(Acquire) == WAITING {
                Patient::wait(&node.state, WAITING, false, u64::MAX, None);
            }
            if node.state.load(Acquire) == GRANTED {
                break;
            }
        }
        self.holder.store(node.pointer(), Release);
    }

    fn try_lock(&self) -> bool {
        let free = self.tail.load(Acquire).is_null();
        if free {
            self.lock(); // In the model only at the end.
        }
        free
    }

    unsafe fn unlock(&self) {
        // SAFETY: the holder's node.
        let mine = unsafe { node::at(self.holder.load(Acquire)) }.expect("held");
        if let Some(first) = self.next_or_free(mine) {
            if HASTY {
                tell(first, REMOVED);
            }
            let next = self.next_or_free(first);
            if !HASTY {
                tell(first, REMOVED);
            }
            if let Some(next) = next {
                tell(next, GRANTED);
            }
        }
        Patient::give_node(mine);
    }
}

#[test]
fn a_release_that_skips_a_waiter_with_care() {
    model::<Skipper<false>>(3, false, 2);
}

/// The broken variants. loom aborts the process when it finds a deadlock, so each runs in a process of its own.
const BROKEN: &[(&str, &str, fn())] = &[
    ("mcs_stp without wakes", "deadlock", || {
        model::<Forgetful<McsStp<Patient>>>(2, false, 2);
    }),
    ("mcs_autolock without wakes", "deadlock", || {
        model::<Forgetful<McsAutolock<Patient>>>(2, false, 2);
    }),
    ("clh_autolock without wakes", "deadlock", || {
        model::<Forgetful<ClhAutolock<Patient>>>(2, false, 2);
    }),
    ("malthusian without wakes", "deadlock", || {
        model::<Forgetful<Malthusian<Patient>>>(2, false, 2);
    }),
    ("futex_spinlock without wakes", "deadlock", || {
        model::<Forgetful<FutexSpinlock<Model>>>(2, false, 3);
    }),
    ("futex_backoff_spinlock without wakes", "deadlock", || {
        model::<Forgetful<FutexBackoffSpinlock<Model>>>(2, false, 3);
    }),
    ("futex_yield_spinlock without wakes", "deadlock", || {
        model::<Forgetful<FutexYieldSpinlock<Model>>>(2, false, 3);
    }),
    (
        "futex_yield_backoff_spinlock without wakes",
        "deadlock",
        || {
            model::<Forgetful<FutexYieldBackoffSpinlock<Model>>>(2, false, 3);
        },
    ),
    ("spin_autolock without wakes", "deadlock", || {
        model::<Forgetful<SpinAutolock<Model>>>(2, false, 3);
    }),
    ("backoff_autolock without wakes", "deadlock", || {
        model::<Forgetful<BackoffAutolock<Model>>>(2, false, 3);
    }),
    ("spin_autolock, parked without a mark", "deadlock", || {
        model_parked::<Markless<SpinAutolock<Model>>>(2, 3);
    }),
    ("mcs_autolock, parked without a mark", "deadlock", || {
        model_parked::<Markless<McsAutolock<Patient>>>(2, 3);
    }),
    ("clh_autolock, parked without a mark", "deadlock", || {
        model_parked::<Markless<ClhAutolock<Patient>>>(2, 3);
    }),
    ("ticket_autolock, parked without a mark", "deadlock", || {
        model_parked::<Markless<TicketAutolock<Model>>>(2, 3);
    }),
    ("ticket_autolock without wakes", "deadlock", || {
        model::<Forgetful<TicketAutolock<Model>>>(2, false, 3);
    }),
    ("a skipped waiter is told too early", "deadlock", || {
        model::<Skipper<true>>(3, false, 2);
    }),
    ("mutexee without wakes", "deadlock", || {
        model::<Forgetful<Mutexee<Patient>>>(2, false, 2);
    }),
    ("u_scl without wakes", "deadlock", || {
        model::<Forgetful<UScl<Patient>>>(2, false, 2);
    }),
    ("flexguard without wakes", "deadlock", || {
        model::<Forgetful<FlexGuard<Patient>>>(2, false, 2);
    }),
    ("rseq_autolock without wakes", "deadlock", || {
        model::<Forgetful<RseqAutolock<Patient>>>(2, false, 2);
    }),
];

const CHILD: &str = "LOOM_LOCKS_BROKEN";

#[test]
fn the_model_notices_broken_variants() {
    if let Ok(name) = std::env::var(CHILD) {
        let variant = BROKEN.iter().find(|(known, ..)| *known == name);
        variant.expect("a known variant").2();
        return;
    }
    for (name, complaint, _) in BROKEN {
        let child = std::process::Command::new(std::env::current_exe().expect("this test's path"))
            .args([
                "--exact",
                "the_model_notices_broken_variants",
                "--nocapture",
            ])
            .env(CHILD, name)
            .output()
            .expect("this test starts");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success(), "not noticed: {name}");
        assert!(
            said.contains(complaint),
            "{name}: no '{complaint}' in: {said}"
        );
    }
}
