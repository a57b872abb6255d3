//! The interleaved rounds: a fresh memcached for each measurement, glibc and autolock side by side,
//! the order changing from round to round so that a drifting machine favours neither.

use crate::cli::Options;
use crate::generator::{Generator, Load};
use crate::machine::Machine;
use crate::proof::{self, Proof};
use crate::report::{self, Report};
use crate::server::{self, Served, Server, Setup, Shutdown};
use crate::verify::{self, Control, Latencies};
use anyhow::{Context, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a load generator may take to open its connections.
const LOAD_START_LIMIT: Duration = Duration::from_secs(15);

/// The last part of a load, in which connections already close, does not count for latencies.
const LOAD_END: Duration = Duration::from_millis(100);

/// Whose mutex memcached runs on.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    Glibc,
    Autolock,
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lock::Glibc => "glibc",
            Lock::Autolock => "autolock",
        })
    }
}

/// One memcached, one load.
#[derive(Serialize)]
pub struct Run {
    pub threads: u16,
    pub round: u16,
    pub lock: Lock,
    pub load: Load,
    pub served: Served,
    pub latency: report::Quantiles,
    #[serde(skip)]
    pub latencies: Latencies,
    pub verified_requests: u64,
    pub wrong_values: u64,
    pub first_fault: Option<String>,
    pub shutdown: Shutdown,
}

/// Runs everything that `options` ask for and prints the comparison; gives what went wrong, a line each.
pub fn run(options: &Options) -> Result<Vec<String>> {
    server::program()?;
    let screen = Screen::new();
    let generator = Generator::find(options.generator, &|step| screen.step(step), &|line| {
        screen.note(line)
    })?;

    let proof = match &options.lib {
        Some(library) => {
            screen.step("checking that memcached's mutex calls reach the library");
            Some(proof::establish(
                library,
                options.threads[0],
                options.connections,
                &generator,
            )?)
        }
        None => None,
    };
    if let Some(proof) = &proof {
        screen.note(&format!(
            "memcached runs on libautolock.so: {} are bound to it",
            proof.bound.join(", ")
        ));
        for line in &proof.statistics {
            screen.note(line);
        }
    }

    let machine = Machine::here();
    let (memcached, runs) = measure(options, &generator, &screen)?;
    screen.clear();
    let report = Report {
        command: command_line(),
        machine,
        memcached,
        generator: generator.name(),
        generator_version: generator.version()?,
        connections: generator.connections(options.connections),
        duration_seconds: options.duration.as_secs_f64(),
        rounds: options.rounds,
        summary: report::summarise(&runs),
        proof,
        runs,
    };
    println!("{}", report.text());
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, json + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(problems(&report.runs, report.proof.as_ref()))
}

/// memcached's version and every measurement, in the order in which they were made.
fn measure(
    options: &Options,
    generator: &Generator,
    screen: &Screen,
) -> Result<(String, Vec<Run>)> {
    let mut version = String::new();
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for &threads in &options.threads {
            for lock in order(round, options.lib.is_some()) {
                let what = format!(
                    "round {round} of {}, {threads} threads, {lock}",
                    options.rounds
                );
                screen.step(&what);
                let preload = options.lib.as_deref().filter(|_| *lock == Lock::Autolock);
                let server = Server::start(&Setup {
                    threads,
                    preload,
                    environment: Vec::new(),
                })
                .with_context(|| what.clone())?;
                version = server.version()?;
                runs.push(
                    measure_one(server, options, generator, round, threads, *lock, preload)
                        .with_context(|| what.clone())?,
                );
            }
        }
    }
    Ok((version, runs))
}

/// Which lock goes first changes with every round.
fn order(round: u16, with_autolock: bool) -> &'static [Lock] {
    match (with_autolock, round % 2) {
        (false, _) => &[Lock::Glibc],
        (true, 1) => &[Lock::Glibc, Lock::Autolock],
        (true, _) => &[Lock::Autolock, Lock::Glibc],
    }
}

fn measure_one(
    mut server: Server,
    options: &Options,
    generator: &Generator,
    round: u16,
    threads: u16,
    lock: Lock,
    preload: Option<&Path>,
) -> Result<Run> {
    if let Some(library) = preload {
        ensure!(
            server.has_mapped(library)?,
            "the loader did not map {} into memcached",
            library.display()
        );
    }
    let address = server.address();
    let mut load = None;
    let verified = verify::run(address, verify::MEASURING, |control| {
        load = Some(under_load(&server, address, options, generator, control)?);
        Ok(())
    })
    .and_then(|verified| server.check_workers().map(|()| verified))
    .map_err(|error| server.explain(error))?;
    let served = server.served()?;
    let (shutdown, _) = server.stop()?;
    Ok(Run {
        threads,
        round,
        lock,
        load: load.context("the load generator did not run")?,
        latency: report::Quantiles::of(&verified.latencies),
        verified_requests: verified.requests,
        wrong_values: verified.wrong(served.evictions),
        first_fault: verified.first_fault,
        latencies: verified.latencies,
        served,
        shutdown,
    })
}

/// Runs the generator and lets latencies count while its load is full.
fn under_load(
    server: &Server,
    address: SocketAddr,
    options: &Options,
    generator: &Generator,
    control: &Control,
) -> Result<Load> {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| generator.load(address, options.connections, options.duration));
        let wanted = u64::from(generator.connections(options.connections));
        while server.connections()? < wanted
            && !load.is_finished()
            && begin.elapsed() < LOAD_START_LIMIT
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        control.record(true);
        // The window of the measurement; nothing is waited for here.
        std::thread::sleep(
            (begin + options.duration).saturating_duration_since(Instant::now() + LOAD_END),
        );
        control.record(false);
        load.join()
            .map_err(|_| anyhow!("the load generator's thread panicked"))?
    })
}

/// Everything that must not be, a line each.
fn problems(runs: &[Run], proof: Option<&Proof>) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(wrong) = proof.map(|proof| proof.wrong).filter(|wrong| *wrong > 0) {
        problems.push(format!(
            "{wrong} wrong values on autolock in the first check"
        ));
    }
    for run in runs {
        let place = format!("{}, {} threads, round {}", run.lock, run.threads, run.round);
        if run.wrong_values > 0 {
            let example = run.first_fault.as_deref().unwrap_or("no example");
            problems.push(format!(
                "{} wrong values ({place}): {example}",
                run.wrong_values
            ));
        }
        if run.load.verify_failed > 0 {
            problems.push(format!(
                "the load generator read {} wrong values ({place})",
                run.load.verify_failed
            ));
        }
        if run.shutdown != Shutdown::Clean {
            problems.push(format!(
                "memcached's shutdown was {} ({place})",
                run.shutdown
            ));
        }
    }
    problems
}

/// The command as typed, without the folder that the program stands in.
fn command_line() -> String {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let name = Path::new(&program)
        .file_name()
        .map_or(program.clone(), |name| name.to_string_lossy().into_owned());
    std::iter::once(name)
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Progress on stderr: a spinner on a terminal, a line per step elsewhere.
struct Screen {
    bar: ProgressBar,
}

impl Screen {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        // Slow: the machine is being measured.
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar }
    }

    fn step(&self, what: &str) {
        // A log needs no line for every percent.
        if self.bar.is_hidden() && !what.ends_with('%') {
            eprintln!("memcached-example: {what}");
        }
        self.bar.set_message(what.to_string());
    }

    fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("memcached-example: {line}"));
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lock_goes_first_in_every_other_round() {
        assert_eq!(order(1, true), [Lock::Glibc, Lock::Autolock]);
        assert_eq!(order(2, true), [Lock::Autolock, Lock::Glibc]);
        assert_eq!(order(3, true), order(1, true));
        assert_eq!(order(2, false), [Lock::Glibc]);
    }

    #[test]
    fn every_kind_of_problem_is_told() {
        let good = || report::tests::run(Lock::Autolock, 1, 100.0);
        assert_eq!(problems(&[good()], None), Vec::<String>::new());
        let wrong = Run {
            wrong_values: 2,
            first_fault: Some("verify-1 is missing".to_string()),
            ..good()
        };
        let unverified = Run {
            load: Load {
                verify_failed: 1,
                ..good().load
            },
            ..good()
        };
        let unclean = Run {
            shutdown: Shutdown::Unclean("died of signal 11".to_string()),
            ..good()
        };
        for (run, says) in [
            (wrong, "verify-1 is missing"),
            (unverified, "read 1 wrong"),
            (unclean, "signal 11"),
        ] {
            let problems = problems(&[good(), run], None);
            assert!(
                problems.len() == 1 && problems[0].contains(says),
                "{problems:?}"
            );
        }
    }
}
