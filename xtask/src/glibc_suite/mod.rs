//! glibc's own thread tests, run against the installed glibc with and without a preload.
//!
//! glibc's mutexes are what we stand in for, so its tests are the nearest thing to a
//! specification. Debian ships the sources (package glibc-source); their tests are compiled with
//! a thin layer of ours (`interpose/tests/glibc-suite/`) in place of glibc's build tree, and each
//! runs twice, first plain, then under the preload. What passes plain must pass preloaded. The same comparison serves for any two
//! ways to start a test ([`compare`]): on another glibc, for one.
//!
//! [`source`] unpacks and caches, [`catalogue`] reads glibc's makefiles, [`build`] compiles,
//! [`runner`] runs one test, [`prove`] shows that a wrong lock is noticed.

mod build;
mod catalogue;
mod prove;
mod runner;
mod source;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Usage;
use crate::project::Project;
pub use runner::Way;
use runner::{Run, Runner};
use source::Suite;

/// Fewer passing tests than this without the preload: the harness itself is out of order.
const FLOOR: usize = 150;
/// A test that takes longer than this without the preload is left out.
const SLOW: Duration = Duration::from_secs(25);
/// The long ones go first, so that the end of the run is not one test on one core.
const LONG: &[&str] = &[
    "tst-cond16",
    "tst-cond17",
    "tst-cond18",
    "tst-cancel4",
    "tst-cancel5",
    "tst-cancelx4",
    "tst-cancelx5",
    "tst-rwlock-pwn",
    "tst-rwlock20",
    "tst-rwlock-trywrlock-stall",
    "tst-mutex10",
    "tst-cancel20",
    "tst-cancel21",
    "tst-cancelx20",
    "tst-cancelx21",
];
/// First letters of a test's name after `tst-`, and the group it is counted in.
const GROUPS: &[(&str, &str)] = &[
    ("mutex", "mutex"),
    ("pthread-mutex", "mutex"),
    ("robust", "robust"),
    ("cond", "condition variable"),
    ("rwlock", "rwlock"),
    ("barrier", "barrier"),
    ("sem", "semaphore"),
    ("once", "once"),
    ("cancel", "cancellation"),
    ("cleanup", "cancellation"),
    ("mtx-", "C11"),
    ("cnd-", "C11"),
    ("thrd-", "C11"),
    ("tss-", "C11"),
    ("call-once", "C11"),
];

#[derive(clap::Args)]
pub struct Options {
    /// The preload to test; the one in target/dist is built if this is left out
    #[arg(long)]
    pub lib: Option<PathBuf>,
    /// Only tests whose name contains this (may be repeated); no floor on the count then
    #[arg(long)]
    pub only: Vec<String>,
    /// Tests run at a time
    #[arg(long, default_value_t = 4)]
    pub jobs: usize,
    /// Run them on the glibc that is installed below this prefix (`cargo xtask glibc` prints one)
    #[arg(long, value_name = "PREFIX", conflicts_with = "prove")]
    pub glibc: Option<PathBuf>,
    /// Instead of testing the library, show that deliberately broken ones fail
    #[arg(long)]
    pub prove: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lib: None,
            only: Vec::new(),
            jobs: 4,
            glibc: None,
            prove: false,
        }
    }
}

/// What came of one test.
struct Verdict {
    name: String,
    base: Run,
    other: Option<Run>,
}

/// Two ways to start a test: what passes the one must pass the other.
pub struct Pair {
    pub base: Way,
    pub other: Way,
    /// Tests that cannot pass the other way, and why.
    pub left_out: &'static [(&'static str, &'static str)],
    /// File of every test's outcome.
    pub record: &'static str,
}

pub struct Report {
    pub passed_base: usize,
    /// The other way, of those.
    pub passed: usize,
    pub failed: Vec<String>,
    floor: usize,
}

impl Report {
    pub fn holds(&self) -> bool {
        self.failed.is_empty() && self.passed_base >= self.floor
    }
}

pub fn run(project: &Project, lib: &Path, options: &Options) -> Result<Report> {
    if options.prove {
        let suite = Suite::prepare(project)?;
        let runner = Runner::new(project, &suite)?;
        return prove::run(&suite, &runner);
    }
    let base = match &options.glibc {
        Some(prefix) => Way::on_glibc(&absolute(prefix)?, "other-glibc", "without the preload"),
        None => Way::plain(),
    };
    let pair = Pair {
        other: base.clone().under(lib, "with the preload"),
        base,
        left_out: &[],
        record: "results.txt",
    };
    compare(project, &pair, options)
}

fn absolute(prefix: &Path) -> Result<PathBuf> {
    let loader = prefix.join("lib/ld-linux-x86-64.so.2");
    if !loader.is_file() {
        return Err(Usage(format!("no glibc below {}", prefix.display())).into());
    }
    prefix
        .canonicalize()
        .with_context(|| format!("cannot find {}", prefix.display()))
}

/// Runs every test both ways.
pub fn compare(project: &Project, pair: &Pair, options: &Options) -> Result<Report> {
    let suite = Suite::prepare(project)?;
    let runner = Runner::new(project, &suite)?;
    let mut tests = select(&suite, &options.only)?;
    for (name, why) in pair.left_out {
        tests.retain(|test| test != name);
        println!("   left out: {name}, {why}");
    }
    runner.check_binding(&pair.base)?;
    runner.check_binding(&pair.other)?;
    let started = Instant::now();
    let mut verdicts = run_all(&runner, &tests, pair, options.jobs)?;
    retry_alone(&runner, &mut verdicts, pair)?;
    runner.sweep();
    let record = project.work_folder("glibc-suite")?.join(pair.record);
    std::fs::write(&record, table(&verdicts, pair))
        .with_context(|| format!("cannot write {}", record.display()))?;
    let floor = if options.only.is_empty() { FLOOR } else { 1 };
    let report = sum_up(&verdicts, floor);
    tell(&report, &verdicts, &suite, pair, started.elapsed());
    println!("   every test's outcome: {}", record.display());
    Ok(report)
}

fn select(suite: &Suite, only: &[String]) -> Result<Vec<String>> {
    let mut names: Vec<String> = suite
        .tests()?
        .into_iter()
        .filter(|name| only.is_empty() || only.iter().any(|part| name.contains(part)))
        .collect();
    if names.is_empty() {
        let parts = only.join(" or ");
        return Err(Usage(format!("no test of the suite has {parts} in its name")).into());
    }
    let place = |name: &String| {
        LONG.iter()
            .position(|long| long == name)
            .unwrap_or(LONG.len())
    };
    names.sort_by_key(place);
    Ok(names)
}

/// Each worker takes a test, runs it one way and, if that passes, the other: the two see
/// the same load.
fn run_all(runner: &Runner, names: &[String], pair: &Pair, jobs: usize) -> Result<Vec<Verdict>> {
    let queue: Mutex<VecDeque<&String>> = Mutex::new(names.iter().collect());
    let verdicts = Mutex::new(Vec::new());
    let progress = Progress::new(names.len(), pair);
    let work = || -> Result<()> {
        loop {
            let Some(name) = lock(&queue).pop_front() else {
                return Ok(());
            };
            let base = runner.run(name, &pair.base)?;
            let worth_it = base.passed() && base.took <= SLOW;
            let other = if worth_it {
                Some(runner.run(name, &pair.other)?)
            } else {
                None
            };
            lock(&verdicts).push(Verdict {
                name: name.clone(),
                base,
                other,
            });
            progress.step();
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(_) => bail!("a worker of the glibc suite panicked"),
            })
    })?;
    progress.finish();
    let mut verdicts = verdicts
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner());
    verdicts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(verdicts)
}

/// Some tests are about timing. One that failed the other way gets a second try with the
/// machine to itself, both ways; only what then still tells the two apart is a failure.
fn retry_alone(runner: &Runner, verdicts: &mut [Verdict], pair: &Pair) -> Result<()> {
    for verdict in verdicts {
        if verdict.other.as_ref().is_none_or(Run::passed) {
            continue;
        }
        println!(
            "   {} failed {}, once more both ways",
            verdict.name, pair.other.words
        );
        verdict.other = Some(runner.run(&verdict.name, &pair.other)?);
        verdict.base = runner.run(&verdict.name, &pair.base)?;
    }
    Ok(())
}

fn sum_up(verdicts: &[Verdict], floor: usize) -> Report {
    let counted = |verdict: &&Verdict| verdict.base.passed() && verdict.other.is_some();
    let passed = |verdict: &&Verdict| verdict.other.as_ref().is_some_and(Run::passed);
    let failed = verdicts
        .iter()
        .filter(counted)
        .filter(|verdict| !passed(verdict));
    Report {
        passed_base: verdicts.iter().filter(counted).count(),
        passed: verdicts.iter().filter(counted).filter(passed).count(),
        failed: failed.map(|verdict| verdict.name.clone()).collect(),
        floor,
    }
}

fn tell(report: &Report, verdicts: &[Verdict], suite: &Suite, pair: &Pair, took: Duration) {
    let (base, other) = (pair.base.words, pair.other.words);
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for verdict in verdicts.iter().filter(|verdict| verdict.other.is_some()) {
        let stem = verdict.name.trim_start_matches("tst-");
        let group = GROUPS.iter().find(|(prefix, _)| stem.starts_with(prefix));
        *groups
            .entry(group.map_or("other", |(_, name)| name))
            .or_default() += 1;
    }
    let groups: Vec<String> = groups
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    println!("   tests by subject: {}", groups.join(", "));
    let left_out: Vec<&str> = verdicts
        .iter()
        .filter(|verdict| verdict.other.is_none())
        .map(|verdict| verdict.name.as_str())
        .collect();
    if !left_out.is_empty() {
        println!(
            "   not counted, since they fail or crawl {base}: {}",
            left_out.join(" ")
        );
    }
    let unbuilt = suite.unbuilt();
    if !unbuilt.is_empty() {
        println!("   not counted, since they do not compile outside glibc's tree: {unbuilt}");
    }
    for name in &report.failed {
        println!("   FAILED {other}, passes {base}: {name}");
    }
    if report.passed_base < report.floor {
        println!(
            "   FAILED: at least {} tests have to pass {base}",
            report.floor
        );
    }
    println!(
        "glibc suite: {} pass {base}, {} of them {other} ({:.0} s)",
        report.passed_base,
        report.passed,
        took.as_secs_f64()
    );
}

/// One line a test: both outcomes and times.
fn table(verdicts: &[Verdict], pair: &Pair) -> String {
    let (base, other) = (pair.base.words, pair.other.words);
    let mut text = format!("# test, {base}, seconds, {other}, seconds\n");
    for Verdict { name, base, other } in verdicts {
        let (with, took) = match other {
            Some(run) => (run.outcome.word(), format!("{:.3}", run.took.as_secs_f64())),
            None => ("not-run", "-".into()),
        };
        let (word, seconds) = (base.outcome.word(), base.took.as_secs_f64());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}\t{word}\t{seconds:.3}\t{with}\t{took}");
    }
    text
}

/// A bar on a terminal, a line every hundred tests elsewhere.
struct Progress {
    bar: indicatif::ProgressBar,
}

impl Progress {
    fn new(total: usize, pair: &Pair) -> Self {
        let (base, other) = (pair.base.words, pair.other.words);
        println!("   running {total} tests, each {base} and {other}");
        Self {
            bar: indicatif::ProgressBar::new(total as u64),
        }
    }

    fn step(&self) {
        self.bar.inc(1);
        let done = self.bar.position();
        if self.bar.is_hidden() && done.is_multiple_of(100) {
            println!("   {done} done");
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}
