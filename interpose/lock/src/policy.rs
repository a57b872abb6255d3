//! How long a waiter spins that does not attend, and how an unlocker makes room. The attendant's part is [`crate::watch`].
//!
//! Two ways to share a contended mutex, chosen per mutex by what its attendants measure:
//!
//! - *Share*: the attendant looks all the time and takes the mutex as soon as it is free. Right when threads spend longer outside
//!   the mutex than a hand-over between CPUs takes: both run at once.
//! - *Streak*: the attendant looks rarely, then sleeps, and lets the running threads go on taking the mutex, whose cache lines stay where they
//!   are, until the mutex is idle or a slice is over. Right when the time outside is shorter than a hand-over: every hand-over would stop both.
//!   (u-SCL, Patel et al., EuroSys '20, gives each thread such a slice of lock time; here only waiters measure, and only while they wait.)
//!
//! May touch: hints in the mutex, the clock. Decides nothing that correctness depends on.

use autolock_abi::{Mutex, sync::Ordering::Relaxed};

use crate::{
    contended::{Waiter, try_acquire},
    memory::Memory,
    mutex::record_holder,
    oncpu::{Holder, HolderState, OnCpu},
    platform::Platform,
    seat::{self, Pass, Rank},
};

/// How long a waiter spins beside an attendant before it goes to the gate.
const NEWCOMER_NS: u64 = 3_000;
/// The same while the holder is known to be on a CPU: long enough for a dozen others with short critical sections to have their turns before it.
const NEWCOMER_WITH_RUNNING_NS: u64 = 40_000;
/// One acquisition of so many wakes a sleeper though there is an heir.
const WAKE_EVERY: u32 = 256;
/// Longer than it takes a holder to write down, after its acquisition, on which CPU it runs.
const RECORD_NS: u64 = 500;
/// How long an unlocker steps back for a hungry attendant.
const STEP_BACK_NS: u64 = 1_000;
/// How long it steps back for a sleeper: a wake-up on an idle CPU takes so long.
pub(crate) const STEP_BACK_FOR_A_SLEEPER_NS: u64 = 50_000;
/// Looks between two looks at the clock while polling without a pause.
pub(crate) const POLLS_PER_CLOCK: u32 = if cfg!(loom) { 1 } else { 8 };
/// Looks before a waiter does anything else.
const BRIEF_POLLS: u32 = if cfg!(loom) { 1 } else { 6 };
/// Looks of a waiter of a process-shared mutex before it sleeps.
const SHARED_POLLS: u32 = if cfg!(loom) { 1 } else { 30 };

/// Waits `ns` nanoseconds; returns the time.
pub(crate) fn delay<P: Platform>(ns: u64) -> u64 {
    let start = P::now_ns();
    loop {
        P::pause();
        let now = P::now_ns();
        if now.wrapping_sub(start) >= ns {
            return now;
        }
    }
}

/// After a release that a hungry attendant asked for: leaves the mutex alone for a moment.
pub(crate) fn step_back<P: Platform>() {
    delay::<P>(STEP_BACK_NS);
}

/// After a release that woke a starving sleeper: leaves the mutex, and the CPU, to it until it can have come.
pub(crate) fn step_back_for_a_sleeper<P: Platform>() {
    P::sleep(STEP_BACK_FOR_A_SLEEPER_NS);
}

/// Spins a little on a process-shared mutex, unless its holder is known to be off its CPU. Returns whether it was acquired.
pub(crate) fn spin_shared<P: Platform>(mutex: &Mutex, waiter: &Waiter<'_>) -> bool {
    for look in 0..SHARED_POLLS {
        // In this order: what is known may be wrong, and the mutex free.
        if try_acquire(mutex, waiter.duty) {
            return true;
        }
        if look == 0 && is_known_off::<P>(mutex) {
            return false;
        }
        P::pause();
    }
    false
}

/// Whether a newcomer should attend while the waiter whose turn it is has not come. Not in streaks: the newcomer's CPU is where that waiter will run.
pub(crate) fn keeps_warm(mutex: &Mutex) -> bool {
    !Memory::load(mutex).streak()
}

/// Spins for less time than it takes to write anything into the mutex that its holder would notice: a contended short critical
/// section is over by then. Returns whether the mutex was acquired.
pub(crate) fn spin_briefly<P: Platform>(mutex: &Mutex) -> bool {
    let mut memory = Memory::load(mutex);
    if memory.streak() || memory.probe_is_due() || !memory.spinning_pays(mutex.seq.load(Relaxed)) {
        return false;
    }
    for _ in 0..BRIEF_POLLS {
        if try_acquire(mutex, false) {
            memory.waited();
            memory.store(mutex);
            return true;
        }
        P::pause();
    }
    false
}

/// How a newcomer's spinning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newcomer {
    /// It holds the mutex.
    Acquired,
    /// It has the seat.
    Seated,
    /// It is to sleep.
    Waits,
}

/// Spins a little while somebody else attends, unless the holder is known to be off its CPU; as the attendant's heir, if there is no other.
pub(crate) fn spin_as_newcomer<P: Platform>(mutex: &Mutex, waiter: &mut Waiter<'_>) -> Newcomer {
    let memory = Memory::load(mutex);
    let seq = mutex.seq.load(Relaxed);
    if memory.streak() || !memory.spinning_pays(seq) || is_known_off::<P>(mutex) {
        return Newcomer::Waits;
    }
    let my_cpu = P::cpu();
    let start = P::now_ns();
    let mut rank = Rank::Newcomer;
    let acquired = loop {
        if poll::<P>(mutex, waiter) {
            break true;
        }
        rank = seat::rise(mutex, waiter.me, rank);
        if rank == Rank::Attendant {
            return Newcomer::Seated;
        }
        let waited = P::now_ns().wrapping_sub(start);
        if waited > NEWCOMER_NS && (waited > NEWCOMER_WITH_RUNNING_NS || !is_known_on::<P>(mutex))
            || mutex.seq.load(Relaxed) == seq && is_hopeless::<P>(mutex, my_cpu, waited)
        {
            break false;
        }
    };
    if acquired {
        record_holder::<P>(mutex);
    }
    let seated = rank == Rank::Heir && seat::resign(mutex, waiter.me);
    match (acquired, seated) {
        (true, true) => {
            // It was left to me just now.
            let _ = seat::pass::<P>(mutex, waiter.me, Pass::Inherit); // Moves nobody to the word.
            Newcomer::Acquired
        }
        (true, false) => Newcomer::Acquired,
        (false, true) => Newcomer::Seated,
        (false, false) => Newcomer::Waits,
    }
}

fn poll<P: Platform>(mutex: &Mutex, waiter: &Waiter<'_>) -> bool {
    for _ in 0..POLLS_PER_CLOCK {
        if try_acquire(mutex, waiter.duty) {
            return true;
        }
        P::pause();
    }
    false
}

/// Whether a holder that has not moved for `unmoved` nanoseconds is off its CPU. By the CPU on which it took the mutex not at once: between an acquisition
/// and its record the mutex still shows the CPU of the holder before.
pub(crate) fn is_hopeless<P: Platform>(mutex: &Mutex, my_cpu: u16, unmoved: u64) -> bool {
    if unmoved > RECORD_NS {
        P::OnCpu::holder(Holder::of(mutex), my_cpu) == HolderState::NotRunning
    } else {
        is_known_off::<P>(mutex)
    }
}

/// Whether the holder is known, by its thread id, to be off its CPU. At once: an owner stands in the mutex only while it holds it.
fn is_known_off<P: Platform>(mutex: &Mutex) -> bool {
    P::OnCpu::thread(Holder::of(mutex)) == HolderState::NotRunning
}

/// How a spinning attendant passes its seat on.
pub(crate) const fn pass(seq: u32) -> Pass {
    if seq.is_multiple_of(WAKE_EVERY) {
        Pass::Wake
    } else {
        Pass::Inherit
    }
}

/// Whether the holder is known to be on a CPU.
pub(crate) fn is_known_on<P: Platform>(mutex: &Mutex) -> bool {
    P::OnCpu::thread(Holder::of(mutex)) == HolderState::Running
}
