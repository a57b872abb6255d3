//! A run as data: what was measured, where, and every round's raw figures. This is the
//! JSON that `--json` writes and `--summary` reads; every table is computed from it.

use crate::latency::Latency;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Raised when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub schema: u32,
    pub date: String,
    pub command: Vec<String>,
    pub machine: Machine,
    pub settings: Settings,
    pub locks: Vec<LockInfo>,
    pub cells: Vec<CellRun>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub tsc_ghz: f64,
    pub kernel: String,
    pub glibc: String,
    /// The compiler and the commit that this driver was built from, where known.
    pub rustc: Option<String>,
    pub commit: Option<String>,
    /// When the run began: a quiet machine shows little here.
    pub load_average: String,
    /// Variables that change what is measured.
    pub environment: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub baseline: String,
    pub duration_s: f64,
    pub warm_up_s: f64,
    pub rounds: usize,
    pub latency: bool,
    pub single_threaded: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockInfo {
    pub name: String,
    pub library: String,
    /// FNV-1a of the library file, to tell builds apart.
    pub fingerprint: Option<String>,
}

/// One point of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub threads: usize,
    pub locks: usize,
    pub gap_cycles: u64,
    pub cs_ns: u64,
    pub lines: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRun {
    pub cell: Cell,
    pub rounds: Vec<Round>,
}

/// One lock, one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    pub lock: String,
    /// Rounds of the same number ran right after one another and are compared.
    pub round: usize,
    /// The place in that sequence, from 0.
    pub position: usize,
    pub elapsed_s: f64,
    pub thread_ops: Vec<u64>,
    pub latency: Option<Latency>,
    pub user_s: f64,
    pub system_s: f64,
    pub voluntary_switches: i64,
    pub involuntary_switches: i64,
    /// Median time from one thread's unlock to the next thread's acquisition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover_ns: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub futex_calls: Option<u64>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "threads {}, locks {}, gap {} cycles, section {} ns",
            self.threads, self.locks, self.gap_cycles, self.cs_ns
        )
    }
}

impl Round {
    pub fn ops(&self) -> u64 {
        self.thread_ops.iter().sum()
    }

    pub fn ops_per_s(&self) -> f64 {
        self.ops() as f64 / self.elapsed_s
    }

    /// `count` of something, per million operations.
    pub fn per_million(&self, count: f64) -> f64 {
        count * 1e6 / self.ops().max(1) as f64
    }
}

impl Run {
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string(self).context("cannot encode the run")?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn read(path: &Path) -> Result<Run> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let run: Run = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a run of driver", path.display()))?;
        ensure!(
            run.schema == SCHEMA,
            "{} has schema {}, this driver reads {SCHEMA}",
            path.display(),
            run.schema
        );
        Ok(run)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn round(lock: &str, round: usize, ops: &[u64], p999_ns: f64, max_ns: f64) -> Round {
        Round {
            lock: lock.into(),
            round,
            position: usize::from(lock != "glibc"),
            elapsed_s: 2.0,
            thread_ops: ops.to_vec(),
            latency: Some(Latency {
                p50_ns: 50.0,
                p99_ns: 900.0,
                p999_ns,
                max_ns,
                histogram: None,
            }),
            user_s: 1.0,
            system_s: 0.5,
            voluntary_switches: 3,
            involuntary_switches: 4,
            handover_ns: None,
            futex_calls: None,
        }
    }

    /// Two cells: one in which autolock wins 2x, one in which it loses in every way.
    pub fn sample() -> Run {
        let cell = |threads, rounds| CellRun {
            cell: Cell {
                threads,
                locks: 1,
                gap_cycles: 100,
                cs_ns: 10,
                lines: 2,
            },
            rounds,
        };
        Run {
            schema: SCHEMA,
            date: "2026-01-01T00:00:00Z".into(),
            command: vec!["driver".into(), "--bench".into()],
            machine: Machine {
                cpu: "A CPU".into(),
                cores: 2,
                tsc_ghz: 2.1,
                kernel: "6.12".into(),
                glibc: "2.36".into(),
                rustc: None,
                commit: Some("0123456789ab".into()),
                load_average: "0.00 0.00 0.00".into(),
                environment: BTreeMap::from([("AUTOLOCK_BACKEND".into(), "user".into())]),
            },
            settings: Settings {
                baseline: "glibc".into(),
                duration_s: 2.0,
                warm_up_s: 0.1,
                rounds: 3,
                latency: true,
                single_threaded: false,
            },
            locks: ["glibc", "autolock"]
                .map(|name| LockInfo {
                    name: name.into(),
                    library: format!("lib{name}.so"),
                    fingerprint: None,
                })
                .into(),
            cells: vec![
                cell(
                    2,
                    vec![
                        round("glibc", 0, &[1_000_000, 1_000_000], 5e3, 2e6),
                        round("autolock", 0, &[2_000_000, 2_000_000], 4e3, 1e6),
                        round("autolock", 1, &[1_800_000, 1_800_000], 4e3, 1e6),
                        round("glibc", 1, &[1_000_000, 1_000_000], 5e3, 2e6),
                        round("glibc", 2, &[1_000_000, 2_000_000], 5e3, 2e6),
                        round("autolock", 2, &[3_300_000, 3_300_000], 4e3, 1e6),
                    ],
                ),
                cell(
                    16,
                    vec![
                        round("glibc", 0, &[1_000_000; 16], 5e3, 2e6),
                        round("autolock", 0, &[900_000; 16], 11e3, 3e6),
                    ],
                ),
            ],
        }
    }

    #[test]
    fn a_run_reads_back_as_written() {
        let folder = tempfile::tempdir().expect("scratch folder");
        let path = folder.path().join("run.json");
        sample().write(&path).expect("write");
        assert_eq!(Run::read(&path).expect("read"), sample());
    }

    #[test]
    fn another_schema_and_another_file_are_refused_in_one_line() {
        let folder = tempfile::tempdir().expect("scratch folder");
        let path = folder.path().join("run.json");
        let other = Run {
            schema: SCHEMA + 1,
            ..sample()
        };
        other.write(&path).expect("write");
        let error = Run::read(&path).expect_err("another schema");
        assert!(error.to_string().contains("schema"), "{error:#}");
        std::fs::write(&path, "{}").expect("write");
        let error = format!("{:#}", Run::read(&path).expect_err("not a run"));
        assert!(
            error.contains("not a run") && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn rates_come_from_operations_and_time() {
        let round = round("glibc", 0, &[1_000_000, 3_000_000], 0.0, 0.0);
        assert_eq!(round.ops(), 4_000_000);
        assert_eq!(round.ops_per_s(), 2e6);
        assert_eq!(round.per_million(8.0), 2.0);
    }
}
