//! The fast paths: acquire a free mutex, release one that nobody waits for. Inlined into the exported functions.
//!
//! The lock word's table is in [`autolock_abi::word`]. Memory orderings: the compare-exchange from 0 is Acquire and
//! pairs with the Release of [`unlock`]'s exchange; the fields that only the holder writes (owner, nusers, seq, holder_place)
//! are Relaxed, since the word orders them between holders and everybody else reads them as hints.
//!
//! Release is final: after [`unlock`]'s exchange the next owner may destroy and unmap the mutex, so nothing but the
//! word's address, which the kernel does not dereference for a wake, is used afterwards.

use autolock_abi::{
    kind,
    sync::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    word::{HUNGRY, LOCKED, STARVING, UNLOCKED, unlock_owes_wake},
};

use crate::{
    Mutex, contended,
    platform::{Deadline, Platform},
    policy,
};

/// Takes the word from 0 to 1.
#[inline]
#[must_use]
fn try_acquire<P: Platform>(mutex: &Mutex, shared: bool) -> bool {
    if !shared && P::single_threaded() && mutex.word.load(Relaxed) == UNLOCKED {
        // No other thread exists and no other process may look: a plain store will do, as in glibc.
        mutex.word.store(LOCKED, Relaxed);
        return true;
    }
    mutex
        .word
        .compare_exchange(UNLOCKED, LOCKED, Acquire, Relaxed)
        .is_ok()
}

/// Writes down the holder, as glibc does, and what waiters may want to know of it.
#[inline]
pub(crate) fn record_holder<P: Platform>(mutex: &Mutex) {
    mutex.owner.store(P::tid_or_zero(), Relaxed);
    mutex
        .nusers
        .store(mutex.nusers.load(Relaxed).wrapping_add(1), Relaxed);
    mutex
        .seq
        .store(mutex.seq.load(Relaxed).wrapping_add(1), Relaxed);
    mutex.holder_place.store(P::place(), Relaxed);
}

/// Acquires a mutex of any handled kind; ownership checks are the caller's.
#[inline]
pub fn lock<P: Platform>(mutex: &Mutex, kind: u32) {
    if try_acquire::<P>(mutex, kind::is_shared(kind)) {
        record_holder::<P>(mutex);
    } else {
        lock_contended::<P>(mutex);
    }
}

/// Out of line, so that the fast path needs no stack frame.
#[cold]
#[inline(never)]
fn lock_contended<P: Platform>(mutex: &Mutex) {
    contended::lock::<P>(mutex, None);
}

/// Acquires, or gives up at `deadline`; returns whether the mutex is held.
#[inline]
#[must_use]
pub fn lock_until<P: Platform>(mutex: &Mutex, kind: u32, deadline: &Deadline) -> bool {
    if try_acquire::<P>(mutex, kind::is_shared(kind)) {
        record_holder::<P>(mutex);
        return true;
    }
    contended::lock::<P>(mutex, Some(deadline))
}

/// Acquires a free mutex, or returns false at once.
#[inline]
#[must_use]
pub fn try_lock<P: Platform>(mutex: &Mutex, kind: u32) -> bool {
    let held = try_acquire::<P>(mutex, kind::is_shared(kind));
    if held {
        record_holder::<P>(mutex);
    }
    held
}

/// Releases. Like glibc's, it does not ask who the holder is; ownership checks are the caller's.
#[inline]
pub fn unlock<P: Platform>(mutex: &Mutex, kind: u32) {
    let shared = kind::is_shared(kind);
    mutex.owner.store(0, Relaxed);
    mutex
        .nusers
        .store(mutex.nusers.load(Relaxed).wrapping_sub(1), Relaxed);
    if !shared && P::single_threaded() && mutex.word.load(Relaxed) == LOCKED {
        mutex.word.store(UNLOCKED, Relaxed);
        return;
    }
    let address: *const _ = &raw const mutex.word;
    // Release, pairs with the Acquire in `try_acquire` and in every glibc locker. The old value alone says whether a
    // wake is owed: anything read before this exchange would be stale, anything read after it may be unmapped.
    let old = mutex.word.swap(UNLOCKED, Release);
    if old > LOCKED {
        after_release::<P>(address, old, shared);
    }
}

/// What unlock owes after its release, going by the exchanged value alone.
#[cold]
#[inline(never)]
fn after_release<P: Platform>(word: *const AtomicU32, old: u32, shared: bool) {
    if unlock_owes_wake(old) {
        P::note_wake();
        P::wake_one(word, shared);
        if old == STARVING {
            policy::step_back_for_a_sleeper::<P>();
        }
    } else if old == HUNGRY {
        policy::step_back::<P>();
    }
    if !shared {
        // Others waited for me: next time they are to know whether I run.
        P::enroll();
    }
}
