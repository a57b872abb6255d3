//! The seat and the gate: one waiter of a private mutex attends to the lock word, all others sleep at the gate, or come to it soon.
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
//! | [`HEIR`] | the last occupant has the mutex and left the seat to its heir, who has not taken it yet |
//!
//! All but 0 and `OFFERED` may carry [`HEIR`]: one of the threads that spin beside the attendant is its heir. An attendant that has the mutex leaves the seat to the heir, who is awake
//! already, and lets the sleepers sleep: a wake-up costs more than a short critical section, and the holder would pay for it inside its own.
//! So of many threads no more are awake than keep the mutex busy ("heir presumptive" and culling: Dice, "Malthusian Locks", EuroSys '17); now and then one is woken all the same ([`Pass::Wake`]).
//! An heir may be passed over: whoever comes may take the seat that was left to it. Then another one may become the heir while the first still believes it is. So: *who sets
//! the bit clears it when it stops spinning, if it stands there, whoever set it; and finds the seat left to the heir, it takes it.* Each clears one bit at most, after it has set one: where the bit stands,
//! the last that set it still spins, and looks here before it does anything else.
//!
//! A thread id may carry [`ON_THE_WAY`]: the occupant took a reserved seat, because it runs and the one on its way may have to wait for a CPU. That
//! one takes the seat over when it comes; until then nobody else need be woken.
//!
//! The offer is for streaks: the thread whose streak has ended comes back at once, and goes to the gate. If it wakes the next attendant itself, that one
//! runs on the CPU which its waker leaves; woken by the new holder, it would often be queued behind the holder, and preempt it or wait for a tick.
//!
//! Promise: while anybody sleeps at the gate, the seat is occupied, reserved or left to an heir, or a woken waiter is on its way to it; and whoever has it passes it on
//! ([`pass`]) when it leaves with or without the mutex. The gate needs no fence of its own against sleeping on an old value:
//! futex(2) compares the seat and goes to sleep in one step, and [`pass`] changes the seat before it wakes.
//! `parked` only spares the wake: a sleeper counts itself before it looks at the seat, [`pass`] looks at the count after it has written the seat
//! (Dekker, with the fences in [`pass`] and [`sleep_on`]), so one of them sees the other.
//!
//! An occupant or heir that does not exist (a fork child's copy of the parent's mutex; a signal handler that jumped out of a
//! wait) breaks the promise; the sleepers' backstop finds that out, see [`crate::contended`].

use autolock_abi::sync::{
    Ordering::{AcqRel, Relaxed, SeqCst},
    fence,
};

use crate::{Mutex, platform::Platform};

const VACANT: u32 = 0;
/// Thread ids are below 2^22 (`PID_MAX_LIMIT`), and leave room for two bits.
const ON_THE_WAY: u32 = 1 << 31;
const RESERVED: u32 = ON_THE_WAY;
const HEIR: u32 = 1 << 30;
/// No thread's id, and neither bit.
const OFFERED: u32 = HEIR - 1;
/// How long a new holder waits for the other one to take up its offer.
const OFFER_NS: u64 = 1_000;

/// Tries to become the attendant; takes up an offer to wake the next one instead. With `keep_warm`, takes a reserved seat until its owner comes.
#[must_use]
pub fn claim<P: Platform>(mutex: &Mutex, me: u32, keep_warm: bool) -> bool {
    match look(mutex) {
        seen @ (VACANT | HEIR) => change(mutex, seen, me),
        seen if keep_warm && seen & !HEIR == RESERVED => change(mutex, seen, seen | me),
        OFFERED => {
            change(mutex, OFFERED, RESERVED)
                && !P::wake_one(&raw const mutex.seat, false)
                && nobody_comes(mutex)
                && change(mutex, VACANT, me)
        }
        _ => false,
    }
}

/// Relaxed: only chooses what a compare-exchange expects. loom remembers of an object the last access alone, and a load that is followed by another thread's load
/// is never tried in another order; an exchange is.
fn look(mutex: &Mutex) -> u32 {
    if cfg!(loom) {
        mutex.seat.fetch_or(0, Relaxed)
    } else {
        mutex.seat.load(Relaxed)
    }
}

/// AcqRel: what an occupant did before it left the seat, its marks in the lock word among it, comes before what the next one does in it. The data is ordered by the lock word,
/// the wakes by the fences in [`pass`] and [`sleep_on`].
fn change(mutex: &Mutex, from: u32, to: u32) -> bool {
    mutex
        .seat
        .compare_exchange(from, to, AcqRel, Relaxed)
        .is_ok()
}

/// Takes the seat, whoever has it: for a waiter that was woken at the gate, and so has waited longest.
pub fn take(mutex: &Mutex, me: u32) {
    loop {
        let seen = look(mutex);
        // An heir to whom it was left has not come: perhaps there is none.
        let heir = if seen == HEIR { 0 } else { seen & HEIR };
        if change(mutex, seen, me | heir) {
            return;
        }
    }
}

/// Whether the seat is still mine.
#[must_use]
pub fn is_mine(mutex: &Mutex, me: u32) -> bool {
    mutex.seat.load(Relaxed) & !(ON_THE_WAY | HEIR) == me
}

/// What a thread that spins beside the attendant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Nobody relies on it.
    Newcomer,
    /// Somebody may: it must ask for its rank until it has the seat, or [`resign`].
    Heir,
    /// It has the seat.
    Attendant,
}

/// For a thread that spins beside the attendant: takes the seat if it is free or left to the heir, else becomes the heir if there is none.
#[must_use]
pub fn rise(mutex: &Mutex, me: u32, rank: Rank) -> Rank {
    match look(mutex) {
        seen @ (VACANT | HEIR) if change(mutex, seen, me) => Rank::Attendant,
        VACANT | HEIR | OFFERED => rank,
        seen if rank == Rank::Newcomer && seen & HEIR == 0 && change(mutex, seen, seen | HEIR) => {
            Rank::Heir
        }
        _ => rank,
    }
}

/// For an heir that stops spinning. Returns whether it has the seat now, which was left to it.
#[must_use]
pub fn resign(mutex: &Mutex, me: u32) -> bool {
    loop {
        match look(mutex) {
            HEIR if change(mutex, HEIR, me) => return true,
            seen if seen & HEIR == 0 => return false,
            seen if seen != HEIR && change(mutex, seen, seen & !HEIR) => return false,
            _ => {}
        }
    }
}

/// How the waiter that has slept longest at the gate gets the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It is woken, unless there is an heir.
    Inherit,
    /// It is woken.
    Wake,
    /// The next thread that comes wakes it, or I do after a moment.
    Offer,
    /// It sleeps on, on the lock word. Only for the holder, who must then mark the word contended.
    Move,
}

/// Leaves the seat to the heir, or to the waiter that has slept longest at the gate, if there is one. Returns true if the word must be marked contended.
#[must_use]
pub fn pass<P: Platform>(mutex: &Mutex, me: u32, how: Pass) -> bool {
    let Some(next) = leave(mutex, me, how) else {
        return false;
    };
    if next == HEIR || next == OFFERED && is_taken_up::<P>(mutex) {
        return false;
    }
    if next == OFFERED && !change(mutex, OFFERED, RESERVED) {
        return false;
    }
    if next != VACANT {
        // With an heir the seat is another value, and nobody is moved.
        if how == Pass::Move && P::requeue_one(&mutex.seat, RESERVED, &mutex.word) {
            return true;
        }
        if P::wake_one(&raw const mutex.seat, false) || !nobody_comes(mutex) {
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

/// Writes into the seat who is to have it after me, and says what it wrote; `None` if it was not mine any more, or only kept warm.
fn leave(mutex: &Mutex, me: u32, how: Pass) -> Option<u32> {
    loop {
        let seen = look(mutex);
        let heir = seen & HEIR;
        match seen & !HEIR {
            occupant if occupant == me => {
                let next = match how {
                    _ if mutex.parked.load(Relaxed) == 0 => VACANT | heir,
                    Pass::Wake => RESERVED | heir,
                    _ if heir != 0 => HEIR,
                    Pass::Offer => OFFERED,
                    Pass::Inherit | Pass::Move => RESERVED,
                };
                if change(mutex, seen, next) {
                    return Some(next);
                }
            }
            // One is on the way and will take it, and all others rely on that one.
            occupant if occupant == me | ON_THE_WAY => {
                if change(mutex, seen, RESERVED | heir) {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

/// Takes back a reservation for which nobody was woken; from one that keeps the seat warm, too, who else would rely on nobody. Returns whether the seat is vacant now.
/// If another one has been woken meanwhile, it takes the seat all the same.
fn nobody_comes(mutex: &Mutex) -> bool {
    loop {
        let seen = look(mutex);
        if seen & ON_THE_WAY == 0 {
            return false;
        }
        let next = seen & !ON_THE_WAY;
        if change(mutex, seen, next) {
            return next == VACANT;
        }
    }
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
