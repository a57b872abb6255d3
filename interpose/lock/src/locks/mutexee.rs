//! Mutexee: a futex mutex that spins longer than glibc's, and whose unlock waits a moment for a spinner before it wakes a sleeper.
//!
//! Source: Falsafi, Guerraoui, Picorel and Trigonakis, "Unlocking energy", USENIX ATC 2016.
//!
//! | word | meaning | transitions |
//! |---|---|---|
//! | 0 | free | -> `HELD` by whoever comes; -> both bits by a waiter that has given up spinning |
//! | `HELD` | held; nobody sleeps whom this unlock must think of | -> 0 by the holder; -> both by a waiter about to sleep |
//! | both | held; somebody may sleep | -> `SLEEPERS` by the holder, who is then the *releaser* |
//! | `SLEEPERS` | free; somebody may sleep | -> both by whoever comes, who inherits the duty to wake; -> 0 by a releaser that then wakes one |
//!
//! No lost wake-up: the mark goes only in a releaser's exchange, which is followed by a wake; the woken waiter sets the mark before it sleeps again
//! and when it acquires. A waiter sleeps only while the word has both bits, so that the next unlock is a releaser's.
//!
//! Two modes, as in the paper (its cycles at 2.8 GHz are nanoseconds here):
//!
//! | mode | lock spins | unlock waits |
//! |---|---|---|
//! | spin | 8000 cycles: 2860 ns | 384 cycles: 140 ns |
//! | mutex | 256 cycles: 90 ns | 128 cycles: 45 ns |
//!
//! After each 128 acquisitions that had to wait, the mode is mutex if more than 30 % of them slept, else spin. The window and the way back are
//! ours: since most acquisitions of the mutex mode sleep, it tries the spin mode again after 16 windows. Left out: the paper's optional time-out
//! of sleepers, which bounds starvation.
//!
//! Memory orderings: `lock`'s fetch-or and exchange are Acquire and pair with the Release of `unlock`'s compare-exchange and fetch-and; everything
//! between is a read-modify-write, so the release sequence is not broken. A releaser's last exchange is Relaxed: it publishes nothing. The
//! statistics are written by the holder only and are hints.
//!
//! Destroying: a releaser looks at the word *after* its release, up to the wake. POSIX lets the next holder destroy a mutex and reuse its memory
//! at once, so this lock, as the paper's, breaks that rule: its memory must stay mapped, and may become another Mutexee but nothing else,
//! for which a releaser that comes late does no harm (it takes the mark from a free word and wakes one).
//!
//! Bad at: critical sections longer than the spin, which cost it whole; sleepers may starve, for spinners overtake them.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
    hint,
};

use super::bounded::{FOREVER_NS, spin_for};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    platform::Platform,
};

const FREE: u32 = 0;
const HELD: u32 = 1;
const SLEEPERS: u32 = 2;

/// Acquisitions that had to wait between two decisions.
const WINDOW: u32 = 128;
/// Of 100 in a window: how many may sleep in the spin mode.
const SLEPT_PERCENT: u32 = 30;
/// Windows in the mutex mode before the spin mode is tried again.
const MUTEX_WINDOWS: u32 = 16;

/// How long to spin, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    lock_ns: u64,
    unlock_ns: u64,
}

const SPIN: Mode = Mode {
    lock_ns: 2860,
    unlock_ns: 140,
};
const MUTEX: Mode = Mode {
    lock_ns: 90,
    unlock_ns: 45,
};

/// What decides the mode. Written by the holder only.
#[derive(Debug)]
struct Experience {
    /// In this window: acquisitions that had to wait, and how many of them slept.
    waited: hint::AtomicU32,
    slept: hint::AtomicU32,
    /// Windows left in the mutex mode; 0 in the spin mode.
    mutex_windows: hint::AtomicU32,
}

impl Experience {
    const fn new() -> Self {
        Self {
            waited: hint::AtomicU32::new(0),
            slept: hint::AtomicU32::new(0),
            mutex_windows: hint::AtomicU32::new(0),
        }
    }

    fn mode(&self) -> Mode {
        if self.mutex_windows.load(Relaxed) == 0 {
            SPIN
        } else {
            MUTEX
        }
    }

    /// Counts an acquisition that had to wait.
    fn learn(&self, by_futex: bool) {
        let waited = self.waited.load(Relaxed).wrapping_add(1);
        let slept = self.slept.load(Relaxed).wrapping_add(by_futex.into());
        if waited < WINDOW {
            self.waited.store(waited, Relaxed);
            self.slept.store(slept, Relaxed);
            return;
        }
        self.waited.store(0, Relaxed);
        self.slept.store(0, Relaxed);
        let left = if slept.wrapping_mul(100) <= SLEPT_PERCENT * WINDOW {
            0
        } else {
            match self.mutex_windows.load(Relaxed) {
                0 => MUTEX_WINDOWS,
                windows => windows - 1,
            }
        };
        self.mutex_windows.store(left, Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Mutexee<P> {
    word: AtomicU32,
    experience: Experience,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for Mutexee<P> {
    const INFO: Info = Info {
        name: "mutexee",
        about: "futex; spins longer, unlock waits for a spinner; adapts to how many sleep",
        source: "Falsafi et al., USENIX ATC 2016",
        order: Order::Unfair,
        waiting: Waiting::Sleeps,
    };

    const RELEASE_IS_FINAL: bool = false;

    fn new() -> Self {
        Self {
            word: AtomicU32::new(FREE),
            experience: Experience::new(),
            platform: PhantomData,
        }
    }

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_contended();
        }
        P::preemption_point();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.word.fetch_or(HELD, Acquire) & HELD == 0
    }

    #[inline]
    unsafe fn unlock(&self) {
        P::preemption_point();
        if self
            .word
            .compare_exchange(HELD, FREE, Release, Relaxed)
            .is_err()
        {
            self.unlock_contended();
        }
    }
}

impl<P: Platform> Mutexee<P> {
    #[cold]
    #[inline(never)]
    fn lock_contended(&self) {
        let acquired = spin_for::<P>(self.experience.mode().lock_ns, || {
            self.word.load(Relaxed) & HELD == 0 && self.try_lock()
        });
        if !acquired {
            while self.word.swap(HELD | SLEEPERS, Acquire) & HELD != 0 {
                P::preemption_point();
                // However it ends, the exchange decides, and leaves the mark that a woken waiter owes.
                P::wait(&self.word, HELD | SLEEPERS, false, FOREVER_NS, None);
            }
        }
        self.experience.learn(!acquired);
    }

    #[cold]
    #[inline(never)]
    fn unlock_contended(&self) {
        let patience_ns = self.experience.mode().unlock_ns;
        self.word.fetch_and(!HELD, Release);
        P::preemption_point();
        // From here on the word may be another Mutexee's: see "Destroying" above.
        if spin_for::<P>(patience_ns, || self.word.load(Relaxed) & HELD != 0) {
            return; // Its new holder has the mark, and with it the duty.
        }
        if self
            .word
            .compare_exchange(SLEEPERS, FREE, Relaxed, Relaxed)
            .is_ok()
        {
            P::preemption_point();
            P::wake_one(&raw const self.word, false);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A window in which `slept` acquisitions of 100 sleep.
    fn window(experience: &Experience, slept: u32) {
        for n in 0..WINDOW {
            experience.learn(n * 100 < slept * WINDOW);
        }
    }

    #[test]
    fn waiters_that_sleep_bring_the_mutex_mode_and_time_or_spinning_ends_it() {
        let experience = Experience::new();
        window(&experience, 25);
        assert_eq!(experience.mode(), SPIN);
        window(&experience, 35);
        assert_eq!(experience.mode(), MUTEX);
        window(&experience, 25);
        assert_eq!(experience.mode(), SPIN);
        window(&experience, 100);
        for _ in 1..MUTEX_WINDOWS {
            window(&experience, 100);
            assert_eq!(experience.mode(), MUTEX);
        }
        window(&experience, 100);
        assert_eq!(experience.mode(), SPIN, "tried again");
    }
}
