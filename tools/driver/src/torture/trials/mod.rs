//! The tests, a file each. A test returns if all is well, with a remark if there is something to say; else it calls
//! [`fail`](super::child::fail).

mod exclusion;
mod misuse;
mod oversubscription;
mod preemption;
mod release;
mod starvation;
mod try_lock;
mod wakeups;

use super::ground::Ground;

/// A test by its name on the command line.
pub struct Test {
    pub name: &'static str,
    pub run: fn(&Ground) -> Option<String>,
}

pub const TESTS: [Test; 7] = [
    Test {
        name: "exclusion",
        // One thread inside at a time, no section lost.
        run: exclusion::run,
    },
    Test {
        name: "try_lock",
        // Try_lock fails while held, succeeds when free, never waits.
        run: try_lock::run,
    },
    Test {
        name: "starvation",
        // The order that the lock promises; that every thread gets in.
        run: starvation::run,
    },
    Test {
        name: "misuse",
        // Garbage before init, many locks at once, threads that end, destroyed after the last unlock.
        run: misuse::run,
    },
    Test {
        name: "oversubscription",
        // Progress on one cpu and beside a competitor.
        run: oversubscription::run,
    },
    Test {
        name: "preemption",
        // The cpu lost at the worst points, signals.
        run: preemption::run,
    },
    Test {
        name: "wakeups",
        // No thread sleeps on when the last one has gone.
        run: wakeups::run,
    },
];
