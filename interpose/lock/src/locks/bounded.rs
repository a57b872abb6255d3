//! Spinning with a bound in time, for the locks that sleep in the end.

use crate::platform::Platform;

/// Looks between two looks at the clock.
const POLLS_PER_CLOCK: u32 = if cfg!(loom) { 1 } else { 16 };

/// The time-out of a sleep that ends by a wake only.
pub(super) const FOREVER_NS: u64 = u64::MAX;

/// A spin that began now.
#[derive(Debug)]
pub(super) struct Spin {
    start_ns: u64,
    polls: u32,
}

impl Spin {
    pub(super) fn begin<P: Platform>() -> Self {
        Self {
            start_ns: P::now_ns(),
            polls: 0,
        }
    }

    /// Counts a look. Every few looks: how many nanoseconds the spin has lasted.
    pub(super) fn lasted_ns<P: Platform>(&mut self) -> Option<u64> {
        self.polls = self.polls.wrapping_add(1);
        self.polls
            .is_multiple_of(POLLS_PER_CLOCK)
            .then(|| P::now_ns().wrapping_sub(self.start_ns))
    }
}

/// Spins until `done`, but no longer than `ns` nanoseconds, with a look at the clock after each at `done`. Returns whether `done`.
pub(super) fn spin_for<P: Platform>(ns: u64, mut done: impl FnMut() -> bool) -> bool {
    let start_ns = P::now_ns();
    loop {
        if done() {
            return true;
        }
        if P::now_ns().wrapping_sub(start_ns) >= ns {
            return false;
        }
        P::pause();
    }
}
