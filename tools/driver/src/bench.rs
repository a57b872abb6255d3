//! `--bench`: the grid, the interleaving, the progress bar. Opens the locks, runs the
//! rounds, returns the run; prints nothing but progress.

use crate::clock::Clock;
use crate::lock::{self, Lock, Source};
use crate::machine;
use crate::round::{self, Plan};
use crate::run::{Cell, CellRun, LockInfo, Round, Run, SCHEMA, Settings};
use crate::workload::Arena;
use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What to measure.
pub struct Request {
    pub locks: Vec<Lock>,
    pub baseline: String,
    pub cells: Vec<Cell>,
    pub duration: Duration,
    pub warm_up: Duration,
    pub rounds: usize,
    pub latency: bool,
    pub single_threaded: bool,
    pub progress: bool,
}

/// The cross product, in the order in which it is read: threads change fastest.
pub fn grid(
    threads: &[usize],
    locks: &[usize],
    gaps: &[u64],
    sections: &[Duration],
    lines: usize,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &locks in locks {
        for section in sections {
            for &gap_cycles in gaps {
                for &threads in threads {
                    cells.push(Cell {
                        threads,
                        locks,
                        gap_cycles,
                        cs_ns: section.as_nanos() as u64,
                        lines,
                    });
                }
            }
        }
    }
    cells
}

/// Threads still inside the lock when the stop flag is set may need a while: all of them
/// in turn, with the longest critical section anybody measures. More is a hang.
const HANG_LIMIT: Duration = Duration::from_secs(30);

/// Runs the whole grid. `keep` is given the run as far as it got: empty before the first
/// cell, then after each.
pub fn bench(request: &Request, mut keep: impl FnMut(&Run) -> Result<()>) -> Result<Run> {
    request.locks.iter().try_for_each(lock::try_out)?;
    let clock = Clock::calibrate();
    let machine = machine::describe(clock);
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let plan = Plan {
        duration: request.duration,
        latency: request.latency,
        single_threaded: request.single_threaded,
        hang_limit: HANG_LIMIT,
        clock,
    };
    let mut run = Run {
        schema: SCHEMA,
        date,
        command: std::env::args().collect(),
        machine,
        settings: Settings {
            baseline: request.baseline.clone(),
            duration_s: request.duration.as_secs_f64(),
            warm_up_s: request.warm_up.as_secs_f64(),
            rounds: request.rounds,
            latency: request.latency,
            single_threaded: request.single_threaded,
        },
        locks: request.locks.iter().map(info).collect(),
        cells: Vec::new(),
    };
    keep(&run)?;
    let bar = progress_bar(request);
    for &cell in &request.cells {
        bar.set_message(cell.to_string());
        let rounds = run_cell(request, &cell, &plan, &bar)?;
        run.cells.push(CellRun { cell, rounds });
        keep(&run)?;
    }
    bar.finish_and_clear();
    Ok(run)
}

/// Warms every lock up, then lets them take turns: A B, B A, A B ...
fn run_cell(request: &Request, cell: &Cell, plan: &Plan, bar: &ProgressBar) -> Result<Vec<Round>> {
    let size = request
        .locks
        .iter()
        .map(|lock| lock.size)
        .max()
        .unwrap_or(1);
    let arena = Arc::new(Arena::new(cell, size));
    let measure = |lock: &Lock, plan: &Plan| -> Result<Round> {
        let round = round::round(lock, cell, &arena, plan)?;
        ensure!(
            !plan.single_threaded || process_is_single_threaded(),
            "--single-threaded, but a thread was started in this process (by lock '{}'?)",
            lock.name
        );
        Ok(round)
    };
    let warm_up = Plan {
        duration: request.warm_up,
        ..*plan
    };
    for lock in &request.locks {
        measure(lock, &warm_up)?;
    }
    let mut rounds = Vec::new();
    for round in 0..request.rounds {
        for (position, &i) in turn(round, request.locks.len()).iter().enumerate() {
            rounds.push(Round {
                round,
                position,
                ..measure(&request.locks[i], plan)?
            });
            bar.inc(1);
        }
    }
    Ok(rounds)
}

/// The order of `locks` locks in a round: everyone comes first equally often.
fn turn(round: usize, locks: usize) -> Vec<usize> {
    (0..locks).map(|i| (i + round) % locks).collect()
}

/// glibc's own word for it; false from the first thread on.
fn process_is_single_threaded() -> bool {
    unsafe extern "C" {
        static __libc_single_threaded: libc::c_char;
    }
    // SAFETY: glibc defines it since 2.32; only thread creation, by this very thread,
    // writes it while it is true.
    unsafe { __libc_single_threaded != 0 }
}

/// Drawn only between rounds and only on a terminal; no ticker thread.
fn progress_bar(request: &Request) -> ProgressBar {
    if !request.progress {
        return ProgressBar::hidden();
    }
    let rounds = request.cells.len() * request.locks.len() * request.rounds;
    let bar = ProgressBar::new(rounds as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (eta {eta})") {
        bar.set_style(style);
    }
    bar
}

fn info(lock: &Lock) -> LockInfo {
    LockInfo {
        name: lock.name.clone(),
        library: lock.library.display().to_string(),
        fingerprint: machine::fingerprint(&lock.library),
    }
}

/// The sources that `names` ask for, all of them if it asks for none.
pub fn choose(known: &[Source], names: &[String], baseline: &str) -> Result<Vec<Source>> {
    let list = || {
        let names: Vec<_> = known.iter().map(|s| s.name.as_str()).collect();
        names.join(", ")
    };
    for name in names.iter().map(String::as_str).chain([baseline]) {
        ensure!(
            known.iter().any(|s| s.name == name),
            "unknown lock '{name}'; known are {}",
            list()
        );
    }
    ensure!(
        names.is_empty() || names.iter().any(|n| n == baseline),
        "the baseline '{baseline}' is not among the locks to --compare"
    );
    Ok(known
        .iter()
        .filter(|s| names.is_empty() || names.contains(&s.name))
        .cloned()
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Source {
        Source::library_named(name, "/nowhere")
    }

    #[test]
    fn the_grid_is_the_cross_product() {
        let sections = [Duration::from_nanos(10), Duration::from_micros(1)];
        let cells = grid(&[1, 2, 4], &[1, 16], &[0, 100], &sections, 2);
        assert_eq!(cells.len(), 3 * 2 * 2 * 2);
        assert_eq!((cells[0].threads, cells[1].threads), (1, 2));
        assert!(
            cells
                .iter()
                .enumerate()
                .all(|(i, c)| !cells[..i].contains(c))
        );
    }

    #[test]
    fn turns_alternate() {
        assert_eq!(turn(0, 2), [0, 1]);
        assert_eq!(turn(1, 2), [1, 0]);
        assert_eq!(turn(2, 3), [2, 0, 1]);
    }

    #[test]
    fn unknown_names_and_a_baseline_left_out_are_refused() {
        let known = [source("glibc"), source("autolock"), source("old")];
        let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let all = choose(&known, &[], "glibc").expect("all");
        assert_eq!(all, known);
        let two = choose(&known, &names(&["old", "glibc"]), "glibc").expect("two");
        assert_eq!(two, [source("glibc"), source("old")]);
        for (list, baseline) in [
            (&["glibc", "x"][..], "glibc"),
            (&[], "x"),
            (&["old"], "glibc"),
        ] {
            let error = choose(&known, &names(list), baseline).expect_err("refused");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_small_bench_pairs_its_rounds() {
        let glibc = Source::glibc().open().expect("glibc");
        let twin = Lock {
            name: "twin".into(),
            ..glibc.clone()
        };
        let request = Request {
            locks: vec![glibc, twin],
            baseline: "glibc".into(),
            cells: grid(&[1, 3], &[1], &[100], &[Duration::from_nanos(10)], 2),
            duration: Duration::from_millis(10),
            warm_up: Duration::from_millis(1),
            rounds: 2,
            latency: true,
            single_threaded: false,
            progress: false,
        };
        let mut kept = Vec::new();
        let run = bench(&request, |run| {
            kept.push(run.cells.len());
            Ok(())
        })
        .expect("bench");
        assert_eq!(kept, [0, 1, 2]);
        assert_eq!(run.cells.len(), 2);
        for cell in &run.cells {
            let order: Vec<_> = cell
                .rounds
                .iter()
                .map(|r| (r.round, r.lock.as_str()))
                .collect();
            let expected = [(0, "glibc"), (0, "twin"), (1, "twin"), (1, "glibc")];
            assert_eq!(order, expected);
        }
        assert_eq!(crate::summary::lines(&run).len(), 4);
    }
}
