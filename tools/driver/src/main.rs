//! `driver`: measures mutexes against glibc's, side by side in one process.
//!
//! | module | what it is for |
//! |---|---|
//! | `cli` | the command line |
//! | `lock` | the locks under test, behind function pointers |
//! | `workload` | the measured loop |
//! | `round` | one round of it with one lock, and its checks |
//! | `bench` | the grid and the interleaving of rounds |
//! | `clock`, `latency`, `usage` | time, latencies, CPU time |
//! | `run` | a run as data, JSON |
//! | `summary`, `table` | from raw rounds to figures, and to text |
//! | `plot` | `driver plot`: a run as figures and a page |
//! | `machine` | where a run was made |
//!
//! No thread is started outside `round`, so that `--single-threaded` is true.

mod bench;
mod cli;
mod clock;
mod latency;
mod lock;
mod machine;
mod plot;
mod round;
mod run;
mod summary;
mod table;
mod usage;
mod workload;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use clap::error::ErrorKind;
use cli::Cli;
use lock::{AUTOLOCK, Source};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Wrong usage, which includes a library that is not there.
const USAGE: u8 = 2;

/// An error of the user's making: exit code 2.
#[derive(Debug)]
struct Usage(anyhow::Error);

fn main() -> ExitCode {
    autolock_shim::tcb::start();
    if !autolock_shim::nodes::start() {
        return fail(
            "no 128 MiB of addresses for queue nodes: raise `ulimit -v`",
            1,
        );
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            return match say(&error.to_string()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("{error:#}"), 1),
            };
        }
        Err(error) => {
            let text = error.to_string();
            // What is wrong stands above the first blank line, sometimes on several.
            let said = text.lines().map(str::trim).take_while(|l| !l.is_empty());
            let line = said.collect::<Vec<_>>().join(" ");
            return fail(line.trim_start_matches("error: "), USAGE);
        }
    };
    let outcome = match prepare(&cli) {
        Ok(job) => job.perform(),
        Err(Usage(error)) => return fail(&format!("{error:#}"), USAGE),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<plot::NoSuchLock>() => fail(&error.to_string(), USAGE),
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn fail(line: &str, code: u8) -> ExitCode {
    eprintln!("driver: {line}");
    ExitCode::from(code)
}

/// What the command line asks for, checked.
enum Job<'a> {
    List(Vec<Source>),
    Summary(&'a Path),
    Plot(&'a plot::Plot),
    /// And the file for its JSON.
    Bench(bench::Request, Option<&'a Path>),
}

fn prepare(cli: &Cli) -> Result<Job<'_>, Usage> {
    let job = || -> Result<Job> {
        if let Some(cli::Command::Plot(plot)) = &cli.command {
            return Ok(Job::Plot(plot));
        }
        let wanted = [cli.bench, cli.list, cli.summary.is_some()];
        ensure!(
            wanted.iter().filter(|&&w| w).count() == 1,
            "say one of --bench, --list, --summary RUN.json or plot RUN.json; see --help"
        );
        if let Some(path) = &cli.summary {
            return Ok(Job::Summary(path));
        }
        let known = sources(cli)?;
        if cli.list {
            return Ok(Job::List(known));
        }
        Ok(Job::Bench(request(cli, &known)?, cli.json.as_deref()))
    };
    job().map_err(Usage)
}

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
    for extra in &cli.extra {
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
    let chosen = bench::choose(known, &cli.compare, &cli.baseline)?;
    let threads = match (cli.single_threaded, &cli.threads[..]) {
        (true, [] | [1]) => vec![1],
        (true, _) => anyhow::bail!("--single-threaded means --threads 1"),
        (false, []) => vec![1, 2, 4, 8, 16],
        (false, list) => list.to_vec(),
    };
    Ok(bench::Request {
        locks: chosen.iter().map(Source::open).collect::<Result<_>>()?,
        baseline: cli.baseline.clone(),
        cells: bench::grid(&threads, &cli.locks, &cli.gap, &cli.cs, cli.lines),
        duration: cli.duration,
        warm_up: cli.warm_up,
        rounds: cli.rounds,
        latency: !cli.no_latency,
        single_threaded: cli.single_threaded,
        progress: cli.progress,
    })
}

impl Job<'_> {
    fn perform(self) -> Result<()> {
        match self {
            Job::List(sources) => {
                let line = |source: &Source| {
                    let missing = if source.exists() { "" } else { " (missing)" };
                    format!("{}\t{}{missing}\n", source.name, source.library().display())
                };
                say(&sources.iter().map(line).collect::<String>())
            }
            Job::Summary(path) => {
                let run = run::Run::read(path)?;
                let (table, shortfalls) = (table::render(&run), table::render_shortfalls(&run));
                say(&format!("{table}\n{shortfalls}"))
            }
            Job::Plot(plot) => say(&plot.perform()?),
            Job::Bench(request, json) => {
                let run = bench::bench(&request, |run| match json {
                    Some(path) => run.write(path),
                    None => Ok(()),
                })?;
                say(&table::render(&run))
            }
        }
    }
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
