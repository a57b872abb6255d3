//! The attendant's watch: how often it looks, when it takes a mutex that it finds free, when it gives up, and what it learns.
//!
//! May touch: the lock word (marks only), hints in the mutex, the clock. Decides nothing that correctness depends on: that is
//! [`crate::contended`]'s and [`crate::seat`]'s.

use autolock_abi::{
    Mutex,
    auto_lock::Parking,
    sync::Ordering::Relaxed,
    word::{ATTENDED, CONTENDED, HUNGRY, UNLOCKED, unlock_owes_wake},
};

use crate::{
    armed::Armed,
    contended::{BACKSTOP_NS, Waiter, try_acquire},
    memory::Memory,
    platform::{Event, Platform, Wait},
    policy::{self, POLLS_PER_CLOCK, STEP_BACK_FOR_A_SLEEPER_NS, delay, is_hopeless, is_known_on},
    seat::{self, Pass},
};

/// How an attendant's spinning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// It holds the mutex.
    Acquired,
    /// A woken waiter has taken the seat.
    Evicted,
    /// Spinning is not worth it: sleep.
    Sleep,
    /// The deadline passed.
    TimedOut,
}

/// How long a thread may go on taking the mutex while others wait.
const SLICE_NS: u64 = 200_000;
/// With fewer acquisitions than one in this time, a streak gains less, and a wait weighs on fewer acquisitions: a shorter slice.
const LONG_PERIOD_NS: u64 = 500;
const LONG_PERIOD_SLICE_NS: u64 = 70_000;
/// How often an attendant looks at a mutex in a streak: each look costs the holder a cache miss. Rarer and rarer while the streak lasts.
const STREAK_POLL_MIN_NS: u64 = 1_000;
const STREAK_POLL_MAX_NS: u64 = 16_000;
/// How long an attendant watches a streak before it sleeps through the rest.
const NAP_AFTER_NS: u64 = 15_000;
/// Streaks are for short critical sections: above this many hand-overs an acquisition, sharing costs next to nothing.
const STREAK_PERIOD_HANDOVERS: u64 = 10;
/// The same where several threads took turns.
const SHARED_PERIOD_HANDOVERS: u64 = 2;
/// A measurement's looks: far enough apart that the holder is not disturbed between two.
const PROBE_POLL_NS: u64 = 1_200;
/// Looks of a streak's attendant that make a measurement, too.
const STREAK_POLLS: u32 = 4;
const PROBE_POLLS: u32 = if cfg!(loom) { 2 } else { 8 };
/// The cost of a hand-over between two CPUs, with the cache misses that follow it.
const HANDOVER_NS: u64 = 290;
/// How long an attendant spins on a mutex that does not move, where spins have been worth it.
const PATIENCE_NS: u64 = 12_000;
/// The same while the holder is known to be on a CPU. Then only a long critical section is feared. To sleep through its end costs more than [`SLEEP_NS`] of
/// CPU: the mutex stands idle until the sleeper has come. Who spins for as long as that takes, and sleeps then, pays at most twice what the best choice would have
/// cost (Karlin et al., "Empirical studies of competitive spinning for a shared-memory multiprocessor", SOSP '91). A bound all the same: what is known may be wrong. Mutexes whose critical
/// sections are mostly longer than [`SLEEP_NS`] do not come here: spins do not pay there, by the memory.
const PATIENCE_WITH_RUNNING_NS: u64 = STEP_BACK_FOR_A_SLEEPER_NS;
/// The same if, besides, this waiter is parked should it lose its CPU: what it spins away is nobody else's then. Still a bound.
const PATIENCE_ARMED_NS: u64 = 2 * PATIENCE_WITH_RUNNING_NS;
/// A spinning attendant that loses its CPU sleeps on the word, as one that gave up.
const PARKING: Parking = Parking::until(UNLOCKED, CONTENDED);
/// The price of going to sleep and being woken: a longer spin was in vain even if it ended with the mutex.
const SLEEP_NS: u64 = 6_000;
/// How long after its slice's end an attendant goes on trying before it asks holders to step back.
const HUNGER_NS: u64 = 2_000;

/// One attendant's time in the seat, sleeps included.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Passed over for long already: no streak is let go on, and holders are asked to step back at once.
    impatient: bool,
    memory: Memory,
    probing: bool,
    start: u64,
    now: u64,
    /// When the mutex was last seen to be acquired.
    moved_at: u64,
    moved: bool,
    seq_at_start: u32,
    seq_seen: u32,
    first_spin_is_over: bool,
    looks: u32,
    /// Looks while patient, and how many of them saw the mutex free.
    polls: u32,
    free_polls: u32,
    streak_poll_ns: u64,
    /// The last holder seen, and whether there was another one before.
    owner: i32,
    several: bool,
}

impl Watch {
    pub(crate) fn new<P: Platform>(mutex: &Mutex, impatient: bool) -> Self {
        let memory = Memory::load(mutex);
        let probing = memory.probe_is_due() && !impatient;
        let now = P::now_ns();
        let seq = mutex.seq.load(Relaxed);
        Self {
            impatient,
            memory,
            probing,
            start: now,
            now,
            moved_at: now,
            moved: false,
            seq_at_start: seq,
            seq_seen: seq,
            first_spin_is_over: false,
            looks: 0,
            polls: 0,
            free_polls: 0,
            streak_poll_ns: STREAK_POLL_MIN_NS,
            owner: 0,
            several: false,
        }
    }

    /// After a sleep on the word.
    pub(crate) fn wake_up<P: Platform>(&mut self) {
        self.now = P::now_ns();
        self.moved_at = self.now;
    }

    /// Spins until the mutex is mine, or something else is better.
    pub(crate) fn spin<P: Platform>(&mut self, mutex: &Mutex, waiter: &mut Waiter<'_>) -> Advice {
        let mut armed = Armed::new(&mutex.word, PARKING, BACKSTOP_NS, waiter.deadline);
        let advice = self.spin_armed::<P>(mutex, waiter, &mut armed);
        // It may have been parked up to now.
        Self::disarm(&mut armed, mutex, waiter);
        advice
    }

    fn spin_armed<P: Platform>(
        &mut self,
        mutex: &Mutex,
        waiter: &mut Waiter<'_>,
        armed: &mut Armed<'_, P>,
    ) -> Advice {
        let mut my_cpu = P::cpu();
        loop {
            let patient = self.is_patient();
            if patient {
                // It looks away on purpose, and whoever it waits for would pay for its wake.
                Self::disarm(armed, mutex, waiter);
            } else {
                armed.arm();
            }
            P::preemption_point();
            let word = mutex.word.load(Relaxed);
            let moves = self.observe(mutex, word, patient);
            if armed.was_parked() {
                // As after a sleep on the word: perhaps by an unlock's wake.
                waiter.duty = true;
                my_cpu = P::cpu();
                self.wake_up::<P>();
                self.waited(mutex);
                P::note(Event::Preempted, mutex);
            }
            P::preemption_point();
            if word == UNLOCKED {
                // The holder must not be parked: first this. And then what it says, or the sleepers on the word would be forgotten.
                Self::disarm(armed, mutex, waiter);
                // Patience ends when the mutex is idle: free, and not acquired since the last look.
                if !(patient && moves) && try_acquire(mutex, waiter.duty) {
                    self.spun(mutex, self.unmoved() < SLEEP_NS);
                    self.learn(mutex);
                    return Advice::Acquired;
                }
            } else {
                self.mark(mutex, word, waiter);
                if let Some(advice) = self.give_up::<P>(mutex, waiter, my_cpu, armed.is_armed()) {
                    return advice;
                }
            }
            if patient && self.may_nap() {
                self.nap::<P>(mutex, waiter);
            } else {
                self.pause::<P>(patient);
            }
        }
    }

    fn disarm<P: Platform>(armed: &mut Armed<'_, P>, mutex: &Mutex, waiter: &mut Waiter<'_>) {
        if armed.disarm() {
            waiter.duty = true;
            P::note(Event::Preempted, mutex);
        }
    }

    /// How an attendant that has the mutex passes its seat on.
    pub(crate) const fn pass(&self) -> Pass {
        if self.memory.streak() {
            // The thread whose streak has ended is likely to come back at once.
            if self.moved { Pass::Offer } else { Pass::Wake }
        } else if self.memory.spinning_pays(1) {
            policy::pass(self.seq_seen)
        } else {
            Pass::Move
        }
    }

    const fn elapsed(&self) -> u64 {
        self.now.wrapping_sub(self.start)
    }

    /// How long the mutex has been with the holder that was seen last.
    const fn unmoved(&self) -> u64 {
        self.now.wrapping_sub(self.moved_at)
    }

    /// How long this streak may last.
    fn slice(&self) -> u64 {
        let acquisitions = u64::from(self.seq_seen.wrapping_sub(self.seq_at_start));
        if self.elapsed() > STREAK_POLL_MAX_NS / 2 && self.elapsed() > LONG_PERIOD_NS * acquisitions
        {
            LONG_PERIOD_SLICE_NS
        } else {
            SLICE_NS
        }
    }

    /// Whether the running threads may go on taking the mutex.
    fn is_patient(&self) -> bool {
        if self.probing {
            self.polls < PROBE_POLLS
        } else {
            !self.impatient && self.memory.streak() && self.elapsed() < self.slice()
        }
    }

    /// Counts a look; returns whether the mutex was acquired since the last one. The first look says yes.
    fn observe(&mut self, mutex: &Mutex, word: u32, patient: bool) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if patient {
            self.polls += 1;
            self.free_polls += u32::from(word == UNLOCKED);
            let owner = mutex.owner.load(Relaxed);
            if owner != 0 {
                let before = core::mem::replace(&mut self.owner, owner);
                self.several |= before != 0 && before != owner;
            }
        }
        let seq = mutex.seq.load(Relaxed);
        if seq != self.seq_seen {
            self.seq_seen = seq;
            self.moved_at = self.now;
            self.moved = true;
            return true;
        }
        self.looks == 1
    }

    /// Takes the duty to wake over from a holder, and asks a holder to step back once the slice is over.
    fn mark(&self, mutex: &Mutex, word: u32, waiter: &mut Waiter<'_>) {
        let hungry = self.is_overdue();
        let owes_wake = unlock_owes_wake(word);
        if word == HUNGRY || !owes_wake && !hungry {
            return;
        }
        let mark = if hungry { HUNGRY } else { ATTENDED };
        // Relaxed: the mark carries no data; the holder's exchange returns it.
        let marked = mutex
            .word
            .compare_exchange(word, mark, Relaxed, Relaxed)
            .is_ok();
        waiter.duty |= marked && owes_wake;
    }

    /// Whether others went on taking the mutex after the end of the slice.
    pub(crate) fn is_overdue(&self) -> bool {
        self.impatient || self.moved && self.elapsed() > SLICE_NS + HUNGER_NS
    }

    /// Why it would be better to stop spinning on a held mutex.
    fn give_up<P: Platform>(
        &mut self,
        mutex: &Mutex,
        waiter: &Waiter<'_>,
        my_cpu: u16,
        armed: bool,
    ) -> Option<Advice> {
        if !seat::is_mine(mutex, waiter.me) {
            return Some(Advice::Evicted);
        }
        if waiter.deadline.is_some_and(|deadline| P::expired(deadline)) {
            return Some(Advice::TimedOut);
        }
        let shares = !self.probing && !self.memory.streak();
        if shares && !self.memory.spinning_pays(self.seq_at_start) {
            return Some(Advice::Sleep);
        }
        let unmoved = self.unmoved();
        let with_running = if armed {
            PATIENCE_ARMED_NS
        } else {
            PATIENCE_WITH_RUNNING_NS
        };
        let out_of_patience =
            unmoved > PATIENCE_NS && (unmoved > with_running || !is_known_on::<P>(mutex));
        if out_of_patience {
            self.spun(mutex, false);
            return Some(Advice::Sleep);
        }
        is_hopeless::<P>(mutex, my_cpu, unmoved).then_some(Advice::Sleep)
    }

    /// Whether the streak is certain enough to sleep through the rest of the slice.
    fn may_nap(&self) -> bool {
        !self.probing && self.moved && self.elapsed() > NAP_AFTER_NS && self.memory.may_nap()
    }

    /// Sleeps until the slice is over. A waiter that spun instead would use up its share of the CPU, and be preempted just when its turn comes.
    /// The price is paid when the streak ends early: the mutex stays idle. The memory avoids that.
    fn nap<P: Platform>(&mut self, mutex: &Mutex, waiter: &Waiter<'_>) {
        let before = self.seq_seen.wrapping_sub(self.seq_at_start);
        let awake = self.elapsed();
        let rest = self.slice().saturating_sub(awake);
        // On the seat, which is mine: nobody wakes me but one who has taken it from me, and then the wake means what it means at the gate.
        let woken = P::wait(&mutex.seat, waiter.me, false, rest, waiter.deadline) == Wait::Woken;
        // That one may also have moved me to the word and left the seat to me.
        if woken || !seat::is_mine(mutex, waiter.me) && seat::may_be_mine(mutex) {
            seat::take(mutex, waiter.me);
        }
        self.now = P::now_ns();
        let asleep = self.elapsed().wrapping_sub(awake);
        let seq = mutex.seq.load(Relaxed);
        let meanwhile = seq.wrapping_sub(self.seq_seen);
        // Fewer than half as many acquisitions as in the time before: the streak ended.
        let ended = u64::from(meanwhile) * 2 * awake < u64::from(before) * asleep;
        self.memory.napped(!ended);
    }

    /// Waits until the next look.
    fn pause<P: Platform>(&mut self, patient: bool) {
        if patient && self.probing {
            self.now = delay::<P>(PROBE_POLL_NS);
        } else if patient {
            self.now = delay::<P>(self.streak_poll_ns);
            self.streak_poll_ns = (self.streak_poll_ns * 2).min(STREAK_POLL_MAX_NS);
        } else {
            P::pause();
            if self.looks.is_multiple_of(POLLS_PER_CLOCK) {
                self.now = P::now_ns();
            }
        }
    }

    /// Remembers a first spin that a loss of the CPU ended: that says nothing about spinning.
    fn waited(&mut self, mutex: &Mutex) {
        if !core::mem::replace(&mut self.first_spin_is_over, true) {
            self.memory.waited();
            self.memory.store(mutex);
        }
    }

    /// Remembers how the first spin of this watch went. A streak's attendant waits on purpose: that says nothing.
    fn spun(&mut self, mutex: &Mutex, acquired: bool) {
        if !core::mem::replace(&mut self.first_spin_is_over, true) {
            if !self.probing && !self.memory.streak() {
                self.memory.spun(acquired);
            }
            self.memory.waited();
            self.memory.store(mutex);
        }
    }

    /// Remembers what this watch has seen.
    fn learn(&mut self, mutex: &Mutex) {
        if !self.probing && !self.memory.streak() {
            return;
        }
        if !self.probing && self.moved && self.polls < STREAK_POLLS {
            return;
        }
        let acquisitions = self.seq_seen.wrapping_sub(self.seq_at_start);
        let elapsed = self.moved_at.wrapping_sub(self.start);
        // A streak in which nobody else came is none.
        self.memory.learned(streaks_pay(
            elapsed,
            acquisitions,
            self.polls,
            self.free_polls,
            self.several,
        ));
        self.memory.store(mutex);
    }
}

/// Whether the time that threads spend outside the mutex is shorter than a hand-over: `acquisitions` in `elapsed` nanoseconds make
/// the period, and the share of looks that found the mutex free is the share of the period outside. Where `several` threads took turns, that share says nothing: the mutex went
/// from one to the other. Then it is enough that they do not spend longer on the hand-over than inside.
fn streaks_pay(
    elapsed: u64,
    acquisitions: u32,
    polls: u32,
    free_polls: u32,
    several: bool,
) -> bool {
    let (acquisitions, polls) = (u64::from(acquisitions), u64::from(polls));
    let gap_is_short = elapsed * u64::from(free_polls) < HANDOVER_NS * acquisitions * polls;
    let handovers = if several {
        SHARED_PERIOD_HANDOVERS
    } else {
        STREAK_PERIOD_HANDOVERS
    };
    gap_is_short && elapsed < handovers * HANDOVER_NS * acquisitions
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn streaks_pay_for_short_gaps_and_short_sections_only() {
        // 10 us, 8 looks: 70 acquisitions, free at 5 of 8 looks: 89 ns outside.
        assert!(streaks_pay(10_000, 70, 8, 5, false));
        // 20 acquisitions, free at 7 of 8: 440 ns outside.
        assert!(!streaks_pay(10_000, 20, 8, 7, false));
        // A critical section of 1 us and nothing outside.
        assert!(streaks_pay(10_000, 10, 8, 0, false));
        // A critical section of 5 us.
        assert!(!streaks_pay(10_000, 2, 8, 0, false));
        // The first again, but from one thread to the other.
        assert!(streaks_pay(10_000, 20, 8, 0, true));
        assert!(!streaks_pay(10_000, 10, 8, 0, true));
        // No acquisition seen: the holder sleeps.
        assert!(!streaks_pay(10_000, 0, 8, 0, false));
    }
}
