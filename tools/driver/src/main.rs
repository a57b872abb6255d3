//! `driver`: measures mutexes against glibc's, side by side in one process.
//!
//! | module | what it is for |
//! |---|---|
//! | `cli`, `parse` | the command line, and its small languages |
//! | `lock`, `select`, `list` | the locks under test, behind function pointers; which of them; what they are |
//! | `foreign` | locks of glibc, of the standard library and of crates, to compare with |
//! | `workload` | the measured loop |
//! | `round`, `threads` | one round of it with one lock, and its checks; its threads |
//! | `bench` | the grid and the interleaving of rounds |
//! | `torture` | `--test`: whether they are locks at all |
//! | `clock`, `latency`, `usage`, `futex` | time, latencies, CPU time, system calls |
//! | `cpus` | where the threads run |
//! | `run` | a run as data, JSON |
//! | `summary`, `champion` | from raw rounds to figures; which locks beat one |
//! | `table`, `export` | figures as text and as CSV |
//! | `plot` | `driver plot`: a run as figures and a page |
//! | `machine` | where a run was made |
//!
//! No thread is started outside `threads` and the children of `torture`, so that `--single-threaded` is true.

mod bench;
mod champion;
mod cli;
mod clock;
mod cpus;
mod export;
mod foreign;
mod futex;
mod latency;
mod list;
mod lock;
mod machine;
mod parse;
mod plot;
mod round;
mod run;
mod select;
mod summary;
mod table;
mod threads;
mod torture;
mod usage;
mod workload;

use anyhow::{Context, Result, ensure};
use bench::{Grid, Progress};
use clap::Parser;
use clap::error::ErrorKind;
use cli::Cli;
use futex::Method;
use lock::{AUTOLOCK, GLIBC, Source};
use round::Work;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Wrong usage, which includes a library that is not there.
const USAGE: u8 = 2;

/// Why it did not work, in one line, and whose fault it is.
enum Failure {
    /// Of the user's making: exit code 2.
    Usage(anyhow::Error),
    /// Exit code 1.
    Other(anyhow::Error),
}

fn main() -> ExitCode {
    autolock_shim::tcb::start();
    if !autolock_shim::nodes::start() {
        return fail(
            "no 128 MiB of addresses for queue nodes: raise `ulimit -v`",
            1,
        );
    }
    let outcome = match Cli::try_parse() {
        Ok(cli) => prepare(&cli).map_err(Failure::Usage).and_then(Job::perform),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            say(&error.to_string()).map_err(Failure::Other)
        }
        Err(error) => {
            let text = error.to_string();
            // What is wrong stands above the first blank line, sometimes on several.
            let said = text.lines().map(str::trim).take_while(|l| !l.is_empty());
            let line = said.collect::<Vec<_>>().join(" ");
            return fail(line.trim_start_matches("error: "), USAGE);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Other(error)) if error.is::<plot::NoSuchLock>() => {
            fail(&error.to_string(), USAGE)
        }
        Err(Failure::Usage(error)) => fail(&format!("{error:#}"), USAGE),
        Err(Failure::Other(error)) => fail(&format!("{error:#}"), 1),
    }
}

/// One line; a terminal gets it with breaks between words.
fn fail(line: &str, code: u8) -> ExitCode {
    let line = format!("driver: {line}");
    if std::io::stderr().is_terminal() {
        eprintln!("{}", table::wrap(&line, 100));
    } else {
        eprintln!("{line}");
    }
    ExitCode::from(code)
}

/// What the command line asks for, checked.
enum Job<'a> {
    List(Vec<Source>, list::Form),
    /// The file, the lock to judge, whether as CSV.
    Summary(&'a Path, Option<&'a str>, bool),
    Plot(&'a plot::Plot),
    Test(torture::Request),
    /// And the file for its JSON, and whether stdout gets CSV.
    Bench(Box<bench::Request>, Option<&'a Path>, bool),
}

fn prepare(cli: &Cli) -> Result<Job<'_>> {
    if let Some(cli::Command::Plot(plot)) = &cli.command {
        return Ok(Job::Plot(plot));
    }
    let wanted = [cli.bench, cli.torture.test, cli.list, cli.summary.is_some()];
    ensure!(
        wanted.iter().filter(|&&w| w).count() == 1,
        "say one of --bench, --test, --list, --summary RUN.json or plot RUN.json; see --help"
    );
    if let Some(path) = &cli.summary {
        ensure!(
            cli.patterns.is_empty(),
            "--summary takes no names of locks: '{}'",
            cli.patterns[0]
        );
        return Ok(Job::Summary(path, cli.champion.as_deref(), cli.csv));
    }
    let known = sources(cli)?;
    if cli.list {
        let known = torture::with_busted(known);
        let all: Vec<_> = known.iter().map(|s| s.name.as_str()).collect();
        let form = match (cli.csv, std::io::stdout().is_terminal()) {
            (true, _) => list::Form::Csv,
            (false, true) => list::Form::Table,
            (false, false) => list::Form::Tabs,
        };
        return Ok(Job::List(cli.choice().of(&known, &all)?, form));
    }
    if cli.torture.test {
        return Ok(Job::Test(tests(cli, known)?));
    }
    Ok(Job::Bench(
        Box::new(request(cli, &known)?),
        cli.json.as_deref(),
        cli.csv,
    ))
}

/// Every lock there is: glibc's and ours first.
fn sources(cli: &Cli) -> Result<Vec<Source>> {
    let library = match &cli.lib {
        Some(path) => path.clone(),
        None => {
            let executable = std::env::current_exe().context("where am I? use --lib PATH")?;
            lock::default_autolock(&executable)
        }
    };
    let autolock = Source::library_named(AUTOLOCK, library);
    let mut all = vec![Source::glibc(), autolock];
    all.extend(Source::collection());
    for extra in &cli.extra_locks {
        ensure!(
            all.iter().all(|s| s.name != extra.name),
            "two locks are called '{}'",
            extra.name
        );
        all.push(extra.clone());
    }
    Ok(all)
}

fn request(cli: &Cli, known: &[Source]) -> Result<bench::Request> {
    let baseline = known
        .iter()
        .find(|s| s.name == cli.baseline)
        .with_context(|| select::unknown(&cli.baseline, known.iter().map(|s| s.name.as_str())))?;
    let mut chosen = cli.choice().of(known, &[GLIBC, AUTOLOCK])?;
    if !chosen.contains(baseline) {
        chosen.insert(0, baseline.clone());
    }
    let listed = parse::flatten(&cli.threads);
    let threads = match (cli.single_threaded, &listed[..]) {
        (true, [] | [1]) => vec![1],
        (true, _) => anyhow::bail!("--single-threaded means --threads 1"),
        (false, []) => vec![1, 2, 4, 8, 16],
        (false, _) => listed,
    };
    let work = match (cli.iter, cli.total) {
        (Some(ops), _) => Work::Each(ops),
        (None, Some(ops)) => Work::Total(ops),
        (None, None) => Work::Time(cli.duration.unwrap_or(DURATION)),
    };
    let futex = Method::choose(cli.futex_calls)?;
    // One thread that is pinned stays on the first.
    let pinned_alone = (cli.pin && cli.single_threaded).then_some(1);
    let list = cli.cpus.as_ref().map(|c| &c.0[..]);
    let cpus = cpus::apply(list, pinned_alone.or(cli.num_cpus))?;
    let locks = chosen.iter().map(Source::open).collect::<Result<_>>()?;
    Ok(bench::Request {
        locks,
        baseline: cli.baseline.clone(),
        grid: Grid {
            threads,
            locks: parse::flatten(&cli.locks),
            extra: cli.extra.clone(),
            sections: cli.cs.clone(),
            lines: cli.lines,
        },
        work,
        warm_up: cli.warm_up,
        rounds: cli.rounds,
        latency: !cli.no_latency,
        single_threaded: cli.single_threaded,
        futex,
        cpus,
        pin: cli.pin,
        progress: Progress::choose(cli.progress),
    })
}

fn tests(cli: &Cli, known: Vec<Source>) -> Result<torture::Request> {
    // `--all` means the locks that should work; who asks for a broken one by name gets it.
    let known = if cli.all {
        known
    } else {
        torture::with_busted(known)
    };
    let sources = cli.choice().of(&known, &[GLIBC, AUTOLOCK])?;
    let missing = sources.iter().find(|source| !source.exists());
    if let Some(missing) = missing {
        missing.open()?;
    }
    let mut threads = parse::flatten(&cli.threads);
    if threads.is_empty() {
        threads = torture::THREADS.to_vec();
    }
    Ok(torture::Request {
        sources,
        threads,
        tests: cli.torture.only.clone(),
        duration: cli.torture.duration(cli.duration),
        seed: cli.torture.seed(),
        self_check: cli.all,
    })
}

/// A round of `--bench` if nothing else is said.
const DURATION: Duration = Duration::from_millis(1500);

impl Job<'_> {
    fn perform(self) -> Result<(), Failure> {
        match self {
            Job::List(locks, form) => list::render(&locks, form).and_then(|text| say(&text)),
            Job::Summary(path, champion, csv) => return summarise(path, champion, csv),
            Job::Plot(plot) => plot.perform().and_then(|text| say(&text)),
            Job::Test(request) => {
                find_the_source();
                test(&request)
            }
            Job::Bench(request, json, csv) => {
                find_the_source();
                measure(&request, json, csv)
            }
        }
        .map_err(Failure::Other)
    }
}

/// For the locks of the collection what the preload's constructor does for itself: `AUTOLOCK_BACKEND` and `AUTOLOCK_SOCKET` count.
fn find_the_source() {
    let options = autolock_shim::options::from_environment();
    autolock_shim::source::start(options.backend, options.socket);
}

fn measure(request: &bench::Request, json: Option<&Path>, csv: bool) -> Result<()> {
    let run = bench::bench(request, |run| match json {
        Some(path) => run.write(path),
        None => Ok(()),
    })?;
    say(&if csv {
        export::csv(&run)?
    } else {
        table::render(&run)
    })
}

fn test(request: &torture::Request) -> Result<()> {
    let report = torture::torture(request, |failure| say(&format!("{failure}\n")))?;
    say(&report.to_string())?;
    report.verdict()
}

fn summarise(path: &Path, champion: Option<&str>, csv: bool) -> Result<(), Failure> {
    let run = run::Run::read(path).map_err(Failure::Other)?;
    let text = match champion {
        _ if csv => export::csv(&run).map_err(Failure::Other)?,
        None => format!(
            "{}\n{}",
            table::render(&run),
            table::render_shortfalls(&run, None)
        ),
        Some(name) => {
            let verdicts = champion::verdicts(&run, name).map_err(Failure::Usage)?;
            format!(
                "{}\n{}\n{}",
                table::render(&run),
                table::render_shortfalls(&run, Some(name)),
                champion::render(&run, name, &verdicts)
            )
        }
    };
    say(&text).map_err(Failure::Other)
}

/// To stdout; a reader that has seen enough (`| head`) is not an error.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}
