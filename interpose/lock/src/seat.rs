//! The attendant's seat: at most one waiter of a private mutex spins, and it owes the others a wake.
//!
//! | value | meaning |
//! |---|---|
//! | 0 | vacant |
//! | a thread id | occupied by that thread, the attendant |
//! | `BARRED` + a thread id | vacant, but that thread has just had its slice and parks if anybody else is parked |
//!
//! The promise of the seat: whoever occupies it is awake and keeps the duty to wake until it leaves. It leaves in one of three ways:
//! 1. it acquires the mutex, vacates the seat, and marks the word contended if anybody is parked ([`vacate`]'s caller);
//! 2. it vacates the seat, then marks the word contended before it sleeps or returns;
//! 3. a woken waiter, which has the duty by being woken, takes the seat from it ([`claim`] with `woken`).
//!
//! A waiter that goes to sleep relying on the seat counts itself in `parked`, writes the word, then looks at the seat
//! once more. With the fences here and there ([`is_attended`], [`vacate`]) one of the two sees the other (Dekker): either the sleeper sees the
//! vacant seat and marks the word contended itself, or the leaver sees `parked` above zero.
//!
//! An occupant that does not exist (a fork child's copy of the parent's mutex; a signal handler that jumped out of a
//! wait) breaks the promise; the sleepers' backstop time-out finds that out, see [`crate::contended`].

use autolock_abi::sync::{
    Ordering::{AcqRel, Relaxed, SeqCst},
    fence,
};

use crate::Mutex;

const VACANT: u32 = 0;
const BARRED: u32 = 1 << 31;

/// Tries to become the attendant. A woken waiter always succeeds: it has waited longest.
#[must_use]
pub fn claim(mutex: &Mutex, me: u32, woken: bool) -> bool {
    if woken {
        mutex.seat.swap(me, AcqRel);
        return true;
    }
    // Relaxed: only chooses what the compare-exchange expects.
    let seen = mutex.seat.load(Relaxed);
    if seen == me {
        return true;
    }
    let vacant = seen == VACANT || seen & BARRED != 0;
    let barred = seen == BARRED | me && mutex.parked.load(Relaxed) != 0;
    vacant
        && !barred
        && mutex
            .seat
            .compare_exchange(seen, me, AcqRel, Relaxed)
            .is_ok()
}

/// Leaves the seat if it is still mine, barring `next_barred` from it (0: nobody). Afterwards the caller sees every
/// sleeper that relied on it in `parked`.
pub fn vacate(mutex: &Mutex, me: u32, next_barred: u32) {
    let empty = if next_barred == 0 {
        VACANT
    } else {
        BARRED | next_barred
    };
    // A failure means that a woken waiter has the seat: nothing to leave.
    let _ = mutex.seat.compare_exchange(me, empty, AcqRel, Relaxed);
    // Pairs with the fence in `is_attended`.
    fence(SeqCst);
}

/// Whether the seat is still mine.
#[must_use]
pub fn is_mine(mutex: &Mutex, me: u32) -> bool {
    mutex.seat.load(Relaxed) == me
}

/// Whether somebody else occupies the seat now, after everything that the caller has written.
#[must_use]
pub fn is_attended(mutex: &Mutex, me: u32) -> bool {
    // Pairs with the fence in `vacate`.
    fence(SeqCst);
    let seen = mutex.seat.load(Relaxed);
    seen != VACANT && seen & BARRED == 0 && seen != me
}
