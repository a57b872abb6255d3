//! The slow path: somebody holds the mutex.
//!
//! Of the waiters of a private mutex one takes the seat and attends to the lock word: it spins, or sleeps on the word when
//! spinning is not worth it (`crate::watch` decides). All others spin for a moment and then sleep at the gate ([`crate::seat`]), where an unlock never looks: what unlock
//! owes is in the lock word alone, in terms that glibc's unlock understands, and concerns the attendant and glibc's own waiters.
//!
//! Invariant (no lost wake-up): while a thread sleeps on the lock word, the word is CONTENDED (or STARVING, which says that and more), so that the holder's
//! unlock wakes a sleeper, or an awake waiter has the duty to wake: it will acquire with CONTENDED, or write CONTENDED before it
//! sleeps or returns. Each wake turns the first case into the second: the woken waiter has the duty. `duty` below is that bit.
//!
//! The waiters of a process-shared mutex all sleep on the lock word, as glibc's do: the other process may not run our code, and may be killed.
//!
//! A spinning attendant that loses its CPU may be put to sleep on the word by the kernel ([`crate::armed`]), at any moment between two looks. That is the sleep of
//! an attendant that has given up: the kernel writes CONTENDED first, whatever mark stood there, as any waiter may at any time; the attendant keeps its seat, and may be evicted from it, as
//! when it had gone to sleep itself; and when it runs again it has the duty. In the terms of the invariant: ATTENDED or HUNGRY became CONTENDED (the duty that the attendant had taken over is the
//! holder's once more), LOCKED did (one wake for the attendant), or CONTENDED and STARVING stayed what they mean. No other waiter is ever armed: the only one that is relied on is the heir, and whoever comes takes its place.
//!
//! Backstop: every sleep has a coarse time-out. It is never needed while the invariant and the seat's promise hold; it bounds the
//! harm when a thread that has a duty is killed (process-shared), starved of CPU (`SCHED_IDLE`, a real-time hog) or stopped by a debugger.
//! glibc has no such bound: there a killed waiter takes its wake-up with it.

use autolock_abi::{
    kind,
    sync::Ordering::{Acquire, Relaxed},
    word::{CONTENDED, STARVING, UNLOCKED, acquired},
};

use crate::{
    Mutex,
    mutex::record_holder,
    platform::{Deadline, Event, Platform, Wait},
    policy::{self, Newcomer},
    seat::{self, Pass},
    watch::{Advice, Watch},
};

/// The first backstop of a sleep, and what is added for each sleeper before me at the gate.
pub(crate) const BACKSTOP_NS: u64 = 4_000_000;
const BACKSTOP_PER_SLEEPER_NS: u64 = 1_000_000;
/// Where signals come faster than the backstop would, so many of them count as one.
const SIGNALS_PER_BACKSTOP: u32 = 8;
/// The backstop doubles while the holder holds on, up to this.
const BACKSTOP_MAX_NS: u64 = 256_000_000;

/// A thread in the slow path.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    /// My thread id.
    pub me: u32,
    /// Until when; `None` for ever.
    pub deadline: Option<&'a Deadline>,
    /// I may be the only awake thread that knows of sleepers on the word.
    pub duty: bool,
}

/// Acquires a mutex that was held a moment ago, and records the holder. Returns false if `deadline` passed first.
#[cold]
#[inline(never)]
pub fn lock<P: Platform>(mutex: &Mutex, deadline: Option<&Deadline>) -> bool {
    P::note(Event::Contended, mutex);
    let mut waiter = Waiter {
        me: P::tid().unsigned_abs(),
        deadline,
        duty: false,
    };
    let held = if kind::is_shared(mutex.kind.load(Relaxed)) {
        lock_shared::<P>(mutex, &mut waiter)
    } else {
        lock_private::<P>(mutex, &mut waiter)
    };
    if !held && waiter.duty {
        hand_duty_back::<P>(mutex);
    }
    held
}

fn lock_private<P: Platform>(mutex: &Mutex, waiter: &mut Waiter<'_>) -> bool {
    if policy::spin_briefly::<P>(mutex) {
        record_holder::<P>(mutex);
        P::note(Event::Spun, mutex);
        return true;
    }
    P::enroll();
    let mut gate = Backstop::new();
    let mut seated = seat::claim::<P>(mutex, waiter.me, policy::keeps_warm(mutex));
    loop {
        if seated {
            match attend::<P>(mutex, waiter, gate.fired) {
                Attended::Acquired => return true,
                Attended::TimedOut => return false,
                Attended::Evicted => {}
            }
        }
        // Evicted, too: who has just been woken and taken the seat may soon need an heir.
        match policy::spin_as_newcomer::<P>(mutex, waiter) {
            Newcomer::Acquired => {
                P::note(Event::Spun, mutex);
                return true;
            }
            Newcomer::Seated => {
                seated = true;
                continue;
            }
            Newcomer::Waits => {}
        }
        // The attendant knows nothing of my duty, and I am going to sleep.
        if core::mem::take(&mut waiter.duty) {
            hand_duty_back::<P>(mutex);
        }
        seated = match sleep_at_gate::<P>(mutex, waiter, &mut gate) {
            Wait::TimedOut => {
                if seat::may_be_mine(mutex) {
                    seat::take(mutex, waiter.me);
                    leave_seat::<P>(mutex, waiter);
                }
                return false;
            }
            Wait::Woken => {
                // Perhaps by an unlock: I may have been moved to the word.
                waiter.duty = true;
                seat::take(mutex, waiter.me);
                true
            }
            Wait::Interrupted if seat::may_be_mine(mutex) => {
                // Moved to the word, and awake without an unlock: without me nobody is on the way to the seat.
                waiter.duty = true;
                seat::take(mutex, waiter.me);
                true
            }
            Wait::Retry | Wait::Interrupted => {
                seat::claim::<P>(mutex, waiter.me, policy::keeps_warm(mutex))
            }
        };
    }
}

fn sleep_at_gate<P: Platform>(mutex: &Mutex, waiter: &Waiter<'_>, backstop: &mut Backstop) -> Wait {
    let sleepers = mutex.parked.fetch_add(1, Relaxed);
    let result = match seat::sleep_on(mutex) {
        None => Wait::Retry,
        Some(occupant) => {
            P::note(Event::Parked, mutex);
            backstop.sleep::<P>(&mutex.seat, occupant, sleepers, mutex, waiter)
        }
    };
    mutex.parked.fetch_sub(1, Relaxed);
    result
}

/// Leaves the seat without the mutex.
fn leave_seat<P: Platform>(mutex: &Mutex, waiter: &Waiter<'_>) {
    let _ = seat::pass::<P>(mutex, waiter.me, Pass::Inherit); // Moves nobody to the word.
}

enum Attended {
    Acquired,
    TimedOut,
    Evicted,
}

/// Waits in the seat; leaves it in any case. An `impatient` waiter has been passed over for a backstop's time already.
fn attend<P: Platform>(mutex: &Mutex, waiter: &mut Waiter<'_>, impatient: bool) -> Attended {
    let mut backstop = Backstop::new();
    let mut watch = Watch::new::<P>(mutex, impatient);
    loop {
        match watch.spin::<P>(mutex, waiter) {
            Advice::Acquired => {
                // Before the seat is passed on: a wake-up takes long, and until then the mutex shows the holder before.
                record_holder::<P>(mutex);
                P::note(Event::Spun, mutex);
                if seat::pass::<P>(mutex, waiter.me, watch.pass()) {
                    mark_contended(mutex);
                }
                return Attended::Acquired;
            }
            Advice::Evicted => return Attended::Evicted,
            Advice::TimedOut => {
                leave_seat::<P>(mutex, waiter);
                return Attended::TimedOut;
            }
            Advice::Sleep => {}
        }
        let mark = if watch.is_overdue() {
            STARVING
        } else {
            CONTENDED
        };
        if !mark_for_sleep(mutex, mark) {
            continue; // Free: spin once more.
        }
        P::note(Event::Parked, mutex);
        match backstop.sleep::<P>(&mutex.word, mark, 0, mutex, waiter) {
            Wait::Woken => waiter.duty = true,
            Wait::Retry | Wait::Interrupted => {}
            Wait::TimedOut => {
                leave_seat::<P>(mutex, waiter);
                return Attended::TimedOut;
            }
        }
        watch.wake_up::<P>();
    }
}

fn lock_shared<P: Platform>(mutex: &Mutex, waiter: &mut Waiter<'_>) -> bool {
    let mut backstop = Backstop::new();
    loop {
        if policy::spin_shared::<P>(mutex, waiter) {
            record_holder::<P>(mutex);
            P::note(Event::Spun, mutex);
            return true;
        }
        if !mark_for_sleep(mutex, CONTENDED) {
            continue;
        }
        P::note(Event::Parked, mutex);
        match backstop.sleep::<P>(&mutex.word, CONTENDED, 0, mutex, waiter) {
            Wait::Woken => waiter.duty = true,
            Wait::Retry | Wait::Interrupted => {}
            Wait::TimedOut => return false,
        }
    }
}

/// Takes a free word: 0 to 1, or 0 to 2 with the duty to wake.
pub(crate) fn try_acquire(mutex: &Mutex, duty: bool) -> bool {
    mutex.word.load(Relaxed) == UNLOCKED
        // Acquire: pairs with unlock's Release.
        && mutex.word.compare_exchange(UNLOCKED, acquired(duty), Acquire, Relaxed).is_ok()
}

/// Writes CONTENDED into a held word, unless it owes a wake anyway. Returns false if it was free.
fn mark_contended(mutex: &Mutex) -> bool {
    loop {
        match mutex.word.load(Relaxed) {
            UNLOCKED => return false,
            CONTENDED | STARVING => return true,
            seen => {
                if change(mutex, seen, CONTENDED) {
                    return true;
                }
            }
        }
    }
}

/// Writes `mark` into a held word. Returns false if it was free.
fn mark_for_sleep(mutex: &Mutex, mark: u32) -> bool {
    loop {
        let seen = mutex.word.load(Relaxed);
        if seen == UNLOCKED {
            return false;
        }
        if seen == mark || change(mutex, seen, mark) {
            return true;
        }
    }
}

/// Relaxed: a mark carries no data; the holder's exchange returns it.
fn change(mutex: &Mutex, from: u32, to: u32) -> bool {
    mutex
        .word
        .compare_exchange(from, to, Relaxed, Relaxed)
        .is_ok()
}

/// Gives the duty to the holder, or to a sleeper if there is no holder.
fn hand_duty_back<P: Platform>(mutex: &Mutex) {
    if !mark_contended(mutex) {
        let shared = kind::is_shared(mutex.kind.load(Relaxed));
        P::wake_one(&raw const mutex.word, shared);
    }
}

/// The time-out of a sleep that should not need one.
struct Backstop {
    ns: u64,
    /// Whether it ended the last sleep.
    fired: bool,
    /// Sleeps in a row that a signal ended.
    interrupted: u32,
}

impl Backstop {
    const fn new() -> Self {
        Self {
            ns: BACKSTOP_NS,
            fired: false,
            interrupted: 0,
        }
    }

    /// Sleeps. `Wait::TimedOut` means that the waiter's deadline has passed; a backstop that finds the lock idle or moving without me counts as
    /// `Wait::Woken`, one that finds it held by the same holder as `Wait::Interrupted`.
    fn sleep<P: Platform>(
        &mut self,
        word: &autolock_abi::sync::AtomicU32,
        expected: u32,
        sleepers: u16,
        mutex: &Mutex,
        waiter: &Waiter<'_>,
    ) -> Wait {
        let shared = kind::is_shared(mutex.kind.load(Relaxed));
        let seq = mutex.seq.load(Relaxed);
        let ns = self.ns + BACKSTOP_PER_SLEEPER_NS * u64::from(sleepers);
        self.fired = false;
        let result = P::wait(word, expected, shared, ns, waiter.deadline);
        self.interrupted = match result {
            Wait::Interrupted => self.interrupted + 1,
            _ => 0,
        };
        let over = result == Wait::TimedOut || self.interrupted == SIGNALS_PER_BACKSTOP;
        if !over {
            return result;
        }
        self.interrupted = 0;
        if waiter.deadline.is_some_and(|deadline| P::expired(deadline)) {
            return Wait::TimedOut;
        }
        self.fired = true;
        P::note(Event::Backstop, mutex);
        if mutex.word.load(Relaxed) == UNLOCKED || mutex.seq.load(Relaxed) != seq {
            self.ns = BACKSTOP_NS;
            Wait::Woken
        } else {
            self.ns = (self.ns * 2).min(BACKSTOP_MAX_NS);
            Wait::Interrupted
        }
    }
}
