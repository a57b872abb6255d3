//! The table that a person reads and the JSON file that a machine reads. Pure: it computes and prints what [`crate::bench`] has measured.

use comfy_table::{CellAlignment, Table, presets};
use example_common::figures::median;
use example_common::lock::{self, Lock};
use example_common::machine::Machine;
use serde::Serialize;

use crate::bench::Run;
use crate::program::Took;

#[derive(Serialize)]
pub struct Report {
    pub command: String,
    pub machine: Machine,
    pub version: String,
    pub files: u32,
    pub processors: u16,
    pub rounds: u16,
    pub locks: Vec<Lock>,
    pub summary: Vec<Row>,
    pub runs: Vec<Run>,
}

/// One lock, over all rounds.
#[derive(Serialize, Debug)]
pub struct Row {
    pub lock: Lock,
    pub pack: Option<Times>,
    pub unpack: Option<Times>,
    /// CPU time of packing and unpacking, median.
    pub cpu_seconds: Option<f64>,
    /// Context switches of both, median.
    pub context_switches: Option<f64>,
    pub problems: usize,
}

/// Seconds by the clock.
#[derive(Serialize, Debug, PartialEq)]
pub struct Times {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// How many times as fast as on glibc's mutex: the median of the rounds' ratios. None for glibc itself.
    pub ratio: Option<f64>,
}

/// A row for each lock.
pub fn summarise(runs: &[Run], locks: &[Lock]) -> Vec<Row> {
    locks.iter().map(|lock| row(runs, lock)).collect()
}

fn row(runs: &[Run], lock: &Lock) -> Row {
    let mine = || runs.iter().filter(|run| run.lock == *lock);
    let both = |figure: fn(&Took) -> f64| {
        let sums = mine()
            .filter_map(|run| Some(figure(run.pack.as_ref()?) + figure(run.unpack.as_ref()?)));
        median(&sums.collect::<Vec<_>>())
    };
    Row {
        lock: lock.clone(),
        pack: times(runs, lock, |run| run.pack.as_ref()),
        unpack: times(runs, lock, |run| run.unpack.as_ref()),
        cpu_seconds: both(|took| took.cpu_seconds),
        context_switches: both(|took| took.context_switches as f64),
        problems: mine().map(|run| run.problems.len()).sum(),
    }
}

fn times(runs: &[Run], lock: &Lock, part: fn(&Run) -> Option<&Took>) -> Option<Times> {
    let seconds = |run| part(run).map(|took| took.seconds);
    let mine = || runs.iter().filter(|run| run.lock == *lock);
    let all: Vec<f64> = mine().filter_map(seconds).collect();
    let ratios = mine().filter_map(|run| {
        let glibc = runs
            .iter()
            .find(|other| other.round == run.round && other.lock == Lock::Glibc)?;
        Some(seconds(glibc)? / seconds(run)?)
    });
    let ratio = median(&ratios.collect::<Vec<_>>());
    Some(Times {
        median: median(&all)?,
        min: all.iter().copied().min_by(f64::total_cmp)?,
        max: all.iter().copied().max_by(f64::total_cmp)?,
        ratio: ratio.filter(|_| *lock != Lock::Glibc),
    })
}

const COLUMNS: [&str; 10] = [
    "lock", "pack s", "min..max", "ratio", "unpack s", "min..max", "ratio", "CPU s", "switches",
    "problems",
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
        // Text to the left, figures to the right.
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let machine = &self.machine;
        format!(
            "{}, {} files, -processors {}, {} rounds, {}\n\
             {} x {}, Linux {}, {}, {}, load average before: {}\n\n{table}",
            self.version,
            self.files,
            self.processors,
            self.rounds,
            if self.locks.len() > 1 {
                lock::names(&self.locks) + " in turn"
            } else {
                "glibc alone".to_string()
            },
            machine.cpus,
            machine.cpu,
            machine.kernel,
            machine.system,
            machine.glibc,
            machine.load_before,
        )
    }
}

impl Row {
    fn cells(&self) -> [String; COLUMNS.len()] {
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or(String::new(), |value| format!("{value:.digits$}"))
        };
        let times = |times: Option<&Times>| {
            [
                figure(times.map(|times| times.median), 3),
                times.map_or("failed".to_string(), |times| {
                    format!("{:.3}..{:.3}", times.min, times.max)
                }),
                figure(times.and_then(|times| times.ratio), 3),
            ]
        };
        let [pack, pack_range, pack_ratio] = times(self.pack.as_ref());
        let [unpack, unpack_range, unpack_ratio] = times(self.unpack.as_ref());
        [
            self.lock.to_string(),
            pack,
            pack_range,
            pack_ratio,
            unpack,
            unpack_range,
            unpack_ratio,
            figure(self.cpu_seconds, 2),
            figure(self.context_switches, 0),
            self.problems.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lock: Lock, round: u16, seconds: Option<f64>) -> Run {
        let took = seconds.map(|seconds| Took {
            seconds,
            cpu_seconds: 1.0,
            context_switches: 10,
        });
        let problem = seconds.is_none().then(|| "died".to_string());
        Run {
            round,
            lock,
            pack: took.clone(),
            unpack: took,
            proof: Vec::new(),
            problems: problem.into_iter().collect(),
        }
    }

    #[test]
    fn the_ratio_compares_what_ran_side_by_side() {
        // The machine halves its speed after the first round: the ratio within each round stays 2.
        let runs = [
            run(Lock::Glibc, 1, Some(2.0)),
            run(Lock::Autolock, 1, Some(1.0)),
            run(Lock::Autolock, 2, Some(2.0)),
            run(Lock::Glibc, 2, Some(4.0)),
        ];
        let rows = summarise(&runs, &[Lock::Glibc, Lock::Autolock]);
        let pack = rows[1].pack.as_ref().expect("times");
        assert_eq!((pack.median, pack.ratio), (1.5, Some(2.0)));
        assert_eq!(rows[0].pack.as_ref().expect("times").ratio, None);
        assert_eq!(rows[1].cpu_seconds, Some(2.0));
    }

    #[test]
    fn a_failed_run_shows_in_its_row() {
        let mcs = || Lock::Algorithm("mcs".to_string());
        let runs = [run(Lock::Glibc, 1, Some(1.0)), run(mcs(), 1, None)];
        let rows = summarise(&runs, &[Lock::Glibc, mcs()]);
        assert_eq!((rows[0].problems, rows[1].problems), (0, 1));
        assert_eq!(rows[1].cells()[2], "failed");
    }
}
