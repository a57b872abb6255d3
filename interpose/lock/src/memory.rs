//! What the policy remembers of a mutex, in 32 bits of the mutex itself. All hints: any value is legal, and a lost update costs a measurement.

use autolock_abi::{Mutex, sync::Ordering::Relaxed};

/// Attended acquisitions between two measurements: 256 to begin with, up to 256 << 5 while nothing changes.
const PROBE_EVERY: u32 = 256;
const PROBE_LEVEL_MAX: u32 = 5;
const SCORE_MAX: u32 = 3;
/// Streaks without a nap after one that ended during a nap.
const NAPLESS_STREAKS: u32 = 16;

/// The policy's memory of one mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// How many measurements in a row must say that streaks do not pay before they end; 0: share.
    score: u32,
    /// How many measurements in a row said that they do not.
    probe_level: u32,
    /// Attended acquisitions until the next measurement; in streaks, until the next nap.
    countdown: u32,
}

impl Memory {
    const LEVEL_SHIFT: u32 = 2;
    const COUNTDOWN_SHIFT: u32 = 5;

    const fn from_bits(bits: u32) -> Self {
        Self {
            score: bits & 3,
            probe_level: bits >> Self::LEVEL_SHIFT & 7,
            countdown: bits >> Self::COUNTDOWN_SHIFT,
        }
    }

    const fn bits(self) -> u32 {
        self.score | self.probe_level << Self::LEVEL_SHIFT | self.countdown << Self::COUNTDOWN_SHIFT
    }

    pub(crate) fn load(mutex: &Mutex) -> Self {
        Self::from_bits(mutex.policy.load(Relaxed))
    }

    pub(crate) fn store(self, mutex: &Mutex) {
        mutex.policy.store(self.bits(), Relaxed);
    }

    /// Whether streaks pay.
    pub(crate) const fn streak(self) -> bool {
        self.score != 0
    }

    /// Counts an attended acquisition; true if it should measure.
    pub(crate) fn probe_is_due(&mut self) -> bool {
        if self.streak() {
            return false; // Every streak measures.
        }
        let due = self.countdown == 0;
        self.countdown = self.countdown.saturating_sub(1);
        due
    }

    /// Counts a streak; whether its attendant may sleep through it.
    pub(crate) const fn may_nap(self) -> bool {
        self.countdown == 0
    }

    /// How a nap went: whether the streak went on all the time.
    pub(crate) fn napped(&mut self, well: bool) {
        self.countdown = if well { 0 } else { NAPLESS_STREAKS };
    }

    /// A measurement's result.
    pub(crate) fn learned(&mut self, streak: bool) {
        if streak {
            let countdown = if self.streak() {
                self.countdown.saturating_sub(1)
            } else {
                0
            };
            *self = Self {
                score: SCORE_MAX,
                probe_level: 0,
                countdown,
            };
        } else if self.score > 1 {
            self.score -= 1;
        } else {
            let probe_level = (self.probe_level + 1).min(PROBE_LEVEL_MAX);
            *self = Self {
                score: 0,
                probe_level,
                countdown: PROBE_EVERY << probe_level,
            };
        }
    }
}
