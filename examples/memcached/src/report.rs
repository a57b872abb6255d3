//! The table that a person reads and the JSON file that a machine reads. Pure: it computes and prints
//! what [`crate::bench`] has measured.

use crate::bench::Run;
use crate::machine::Machine;
use crate::proof::Proof;
use crate::server::Shutdown;
use crate::verify::{Latencies, latencies};
use comfy_table::{CellAlignment, Table, presets};
use example_common::figures::median;
use example_common::lock::{self, Lock};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
pub struct Report {
    pub command: String,
    pub machine: Machine,
    pub memcached: String,
    /// The folder of the glibc that memcached ran on, if not the system's.
    pub glibc: Option<PathBuf>,
    pub generator: &'static str,
    pub generator_version: String,
    pub connections: u16,
    pub duration_seconds: f64,
    pub rounds: u16,
    pub locks: Vec<Lock>,
    pub proof: Option<Proof>,
    pub summary: Vec<Row>,
    pub runs: Vec<Run>,
}

/// One lock at one number of threads, over all rounds.
#[derive(Serialize, Debug, PartialEq)]
pub struct Row {
    pub threads: u16,
    pub lock: Lock,
    pub tps_min: f64,
    pub tps_median: f64,
    pub tps_max: f64,
    /// Throughput over glibc's: the median of the rounds' ratios. None for glibc itself.
    pub ratio: Option<f64>,
    /// memcached's CPU time per request: what the throughput costs.
    pub cpu_us_per_operation: f64,
    /// Of all rounds' samples together.
    pub latency: Quantiles,
    pub wrong_values: u64,
    pub shutdown: Shutdown,
}

/// Latency in microseconds, as the verifier saw it.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Quantiles {
    pub samples: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Quantiles {
    pub fn of(latencies: &Latencies) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            samples: latencies.len(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latencies.max() as f64 / 1e3,
        }
    }
}

/// A row per number of threads and lock, in the order of their first run.
pub fn summarise(runs: &[Run]) -> Vec<Row> {
    let mut threads: Vec<u16> = Vec::new();
    let mut locks: Vec<&Lock> = Vec::new();
    for run in runs {
        if !threads.contains(&run.threads) {
            threads.push(run.threads);
        }
        if !locks.contains(&&run.lock) {
            locks.push(&run.lock);
        }
    }
    let rows = threads
        .iter()
        .flat_map(|&threads| locks.iter().map(move |lock| row(runs, threads, lock)));
    rows.flatten().collect()
}

fn row(runs: &[Run], threads: u16, lock: &Lock) -> Option<Row> {
    fn of<'a>(runs: &'a [Run], threads: u16, lock: &'a Lock) -> impl Iterator<Item = &'a Run> {
        runs.iter()
            .filter(move |run| run.threads == threads && run.lock == *lock)
    }
    let of = |lock| of(runs, threads, lock);
    let tps: Vec<f64> = of(lock).map(|run| run.load.tps).collect();
    let tps_min = tps.iter().copied().min_by(f64::total_cmp)?;
    let tps_max = tps.iter().copied().max_by(f64::total_cmp)?;

    let ratios: Vec<f64> = of(lock)
        .filter_map(|ours| {
            of(&Lock::Glibc)
                .find(|glibc| glibc.round == ours.round)
                .map(|glibc| ours.load.tps / glibc.load.tps)
        })
        .collect();

    let mut all = latencies();
    for run in of(lock) {
        // The bounds are the same everywhere, so that adding cannot fail.
        all.add(&run.latencies).expect("equal bounds");
    }
    let cpu: f64 = of(lock).map(|run| run.served.cpu_seconds).sum();
    let operations: u64 = of(lock).map(|run| run.served.operations).sum();
    Some(Row {
        threads,
        lock: lock.clone(),
        tps_min,
        tps_median: median(&tps)?,
        tps_max,
        ratio: median(&ratios).filter(|_| *lock != Lock::Glibc),
        cpu_us_per_operation: cpu * 1e6 / operations.max(1) as f64,
        latency: Quantiles::of(&all),
        wrong_values: of(lock)
            .map(|run| run.wrong_values + run.load.verify_failed)
            .sum(),
        shutdown: of(lock)
            .map(|run| &run.shutdown)
            .find(|shutdown| **shutdown != Shutdown::Clean)
            .unwrap_or(&Shutdown::Clean)
            .clone(),
    })
}

const COLUMNS: [&str; 11] = [
    "threads",
    "lock",
    "TPS median",
    "min..max",
    "ratio",
    "CPU us/op",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "wrong",
    "shutdown",
];

impl Report {
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table
            .load_preset(presets::ASCII_MARKDOWN)
            .set_header(COLUMNS);
        for row in &self.summary {
            table.add_row(row.cells());
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            // Text to the left, figures to the right.
            let text = [1, COLUMNS.len() - 1].contains(&index);
            column.set_cell_alignment(if text {
                CellAlignment::Left
            } else {
                CellAlignment::Right
            });
        }
        let machine = &self.machine;
        format!(
            "memcached {}, {}, {} connections, {} x {} s, {}\n\
             {} x {}, Linux {}, {}, {}, load average before: {}\n\n{table}",
            self.memcached,
            self.generator_version,
            self.connections,
            self.rounds,
            self.duration_seconds,
            if self.locks.len() > 1 {
                lock::names(&self.locks) + " in turn"
            } else {
                "glibc alone".to_string()
            },
            machine.cpus,
            machine.cpu,
            machine.kernel,
            machine.system,
            self.glibc.as_ref().map_or(machine.glibc.clone(), |prefix| {
                format!("the glibc in {}", prefix.display())
            }),
            machine.load_before,
        )
    }
}

impl Row {
    fn cells(&self) -> [String; COLUMNS.len()] {
        [
            self.threads.to_string(),
            self.lock.to_string(),
            format!("{:.0}", self.tps_median),
            format!("{:.0}..{:.0}", self.tps_min, self.tps_max),
            self.ratio
                .map_or(String::new(), |ratio| format!("{ratio:.3}")),
            format!("{:.2}", self.cpu_us_per_operation),
            format!("{:.0}", self.latency.p50_us),
            format!("{:.0}", self.latency.p99_us),
            format!("{:.0}", self.latency.p999_us),
            self.wrong_values.to_string(),
            self.shutdown.to_string(),
        ]
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::generator::Load;
    use crate::server::Served;

    /// A run of `lock` at four threads, with nothing wrong.
    pub fn run(lock: Lock, round: u16, tps: f64) -> Run {
        let mut latencies = latencies();
        latencies
            .record(u64::from(round) * 100_000)
            .expect("within bounds");
        Run {
            threads: 4,
            round,
            lock,
            load: Load {
                operations: 1_000,
                seconds: 1.0,
                tps,
                average_us: None,
                max_us: None,
                p99_below_us: None,
                verify_failed: 0,
            },
            served: Served {
                operations: 1_000,
                cpu_seconds: 0.005,
                evictions: 0,
            },
            latency: Quantiles::of(&latencies),
            latencies,
            verified_requests: 10,
            wrong_values: 0,
            first_fault: None,
            shutdown: Shutdown::Clean,
            said: String::new(),
            proof: None,
            unproved: None,
            profile: None,
        }
    }

    #[test]
    fn the_ratio_compares_what_ran_side_by_side() {
        // The machine doubles its speed after the first round: the ratio within each round stays 1.1.
        let runs = [
            run(Lock::Glibc, 1, 100.0),
            run(Lock::Autolock, 1, 110.0),
            run(Lock::Autolock, 2, 220.0),
            run(Lock::Glibc, 2, 200.0),
            run(Lock::Glibc, 3, 200.0),
            run(Lock::Autolock, 3, 220.0),
        ];
        let rows = summarise(&runs);
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0].lock, rows[0].ratio), (&Lock::Glibc, None));
        assert_eq!(
            (rows[0].tps_min, rows[0].tps_median, rows[0].tps_max),
            (100.0, 200.0, 200.0)
        );
        assert!(
            rows[1]
                .ratio
                .is_some_and(|ratio| (ratio - 1.1).abs() < 1e-9),
            "{rows:?}"
        );
        assert!((rows[1].cpu_us_per_operation - 5.0).abs() < 1e-9);
        assert_eq!(rows[1].latency.samples, 3);
    }

    #[test]
    fn one_bad_run_shows_in_its_row() {
        let mut bad = run(Lock::Autolock, 1, 1.0);
        bad.shutdown = Shutdown::Unclean("died of signal 11".to_string());
        bad.wrong_values = 3;
        bad.load.verify_failed = 2;
        let rows = summarise(&[run(Lock::Glibc, 1, 1.0), bad, run(Lock::Autolock, 2, 1.0)]);
        assert_eq!(
            (rows[1].wrong_values, rows[1].shutdown.to_string()),
            (5, "UNCLEAN: died of signal 11".to_string())
        );
        assert_eq!(
            (rows[0].wrong_values, &rows[0].shutdown),
            (0, &Shutdown::Clean)
        );
    }
}
