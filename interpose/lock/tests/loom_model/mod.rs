//! The operating system of the model: futex queues, thread ids, one clock, a scheduler that parks armed waiters, and glibc's own lock and unlock.
//!
//! [`preempt`] takes one armed thread from its CPU, whichever comes first to a point at which it may lose it: every pause, look at the clock, marked
//! point of the locks, and the moment before it is disarmed. Between two of those a thread does one thing to the word at most, so it makes no difference whether it is
//! parked before or after.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{
    Mutex as StdMutex,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use autolock_abi::{
    Mutex,
    auto_lock::Parking,
    sync::{AtomicBool as ModelBool, AtomicU32, Ordering::SeqCst},
    word,
};
use autolock_lock::{
    node::Node,
    oncpu::{Holder, HolderState, OnCpu},
    platform::{Deadline, Event, Platform, Wait},
};
use loom::thread;

pub struct Sleeper {
    address: usize,
    id: i32,
    /// It did not call for this sleep.
    parked: bool,
    thread: thread::Thread,
    woken: std::sync::Arc<AtomicBool>,
}

impl Sleeper {
    fn wake(self) {
        self.woken.store(true, Relaxed);
        self.thread.unpark();
    }
}

/// The kernel: futex queues, thread ids, one clock.
///
/// loom switches threads at its own operations only, so what stands between two of them is atomic; the locks here are never waited for.
#[derive(Default)]
pub struct Kernel {
    queue: StdMutex<VecDeque<Sleeper>>,
    timed_out: StdMutex<Vec<i32>>,
    interrupted: StdMutex<Vec<i32>>,
    /// Addresses of lock words, so that a fault can tell them from gates.
    pub words: StdMutex<Vec<usize>>,
    threads: StdMutex<i32>,
    time_is_up: AtomicBool,
    pub drop_word_wakes: AtomicBool,
    pub drop_gate_wakes: AtomicBool,
    /// Whether waiters are armed at all.
    pub parks: AtomicBool,
    /// Whoever is armed and looks first is parked.
    preempt: ModelBool,
    /// Faults: who is parked leaves the word as it was; is not told; a disarmed thread goes on being armed until it holds the lock.
    pub leaves_no_mark: AtomicBool,
    pub forgets_parks: AtomicBool,
    pub disarms_late: AtomicBool,
}

impl Kernel {
    /// Whether a wake at this address is lost, by the fault of the model.
    fn drops_wakes(&self, address: usize) -> bool {
        let words = self.words.lock().expect("not poisoned");
        if words.contains(&address) {
            &self.drop_word_wakes
        } else {
            &self.drop_gate_wakes
        }
        .load(Relaxed)
    }

    /// Takes the first sleeper that fits out of the queue.
    fn dequeue(&self, fits: impl Fn(&Sleeper) -> bool) -> Option<Sleeper> {
        let mut queue = self.queue.lock().expect("not poisoned");
        let at = queue.iter().position(fits)?;
        queue.remove(at)
    }
}

loom::lazy_static! {
    pub static ref KERNEL: Kernel = Kernel::default();
}

loom::thread_local! {
    pub static ID: Cell<i32> = Cell::new(0);
    static CLOCK: Cell<u64> = Cell::new(0);
    static ARMED: Cell<Option<(*const AtomicU32, Parking)>> = Cell::new(None);
    static PARKS: Cell<u32> = Cell::new(0);
    /// Free queue nodes; each execution of a model has its own, and leaks a few.
    static FREE: RefCell<Vec<&'static Node>> = RefCell::new(Vec::new());
}

/// The same system for locks that spin without a bound: a pause lets the others go on first, as loom needs it.
/// The threads below id `PER_NODE` are on the first NUMA node, the next so many on the second, and so on.
#[allow(dead_code, reason = "not every test has such locks")]
pub struct PatientOn<const PER_NODE: u16>;
#[allow(dead_code, reason = "as above")]
pub type Patient = PatientOn<1>;

/// Hands a call on to [`Model`].
macro_rules! as_model {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(fn $name($($argument: $type),*) $(-> $result)? { Model::$name($($argument),*) })*
    };
}

impl<const PER_NODE: u16> Platform for PatientOn<PER_NODE> {
    type OnCpu = Hints;

    fn pause() {
        lose_cpu();
        thread::yield_now();
    }

    fn preemption_point() {
        lose_cpu();
    }

    fn yield_now() {
        thread::yield_now();
    }

    fn node() -> u16 {
        Model::node() / PER_NODE
    }

    as_model! {
        tid() -> i32;
        tid_or_zero() -> i32;
        cpu() -> u16;
        arm(word: &AtomicU32, parking: Parking, limit_ns: u64, deadline: Option<&Deadline>) -> bool;
        disarm();
        parks() -> u32;
        single_threaded() -> bool;
        now_ns() -> u64;
        expired(deadline: &Deadline) -> bool;
        sleep(ns: u64);
        take_node() -> &'static Node;
        give_node(node: &'static Node);
        wait(word: &AtomicU32, expected: u32, shared: bool, backstop_ns: u64, deadline: Option<&Deadline>) -> Wait;
        wake_one(word: *const AtomicU32, shared: bool) -> bool;
        wake_all(word: *const AtomicU32, shared: bool);
        requeue_one(gate: &AtomicU32, expected: u32, word: &AtomicU32) -> bool;
        note_wake();
        note(event: Event, mutex: &Mutex);
    }
}

/// Of half of the threads it is said that they are off their CPUs, though they are not: who waits for one of those sleeps at its first look.
pub struct Hints;

impl OnCpu for Hints {
    fn thread(holder: Holder) -> HolderState {
        if holder.tid % 2 == 0 {
            HolderState::NotRunning
        } else {
            HolderState::Unknown
        }
    }

    fn holder(_: Holder, _: u16) -> HolderState {
        HolderState::Unknown
    }
}

pub struct Model;

impl Platform for Model {
    type OnCpu = Hints;

    fn tid() -> i32 {
        ID.with(|id| {
            if id.get() == 0 {
                let mut threads = KERNEL.threads.lock().expect("not poisoned");
                *threads += 1;
                id.set(*threads);
            }
            id.get()
        })
    }

    fn tid_or_zero() -> i32 {
        Self::tid()
    }

    fn cpu() -> u16 {
        0
    }

    /// One for each thread.
    fn node() -> u16 {
        u16::try_from(Self::tid()).expect("a few threads")
    }

    fn single_threaded() -> bool {
        false
    }

    /// Every look at the clock finds the patience of any spinner exhausted.
    fn now_ns() -> u64 {
        lose_cpu();
        CLOCK.with(|clock| {
            clock.set(clock.get() + 1_000_000_000);
            clock.get()
        })
    }

    fn expired(_: &Deadline) -> bool {
        KERNEL.time_is_up.load(Relaxed)
    }

    fn sleep(_: u64) {}

    /// As [`Model::pause`].
    fn yield_now() {}

    fn take_node() -> &'static Node {
        FREE.with(|free| free.borrow_mut().pop())
            .unwrap_or_else(|| Box::leak(Box::new(Node::new())))
    }

    fn give_node(node: &'static Node) {
        FREE.with(|free| free.borrow_mut().push(node));
    }

    /// Not a yield: loom would let the holder finish first, and no waiter would ever sleep. The clock bounds every spin.
    fn pause() {
        lose_cpu();
    }

    fn preemption_point() {
        lose_cpu();
    }

    fn arm(word: &AtomicU32, parking: Parking, _: u64, _: Option<&Deadline>) -> bool {
        let arms = KERNEL.parks.load(Relaxed);
        if arms {
            ARMED.with(|armed| armed.set(Some((std::ptr::from_ref(word), parking))));
        }
        arms
    }

    fn disarm() {
        lose_cpu();
        if !KERNEL.disarms_late.load(Relaxed) {
            ARMED.with(|armed| armed.set(None));
        }
    }

    fn parks() -> u32 {
        if KERNEL.forgets_parks.load(Relaxed) {
            return 0;
        }
        PARKS.with(Cell::get)
    }

    fn wait(word: &AtomicU32, expected: u32, _: bool, _: u64, deadline: Option<&Deadline>) -> Wait {
        // A read-modify-write: the kernel's comparison sees the newest value. No loom operation between it and the queue.
        if word.fetch_or(0, SeqCst) != expected {
            thread::yield_now(); // Without progress elsewhere the next try will fail as well.
            return Wait::Retry;
        }
        if deadline.is_some() && KERNEL.time_is_up.load(Relaxed) {
            return Wait::TimedOut;
        }
        sleep(word, false);
        let me = Self::tid();
        let mut timed_out = KERNEL.timed_out.lock().expect("not poisoned");
        if let Some(at) = timed_out.iter().position(|id| *id == me) {
            timed_out.remove(at);
            return Wait::TimedOut;
        }
        let mut interrupted = KERNEL.interrupted.lock().expect("not poisoned");
        if let Some(at) = interrupted.iter().position(|id| *id == me) {
            interrupted.remove(at);
            return Wait::Interrupted;
        }
        Wait::Woken
    }

    fn wake_one(word: *const AtomicU32, _: bool) -> bool {
        let address = word.addr();
        if KERNEL.drops_wakes(address) {
            return true;
        }
        let Some(sleeper) = KERNEL.dequeue(|sleeper| sleeper.address == address) else {
            return false;
        };
        sleeper.wake();
        true
    }

    fn wake_all(word: *const AtomicU32, shared: bool) {
        if !KERNEL.drops_wakes(word.addr()) {
            while Self::wake_one(word, shared) {}
        }
    }

    fn requeue_one(gate: &AtomicU32, expected: u32, word: &AtomicU32) -> bool {
        if gate.fetch_or(0, SeqCst) != expected {
            return false;
        }
        let mut queue = KERNEL.queue.lock().expect("not poisoned");
        let from = std::ptr::from_ref(gate).addr();
        let Some(at) = queue.iter().position(|sleeper| sleeper.address == from) else {
            return false;
        };
        let mut sleeper = queue.remove(at).expect("just found");
        sleeper.address = std::ptr::from_ref(word).addr();
        queue.push_back(sleeper);
        true
    }

    fn note_wake() {}

    /// The first thing that a holder does.
    fn note(_: Event, _: &Mutex) {
        if KERNEL.disarms_late.load(Relaxed) {
            lose_cpu();
            ARMED.with(|armed| armed.set(None));
        }
    }
}

/// Until somebody wakes this thread. Between the caller's comparison of the word and the queue there is no loom operation.
fn sleep(word: &AtomicU32, parked: bool) {
    let woken = std::sync::Arc::new(AtomicBool::new(false));
    let sleeper = Sleeper {
        address: std::ptr::from_ref(word).addr(),
        id: Model::tid(),
        parked,
        thread: thread::current(),
        woken: woken.clone(),
    };
    let mut queue = KERNEL.queue.lock().expect("not poisoned");
    queue.push_back(sleeper);
    drop(queue);
    while !woken.load(Relaxed) {
        thread::park();
    }
}

/// What the kernel does when it takes the CPU from a thread that is armed: marks the word, unless it is not waited for any more, and lets the thread sleep on it.
fn lose_cpu() {
    let Some((word, parking)) = ARMED.with(Cell::get) else {
        return;
    };
    if !KERNEL.preempt.swap(false, SeqCst) {
        return;
    }
    // SAFETY: the caller of `arm` waits for this word.
    let word = unsafe { &*word };
    let mut seen = word.fetch_or(0, SeqCst);
    let left = loop {
        if !parking.waits(seen) {
            return;
        }
        let left = if KERNEL.leaves_no_mark.load(Relaxed) {
            seen
        } else {
            parking.left(seen)
        };
        match word.compare_exchange(seen, left, SeqCst, SeqCst) {
            Ok(_) => break left,
            Err(now) => seen = now,
        }
    };
    PARKS.with(|parks| parks.set(parks.get() + 1));
    if word.fetch_or(0, SeqCst) == left {
        sleep(word, true);
    }
}

/// A signal ends the sleep of the thread that has slept longest, if any sleeps.
pub fn signal() {
    if let Some(sleeper) = KERNEL.dequeue(|sleeper| !sleeper.parked) {
        let mut interrupted = KERNEL.interrupted.lock().expect("not poisoned");
        interrupted.push(sleeper.id);
        sleeper.wake();
    }
}

/// One thread that is armed, or will be, loses its CPU.
pub fn preempt() {
    KERNEL.preempt.store(true, SeqCst);
}

/// The time-out of a park, if anybody is parked. (Wakes go on to others; this is none.)
pub fn park_ends() {
    if let Some(sleeper) = KERNEL.dequeue(|sleeper| sleeper.parked) {
        sleeper.wake();
    }
}

/// The clock reaches every deadline; the sleep of thread `timed` ends, if it sleeps.
pub fn time_passes(timed: i32) {
    KERNEL.time_is_up.store(true, Relaxed);
    if let Some(sleeper) = KERNEL.dequeue(|sleeper| sleeper.id == timed) {
        KERNEL.timed_out.lock().expect("not poisoned").push(timed);
        sleeper.wake();
    }
}

/// glibc's callers of the same word: `lll_lock` with the value 2, as `pthread_cond_wait`'s re-acquisition does, and `lll_unlock`.
pub mod glibc {
    use super::*;

    pub fn lock(mutex: &Mutex) {
        while mutex.word.swap(word::CONTENDED, SeqCst) != word::UNLOCKED {
            let _ = Model::wait(&mutex.word, word::CONTENDED, false, 0, None);
        }
    }

    pub fn unlock(mutex: &Mutex) {
        let old = mutex.word.swap(word::UNLOCKED, SeqCst);
        if word::glibc_unlock_wakes(old) {
            Model::wake_one(&raw const mutex.word, false);
        }
    }
}
