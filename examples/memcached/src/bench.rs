//! The interleaved rounds: a fresh memcached for each measurement, the locks side by side,
//! the order changing from round to round so that a drifting machine favours neither.

use crate::cli::Options;
use crate::generator::{Generator, Load};
use crate::machine::Machine;
use crate::profile::{self, Captures, Profile};
use crate::proof::{self, Proof};
use crate::report::{self, Report};
use crate::server::{Program, Served, Server, Setup, Shutdown};
use crate::verify::{self, Control, Latencies};
use anyhow::{Context, Result, anyhow, ensure};
use example_common::figures::command_line;
use example_common::lock::{Backend, Lock, figure, in_round};
use example_common::screen::Screen;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// What stands before each line on stderr.
pub const PROGRAM: &str = "memcached-example";

/// How long a load generator may take to open its connections.
const LOAD_START_LIMIT: Duration = Duration::from_secs(15);

/// The last part of a load, in which connections already close, does not count for latencies.
const LOAD_END: Duration = Duration::from_millis(100);

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
    /// What it wrote to stderr.
    #[serde(skip)]
    pub said: String,
    /// Of a chosen algorithm and of the kernel's slots: the library's line at this memcached's exit that shows it. autolock has its proof once, in a run of
    /// its own ([`proof`]), for its measured runs keep no statistics.
    pub proof: Option<String>,
    /// What speaks against that this memcached ran on its lock.
    pub unproved: Option<String>,
    /// Under the profiler: what it recorded.
    pub profile: Option<Profile>,
}

/// Runs everything that `options` ask for and prints the comparison; gives what went wrong, a line each.
pub fn run(options: &Options) -> Result<Vec<String>> {
    let program = Program::find(options.glibc.as_deref(), options.lib.as_deref())?;
    let screen = Screen::new(PROGRAM);
    let locks = match &options.profiling {
        None if !options.backends.is_empty() => {
            let knowing = options.backends.iter().copied().map(Lock::Knowing);
            std::iter::once(Lock::Glibc).chain(knowing).collect()
        }
        None => Lock::list(options.lib.is_some(), &options.algorithms),
        Some(profiling) => profile::locks(profiling.full),
    };
    if let Some(library) = &options.lib {
        for lock in &locks {
            lock.check(library)?;
        }
    }
    let generator = Generator::find(options.generator, &|step| screen.step(step), &|line| {
        screen.note(line)
    })?;

    let proof = match &options.lib {
        // The captures are the proof.
        Some(_) if options.profiling.is_some() => None,
        Some(library) => {
            screen.step("checking that memcached's mutex calls reach the library");
            Some(proof::establish(
                &program,
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
        if !proof.bound_by_libc.is_empty() {
            screen.note(&format!(
                "condition variables of the glibc in {}, too: {} are bound to it",
                program.glibc().unwrap_or(Path::new("?")).display(),
                proof.bound_by_libc.join(", ")
            ));
        }
        for line in &proof.statistics {
            screen.note(line);
        }
    }

    let machine = Machine::here();
    let (memcached, runs) = measure(options, &program, &locks, &generator, &screen)?;
    screen.clear();
    let report = Report {
        command: command_line(),
        machine,
        memcached,
        glibc: program.glibc().map(Path::to_path_buf),
        generator: generator.name(),
        generator_version: generator.version()?,
        connections: generator.connections(options.connections),
        duration_seconds: options.duration.as_secs_f64(),
        rounds: options.rounds,
        summary: report::summarise(&runs),
        locks,
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
    program: &Program,
    locks: &[Lock],
    generator: &Generator,
    screen: &Screen,
) -> Result<(String, Vec<Run>)> {
    let mut version = String::new();
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for &threads in &options.threads {
            for lock in in_round(locks, round) {
                let what = format!(
                    "round {round} of {}, {threads} threads, {lock}",
                    options.rounds
                );
                screen.step(&what);
                let captures = Captures::of(options, lock, threads, round)?;
                let environment = captures.iter().map(Captures::variable);
                let server = Server::start(&Setup {
                    program,
                    threads,
                    lock,
                    library: options.lib.as_deref(),
                    environment: environment.collect(),
                })
                .with_context(|| what.clone())?;
                version = server.version()?;
                let mut run = measure_one(server, options, generator, round, threads, lock)
                    .with_context(|| what.clone())?;
                if let (Some(captures), Some(profiling)) = (captures, &options.profiling) {
                    screen.step(&format!("{what}: reading what was recorded"));
                    let profile = captures
                        .examine(&profiling.tool, lock, &run)
                        .with_context(|| what.clone())?;
                    screen.note(&format!("{what}: {profile}"));
                    run.profile = Some(profile);
                }
                if let Some(line) = &run.proof {
                    screen.note(line);
                }
                runs.push(run);
            }
        }
    }
    Ok((version, runs))
}

fn measure_one(
    mut server: Server,
    options: &Options,
    generator: &Generator,
    round: u16,
    threads: u16,
    lock: &Lock,
) -> Result<Run> {
    if let Some(library) = options.lib.as_deref().filter(|_| *lock != Lock::Glibc) {
        ensure!(
            server.has_mapped(library)?,
            "the loader did not map {} into memcached",
            library.display()
        );
    }
    if let Lock::Knowing(backend) = lock {
        let wanted = *backend == Backend::Ebpf;
        ensure!(
            server.has_mapped_a_table()? == wanted,
            "memcached under {lock} has {} mapped: AUTOLOCK_SOCKET says where autolockd listens",
            if wanted { "no table" } else { "a table" }
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
    let signal = match lock {
        // As at a terminal.
        Lock::Profiled { .. } => libc::SIGINT,
        _ => libc::SIGTERM,
    };
    let (shutdown, said) = server.stop(signal)?;
    let proof = match lock {
        Lock::Knowing(Backend::Kernel) => lock.proof(&said),
        Lock::Algorithm(_) => lock
            .proof(&said)
            .and_then(|line| waits_interposed(line, options.glibc.is_some())),
        Lock::Glibc | Lock::Autolock | Lock::Knowing(_) | Lock::Profiled { .. } => Ok(None),
    };
    Ok(Run {
        threads,
        round,
        unproved: proof.as_ref().err().cloned(),
        proof: proof.ok().flatten(),
        profile: None,
        said,
        lock: lock.clone(),
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

/// Under a glibc that was asked for, condition variables must have worked on the chosen lock as well.
fn waits_interposed(line: Option<String>, must: bool) -> Result<Option<String>, String> {
    match &line {
        Some(text) if must && !text.contains(" condition-waits=interposed ") => {
            Err(format!("condition variables went past the library: {text}"))
        }
        _ => Ok(line),
    }
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

/// Waiters that lost their CPU and were parked, as the kernel counted, if there were runs on its slots.
fn parks(runs: &[Run]) -> Option<u64> {
    let mut on_slots = runs
        .iter()
        .filter(|run| run.lock == Lock::Knowing(Backend::Kernel))
        .peekable();
    on_slots.peek()?;
    let lines = on_slots.filter_map(|run| run.proof.as_deref());
    Some(lines.filter_map(|line| figure(line, "parks")).sum())
}

/// Everything that must not be, a line each.
fn problems(runs: &[Run], proof: Option<&Proof>) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(wrong) = proof.map(|proof| proof.wrong).filter(|wrong| *wrong > 0) {
        problems.push(format!(
            "{wrong} wrong values on autolock in the first check"
        ));
    }
    if let Some(0) = parks(runs) {
        problems.push("in all runs on the kernel's slots no waiter was parked: make them longer, or the threads more".to_string());
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
        for problem in run.profile.iter().flat_map(|profile| &profile.problems) {
            problems.push(format!("{problem} ({place})"));
        }
        if let Some(problem) = &run.unproved {
            problems.push(format!("{problem} ({place})"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_variables_that_go_past_the_library_speak_against_a_glibc() {
        let line = |waits| {
            Some(format!(
                "autolock: algorithm=mcs mutexes=7 unserved=0 condition-waits={waits} (alone)"
            ))
        };
        assert!(waits_interposed(line("interposed"), true).is_ok());
        assert!(waits_interposed(line("libc"), true).is_err());
        assert!(waits_interposed(line("libc"), false).is_ok());
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
        let parked = |parks: u64| Run {
            proof: Some(format!("autolock: kernel creates=5 parks={parks} wakes=0")),
            ..report::tests::run(Lock::Knowing(Backend::Kernel), 1, 100.0)
        };
        assert_eq!(problems(&[good(), parked(0), parked(1)], None).len(), 0);
        assert_eq!(problems(&[good(), parked(0), parked(0)], None).len(), 1);
        let unproved = Run {
            unproved: Some("another algorithm".to_string()),
            ..good()
        };
        for (run, says) in [
            (unproved, "another algorithm"),
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
