//! From a run's raw rounds to one line per cell and lock, and to the cells in which a
//! lock does worse than the baseline. Pure functions of `Run`.

use crate::latency::Latency;
use crate::run::{Cell, CellRun, Round, Run};

/// Jain's fairness index: 1 when all threads did the same, 1/n when one did everything.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|x| x.powi(2)).sum();
    if squares == 0.0 {
        return 1.0;
    }
    sum * sum / (shares.len() as f64 * squares)
}

/// Median and extremes of a figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// None of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Spread { median, min, max })
    }
}

/// Medians over the rounds, in nanoseconds, and the worst of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyLine {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub worst: f64,
}

/// One lock in one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub cell: Cell,
    pub lock: String,
    pub ops_per_s: Spread,
    /// To the baseline of the same round; none for the baseline itself.
    pub ratio: Option<Spread>,
    pub jain: Spread,
    pub latency: Option<LatencyLine>,
    /// Per million operations.
    pub cpu_s: f64,
    pub voluntary: f64,
    pub involuntary: f64,
    /// Where known.
    pub futex_calls: Option<f64>,
    /// In nanoseconds.
    pub handover: Option<f64>,
    /// The share of the acquisitions that changed hands.
    pub changed_hands: Option<f64>,
    /// With fixed work, when the first thread was done, as a share of the time.
    pub first: Option<f64>,
}

/// One line per cell and lock, in the order of the run.
pub fn lines(run: &Run) -> Vec<Line> {
    run.cells
        .iter()
        .flat_map(|cell| {
            let of = |lock| line(cell, lock, &run.settings.baseline);
            run.locks.iter().filter_map(move |lock| of(&lock.name))
        })
        .collect()
}

fn line(cell: &CellRun, lock: &str, baseline: &str) -> Option<Line> {
    let rounds: Vec<&Round> = cell.rounds.iter().filter(|r| r.lock == lock).collect();
    let median = |f: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(|r| f(r)));
    let known = |f: &dyn Fn(&Round) -> Option<f64>| {
        Spread::of(rounds.iter().filter_map(|r| f(r))).map(|spread| spread.median)
    };
    Some(Line {
        cell: cell.cell,
        lock: lock.into(),
        ops_per_s: median(&Round::ops_per_s)?,
        ratio: ratio(cell, lock, baseline),
        jain: median(&|r| jain(&r.shares()))?,
        latency: latency(&rounds),
        cpu_s: median(&|r| r.per_million(r.user_s + r.system_s))?.median,
        voluntary: median(&|r| r.per_million(r.voluntary_switches as f64))?.median,
        involuntary: median(&|r| r.per_million(r.involuntary_switches as f64))?.median,
        futex_calls: known(&|r| Some(r.per_million(r.futex_calls? as f64))),
        handover: known(&|r| r.handover_ns),
        changed_hands: known(&|r| Some(r.changed_hands? as f64 / r.ops().max(1) as f64)),
        first: known(&|r| Some(r.first_s()? / r.elapsed_s)),
    })
}

fn ratio(cell: &CellRun, lock: &str, baseline: &str) -> Option<Spread> {
    let rounds = cell.rounds.iter().filter(|r| r.lock == lock);
    Spread::of(rounds.filter_map(|r| cell.ratio(r, baseline)))
}

fn latency(rounds: &[&Round]) -> Option<LatencyLine> {
    let over = |f: fn(&Latency) -> f64| {
        Spread::of(rounds.iter().filter_map(|r| r.latency.as_ref()).map(f))
    };
    let max = over(|l| l.max_ns)?;
    Some(LatencyLine {
        p50: over(|l| l.p50_ns)?.median,
        p99: over(|l| l.p99_ns)?.median,
        p999: over(|l| l.p999_ns)?.median,
        max: max.median,
        worst: max.max,
    })
}

/// Where and how a run was made: names and values, in the order in which they are read.
pub fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let (m, s) = (&run.machine, &run.settings);
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    let work = match (s.iter, s.total) {
        (Some(ops), _) => format!("{ops} operations of each thread"),
        (None, Some(ops)) => format!("{ops} operations of all threads together"),
        (None, None) => format!("{} s", s.duration_s),
    };
    let environment = m.environment.iter().map(|(k, v)| format!("{k}={v}"));
    vec![
        ("date", run.date.clone()),
        ("command", run.command.join(" ")),
        ("CPU", m.cpu.clone()),
        ("cores", m.cores.to_string()),
        ("CPUs", or_unknown(&m.cpus)),
        ("TSC GHz", format!("{:.3}", m.tsc_ghz)),
        ("Linux", m.kernel.clone()),
        ("glibc", m.glibc.clone()),
        ("rustc", or_unknown(&m.rustc)),
        ("commit", or_unknown(&m.commit)),
        ("load", m.load_average.clone()),
        ("on-CPU source", or_unknown(&m.on_cpu)),
        ("environment", environment.collect::<Vec<_>>().join(" ")),
        ("baseline", s.baseline.clone()),
        ("round", work),
        ("rounds", s.rounds.to_string()),
        ("single-threaded", s.single_threaded.to_string()),
        ("pinned", s.pin.to_string()),
        ("futex calls", or_unknown(&s.futex_calls)),
    ]
}

/// Below this share of the baseline's throughput a cell is listed.
pub const LEAST_RATIO: f64 = 0.97;
/// Above this multiple of the baseline's p99.9 a cell is listed.
pub const MOST_P999: f64 = 2.0;

/// A way in which a lock does worse than the baseline in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Shortfall {
    Throughput {
        ratio: f64,
    },
    P999 {
        ns: f64,
        baseline_ns: f64,
    },
    /// The worst of all rounds, and beside it the median of the rounds' maxima.
    Max {
        worst: [f64; 2],
        median: [f64; 2],
    },
}

/// Every shortfall, cell by cell.
pub fn shortfalls(run: &Run) -> Vec<(Line, Shortfall)> {
    let all = lines(run);
    let baseline_of = |line: &Line| {
        all.iter()
            .find(|l| l.cell == line.cell && l.lock == run.settings.baseline)
    };
    let mut found = Vec::new();
    for line in &all {
        if line.lock == run.settings.baseline {
            continue;
        }
        if let Some(ratio) = line.ratio.filter(|r| r.median < LEAST_RATIO) {
            let ratio = ratio.median;
            found.push((line.clone(), Shortfall::Throughput { ratio }));
        }
        let (Some(mine), Some(base)) = (line.latency, baseline_of(line).and_then(|l| l.latency))
        else {
            continue;
        };
        if mine.p999 > MOST_P999 * base.p999 {
            let (ns, baseline_ns) = (mine.p999, base.p999);
            found.push((line.clone(), Shortfall::P999 { ns, baseline_ns }));
        }
        if mine.worst > base.worst {
            let worst = [mine.worst, base.worst];
            let median = [mine.max, base.max];
            found.push((line.clone(), Shortfall::Max { worst, median }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;

    #[test]
    fn jain_is_one_for_equals_and_one_nth_for_a_monopoly() {
        assert_eq!(jain(&[5.0; 4]), 1.0);
        assert_eq!(jain(&[8.0, 0.0, 0.0, 0.0]), 0.25);
        assert!((jain(&[1.0, 3.0]) - 0.8).abs() < 1e-12);
        assert_eq!(jain(&[0.0, 0.0]), 1.0);
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        let spread = Spread::of([3.0, 1.0, 2.0]).expect("three");
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0]).expect("two").median, 2.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_pair_the_rounds_of_one_number() {
        let lines = lines(&sample());
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0].ratio, None);
        let ratio = lines[1].ratio.expect("autolock");
        // 4/2, 3.6/2 and 6.6/3, whatever the order within a round.
        assert!((ratio.median - 2.0).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.min - 1.8).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.max - 2.2).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn the_least_fair_round_is_kept() {
        let lines = lines(&sample());
        assert_eq!(lines[0].jain.median, 1.0);
        assert!((lines[0].jain.min - 0.9).abs() < 1e-12);
    }

    #[test]
    fn shortfalls_name_only_the_losing_cell() {
        let found = shortfalls(&sample());
        assert!(found.iter().all(|(line, _)| line.cell.threads == 16));
        let kinds: Vec<_> = found.into_iter().map(|(_, s)| s).collect();
        assert_eq!(
            kinds,
            [
                Shortfall::Throughput { ratio: 0.9 },
                Shortfall::P999 {
                    ns: 11e3,
                    baseline_ns: 5e3
                },
                Shortfall::Max {
                    worst: [3e6, 2e6],
                    median: [3e6, 2e6]
                },
            ]
        );
    }
}
