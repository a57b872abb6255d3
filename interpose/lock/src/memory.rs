//! What the policy remembers of a mutex, in 32 bits of the mutex itself. All hints: any value is legal, and a lost update costs a measurement.

use autolock_abi::{Mutex, sync::Ordering::Relaxed};

/// Attended acquisitions between two measurements: 256 to begin with, up to 256 << 5 while nothing changes.
const PROBE_EVERY: u32 = 256;
const PROBE_LEVEL_MAX: u32 = 5;

/// The policy's memory of one mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Streaks pay.
    pub streak: bool,
    /// How many measurements in a row said that they do not.
    probe_level: u32,
    /// Attended acquisitions until the next measurement.
    countdown: u32,
}

impl Memory {
    const LEVEL_SHIFT: u32 = 1;
    const COUNTDOWN_SHIFT: u32 = 4;

    const fn from_bits(bits: u32) -> Self {
        Self {
            streak: bits & 1 != 0,
            probe_level: bits >> Self::LEVEL_SHIFT & 7,
            countdown: bits >> Self::COUNTDOWN_SHIFT,
        }
    }

    const fn bits(self) -> u32 {
        self.streak as u32
            | self.probe_level << Self::LEVEL_SHIFT
            | self.countdown << Self::COUNTDOWN_SHIFT
    }

    pub(crate) fn load(mutex: &Mutex) -> Self {
        Self::from_bits(mutex.policy.load(Relaxed))
    }

    pub(crate) fn store(self, mutex: &Mutex) {
        mutex.policy.store(self.bits(), Relaxed);
    }

    /// Counts an attended acquisition; true if it should measure.
    pub(crate) fn probe_is_due(&mut self) -> bool {
        if self.streak {
            return false; // Every streak measures.
        }
        let due = self.countdown == 0;
        self.countdown = self.countdown.saturating_sub(1);
        due
    }

    /// A measurement's result.
    pub(crate) fn learned(&mut self, streak: bool) {
        self.streak = streak;
        self.probe_level = if streak {
            0
        } else {
            (self.probe_level + 1).min(PROBE_LEVEL_MAX)
        };
        self.countdown = if streak {
            0
        } else {
            PROBE_EVERY << self.probe_level
        };
    }
}
