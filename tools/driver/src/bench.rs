//! `--bench`: the grid, the interleaving, the progress. Runs the rounds of locks that are open, returns the
//! run; prints nothing but progress.

use crate::clock::Clock;
use crate::futex::Method;
use crate::lock::{self, Lock};
use crate::machine;
use crate::parse::Extra;
use crate::round::{self, Plan, Work};
use crate::run::{Cell, CellRun, LockInfo, Round, Run, SCHEMA, Settings};
use crate::workload::Arena;
use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What to measure.
pub struct Request {
    pub locks: Vec<Lock>,
    pub baseline: String,
    pub grid: Grid,
    pub work: Work,
    pub warm_up: Duration,
    pub rounds: usize,
    pub latency: bool,
    pub single_threaded: bool,
    pub futex: Method,
    /// What the process is kept on.
    pub cpus: Vec<usize>,
    pub pin: bool,
    pub progress: Progress,
}

/// How progress is shown, on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Hidden,
    /// Drawn between rounds.
    Bar,
    /// A line for each cell.
    Lines,
}

impl Progress {
    /// A bar on a terminal; elsewhere lines if they are asked for.
    pub fn choose(asked: bool) -> Progress {
        match (std::io::stderr().is_terminal(), asked) {
            (true, _) => Progress::Bar,
            (false, true) => Progress::Lines,
            (false, false) => Progress::Hidden,
        }
    }
}

/// The values whose cross product is measured.
#[derive(Clone, Debug)]
pub struct Grid {
    pub threads: Vec<usize>,
    pub locks: Vec<usize>,
    pub extra: Vec<Extra>,
    pub sections: Vec<Duration>,
    pub lines: usize,
}

impl Grid {
    /// In the order in which it is read: threads change fastest.
    pub fn cells(&self, ghz: f64) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &locks in &self.locks {
            for section in &self.sections {
                for &extra in &self.extra {
                    for &threads in &self.threads {
                        cells.push(Cell {
                            threads,
                            locks,
                            gap_cycles: cycles(extra, ghz),
                            cs_ns: section.as_nanos() as u64,
                            lines: self.lines,
                        });
                    }
                }
            }
        }
        cells
    }

    fn len(&self) -> usize {
        self.threads.len() * self.locks.len() * self.extra.len() * self.sections.len()
    }
}

/// A time is made into cycles by the TSC's rate in hundredths of a GHz: its last digits differ from run to run, and
/// cells of two runs are the same if their numbers are.
fn cycles(extra: Extra, ghz: f64) -> u64 {
    match extra {
        Extra::Cycles(cycles) => cycles,
        Extra::Time(time) => {
            (time.as_nanos() as f64 * (ghz * 100.0).round() / 100.0).round() as u64
        }
    }
}

/// Longer than any scheduler leaves a thread without a CPU that is not a starved machine.
const HANG_LIMIT: Duration = Duration::from_secs(30);

/// How long the run will take at least; none with fixed work, which takes as long as it takes.
fn estimate(request: &Request) -> Option<Duration> {
    let Work::Time(duration) = request.work else {
        return None;
    };
    let each = duration.saturating_mul(request.rounds as u32) + request.warm_up;
    Some(each.saturating_mul((request.locks.len() * request.grid.len()) as u32))
}

/// Below this nobody needs to be told how long it takes.
const WORTH_SAYING: Duration = Duration::from_secs(60);

fn announce(request: &Request) {
    let (locks, cells) = (request.locks.len(), request.grid.len());
    let all = cells * locks * request.rounds;
    let what = format!(
        "{all} rounds ({cells} cells, {locks} locks, {} each)",
        request.rounds
    );
    match estimate(request) {
        Some(time) if time >= WORTH_SAYING => {
            let minutes = Duration::from_secs(time.as_secs().div_ceil(60) * 60);
            let minutes = humantime::format_duration(minutes);
            eprintln!("driver: {what} take {minutes} or a little more");
        }
        None if request.progress != Progress::Hidden => {
            eprintln!("driver: {what} of fixed work take as long as the locks need");
        }
        _ => {}
    }
}

/// Runs the whole grid. `keep` is given the run as far as it got: empty before the first
/// cell, then after each.
pub fn bench(request: &Request, mut keep: impl FnMut(&Run) -> Result<()>) -> Result<Run> {
    request.locks.iter().try_for_each(lock::try_out)?;
    let clock = Clock::calibrate();
    let cells = request.grid.cells(clock.ghz());
    let machine = machine::describe(clock, &request.cpus);
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let plan = Plan {
        work: request.work,
        latency: request.latency,
        single_threaded: request.single_threaded,
        pin: request.pin.then(|| request.cpus.clone().into()),
        futex: request.futex,
        hang_limit: HANG_LIMIT,
        clock,
    };
    let mut run = Run {
        schema: SCHEMA,
        date,
        command: std::env::args().collect(),
        machine,
        settings: settings(request),
        locks: request.locks.iter().map(info).collect(),
        cells: Vec::new(),
    };
    announce(request);
    keep(&run)?;
    let bar = progress_bar(request);
    for (i, &cell) in cells.iter().enumerate() {
        bar.set_message(cell.to_string());
        if request.progress == Progress::Lines {
            eprintln!("driver: cell {} of {}: {cell}", i + 1, cells.len());
        }
        let rounds = run_cell(request, &cell, &plan, &bar)?;
        run.cells.push(CellRun { cell, rounds });
        keep(&run)?;
    }
    bar.finish_and_clear();
    Ok(run)
}

fn settings(request: &Request) -> Settings {
    let (duration_s, iter, total) = match request.work {
        Work::Time(duration) => (duration.as_secs_f64(), None, None),
        Work::Each(ops) => (0.0, Some(ops), None),
        Work::Total(ops) => (0.0, None, Some(ops)),
    };
    Settings {
        baseline: request.baseline.clone(),
        duration_s,
        iter,
        total,
        warm_up_s: request.warm_up.as_secs_f64(),
        rounds: request.rounds,
        latency: request.latency,
        single_threaded: request.single_threaded,
        pin: request.pin,
        futex_calls: Some(request.futex.describe().into()),
    }
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
        work: Work::Time(request.warm_up),
        futex: Method::Off,
        ..plan.clone()
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

/// Drawn only between rounds; no ticker thread.
fn progress_bar(request: &Request) -> ProgressBar {
    if request.progress != Progress::Bar {
        return ProgressBar::hidden();
    }
    let rounds = request.grid.len() * request.locks.len() * request.rounds;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Source;

    fn grid(threads: &[usize]) -> Grid {
        Grid {
            threads: threads.into(),
            locks: vec![1],
            extra: vec![Extra::Cycles(100)],
            sections: vec![Duration::from_nanos(10)],
            lines: 2,
        }
    }

    #[test]
    fn the_grid_is_the_cross_product() {
        let grid = Grid {
            locks: vec![1, 16],
            extra: vec![Extra::Cycles(0), Extra::Time(Duration::from_micros(1))],
            sections: vec![Duration::from_nanos(10), Duration::from_micros(1)],
            ..grid(&[1, 2, 4])
        };
        let cells = grid.cells(2.5);
        assert_eq!((cells.len(), grid.len()), (3 * 2 * 2 * 2, cells.len()));
        assert_eq!((cells[0].threads, cells[1].threads), (1, 2));
        assert_eq!((cells[0].gap_cycles, cells[3].gap_cycles), (0, 2500));
        assert!(
            cells
                .iter()
                .enumerate()
                .all(|(i, c)| !cells[..i].contains(c))
        );
    }

    #[test]
    fn a_time_comes_to_the_same_cycles_whatever_the_last_digits_of_the_rate() {
        let extra = Extra::Time(Duration::from_micros(10));
        assert_eq!(cycles(extra, 2.0999), 21_000);
        assert_eq!(cycles(extra, 2.1003), 21_000);
        assert_eq!(cycles(Extra::Cycles(123), 2.1), 123);
    }

    fn request(locks: Vec<Lock>) -> Request {
        Request {
            locks,
            baseline: "glibc".into(),
            grid: grid(&[1, 3]),
            work: Work::Time(Duration::from_millis(10)),
            warm_up: Duration::from_millis(1),
            rounds: 2,
            latency: true,
            single_threaded: false,
            futex: Method::Own,
            cpus: crate::cpus::allowed().expect("affinity"),
            pin: false,
            progress: Progress::Hidden,
        }
    }

    #[test]
    fn the_estimate_is_every_round_and_every_warm_up() {
        let mut request = request(vec![Source::glibc().open().expect("glibc")]);
        assert_eq!(
            estimate(&request),
            Some(Duration::from_millis(2 * (2 * 10 + 1)))
        );
        request.work = Work::Total(5);
        assert_eq!(estimate(&request), None);
    }

    #[test]
    fn turns_alternate() {
        assert_eq!(turn(0, 2), [0, 1]);
        assert_eq!(turn(1, 2), [1, 0]);
        assert_eq!(turn(2, 3), [2, 0, 1]);
    }

    #[test]
    fn a_small_bench_pairs_its_rounds() {
        let glibc = Source::glibc().open().expect("glibc");
        let twin = Lock {
            name: "twin".into(),
            ..glibc.clone()
        };
        let request = request(vec![glibc, twin]);
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
