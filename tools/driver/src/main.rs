//! `driver`: measures mutexes against glibc's, side by side in one process.
//!
//! | module | what it is for |
//! |---|---|
//! | `cli` | the command line |
//! | `lock` | the locks under test, behind function pointers |
//! | `workload` | the measured loop and one round of it |
//! | `bench` | the grid and the interleaving of rounds |
//! | `clock`, `latency` | time and latencies |
//! | `run` | a run as data, JSON |
//! | `summary`, `table` | from raw rounds to figures, and to text |
//! | `machine` | where a run was made |
//!
//! No thread is started outside `workload`, so that `--single-threaded` is true.

mod bench;
mod cli;
mod clock;
mod latency;
mod lock;
mod machine;
mod run;
mod summary;
mod table;
mod workload;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use clap::error::ErrorKind;
use cli::Cli;
use lock::{AUTOLOCK, Source};
use std::process::ExitCode;

/// Wrong usage, which includes a library that is not there.
const USAGE: u8 = 2;

/// An error of the user's making: exit code 2.
#[derive(Debug)]
struct Usage(anyhow::Error);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or("wrong usage");
            return fail(line.trim_start_matches("error: "), USAGE);
        }
    };
    let outcome = match prepare(&cli) {
        Ok(job) => job.perform(),
        Err(Usage(error)) => return fail(&format!("{error:#}"), USAGE),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
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
    Summary(&'a Cli),
    Bench(&'a Cli, bench::Request),
}

fn prepare(cli: &Cli) -> Result<Job<'_>, Usage> {
    let job = || -> Result<Job> {
        let wanted = [cli.bench, cli.list, cli.summary.is_some()];
        ensure!(
            wanted.iter().filter(|&&w| w).count() == 1,
            "say one of --bench, --list or --summary RUN.json; see --help"
        );
        if cli.summary.is_some() {
            return Ok(Job::Summary(cli));
        }
        let known = sources(cli)?;
        if cli.list {
            return Ok(Job::List(known));
        }
        Ok(Job::Bench(cli, request(cli, &known)?))
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
    let autolock = Source {
        name: AUTOLOCK.into(),
        library,
    };
    let mut all = vec![Source::glibc(), autolock];
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
                for source in sources {
                    let missing = if source.exists() { "" } else { " (missing)" };
                    println!("{}\t{}{missing}", source.name, source.library.display());
                }
            }
            Job::Summary(cli) => {
                let path = cli.summary.as_deref().context("--summary needs a file")?;
                let run = run::Run::read(path)?;
                print!(
                    "{}\n{}",
                    table::render(&run),
                    table::render_shortfalls(&run)
                );
            }
            Job::Bench(cli, request) => {
                let run = bench::bench(&request)?;
                if let Some(path) = &cli.json {
                    run.write(path)?;
                }
                print!("{}", table::render(&run));
            }
        }
        Ok(())
    }
}
