//! One trait for every lock of the collection, and the C functions by which the driver and the preload call it.
//!
//! A lock is a value in memory that somebody else owns and that does not move while it is used. It hides its queue
//! nodes: whoever waits or holds takes one from [`Platform::take_node`](crate::platform::Platform::take_node). Nothing
//! here or in [`crate::locks`] may allocate, log or panic, not even by a bounds check.

use core::ffi::{c_int, c_void};

/// In which order waiters get a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// First come, first served.
    Fifo,
    /// Not in order, but a waiter is passed over for a bounded time or number of times only.
    Bounded,
    /// Nothing is promised: a waiter may starve.
    Unfair,
}

/// What a waiter does in the end, when waiting takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Spins for ever, its CPU with it.
    Spins,
    /// Spins, and offers its CPU to others with sched_yield(2).
    Yields,
    /// Sleeps on a futex(2).
    Sleeps,
}

/// What a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The name in `driver` and in `AUTOLOCK_ALGORITHM`: lower case, digits and underscores.
    pub name: &'static str,
    /// One line: how it works.
    pub about: &'static str,
    /// The paper or system that it comes from, with the year.
    pub source: &'static str,
    /// In which order waiters get it.
    pub order: Order,
    /// What a waiter does when waiting takes long.
    pub waiting: Waiting,
}

/// A mutual exclusion lock.
///
/// `lock` and a successful `try_lock` are Acquire and pair with the Release of the `unlock` before; how, each lock says.
pub trait Algorithm: Sized + Sync + 'static {
    /// What it is.
    const INFO: Info;

    /// Whether the lock's memory may go as soon as the next holder has unlocked, as POSIX promises for a mutex: `unlock` does not look at it
    /// after the releasing store.
    const RELEASE_IS_FINAL: bool = true;

    /// A free lock.
    fn new() -> Self;

    /// Acquires; the calling thread does not hold it.
    fn lock(&self);

    /// Acquires if the lock is free. May fail while the lock changes hands; never waits for a holder.
    fn try_lock(&self) -> bool;

    /// Releases.
    ///
    /// # Safety
    /// - The calling thread holds the lock.
    unsafe fn unlock(&self);
}

/// Like `pthread_mutex_init`; the second argument is ignored.
pub type Init = unsafe extern "C" fn(*mut c_void, *const c_void) -> c_int;
/// Like `pthread_mutex_lock`.
pub type Call = unsafe extern "C" fn(*mut c_void) -> c_int;

/// What `trylock` returns when the lock is held: `EBUSY` on Linux.
pub const BUSY: c_int = 16;

/// A lock's functions, with the contracts of their `pthread_mutex_` namesakes: 0, or [`BUSY`] from `trylock`.
#[derive(Clone, Copy, Debug)]
pub struct Operations {
    /// Makes a free lock in memory of the right size and alignment.
    pub init: Init,
    /// Ends a free lock's life.
    pub destroy: Call,
    /// Acquires.
    pub lock: Call,
    /// Acquires or returns [`BUSY`].
    pub trylock: Call,
    /// Releases.
    pub unlock: Call,
}

/// A lock of the collection.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is.
    pub info: Info,
    /// Bytes that it takes.
    pub size: usize,
    /// Their alignment.
    pub align: usize,
    /// [`Algorithm::RELEASE_IS_FINAL`].
    pub release_is_final: bool,
    /// Its functions.
    pub operations: Operations,
}

impl Entry {
    /// The same lock once more, under another name.
    #[must_use]
    pub const fn renamed(mut self, name: &'static str, about: &'static str) -> Self {
        self.info.name = name;
        self.info.about = about;
        self
    }
}

/// The table's line for a lock.
#[must_use]
pub const fn entry<A: Algorithm>() -> Entry {
    Entry {
        info: A::INFO,
        size: size_of::<A>(),
        align: align_of::<A>(),
        release_is_final: A::RELEASE_IS_FINAL,
        operations: Operations {
            init: init::<A>,
            destroy: destroy::<A>,
            lock: lock::<A>,
            trylock: trylock::<A>,
            unlock: unlock::<A>,
        },
    }
}

unsafe extern "C" fn init<A: Algorithm>(lock: *mut c_void, _: *const c_void) -> c_int {
    // SAFETY: the caller gives memory for an `A` (`Entry::size`, `Entry::align`) that nobody uses yet.
    unsafe { lock.cast::<A>().write(A::new()) };
    0
}

unsafe extern "C" fn destroy<A: Algorithm>(lock: *mut c_void) -> c_int {
    // SAFETY: made by `init`, and nobody uses it any more.
    unsafe { lock.cast::<A>().drop_in_place() };
    0
}

unsafe extern "C" fn lock<A: Algorithm>(lock: *mut c_void) -> c_int {
    // SAFETY: made by `init` and alive for the call.
    unsafe { &*lock.cast::<A>() }.lock();
    0
}

unsafe extern "C" fn trylock<A: Algorithm>(lock: *mut c_void) -> c_int {
    // SAFETY: as in `lock`.
    if unsafe { &*lock.cast::<A>() }.try_lock() {
        0
    } else {
        BUSY
    }
}

unsafe extern "C" fn unlock<A: Algorithm>(lock: *mut c_void) -> c_int {
    // SAFETY: as in `lock`.
    let lock = unsafe { &*lock.cast::<A>() };
    // SAFETY: the caller holds it.
    unsafe { lock.unlock() };
    0
}
