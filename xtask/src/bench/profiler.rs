//! What the profiler costs: locks with a preload beside the same locks without, in one process and round by round.
//!
//! Under a preload, `driver`'s lock `glibc` is still libc's own function, looked up in libc itself, while `pthread_mutex` is called as a
//! program calls it: by the preload's. So each process compares the two side by side, on the same addresses, in turns, and the
//! processes (no preload, the profiler's two modes, mutrace where there is one) take turns too. Without a preload the ratio is that of the
//! call alone.
//!
//! Critical sections of two cache lines and no clock read in the loop: the harshest measure of all. memcached is measured by its example.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::spread::{Spread, spread};
use super::{Options, Record};
use crate::project::Project;
use crate::{packages, shell};

/// Processes per preload; each gives [`INNER`] ratios for a cell.
const ROUNDS: u32 = 12;
/// Rounds in one process: each of the two goes first in one of them.
const INNER: u32 = 2;
const DURATION: &str = "300ms";

/// Where mutrace's library is, if somebody has installed it.
const MUTRACE: &[&str] = &[
    "/usr/lib/mutrace/libmutrace.so",
    "/usr/lib/x86_64-linux-gnu/mutrace/libmutrace.so",
    "/usr/lib/libmutrace.so",
    "/usr/local/lib/libmutrace.so",
];

/// One call of `driver`.
const BENCHES: &[(&str, &[&str])] = &[
    (
        "contended",
        &["--threads", "1,2,4", "--gap", "100", "--cs", "10ns"],
    ),
    (
        "uncontended",
        &["--threads", "1", "--gap", "0", "--cs", "0ns"],
    ),
    (
        "single-threaded",
        &[
            "--single-threaded",
            "--threads",
            "1",
            "--gap",
            "0",
            "--cs",
            "0ns",
        ],
    ),
];

/// What is preloaded.
struct Variant {
    name: &'static str,
    library: Option<PathBuf>,
    mode: Option<&'static str>,
}

fn variants(project: &Project, mutrace: Option<&Path>) -> Vec<Variant> {
    let profiler = project.dist().join("lib/libpthread-mutex-profile.so");
    let ours = |name, mode| Variant {
        name,
        library: Some(profiler.clone()),
        mode: Some(mode),
    };
    let mut variants = vec![
        Variant {
            name: "none",
            library: None,
            mode: None,
        },
        ours("default", "sampled"),
        ours("full", "full"),
    ];
    let usual = MUTRACE.iter().map(Path::new).find(|path| path.is_file());
    match mutrace.or(usual) {
        Some(library) => variants.push(Variant {
            name: "mutrace",
            library: Some(library.to_path_buf()),
            mode: None,
        }),
        None => println!(
            "SKIPPED: mutrace is not installed (Debian 12 has no package of it): name its library with --mutrace PATH"
        ),
    }
    variants
}

/// One round of one cell in one process.
#[derive(Serialize, Clone, Debug)]
struct Sample {
    bench: &'static str,
    threads: u64,
    preload: &'static str,
    /// Over all processes of the preload; equal numbers ran near each other.
    round: u32,
    /// libc's own functions.
    native_ops_per_s: f64,
    /// What a program's call reaches.
    preloaded_ops_per_s: f64,
}

/// One preload in one cell.
#[derive(Serialize, Debug)]
struct Row {
    bench: &'static str,
    threads: u64,
    preload: &'static str,
    preloaded_ops_per_s: Spread,
    /// To libc's own functions in the same process and round.
    ratio: Spread,
    /// To the same calls in the process without a preload, near it in time.
    to_none: Option<Spread>,
}

#[derive(Serialize, Debug)]
struct Report {
    duration: String,
    rows: Vec<Row>,
    samples: Vec<Sample>,
}

/// Measures and keeps `profiler.json` and `profiler.txt`, then memcached.
pub fn run(project: &Project, record: &Record, options: &Options) -> Result<bool> {
    let quick = options.quick;
    let duration = options.duration.clone();
    let duration = duration.unwrap_or_else(|| if quick { "50ms" } else { DURATION }.into());
    let processes = if quick { 1 } else { ROUNDS };
    let rounds = options.rounds.unwrap_or(processes);
    let scratch = tempfile::tempdir().context("cannot make a scratch folder")?;
    let variants = variants(project, options.mutrace.as_deref());
    let mut samples = Vec::new();
    for round in 0..rounds {
        println!("round {} of {rounds}", round + 1);
        for turn in 0..variants.len() {
            let variant = &variants[(turn + round as usize) % variants.len()];
            for (bench, args) in BENCHES {
                let json = scratch.path().join("driver.json");
                let mut driver = Command::new(project.program("driver"));
                driver.args(["--bench", "pthread_mutex"]).args(*args);
                driver.args(["--no-latency", "--futex-calls", "off"]);
                driver.args(["--duration", &duration, "--rounds", &INNER.to_string()]);
                variant.apply(&mut driver, scratch.path());
                if round == 0 {
                    record.note(
                        &shell::line(&driver)
                            .replace(&scratch.path().display().to_string(), "SCRATCH"),
                    )?;
                }
                shell::output(driver.arg("--json").arg(&json))?;
                let text = std::fs::read_to_string(&json).context("driver wrote no JSON")?;
                samples.extend(read(&text, bench, variant.name, round)?);
            }
        }
    }
    record.note(&format!("  # {rounds} times, in turns"))?;
    let report = Report {
        duration,
        rows: rows(&samples),
        samples,
    };
    println!("\n{report}");
    record.save("profiler.txt", &report.to_string())?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    record.save("profiler.json", &json)?;
    memcached(project, record, options)
}

impl Variant {
    fn apply(&self, command: &mut Command, scratch: &Path) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AUTOLOCK_") {
                command.env_remove(name);
            }
        }
        command.env_remove("LD_PRELOAD");
        if let Some(library) = &self.library {
            command.env("LD_PRELOAD", library);
        }
        if let Some(mode) = self.mode {
            command.env("AUTOLOCK_PROFILE", mode);
            command.env("AUTOLOCK_PROFILE_FILE", scratch.join("%p.lockprof"));
            command.env("AUTOLOCK_PROFILE_TABLE", "0");
        }
    }
}

/// What is needed of `driver`'s JSON.
#[derive(Deserialize)]
struct DriverRun {
    cells: Vec<DriverCell>,
}

#[derive(Deserialize)]
struct DriverCell {
    cell: Cell,
    rounds: Vec<DriverRound>,
}

#[derive(Deserialize)]
struct Cell {
    threads: u64,
}

#[derive(Deserialize)]
struct DriverRound {
    lock: String,
    round: u32,
    elapsed_s: f64,
    thread_ops: Vec<u64>,
}

fn read(
    json: &str,
    bench: &'static str,
    preload: &'static str,
    process: u32,
) -> Result<Vec<Sample>> {
    let run: DriverRun = serde_json::from_str(json).context("driver's JSON is not as expected")?;
    let mut samples = Vec::new();
    for DriverCell { cell, rounds } in run.cells {
        let of = |lock: &str, round: u32| {
            let mut found = rounds.iter().filter(|r| r.lock == lock && r.round == round);
            let found = found
                .next()
                .with_context(|| format!("no round {round} of {lock}"))?;
            let ops: u64 = found.thread_ops.iter().sum();
            anyhow::Ok(ops as f64 / found.elapsed_s)
        };
        for round in 0..INNER {
            samples.push(Sample {
                bench,
                threads: cell.threads,
                preload,
                round: process * INNER + round,
                native_ops_per_s: of("glibc", round)?,
                preloaded_ops_per_s: of("pthread_mutex", round)?,
            });
        }
    }
    Ok(samples)
}

/// A row per cell and preload, in the order of their first sample's bench and threads.
fn rows(samples: &[Sample]) -> Vec<Row> {
    let place = |bench: &str| BENCHES.iter().position(|(name, _)| *name == bench);
    let mut groups: BTreeMap<_, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        let key = (place(sample.bench), sample.threads, sample.preload);
        groups.entry(key).or_default().push(sample);
    }
    let rows = groups.values().filter_map(|group| {
        let first = group.first()?;
        let none = |sample: &Sample| {
            samples.iter().find(|other| {
                other.preload == "none"
                    && (other.bench, other.threads, other.round)
                        == (sample.bench, sample.threads, sample.round)
            })
        };
        let to_none = group.iter().filter_map(|sample| {
            Some(sample.preloaded_ops_per_s / none(sample)?.preloaded_ops_per_s)
        });
        let over = |figure: fn(&Sample) -> f64| spread(group.iter().map(|s| figure(s)).collect());
        Some(Row {
            bench: first.bench,
            threads: first.threads,
            preload: first.preload,
            preloaded_ops_per_s: over(|s| s.preloaded_ops_per_s)?,
            ratio: over(|s| s.preloaded_ops_per_s / s.native_ops_per_s)?,
            to_none: spread(to_none.collect()).filter(|_| first.preload != "none"),
        })
    });
    rows.collect()
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header([
            "bench",
            "threads",
            "preload",
            "Mops/s",
            "to libc in the same process",
            "to the process without",
        ]);
        for row in &self.rows {
            table.add_row([
                row.bench.to_owned(),
                row.threads.to_string(),
                row.preload.to_owned(),
                format!("{:.2}", row.preloaded_ops_per_s.median / 1e6),
                row.ratio.to_string(),
                row.to_none
                    .map_or(String::new(), |spread| spread.to_string()),
            ]);
        }
        let rounds = self.samples.iter().map(|sample| sample.round + 1).max();
        writeln!(
            out,
            "throughput, {} rounds of {}; ratios: median (95 % interval of the median; the extremes with fewer than 6 rounds) [min..max]",
            rounds.unwrap_or(0),
            self.duration
        )?;
        writeln!(out, "{table}")
    }
}

fn memcached(project: &Project, record: &Record, options: &Options) -> Result<bool> {
    packages::require("memcached")?;
    let mut command = Command::new(project.program("memcached-example"));
    command.arg("--profile");
    if options.quick {
        command.arg("--quick");
    } else {
        command.args(["--threads", "4,16"]);
        command.args(["--duration", options.duration.as_deref().unwrap_or("10s")]);
        command.args(["--rounds", &options.rounds.unwrap_or(9).to_string()]);
    }
    let json = record.folder.join("memcached-profiled.json");
    command.arg("--json").arg(&json);
    command.arg("--lib");
    command.arg(project.dist().join("lib/libpthread-mutex-profile.so"));
    let good = record.run("memcached-profiled", &mut command)?;
    record.without_root(&json)?;
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_formed_within_a_process_and_between_near_ones() {
        let json = |native: u64, preloaded: u64| {
            let round = |lock, round, ops: u64| {
                serde_json::json!({
                    "lock": lock, "round": round, "elapsed_s": 0.5, "thread_ops": [ops, ops],
                })
            };
            let rounds = [
                round("glibc", 0, native),
                round("pthread_mutex", 0, preloaded),
                round("pthread_mutex", 1, preloaded),
                round("glibc", 1, native),
            ];
            serde_json::json!({"cells": [{"cell": {"threads": 2}, "rounds": rounds}]}).to_string()
        };
        let mut samples = Vec::new();
        // The machine is twice as fast in the second process.
        for process in 0..2 {
            let fast = u64::from(process) + 1;
            samples.extend(
                read(&json(100 * fast, 90 * fast), "contended", "none", process).expect("read"),
            );
            samples.extend(
                read(&json(100 * fast, 45 * fast), "contended", "full", process).expect("read"),
            );
        }
        let rows = rows(&samples);
        let full = rows
            .iter()
            .find(|row| row.preload == "full")
            .expect("a row");
        assert_eq!((full.ratio.min, full.ratio.max), (0.45, 0.45));
        let to_none = full.to_none.expect("there is one without");
        assert_eq!((to_none.min, to_none.max), (0.5, 0.5));
        assert_eq!(full.preloaded_ops_per_s.min, 180.0);
        assert!(
            rows.iter()
                .all(|row| row.to_none.is_some() == (row.preload != "none"))
        );
        assert!(
            read(
                "{\"cells\": [{\"cell\": {\"threads\": 1}, \"rounds\": []}]}",
                "contended",
                "none",
                0
            )
            .is_err()
        );
    }
}
