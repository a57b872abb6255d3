//! What a test works with: the lock in its memory, a section that notices a second thread, and how long to go on.
//!
//! A test that finds a fault ends its process at once ([`fail`]): no thread has to come back from a broken lock.

use super::SHORT;
use super::child::{Progress, fail};
use super::crew::{Crew, Worker};
use super::inject::{self, Torment};
use super::random::{Random, derive};
use super::subject::Subject;
use crate::lock::{Lock, Slot};
use autolock_lock::algorithm::{BUSY, Order};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One test's circumstances.
pub struct Ground<'a> {
    pub subject: &'a Subject,
    pub threads: usize,
    pub seed: u64,
    /// How long each phase goes on that could go on for ever.
    pub duration: Duration,
    pub progress: &'a Progress,
}

impl Ground<'_> {
    /// The lock as programs see it.
    pub fn plain(&self) -> Guarded<'_> {
        inject::configure(Torment::No, false);
        Guarded::new(&self.subject.lock, self.progress)
    }

    /// The lock, its spinners made to give their CPU away if there are more threads than CPUs: not for a test of that.
    pub fn gentle(&self) -> Guarded<'_> {
        Guarded::new(self.gentle_lock(), self.progress)
    }

    /// What [`Ground::gentle`] guards with.
    pub fn gentle_lock(&self) -> &Lock {
        let crowded = self.threads >= std::thread::available_parallelism().map_or(1, usize::from);
        inject::configure(Torment::No, crowded);
        self.subject
            .injecting
            .as_ref()
            .unwrap_or(&self.subject.lock)
    }

    /// The lock with preemptions injected, where it can have them.
    pub fn tormented(&self, torment: Torment) -> Guarded<'_> {
        let guarded = self.gentle();
        inject::configure(torment, true);
        guarded
    }

    pub fn order(&self) -> Order {
        self.subject.order
    }

    /// Further numbers for a part of the test.
    pub fn random(&self, part: &str) -> Random {
        Random::new(derive(self.seed, part))
    }

    pub fn phase(&self, phase: Phase) {
        self.progress.phase(phase);
    }

    /// `work` in each of `threads` threads until the phase's time is over.
    pub fn together(&self, threads: usize, work: impl Fn(&mut Worker) + Sync) {
        Crew::new(threads, self.seed).work(self.duration, false, work);
    }

    /// Yields round numbers: `least` at least, then until the phase's time is over or `most` are done, which holds for the short form
    /// and grows with the time.
    pub fn rounds(&self, least: usize, most: usize) -> impl Iterator<Item = usize> + use<> {
        let end = Instant::now() + self.duration;
        let most = most * (self.duration.as_millis() / SHORT.as_millis()).max(1) as usize;
        (0..most).take_while(move |&round| round < least || Instant::now() < end)
    }
}

/// Where a test is, for the report of a hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    Start,
    Hammer,
    Held,
    Released,
    Queue,
    Starve,
    Reinit,
    Many,
    Chain,
    Generations,
    Final,
    Competitor,
    OneCpu,
    Burst,
    WorstPoints,
    Signals,
}

impl Phase {
    /// What the threads do in it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Start => "start",
            Phase::Hammer => "all threads hammer",
            Phase::Held => "others try while it is held",
            Phase::Released => "others lock after a release",
            Phase::Queue => "waiters queue up behind a holder",
            Phase::Starve => "a thread waits while others hammer",
            Phase::Reinit => "init, use, destroy at one address",
            Phase::Many => "many locks held at once",
            Phase::Chain => "hand over hand along a chain of locks",
            Phase::Generations => "short-lived threads",
            Phase::Final => "destroyed and unmapped after the last unlock",
            Phase::Competitor => "beside a SCHED_IDLE competitor",
            Phase::OneCpu => "all threads on one CPU",
            Phase::Burst => "bursts, then silence",
            Phase::WorstPoints => "bursts, preempted at the worst points",
            Phase::Signals => "bursts under signals",
        }
    }

    pub const ALL: [Phase; 16] = [
        Phase::Start,
        Phase::Hammer,
        Phase::Held,
        Phase::Released,
        Phase::Queue,
        Phase::Starve,
        Phase::Reinit,
        Phase::Many,
        Phase::Chain,
        Phase::Generations,
        Phase::Final,
        Phase::Competitor,
        Phase::OneCpu,
        Phase::Burst,
        Phase::WorstPoints,
        Phase::Signals,
    ];
}

/// A lock and the section that it is to guard. Relaxed everywhere: only the lock orders what is done in the section.
pub struct Guarded<'a> {
    lock: &'a Lock,
    slot: Slot,
    /// 1 + the index of the thread inside; 0: none.
    inside: AtomicUsize,
    /// Incremented by load and store, at the section's beginning and at its end.
    first: AtomicU64,
    last: AtomicU64,
    progress: &'a Progress,
}

impl<'a> Guarded<'a> {
    pub fn new(lock: &'a Lock, progress: &'a Progress) -> Guarded<'a> {
        let slot = Slot::new(lock.size);
        // Whoever had the memory before need not have left it zero.
        // SAFETY: the slot has at least this many bytes, and nobody uses them yet.
        unsafe { slot.lock().cast::<u8>().write_bytes(0xa5, lock.size) };
        let guarded = Guarded {
            lock,
            slot,
            inside: AtomicUsize::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            progress,
        };
        guarded.init();
        guarded
    }

    pub fn init(&self) {
        self.check("init", self.slot.init(&self.lock.ops));
    }

    pub fn destroy(&self) {
        self.check("destroy", self.slot.destroy(&self.lock.ops));
    }

    fn check(&self, function: &str, rc: i32) {
        if rc != 0 {
            fail(&format!("{function} returned {rc}"));
        }
    }

    pub fn lock(&self) {
        // SAFETY: initialised, alive, and the tests lock nothing twice.
        self.check("lock", unsafe { (self.lock.ops.lock)(self.slot.lock()) });
    }

    pub fn try_lock(&self) -> bool {
        // SAFETY: initialised and alive.
        match unsafe { (self.lock.ops.trylock)(self.slot.lock()) } {
            0 => true,
            BUSY => false,
            rc => fail(&format!("trylock returned {rc}")),
        }
    }

    /// By the holder.
    pub fn unlock(&self) {
        // SAFETY: the tests unlock what they hold.
        let rc = unsafe { (self.lock.ops.unlock)(self.slot.lock()) };
        self.check("unlock", rc);
    }

    /// The section's beginning: notices another thread.
    pub fn enter(&self, thread: usize) {
        let other = self.inside.load(Relaxed);
        if other != 0 {
            fail(&format!(
                "thread {thread} got in while thread {} was inside",
                other - 1
            ));
        }
        self.inside.store(thread + 1, Relaxed);
        self.first.store(self.first.load(Relaxed) + 1, Relaxed);
    }

    /// The section's end: notices another thread that came meanwhile.
    pub fn leave(&self, thread: usize) {
        let inside = self.inside.load(Relaxed);
        if inside != thread + 1 {
            fail(&format!("somebody got in while thread {thread} was inside"));
        }
        let last = self.last.load(Relaxed) + 1;
        self.last.store(last, Relaxed);
        let first = self.first.load(Relaxed);
        if first != last {
            fail(&format!(
                "thread {thread} found {first} and {last} in two counters of one section"
            ));
        }
        self.progress.beat();
        self.inside.store(0, Relaxed);
    }

    /// Lock, a section of random length, unlock.
    pub fn pass(&self, worker: &mut Worker) {
        self.lock();
        self.held(worker);
    }

    /// The same by `try_lock`, if that succeeds.
    pub fn try_pass(&self, worker: &mut Worker) -> bool {
        let got = self.try_lock();
        if got {
            self.held(worker);
        }
        got
    }

    fn held(&self, worker: &mut Worker) {
        self.enter(worker.index);
        worker.hold();
        self.leave(worker.index);
        self.unlock();
    }

    /// How often somebody was inside.
    pub fn passes(&self) -> u64 {
        self.last.load(Relaxed)
    }

    /// All threads are done: nothing was lost, and the lock is free.
    pub fn settle(&self, expected: u64) {
        let (first, last) = (self.first.load(Relaxed), self.last.load(Relaxed));
        if (first, last) != (expected, expected) {
            fail(&format!(
                "{expected} sections, but the counters say {first} and {last}"
            ));
        }
        if !self.try_lock() {
            fail("nobody holds it, yet try_lock fails");
        }
        self.unlock();
        self.destroy();
    }
}

/// A moment's work.
pub fn work(turns: u64) {
    for _ in 0..turns {
        spin_loop();
    }
}
