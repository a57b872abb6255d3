//! Locks that are broken on purpose: `busted` fails every test, `busted_TEST` has the fault that one test is for.
//!
//! They show that the tests can fail. `--all` leaves them out, and runs them first. Each waits with sched_yield(2) at most, so
//! that it is the fault that is found and not a spinner.

use autolock_lock::algorithm::{Algorithm, Entry, Info, Order, Waiting, entry};
use autolock_lock::platform::Platform;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// The family on the platform `P`.
struct Family<P>(PhantomData<P>);

impl<P: Platform> Family<P> {
    const ENTRIES: &'static [Entry] = &[
        entry::<Busted>(),
        entry::<Faulty<P, EXCLUSION>>(),
        entry::<Faulty<P, TRY_LOCK>>(),
        entry::<Faulty<P, MISUSE>>(),
        entry::<Faulty<P, OVERSUBSCRIPTION>>(),
        entry::<Faulty<P, PREEMPTION>>(),
        entry::<Lifo<P>>(),
        entry::<Sleepy<P>>(),
    ];
}

/// All of them, `busted` first.
pub fn entries<P: Platform>() -> &'static [Entry] {
    Family::<P>::ENTRIES
}

pub fn find<P: Platform>(name: &str) -> Option<&'static Entry> {
    entries::<P>().iter().find(|entry| entry.info.name == name)
}

const fn info(name: &'static str, about: &'static str, order: Order, waiting: Waiting) -> Info {
    Info {
        name,
        about,
        source: "broken on purpose",
        order,
        waiting,
    }
}

/// Excludes nobody and says yes to everybody.
struct Busted;

impl Algorithm for Busted {
    const INFO: Info = info(
        "busted",
        "broken on purpose: excludes nobody; must fail every test",
        Order::Fifo,
        Waiting::Spins,
    );

    fn new() -> Self {
        Busted
    }

    fn lock(&self) {}

    fn try_lock(&self) -> bool {
        true
    }

    unsafe fn unlock(&self) {}
}

const EXCLUSION: u8 = 0;
const TRY_LOCK: u8 = 1;
const MISUSE: u8 = 2;
const OVERSUBSCRIPTION: u8 = 3;
const PREEMPTION: u8 = 4;

/// Test-and-set with one fault.
struct Faulty<P, const FAULT: u8> {
    word: AtomicU32,
    /// 1 + the CPU on which it was taken.
    cpu: AtomicU32,
    platform: PhantomData<fn(P)>,
}

thread_local! {
    /// The word that the thread took last.
    static LATEST: Cell<*const AtomicU32> = const { Cell::new(std::ptr::null()) };
}

impl<P: Platform, const FAULT: u8> Faulty<P, FAULT> {
    fn take(&self) -> bool {
        let taken = if FAULT == PREEMPTION {
            let free = self.word.load(Acquire) == 0;
            P::preemption_point();
            if free {
                self.word.store(1, Relaxed);
            }
            free
        } else {
            self.word.swap(1, Acquire) == 0
        };
        if taken {
            self.taken();
        }
        taken
    }

    fn taken(&self) {
        self.cpu.store(u32::from(P::cpu()) + 1, Relaxed);
        LATEST.set(&raw const self.word);
    }
}

impl<P: Platform, const FAULT: u8> Algorithm for Faulty<P, FAULT> {
    const INFO: Info = match FAULT {
        EXCLUSION => info(
            "busted_exclusion",
            "broken on purpose: a waiter loses its patience and goes in",
            Order::Unfair,
            Waiting::Yields,
        ),
        TRY_LOCK => info(
            "busted_try_lock",
            "broken on purpose: try_lock waits a little, then says yes",
            Order::Unfair,
            Waiting::Yields,
        ),
        MISUSE => info(
            "busted_misuse",
            "broken on purpose: unlock releases what its thread took last",
            Order::Unfair,
            Waiting::Yields,
        ),
        OVERSUBSCRIPTION => info(
            "busted_oversubscription",
            "broken on purpose: takes a holder on the waiter's CPU for gone",
            Order::Unfair,
            Waiting::Yields,
        ),
        _ => info(
            "busted_preemption",
            "broken on purpose: looks, then takes, in two steps",
            Order::Unfair,
            Waiting::Yields,
        ),
    };

    fn new() -> Self {
        Faulty {
            word: AtomicU32::new(0),
            cpu: AtomicU32::new(0),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        let mut looks = 0;
        while !self.take() {
            looks += 1;
            if FAULT == EXCLUSION && looks > 8 {
                return self.taken();
            }
            if FAULT == OVERSUBSCRIPTION && self.cpu.load(Relaxed) == u32::from(P::cpu()) + 1 {
                return self.taken();
            }
            P::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        let taken = self.take();
        if FAULT == TRY_LOCK && !taken {
            P::yield_now();
            return true;
        }
        taken
    }

    unsafe fn unlock(&self) {
        self.cpu.store(0, Relaxed);
        let latest = LATEST.replace(std::ptr::null());
        // SAFETY: null, or the word of a lock that this thread has taken and not given back since: still alive.
        match unsafe { latest.as_ref() } {
            Some(latest) if FAULT == MISUSE => latest.store(0, Release),
            _ => self.word.store(0, Release),
        }
    }
}

/// Says that it is first come, first served, and serves the newest waiter.
struct Lifo<P> {
    word: AtomicU32,
    waiting: AtomicUsize,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for Lifo<P> {
    const INFO: Info = info(
        "busted_starvation",
        "broken on purpose: promises an order, serves the newest waiter",
        Order::Fifo,
        Waiting::Yields,
    );

    fn new() -> Self {
        Lifo {
            word: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        let before = self.waiting.fetch_add(1, AcqRel);
        while self.waiting.load(Acquire) > before + 1 || !self.try_lock() {
            P::yield_now();
        }
        self.waiting.fetch_sub(1, AcqRel);
    }

    fn try_lock(&self) -> bool {
        self.word.swap(1, Acquire) == 0
    }

    unsafe fn unlock(&self) {
        self.word.store(0, Release);
    }
}

/// 0 free, 1 held, 2 held and somebody sleeps; a woken waiter forgets that others sleep, and sets it to 1.
struct Sleepy<P> {
    word: AtomicU32,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for Sleepy<P> {
    const INFO: Info = info(
        "busted_wakeups",
        "broken on purpose: a woken waiter forgets those who sleep on",
        Order::Unfair,
        Waiting::Sleeps,
    );

    fn new() -> Self {
        Sleepy {
            word: AtomicU32::new(0),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        const FOR_EVER_NS: u64 = 1 << 60;
        while !self.try_lock() {
            let _ = self.word.compare_exchange(1, 2, Relaxed, Relaxed);
            P::wait(&self.word, 2, false, FOR_EVER_NS, None);
        }
    }

    fn try_lock(&self) -> bool {
        self.word.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        if self.word.swap(0, Release) == 2 {
            P::wake_one(&raw const self.word, false);
        }
    }
}
