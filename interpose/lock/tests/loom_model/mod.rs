//! The operating system of the model: futex queues, thread ids, one clock, and glibc's own lock and unlock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{
    Mutex as StdMutex,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use autolock_abi::{
    Mutex,
    sync::{AtomicU32, Ordering::SeqCst},
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
    /// Addresses of lock words, so that a fault can tell them from gates.
    pub words: StdMutex<Vec<usize>>,
    threads: StdMutex<i32>,
    time_is_up: AtomicBool,
    pub drop_word_wakes: AtomicBool,
    pub drop_gate_wakes: AtomicBool,
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
    /// Free queue nodes; each execution of a model has its own, and leaks a few.
    static FREE: RefCell<Vec<&'static Node>> = RefCell::new(Vec::new());
}

/// The same system for locks that spin without a bound: a pause lets the others go on first, as loom needs it.
/// The threads below id `PER_NODE` are on the first NUMA node, the next so many on the second, and so on.
pub struct PatientOn<const PER_NODE: u16>;
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
        thread::yield_now();
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
    fn pause() {}

    fn wait(word: &AtomicU32, expected: u32, _: bool, _: u64, deadline: Option<&Deadline>) -> Wait {
        let me = Self::tid();
        // A read-modify-write: the kernel's comparison sees the newest value. No loom operation between it and the queue.
        if word.fetch_or(0, SeqCst) != expected {
            thread::yield_now(); // Without progress elsewhere the next try will fail as well.
            return Wait::Retry;
        }
        if deadline.is_some() && KERNEL.time_is_up.load(Relaxed) {
            return Wait::TimedOut;
        }
        let woken = std::sync::Arc::new(AtomicBool::new(false));
        KERNEL
            .queue
            .lock()
            .expect("not poisoned")
            .push_back(Sleeper {
                address: std::ptr::from_ref(word).addr(),
                id: me,
                thread: thread::current(),
                woken: woken.clone(),
            });
        while !woken.load(Relaxed) {
            thread::park();
        }
        let mut timed_out = KERNEL.timed_out.lock().expect("not poisoned");
        if let Some(at) = timed_out.iter().position(|id| *id == me) {
            timed_out.remove(at);
            return Wait::TimedOut;
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
    fn note(_: Event, _: &Mutex) {}
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
