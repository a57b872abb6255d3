//! What the policy remembers of a mutex, in 32 bits of the mutex itself.
//!
//! All hints: any value is legal, zero is what a new mutex begins with, and a lost update costs a measurement.

use autolock_abi::{Mutex, sync::Ordering::Relaxed};

/// Acquisitions that had to wait before the first measurement; doubled after each one that changes nothing.
const FIRST_PROBE: u32 = 32;
const PROBE_LEVEL_MAX: u32 = 7;
/// Measurements in a row that must say that streaks do not pay before they end.
const SCORE_MAX: u32 = 3;
/// Streaks without a nap after one that ended during a nap.
const NAPLESS_STREAKS: u32 = 16;
/// Spins in vain, less the successful ones, from which on waiters sleep at once; and the most that are remembered.
const FAILURES_TO_SLEEP: u32 = 4;
const FAILURES_MAX: u32 = 7;
/// How many successful spins make up for one in vain, which takes longer.
const FAILURE_WEIGHT: u32 = 3;
/// One waiter in so many spins all the same, to see whether it pays again.
const RETRY_EVERY: u32 = 16;

/// The policy's memory of one mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// 0: share. Above: streaks pay; how many measurements in a row must deny it.
    score: u32,
    /// How many measurements in a row said that streaks do not pay.
    probe_level: u32,
    /// Spins in vain, less the successful ones.
    failures: u32,
    /// While sharing: acquisitions that had to wait since the last measurement. In streaks: how many more go without a nap.
    count: u32,
}

impl Memory {
    const LEVEL_SHIFT: u32 = 2;
    const FAILURES_SHIFT: u32 = 5;
    const COUNT_SHIFT: u32 = 8;

    const fn from_bits(bits: u32) -> Self {
        Self {
            score: bits & 3,
            probe_level: bits >> Self::LEVEL_SHIFT & 7,
            failures: bits >> Self::FAILURES_SHIFT & 7,
            count: bits >> Self::COUNT_SHIFT,
        }
    }

    const fn bits(self) -> u32 {
        self.score
            | self.probe_level << Self::LEVEL_SHIFT
            | self.failures << Self::FAILURES_SHIFT
            | self.count << Self::COUNT_SHIFT
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

    /// Whether the next attendant should measure. Every streak measures.
    pub(crate) const fn probe_is_due(self) -> bool {
        !self.streak() && self.count >= FIRST_PROBE << self.probe_level
    }

    /// Counts an acquisition that had to wait.
    pub(crate) fn waited(&mut self) {
        if !self.streak() && !self.probe_is_due() {
            self.count += 1;
        }
    }

    /// A measurement's result.
    pub(crate) fn learned(&mut self, streak: bool) {
        if streak {
            self.count = if self.streak() {
                self.count.saturating_sub(1)
            } else {
                0
            };
            self.score = SCORE_MAX;
            self.probe_level = 0;
        } else if self.score > 1 {
            self.score -= 1;
        } else {
            self.score = 0;
            self.probe_level = (self.probe_level + 1).min(PROBE_LEVEL_MAX);
            self.count = 0;
        }
    }

    /// Whether an attendant may sleep through a streak.
    pub(crate) const fn may_nap(self) -> bool {
        self.count == 0
    }

    /// How a nap went: whether the streak went on all the time.
    pub(crate) fn napped(&mut self, well: bool) {
        self.count = if well { 0 } else { NAPLESS_STREAKS };
    }

    /// Whether spinning on a holder that may be off its CPU is worth it; `draw` is any number that varies.
    pub(crate) const fn spinning_pays(self, draw: u32) -> bool {
        self.failures < FAILURES_TO_SLEEP || draw.is_multiple_of(RETRY_EVERY)
    }

    /// How a spin went.
    pub(crate) fn spun(&mut self, acquired: bool) {
        self.failures = if acquired {
            self.failures.saturating_sub(1)
        } else {
            (self.failures + FAILURE_WEIGHT).min(FAILURES_MAX)
        };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NEW: Memory = Memory::from_bits(0);

    #[test]
    fn it_fits_into_32_bits_and_comes_back() {
        let full = Memory {
            score: 3,
            probe_level: 7,
            failures: 7,
            count: FIRST_PROBE << PROBE_LEVEL_MAX,
        };
        assert_eq!(Memory::from_bits(full.bits()), full);
        assert_eq!(NEW.bits(), 0);
    }

    #[test]
    fn measurements_become_rarer_while_they_change_nothing() {
        let mut memory = NEW;
        let mut between = Vec::new();
        for _ in 0..10 {
            let mut acquisitions = 0;
            while !memory.probe_is_due() {
                memory.waited();
                acquisitions += 1;
            }
            between.push(acquisitions);
            memory.learned(false);
        }
        assert!(
            between.windows(2).all(|pair| pair[0] <= pair[1]),
            "{between:?}"
        );
        assert!(between[9] > 100 * between[0]);
    }

    #[test]
    fn one_bad_measurement_does_not_end_streaks() {
        let mut memory = NEW;
        memory.learned(true);
        memory.learned(false);
        assert!(memory.streak());
        memory.learned(false);
        memory.learned(false);
        assert!(!memory.streak());
    }

    #[test]
    fn spins_in_vain_end_spinning_but_for_a_few_tries() {
        let mut memory = NEW;
        memory.spun(false);
        assert!(memory.spinning_pays(1), "one may be bad luck");
        memory.spun(false);
        assert!(!memory.spinning_pays(1));
        assert!(memory.spinning_pays(RETRY_EVERY));
        for _ in 0..FAILURES_MAX {
            memory.spun(true);
        }
        assert!(memory.spinning_pays(1));
    }
}
