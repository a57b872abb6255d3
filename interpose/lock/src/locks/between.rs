//! What a waiter does between two looks at a lock, and for how long it goes on.
//!
//! May touch: the waiter's own stack. Decides nothing that correctness depends on.

use core::marker::PhantomData;

use crate::{oncpu::HolderState, platform::Platform};

/// The first and the longest backoff, in pauses; powers of two.
const BACKOFF_MIN: u32 = if cfg!(loom) { 1 } else { 4 };
const BACKOFF_MAX: u32 = if cfg!(loom) { 1 } else { 128 };
/// How many pauses a waiter makes before it offers its CPU.
const PAUSES_PER_YIELD: u32 = if cfg!(loom) { 1 } else { 32 };
/// How many pauses a waiter makes before it sleeps, where it knows nothing of the holder: about as long as going to sleep and
/// waking up take.
pub(super) const SPIN_PAUSES: u32 = if cfg!(loom) { 1 } else { 128 };
/// How many pauses of a waiter that hears that the holder runs weigh as much as one of a waiter that knows nothing.
const RUNNING_WEIGHT: u32 = if cfg!(loom) { 1 } else { 64 };

/// One waiter's pauses.
///
/// - With neither: one pause.
/// - `BACKOFF`: a random number of pauses, at most a limit that doubles with each look up to [`BACKOFF_MAX`] (Anderson 1990). Each
///   thread draws a sequence of its own.
/// - `YIELD`: after every [`PAUSES_PER_YIELD`] pauses, sched_yield(2).
pub(super) struct Between<P, const YIELD: bool, const BACKOFF: bool> {
    limit: u32,
    random: u32,
    since_yield: u32,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform, const YIELD: bool, const BACKOFF: bool> Between<P, YIELD, BACKOFF> {
    pub(super) fn new() -> Self {
        Self {
            limit: BACKOFF_MIN,
            // Not 0, of which xorshift makes nothing else.
            random: if BACKOFF { seed(P::tid()) } else { 1 },
            since_yield: 0,
            platform: PhantomData,
        }
    }

    /// Waits; returns the number of pauses.
    #[inline]
    pub(super) fn wait(&mut self) -> u32 {
        let pauses = if BACKOFF { self.draw() } else { 1 };
        for _ in 0..pauses {
            P::pause();
        }
        if YIELD {
            self.since_yield += pauses;
            if self.since_yield >= PAUSES_PER_YIELD {
                self.since_yield = 0;
                P::yield_now();
            }
        }
        pauses
    }

    /// From 1 to the limit.
    fn draw(&mut self) -> u32 {
        // xorshift32: Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let pauses = 1 + (self.random & (self.limit - 1));
        self.limit = (self.limit * 2).min(BACKOFF_MAX);
        pauses
    }
}

const fn seed(tid: i32) -> u32 {
    // Spreads neighbouring thread ids: 2^32 divided by the golden ratio.
    tid.cast_unsigned().wrapping_mul(0x9e37_79b1) | 1
}

/// How much longer a waiter spins that asks after the holder.
pub(super) struct Patience {
    left: u32,
}

impl Patience {
    pub(super) const fn new() -> Self {
        Self {
            left: SPIN_PAUSES * RUNNING_WEIGHT,
        }
    }

    /// Whether to spin on, after `pauses` more, now that the holder is known to be in `state`. Ends in any state: a source may be wrong.
    #[inline]
    pub(super) fn lasts(&mut self, state: HolderState, pauses: u32) -> bool {
        let weight = match state {
            HolderState::NotRunning => return false,
            HolderState::Running => 1,
            HolderState::Unknown => RUNNING_WEIGHT,
        };
        self.left = self.left.saturating_sub(pauses.saturating_mul(weight));
        self.left != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_in_every_state_and_at_once_when_the_holder_does_not_run() {
        let pauses = |state| {
            let mut patience = Patience::new();
            (1..).find(|_| !patience.lasts(state, 1))
        };
        assert_eq!(pauses(HolderState::NotRunning), Some(1));
        assert_eq!(pauses(HolderState::Unknown), Some(SPIN_PAUSES));
        assert_eq!(
            pauses(HolderState::Running),
            Some(SPIN_PAUSES * RUNNING_WEIGHT)
        );
    }

    #[test]
    fn neighbours_draw_different_backoffs() {
        let draws = |tid| {
            let mut random = seed(tid);
            [(); 4].map(|()| {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                random & (BACKOFF_MAX - 1)
            })
        };
        assert_ne!(draws(1000), draws(1001));
    }
}
