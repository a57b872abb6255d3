//! `--test` on the command line.

use super::{LONG, SHORT, test_names};
use clap::builder::PossibleValuesParser;
use std::time::Duration;

/// What only `--test` understands.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Test: exclusion, try_lock, order, misuse, preemption, lost wake-ups; with --all, that the tests notice broken locks
    #[arg(long, help_heading = "What to do")]
    pub test: bool,
    /// The tests to run [default: all]
    #[arg(
        long,
        value_name = "TESTS",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(test_names()),
        requires = "test",
        help_heading = "Tests"
    )]
    pub only: Vec<String>,
    /// Random numbers as in the run that printed this seed
    #[arg(long, value_name = "N", requires = "test", help_heading = "Tests")]
    pub seed: Option<u64>,
    /// One second for each phase of a test, if --duration does not say otherwise
    #[arg(long, requires = "test", help_heading = "Tests")]
    pub long: bool,
}

/// Thread counts if nobody says.
pub const THREADS: [usize; 5] = [1, 2, 4, 16, 64];

impl Options {
    /// Of a phase, where `duration` is what --duration says.
    pub fn duration(&self, duration: Option<Duration>) -> Duration {
        duration.unwrap_or(if self.long { LONG } else { SHORT })
    }

    /// The seed that was asked for, or one that nobody has used.
    pub fn seed(&self) -> u64 {
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.seed
            .unwrap_or_else(|| now().map_or(1, |time| time.as_micros() as u64 % 1_000_000_007))
    }
}
