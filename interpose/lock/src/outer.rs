//! Any lock under glibc's word: an inner lock of another algorithm decides who may come, the word decides who holds.
//!
//! Locks whose state is not glibc's cannot stand alone in a process on stock glibc: `pthread_cond_wait` releases and re-acquires the
//! word inside libc, and so does whatever does not see the preload. So each mutex here is two locks in a row. A `lock` call acquires the
//! inner lock, by whatever algorithm, and then the word, which is free but for those who came past the inner lock: condition variables'
//! waiters, timed locks, threads in libraries opened with `RTLD_DEEPBIND`. (LiTL, Guiroux, Lachaize, Quéma, USENIX ATC '16, takes the real mutex
//! under its locks for the sake of condition variables as well.)
//!
//! Invariants:
//! 1. The mutex is held if the word is not 0. The inner lock excludes nobody; it orders and delays.
//! 2. [`Mutex::policy`](autolock_abi::Mutex) is the inner lock's token while the holder of the word holds the inner lock too, else 0. Only
//!    the holder of the word writes it.
//! 3. Whoever waits for the word with the inner lock in hand waits for a holder of the word only, never for the inner lock: no cycle.
//! 4. The inner lock may be released at any moment by its holder (2 becomes 0): before a condition wait, before the word's
//!    release. So [`unlock`] releases it first, while the mutex cannot be destroyed yet, and then the word: release is final here as well.
//!
//! The word's protocol is glibc's own (values 0, 1, 2; `sysdeps/nptl/lowlevellock.h`, glibc 2.36). Memory orderings: the acquiring
//! operations on the word are Acquire and pair with the Release exchange in [`unlock`]; everything else is Relaxed, ordered by the word.
//!
//! May touch: the mutex, and the inner lock through [`Inner`]. Timed locks do not wait for the inner lock: their waiting is glibc's.

use autolock_abi::{
    sync::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    word::{CONTENDED, LOCKED, UNLOCKED, glibc_unlock_wakes},
};

use crate::{
    Mutex,
    platform::{Deadline, Platform, Wait},
};

/// The inner locks, by tokens that fit into a mutex.
pub trait Inner {
    /// The token of `mutex`'s inner lock; 0 if it has none, and then the word serves alone.
    fn of(mutex: &Mutex) -> u32;
    /// Acquires the inner lock of a token that is not 0.
    fn lock(token: u32);
    /// Acquires it if it is free.
    fn try_lock(token: u32) -> bool;
    /// Releases it; the caller's thread has acquired it. Ignores a token that means nothing any more.
    fn unlock(token: u32);
}

/// Looks at the word before a waiter sleeps: for a holder on its way out, who has released the inner lock already.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 100 };
/// A sleep without a deadline is looked after so often.
const LOOK_AFTER_NS: u64 = 1_000_000_000;

fn try_acquire(mutex: &Mutex) -> bool {
    mutex
        .word
        .compare_exchange(UNLOCKED, LOCKED, Acquire, Relaxed)
        .is_ok()
}

/// Takes the word, or gives up at `deadline`.
fn acquire<P: Platform>(mutex: &Mutex, deadline: Option<&Deadline>) -> bool {
    for _ in 0..LOOKS {
        if try_acquire(mutex) {
            return true;
        }
        P::pause();
    }
    // From here on the word says that somebody may sleep: 0 -> 2 acquires, 1 -> 2 and 2 -> 2 announce a sleeper.
    while mutex.word.swap(CONTENDED, Acquire) != UNLOCKED {
        let wait = P::wait(&mutex.word, CONTENDED, false, LOOK_AFTER_NS, deadline);
        if wait == Wait::TimedOut && deadline.is_some_and(P::expired) {
            return false;
        }
    }
    true
}

fn record_holder<P: Platform>(mutex: &Mutex, token: u32) {
    mutex.owner.store(P::tid(), Relaxed);
    let users = mutex.nusers.load(Relaxed);
    mutex.nusers.store(users.wrapping_add(1), Relaxed);
    mutex.policy.store(token, Relaxed);
}

/// Acquires a private mutex.
pub fn lock<P: Platform, I: Inner>(mutex: &Mutex) {
    let token = I::of(mutex);
    if token != 0 {
        I::lock(token);
    }
    P::preemption_point();
    acquire::<P>(mutex, None);
    record_holder::<P>(mutex, token);
}

/// Acquires, or gives up at `deadline`; returns whether the mutex is held. Past the inner lock, as glibc's own callers.
#[must_use]
pub fn lock_until<P: Platform>(mutex: &Mutex, deadline: &Deadline) -> bool {
    let held = acquire::<P>(mutex, Some(deadline));
    if held {
        record_holder::<P>(mutex, 0);
    }
    held
}

/// Acquires a free mutex, or returns false at once. The word alone decides: a free mutex is never reported as busy.
#[must_use]
pub fn try_lock<P: Platform, I: Inner>(mutex: &Mutex) -> bool {
    if mutex.word.load(Relaxed) != UNLOCKED {
        return false;
    }
    let token = I::of(mutex);
    let inner = token != 0 && I::try_lock(token);
    let held = try_acquire(mutex);
    if held {
        record_holder::<P>(mutex, if inner { token } else { 0 });
    } else if inner {
        I::unlock(token);
    }
    held
}

/// Gives the inner lock up and keeps the mutex: before a condition variable's wait. By the holder.
pub fn release_inner<I: Inner>(mutex: &Mutex) {
    let token = mutex.policy.load(Relaxed);
    if token != 0 {
        mutex.policy.store(0, Relaxed);
        I::unlock(token);
    }
}

/// Releases.
pub fn unlock<P: Platform, I: Inner>(mutex: &Mutex) {
    mutex.owner.store(0, Relaxed);
    let users = mutex.nusers.load(Relaxed);
    mutex.nusers.store(users.wrapping_sub(1), Relaxed);
    release_inner::<I>(mutex);
    P::preemption_point();
    let address: *const AtomicU32 = &raw const mutex.word;
    // Release, pairs with `acquire`. Final: from here on the mutex may be gone.
    let old = mutex.word.swap(UNLOCKED, Release);
    if glibc_unlock_wakes(old) {
        P::wake_one(address, false);
    }
}
