//! `--test`: every test on every lock at every thread count, each in a process of its own, and what came of it.
//!
//! | module | what it is for |
//! |---|---|
//! | `trials` | the tests |
//! | `ground`, `crew`, `queued` | what they work with: a guarded section, threads, who surely waits |
//! | `inject`, `signals` | a platform that loses the CPU at the worst points; losing it anywhere |
//! | `busted` | locks that must fail |
//! | `subject` | a lock and what it promises |
//! | `child` | a process for each test, and the watch over it |
//! | `options` | its part of the command line |
//! | `report` | the table and the failures as text |
//! | `random` | numbers from a seed |
//!
//! May touch: its child processes. Starts no thread in the driver's own process: it could not fork then.

pub mod busted;
mod child;
mod crew;
mod ground;
mod inject;
mod options;
mod queued;
mod random;
mod report;
mod signals;
mod subject;
mod trials;

use crate::lock::{Origin, Source};
use anyhow::{Context, Result};
use autolock_shim::linux::Linux;
use child::{Progress, Verdict};
use ground::Ground;
use indicatif::{ProgressBar, ProgressStyle};
pub use options::{Options, THREADS};
use random::derive;
pub use report::{Failure, Report};
use std::time::Duration;
use subject::Subject;
use trials::{TESTS, Test};

/// What to test.
pub struct Request {
    pub sources: Vec<Source>,
    pub threads: Vec<usize>,
    /// The tests by name; empty means all.
    pub tests: Vec<String>,
    /// Of each phase of a test that could go on for ever.
    pub duration: Duration,
    pub seed: u64,
    /// Whether to show first that the tests notice the locks that are broken on purpose.
    pub self_check: bool,
}

/// A phase's length if nobody says.
pub const SHORT: Duration = Duration::from_millis(25);

/// The same with `--long`.
pub const LONG: Duration = Duration::from_secs(1);

/// Threads of the self-check: the fewest with which each broken lock shows its fault.
const SELF_CHECK_THREADS: usize = 4;

/// With the locks that must fail at the end.
pub fn with_busted(mut known: Vec<Source>) -> Vec<Source> {
    known.extend(busted_sources());
    known
}

fn busted_sources() -> impl Iterator<Item = Source> {
    busted::entries::<Linux>().iter().map(|entry| Source {
        name: entry.info.name.into(),
        origin: Origin::Entry(entry),
    })
}

/// Runs the tests; `tell` is given each failure as it is found.
pub fn torture(request: &Request, mut tell: impl FnMut(&Failure) -> Result<()>) -> Result<Report> {
    let tests = choose(&request.tests);
    let progress = Progress::shared()?;
    let bar = progress_bar(request, tests.len());
    let bench = Bench {
        progress,
        duration: request.duration,
    };
    let unnoticed = if request.self_check {
        bar.set_message("self-check");
        bench.self_check(&tests, request.seed)?
    } else {
        Vec::new()
    };
    let mut report = Report::new(&tests, request, unnoticed);
    for source in &request.sources {
        let subject = Subject::open(source)?;
        for test in &tests {
            for &threads in &request.threads {
                bar.set_message(format!("{} {} {threads}", source.name, test.name));
                let seed = seed_of(request.seed, &source.name, test, threads);
                let verdict = bench.case(&subject, test, threads, seed)?;
                if let Some(failure) = report.add(source, test, threads, verdict) {
                    bar.suspend(|| tell(failure))?;
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// The names of all tests, for the command line.
pub fn test_names() -> impl Iterator<Item = &'static str> {
    TESTS.iter().map(|test| test.name)
}

/// Those asked for; the command line knows no others.
fn choose(names: &[String]) -> Vec<&'static Test> {
    let wanted = |test: &&Test| names.is_empty() || names.iter().any(|name| name == test.name);
    TESTS.iter().filter(wanted).collect()
}

/// A case run alone gets the same numbers as within a longer run.
fn seed_of(seed: u64, lock: &str, test: &Test, threads: usize) -> u64 {
    derive(seed, &format!("{lock} {} {threads}", test.name))
}

/// Where cases are run.
struct Bench {
    progress: &'static Progress,
    duration: Duration,
}

impl Bench {
    fn case(&self, subject: &Subject, test: &Test, threads: usize, seed: u64) -> Result<Verdict> {
        let ground = Ground {
            subject,
            threads,
            seed,
            duration: self.duration,
            progress: self.progress,
        };
        child::run(self.progress, self.duration, || (test.run)(&ground)).with_context(|| {
            format!(
                "{} of '{}' with {threads} threads",
                test.name, subject.lock.name
            )
        })
    }

    /// `busted` fails each test, and each test notices the lock whose fault it is for. Returns what passes.
    fn self_check(&self, tests: &[&Test], seed: u64) -> Result<Vec<String>> {
        let mut unnoticed = Vec::new();
        for source in busted_sources() {
            let subject = Subject::open(&source)?;
            for test in tests {
                let aimed = source.name.strip_prefix("busted_");
                if aimed.is_some_and(|aimed| aimed != test.name) {
                    continue;
                }
                let seed = seed_of(seed, &source.name, test, SELF_CHECK_THREADS);
                let verdict = self.case(&subject, test, SELF_CHECK_THREADS, seed)?;
                if let Verdict::Pass(_) = verdict {
                    unnoticed.push(format!("{} passes {}", source.name, test.name));
                }
            }
        }
        Ok(unnoticed)
    }
}

fn progress_bar(request: &Request, tests: usize) -> ProgressBar {
    let cases = request.sources.len() * tests * request.threads.len();
    let bar = ProgressBar::new(cases as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (left: {eta})") {
        bar.set_style(style);
    }
    bar
}
