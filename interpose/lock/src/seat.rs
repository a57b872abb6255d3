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
//! | [`RESERVED`] | a waiter was woken at the gate to take it, and is on its way; or it was moved to the lock word, and unlock will wake it |
//! | [`OFFERED`] | the last occupant has the mutex and is about to wake a sleeper, unless the next thread that comes does so first |
//!
//! A thread id may carry [`ON_THE_WAY`]: the occupant took a reserved seat, because it runs and the one on its way may have to wait for a CPU. That
//! one takes the seat over when it comes; until then nobody else need be woken.
//!
//! The offer is for streaks: the thread whose streak has ended comes back at once, and goes to the gate. If it wakes the next attendant itself, that one
//! runs on the CPU which its waker leaves; woken by the new holder, it would often be queued behind the holder, and preempt it or wait for a tick.
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
/// Thread ids are below 2^22 (`PID_MAX_LIMIT`).
const RESERVED: u32 = ON_THE_WAY;
const OFFERED: u32 = u32::MAX;
const ON_THE_WAY: u32 = 1 << 31;
/// How long a new holder waits for the other one to take up its offer.
const OFFER_NS: u64 = 1_000;

/// Tries to become the attendant; takes up an offer to wake the next one instead. With `keep_warm`, takes a reserved seat until its owner comes.
#[must_use]
pub fn claim<P: Platform>(mutex: &Mutex, me: u32, keep_warm: bool) -> bool {
    // Relaxed: only chooses what the compare-exchange expects.
    match mutex.seat.load(Relaxed) {
        VACANT => change(mutex, VACANT, me),
        RESERVED if keep_warm => change(mutex, RESERVED, me | ON_THE_WAY),
        OFFERED => {
            change(mutex, OFFERED, RESERVED)
                && !P::wake_one(&raw const mutex.seat, false)
                && change(mutex, RESERVED, me)
        }
        _ => false,
    }
}

fn change(mutex: &Mutex, from: u32, to: u32) -> bool {
    mutex
        .seat
        .compare_exchange(from, to, AcqRel, Relaxed)
        .is_ok()
}

/// Takes the seat, whoever has it: for a waiter that was woken at the gate, and so has waited longest.
pub fn take(mutex: &Mutex, me: u32) {
    mutex.seat.swap(me, AcqRel);
}

/// Whether the seat is still mine.
#[must_use]
pub fn is_mine(mutex: &Mutex, me: u32) -> bool {
    mutex.seat.load(Relaxed) & !ON_THE_WAY == me
}

/// How the waiter that has slept longest at the gate gets the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It is woken.
    Wake,
    /// The next thread that comes wakes it, or I do after a moment.
    Offer,
    /// It sleeps on, on the lock word. Only for the holder, who must then mark the word contended.
    Move,
}

/// Leaves the seat to the waiter that has slept longest at the gate, if there is one. Returns true if the word must be marked contended.
#[must_use]
pub fn pass<P: Platform>(mutex: &Mutex, me: u32, how: Pass) -> bool {
    let next = match how {
        _ if mutex.parked.load(Relaxed) == 0 => VACANT,
        Pass::Offer => OFFERED,
        Pass::Wake | Pass::Move => RESERVED,
    };
    if !change(mutex, me, next) {
        // A woken waiter has taken it; or one is on its way and will, and all others rely on that one.
        change(mutex, me | ON_THE_WAY, RESERVED);
        return false;
    }
    if next == OFFERED && (is_taken_up::<P>(mutex) || !change(mutex, OFFERED, RESERVED)) {
        return false;
    }
    if next != VACANT {
        if how == Pass::Move && P::requeue_one(&mutex.seat, RESERVED, &mutex.word) {
            return true;
        }
        if P::wake_one(&raw const mutex.seat, false) || !change(mutex, RESERVED, VACANT) {
            return false;
        }
    }
    fence(SeqCst); // Pairs with the fence in `sleep_on`.
    if mutex.parked.load(Relaxed) != 0 {
        // Somebody went to sleep on the old value, or is about to find out that it is old.
        P::wake_one(&raw const mutex.seat, false);
    }
    false
}

/// For a waiter whose sleep at the gate ended without a wake: whether it may have been moved to the lock word, and have the seat without knowing.
/// If somebody else is on the way, that one takes the seat again: nothing is lost by taking it.
#[must_use]
pub fn may_be_mine(mutex: &Mutex) -> bool {
    let seen = mutex.seat.load(Relaxed);
    seen != OFFERED && seen & ON_THE_WAY != 0
}

fn is_taken_up<P: Platform>(mutex: &Mutex) -> bool {
    let start = P::now_ns();
    loop {
        if mutex.seat.load(Relaxed) != OFFERED {
            return true;
        }
        if P::now_ns().wrapping_sub(start) > OFFER_NS {
            return false;
        }
        P::pause();
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
