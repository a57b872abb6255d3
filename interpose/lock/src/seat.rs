//! The seat and the gate: one waiter of a private mutex attends to the lock word, all others sleep at the gate.
//!
//! ```text
//!   lock word  <- the holder releases it; the attendant spins on it or sleeps on it (as glibc's waiters do)
//!   seat       <- occupied by the attendant; the others sleep on this word while it does not change
//! ```
//!
//! | seat | meaning |
//! |---|---|
//! | 0 | vacant |
//! | a thread id | occupied by that thread, the attendant |
//! | [`RESERVED`] | a waiter was woken at the gate to take it, and is on its way |
//!
//! Promise: while anybody sleeps at the gate, the seat is occupied or reserved, or a woken waiter is on its way to it; and whoever has it passes it on
//! ([`pass`]) when it leaves with or without the mutex. The gate needs no fence of its own against sleeping on an old value:
//! futex(2) compares the seat and goes to sleep in one step, and [`pass`] changes the seat before it wakes.
//! `parked` only spares the wake: a sleeper counts itself before it looks at the seat, [`pass`] looks at the count after it has written the seat
//! (Dekker, with the fences in [`pass`] and [`sleep_on`]), so one of them sees the other.
//!
//! An occupant that does not exist (a fork child's copy of the parent's mutex; a signal handler that jumped out of a
//! wait) breaks the promise; the sleepers' backstop finds that out, see [`crate::contended`].

use autolock_abi::sync::{
    Ordering::{AcqRel, Relaxed, SeqCst},
    fence,
};

use crate::{Mutex, platform::Platform};

const VACANT: u32 = 0;
/// A woken waiter is on its way to the seat. Thread ids are below 2^22 (`PID_MAX_LIMIT`).
pub const RESERVED: u32 = u32::MAX;

/// Tries to become the attendant.
#[must_use]
pub fn claim(mutex: &Mutex, me: u32) -> bool {
    mutex.seat.load(Relaxed) == VACANT
        && mutex
            .seat
            .compare_exchange(VACANT, me, AcqRel, Relaxed)
            .is_ok()
}

/// Takes the seat, whoever has it: for a waiter that was woken at the gate, and so has waited longest.
pub fn take(mutex: &Mutex, me: u32) {
    mutex.seat.swap(me, AcqRel);
}

/// Whether the seat is still mine.
#[must_use]
pub fn is_mine(mutex: &Mutex, me: u32) -> bool {
    mutex.seat.load(Relaxed) == me
}

/// Leaves the seat to the waiter that has slept longest at the gate, if there is one.
pub fn pass<P: Platform>(mutex: &Mutex, me: u32) {
    let next = if mutex.parked.load(Relaxed) == 0 {
        VACANT
    } else {
        RESERVED
    };
    if mutex
        .seat
        .compare_exchange(me, next, AcqRel, Relaxed)
        .is_err()
    {
        return; // A woken waiter has taken it.
    }
    if next == RESERVED {
        if P::wake_one(&raw const mutex.seat, false) {
            return;
        }
        if mutex
            .seat
            .compare_exchange(RESERVED, VACANT, AcqRel, Relaxed)
            .is_err()
        {
            return;
        }
    }
    fence(SeqCst); // Pairs with the fence in `sleep_on`.
    if mutex.parked.load(Relaxed) != 0 {
        // Somebody went to sleep on the old value, or is about to find out that it is old.
        P::wake_one(&raw const mutex.seat, false);
    }
}

/// For a waiter that has counted itself in `parked`: the value of the seat to sleep on, or `None` if it is vacant.
#[must_use]
pub fn sleep_on(mutex: &Mutex) -> Option<u32> {
    fence(SeqCst); // Pairs with the fence in `pass`.
    match mutex.seat.load(Relaxed) {
        VACANT => None,
        seen => Some(seen),
    }
}
