//! The slow path: somebody holds the mutex.
//!
//! One waiter takes the seat and spins as the attendant ([`crate::policy`] says how); all others park on the lock word
//! itself, so that glibc's own unlock wakes them as it wakes its own waiters.
//!
//! Invariant (no lost wake-up): while one of our waiters sleeps, at least one of these holds:
//! 1. the word is CONTENDED, so that the holder's unlock wakes a sleeper;
//! 2. an awake waiter has the duty to wake: it will acquire with CONTENDED, or write CONTENDED before it sleeps or returns;
//! 3. an awake waiter occupies the seat (see [`crate::seat`]), which implies 2 as soon as it leaves.
//!
//! Each wake turns 1 into 2: the woken waiter has the duty. `duty` below is that bit, local to the waiter.
//!
//! Process-shared mutexes use 1 and 2 only: the other process may be killed at any moment, and may not run our code.
//!
//! Backstop: every sleep has a coarse time-out. It is never needed while the invariant holds; it bounds the harm when an awake
//! waiter that has the duty is killed (process-shared), starved of CPU (`SCHED_IDLE`, a real-time hog) or stopped by a debugger. glibc has no
//! such bound: there a killed waiter takes its wake-up with it.

use autolock_abi::{
    kind,
    sync::Ordering::{Acquire, Relaxed},
    word::{ATTENDED, CONTENDED, LOCKED, UNLOCKED, acquired},
};

use crate::{
    Mutex,
    platform::{Deadline, Event, Platform, Wait},
    policy::{self, Outcome},
    seat,
};

/// The shortest backstop; one millisecond is added for every parked waiter, so that a thousand
/// sleepers together wake at most about a thousand times a second.
const BACKSTOP_BASE_NS: u64 = 10_000_000;
const BACKSTOP_PER_WAITER_NS: u64 = 1_000_000;

/// A thread in the slow path.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    /// My thread id.
    pub me: u32,
    /// Whether other threads only run in this process.
    pub shared: bool,
    /// Until when; `None` for ever.
    pub deadline: Option<&'a Deadline>,
    /// I may be the only awake thread that knows of sleepers.
    pub duty: bool,
    /// An unlock woke me: I have waited longest and may take the seat from a newcomer.
    pub woken: bool,
}

/// Acquires a mutex that was held a moment ago. Returns false if `deadline` passed first. The caller records the holder.
#[cold]
#[inline(never)]
pub fn lock<P: Platform>(mutex: &Mutex, deadline: Option<&Deadline>) -> bool {
    P::note(Event::Contended, mutex);
    let shared = kind::is_shared(mutex.kind.load(Relaxed));
    let mut waiter = Waiter {
        me: P::tid().unsigned_abs(),
        shared,
        deadline,
        duty: false,
        woken: false,
    };
    loop {
        if try_acquire(mutex, waiter.duty) {
            return true;
        }
        if shared {
            if policy::spin_shared::<P>(mutex, &waiter) {
                P::note(Event::Spun, mutex);
                return true;
            }
        } else if seat::claim(mutex, waiter.me, waiter.woken) {
            match policy::attend::<P>(mutex, &mut waiter) {
                Outcome::Acquired { barred } => {
                    P::note(Event::Spun, mutex);
                    leave_as_holder(mutex, &waiter, barred);
                    return true;
                }
                Outcome::Evicted => {}
                Outcome::GaveUp => {
                    seat::vacate(mutex, waiter.me, 0);
                    waiter.duty = true;
                }
                Outcome::TimedOut => {
                    seat::vacate(mutex, waiter.me, 0);
                    hand_duty_back::<P>(mutex, shared);
                    return false;
                }
            }
        }
        match park::<P>(mutex, &mut waiter) {
            Parked::Retry => {}
            Parked::Woken => {
                waiter.duty = true;
                waiter.woken = true;
            }
            Parked::TimedOut => {
                if waiter.duty {
                    hand_duty_back::<P>(mutex, shared);
                }
                return false;
            }
        }
    }
}

/// Takes a free word: 0 to 1, or 0 to 2 with the duty to wake.
pub(crate) fn try_acquire(mutex: &Mutex, duty: bool) -> bool {
    mutex.word.load(Relaxed) == UNLOCKED
        // Acquire: pairs with unlock's Release.
        && mutex.word.compare_exchange(UNLOCKED, acquired(duty), Acquire, Relaxed).is_ok()
}

/// Leaves the seat as the holder of the mutex, and passes the duty for everybody who relied on the seat to my own unlock.
fn leave_as_holder(mutex: &Mutex, waiter: &Waiter<'_>, barred: u32) {
    seat::vacate(mutex, waiter.me, barred);
    if !waiter.duty && mutex.parked.load(Relaxed) != 0 {
        mark_contended(mutex);
    }
}

/// Writes CONTENDED into a held word; does nothing to a free one. Returns false if it was free.
fn mark_contended(mutex: &Mutex) -> bool {
    loop {
        match mutex.word.load(Relaxed) {
            UNLOCKED => return false,
            seen @ (LOCKED | ATTENDED) => {
                if mutex
                    .word
                    .compare_exchange(seen, CONTENDED, Relaxed, Relaxed)
                    .is_ok()
                {
                    return true;
                }
            }
            _ => return true,
        }
    }
}

/// A waiter that leaves without the mutex gives its duty to the holder, or to a sleeper if there is no holder.
fn hand_duty_back<P: Platform>(mutex: &Mutex, shared: bool) {
    if !mark_contended(mutex) {
        P::wake_one(&raw const mutex.word, shared);
    }
}

enum Parked {
    Woken,
    Retry,
    TimedOut,
}

/// Sleeps on the word.
fn park<P: Platform>(mutex: &Mutex, waiter: &mut Waiter<'_>) -> Parked {
    // Before the word is written and the seat looked at: see `seat`.
    let sleepers = mutex.parked.fetch_add(1, Relaxed);
    let backstop = BACKSTOP_BASE_NS + BACKSTOP_PER_WAITER_NS * u64::from(sleepers);
    let result = match announce(mutex, waiter) {
        None => Wait::Retry,
        Some(expected) => {
            P::note(Event::Parked, mutex);
            P::wait(
                &mutex.word,
                expected,
                waiter.shared,
                backstop,
                waiter.deadline,
            )
        }
    };
    mutex.parked.fetch_sub(1, Relaxed);
    match result {
        Wait::Woken => Parked::Woken,
        Wait::Retry => Parked::Retry,
        Wait::TimedOut if waiter.deadline.is_some_and(|deadline| P::expired(deadline)) => {
            Parked::TimedOut
        }
        Wait::TimedOut => {
            // The backstop. Nobody can tell whether the duty still lives; from here on I have it, too.
            P::note(Event::Backstop, mutex);
            Parked::Woken
        }
    }
}

/// Makes the word say that somebody sleeps. Returns the value to sleep on, or `None` if the mutex is free.
fn announce(mutex: &Mutex, waiter: &Waiter<'_>) -> Option<u32> {
    loop {
        let seen = mutex.word.load(Relaxed);
        if seen == UNLOCKED {
            return None;
        }
        if seen == CONTENDED {
            return Some(CONTENDED);
        }
        if !waiter.shared && seat::is_attended(mutex, waiter.me) {
            let ready = seen == ATTENDED
                || (seen == LOCKED
                    && mutex
                        .word
                        .compare_exchange(LOCKED, ATTENDED, Relaxed, Relaxed)
                        .is_ok());
            // Look again: the attendant may have left before it could see me.
            if ready && seat::is_attended(mutex, waiter.me) {
                return Some(ATTENDED);
            }
            continue;
        }
        if mutex
            .word
            .compare_exchange(seen, CONTENDED, Relaxed, Relaxed)
            .is_ok()
        {
            return Some(CONTENDED);
        }
    }
}
