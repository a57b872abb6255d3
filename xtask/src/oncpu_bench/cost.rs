//! What a context switch costs with autolockd's program at it: `perf bench sched`, with a daemon and without, in turns.
//!
//! `pipe` is the harsher one: two processes that do nothing but wake each other. On one CPU each message is a switch from one to the other; across two
//! CPUs each is a switch from idle and one to it. `messaging` is hackbench: 10 groups of 20 senders and 20 receivers.

use std::fmt;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use super::daemon::Place;
use super::strangers::undisturbed;
use super::{Options, cpus, guarded};
use crate::bench::Record;
use crate::bench::spread::{Spread, spread};
use crate::shell;

const ROUNDS: u32 = 15;

/// One benchmark on certain CPUs.
struct Cell {
    name: &'static str,
    args: &'static [&'static str],
    loops: u32,
    quick_loops: u32,
    /// How many CPUs.
    cpus: usize,
    /// The first process on the first CPU, its child on the second.
    apart: bool,
}

const CELLS: &[Cell] = &[
    Cell {
        name: "pipe, one CPU",
        args: &["pipe"],
        loops: 400_000,
        quick_loops: 20_000,
        cpus: 1,
        apart: false,
    },
    Cell {
        name: "pipe, across two CPUs",
        args: &["pipe"],
        loops: 150_000,
        quick_loops: 10_000,
        cpus: 2,
        apart: true,
    },
    Cell {
        name: "messaging, one CPU",
        args: &["messaging", "-g", "10"],
        loops: 150,
        quick_loops: 10,
        cpus: 1,
        apart: false,
    },
    Cell {
        name: "messaging, two CPUs",
        args: &["messaging", "-g", "10"],
        loops: 200,
        quick_loops: 10,
        cpus: 2,
        apart: false,
    },
];

/// One measurement.
#[derive(Serialize)]
struct Sample {
    cell: &'static str,
    round: u32,
    with: bool,
    /// What perf says.
    seconds: f64,
    /// Share of the CPUs that other processes had meanwhile.
    strangers: f64,
}

#[derive(Serialize)]
struct Row {
    cell: &'static str,
    /// Microseconds a loop.
    without_us: Spread,
    with_us: Spread,
    /// Of the medians: speed with, over speed without.
    ratio_of_medians: f64,
    /// The same of each round.
    ratio: Spread,
}

#[derive(Serialize)]
struct Report {
    rounds: u32,
    rows: Vec<Row>,
    samples: Vec<Sample>,
}

pub fn run(record: &Record, place: &Place, options: &Options) -> Result<()> {
    let cpus = cpus()?;
    let cells = CELLS.iter().filter(|cell| {
        let enough = cell.cpus <= cpus.len();
        if !enough {
            println!("SKIPPED: {}: this machine has one CPU", cell.name);
        }
        enough
    });
    let cells: Vec<&Cell> = cells.collect();
    let rounds = options.rounds(ROUNDS);
    for cell in &cells {
        record.note(&shell::line(&cell.command(&cpus, options.quick)))?;
    }
    let mut samples = Vec::new();
    let mut repeated = 0;
    for round in 0..rounds {
        println!("cost: round {} of {rounds}", round + 1);
        for cell in &cells {
            for turn in 0..2 {
                let with = (round + turn) % 2 == 1;
                let _daemon = if with { Some(place.start()?) } else { None };
                let kept = undisturbed(None, || cell.measure(&cpus, options.quick))
                    .with_context(|| cell.name.to_owned())?;
                repeated += kept.repeated;
                samples.push(Sample {
                    cell: cell.name,
                    round,
                    with,
                    seconds: kept.value,
                    strangers: kept.strangers,
                });
            }
        }
    }
    record.note(&format!(
        "  # {rounds} rounds, each with autolockd running and without, in turns; {repeated} measurements were disturbed by other processes and repeated"
    ))?;
    let rows = cells.iter().filter_map(|cell| {
        let loops = cell.loops(options.quick);
        row(cell.name, &samples, loops)
    });
    let report = Report {
        rounds,
        rows: rows.collect(),
        samples,
    };
    println!("\n{report}");
    record.save("cost.txt", &report.to_string())?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    record.save("cost.json", &json)
}

fn row(cell: &'static str, samples: &[Sample], loops: u32) -> Option<Row> {
    let of = |with| {
        let found = samples
            .iter()
            .filter(move |s| s.cell == cell && s.with == with);
        found.map(|s| (s.round, s.seconds * 1e6 / f64::from(loops)))
    };
    let pairs = of(true).filter_map(|(round, with)| {
        let (_, without) = of(false).find(|(other, _)| *other == round)?;
        Some(without / with)
    });
    let without_us = spread(of(false).map(|(_, us)| us).collect())?;
    let with_us = spread(of(true).map(|(_, us)| us).collect())?;
    Some(Row {
        cell,
        ratio_of_medians: without_us.median / with_us.median,
        without_us,
        with_us,
        ratio: spread(pairs.collect())?,
    })
}

impl Cell {
    fn loops(&self, quick: bool) -> u32 {
        if quick { self.quick_loops } else { self.loops }
    }

    fn command(&self, cpus: &[usize], quick: bool) -> Command {
        let list = cpus.iter().take(if self.apart { 1 } else { self.cpus });
        let list: Vec<String> = list.map(ToString::to_string).collect();
        let mut command = guarded("taskset");
        command.args(["-c", &list.join(",")]);
        command.args(["perf", "bench", "-f", "simple", "sched"]);
        command.args(self.args);
        command.args(["-l", &self.loops(quick).to_string()]);
        command
    }

    /// Seconds, by perf's own clock.
    fn measure(&self, cpus: &[usize], quick: bool) -> Result<f64> {
        let mut command = self.command(cpus, quick);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start perf")?;
        if self.apart {
            let other = *cpus.get(1).context("there is one CPU")?;
            move_child(&child, other)?;
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "`{}` ended with {}",
            shell::line(&command),
            output.status
        );
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim()
            .parse()
            .with_context(|| format!("perf bench printed no time: {text}"))
    }
}

/// perf has no option for it: the process that it forks is moved to `cpu`, within a millisecond of its start.
fn move_child(perf: &Child, cpu: usize) -> Result<()> {
    let file = format!("/proc/{0}/task/{0}/children", perf.id());
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let children = fs::read_to_string(&file).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            let mut set = CpuSet::new();
            set.set(cpu)?;
            sched_setaffinity(Pid::from_raw(child.parse()?), &set)
                .context("cannot move perf's second process: did it end at once?")?;
            return Ok(());
        }
    }
    bail!("perf bench sched pipe started no second process")
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header([
            "benchmark",
            "without, us a loop",
            "with",
            "ratio of medians",
            "ratio round by round",
        ]);
        for row in &self.rows {
            table.add_row([
                row.cell.to_owned(),
                row.without_us.to_string(),
                row.with_us.to_string(),
                format!("{:.3}", row.ratio_of_medians),
                row.ratio.to_string(),
            ]);
        }
        writeln!(
            out,
            "speed of perf bench sched with autolockd's program to speed without, {} rounds; median (95 % interval of the median; the extremes with fewer than 6 rounds) [min..max]",
            self.rounds
        )?;
        writeln!(out, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_below_one_is_a_slower_switch() {
        let sample = |round, with, seconds| Sample {
            cell: "pipe",
            round,
            with,
            seconds,
            strangers: 0.0,
        };
        // The machine is half as fast in the second round.
        let samples = [
            sample(0, false, 0.9),
            sample(0, true, 1.0),
            sample(1, true, 2.0),
            sample(1, false, 1.8),
        ];
        let row = row("pipe", &samples, 1_000_000).expect("samples");
        assert!((row.ratio.min - 0.9).abs() < 1e-9 && (row.ratio.max - 0.9).abs() < 1e-9);
        assert!((row.ratio_of_medians - 0.9).abs() < 1e-9);
        assert!((row.with_us.median - 1.5).abs() < 1e-9);
    }
}
