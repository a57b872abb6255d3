//! Is one lock, the champion, at or above every other lock that is as fair, in every cell, within the run's noise?
//! Pure functions of `Run`.
//!
//! Noise: a lock's throughput is divided by the champion's of the same round, and of these ratios an interval is
//! formed that contains their median with a confidence of at least 95 % (order statistics: nothing is assumed of how
//! rounds scatter). With fewer than six rounds no such interval exists and all ratios are taken, min to max. A lock is
//! ahead if the whole interval is above 1, behind if below, and else level.
//!
//! Fair: the median of the rounds' Jain indices is at least [`FAIR`].

use crate::run::{Cell, CellRun, Run};
use crate::summary::{Spread, jain};
use crate::table::{magnitude, nanoseconds};
use anyhow::{Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::ASCII_MARKDOWN};

/// Jain's index from which on a lock counts as fair.
pub const FAIR: f64 = 0.9;
const CONFIDENCE: f64 = 0.95;

/// Another lock beside the champion, in one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    pub lock: String,
    pub jain: f64,
    /// Throughput over the champion's: the median of the rounds and its interval.
    pub ratio: Spread,
}

impl Rival {
    fn is_fair(&self) -> bool {
        self.jain >= FAIR
    }

    fn is_ahead(&self) -> bool {
        self.ratio.min > 1.0
    }

    fn is_behind(&self) -> bool {
        self.ratio.max < 1.0
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub cell: Cell,
    pub ops_per_s: f64,
    pub jain: f64,
    /// All other locks, the fastest first.
    pub rivals: Vec<Rival>,
}

impl Verdict {
    /// The fair locks that are ahead.
    pub fn lost_to(&self) -> impl Iterator<Item = &Rival> {
        self.rivals.iter().filter(|r| r.is_fair() && r.is_ahead())
    }
}

/// A verdict for each cell in which the champion was measured.
pub fn verdicts(run: &Run, champion: &str) -> Result<Vec<Verdict>> {
    if run.locks.iter().all(|lock| lock.name != champion) {
        let names: Vec<_> = run.locks.iter().map(|lock| lock.name.as_str()).collect();
        bail!(
            "--champion {champion}: not in this run, which has {}",
            names.join(", ")
        );
    }
    let locks = || run.locks.iter().map(|lock| lock.name.as_str());
    let verdict = |cell: &CellRun| {
        let (ops_per_s, jain) = standing(cell, champion)?;
        let mut rivals: Vec<_> = locks()
            .filter(|&lock| lock != champion)
            .filter_map(|lock| rival(cell, lock, champion))
            .collect();
        rivals.sort_by(|a, b| b.ratio.median.total_cmp(&a.ratio.median));
        Some(Verdict {
            cell: cell.cell,
            ops_per_s,
            jain,
            rivals,
        })
    };
    Ok(run.cells.iter().filter_map(verdict).collect())
}

/// Medians of throughput and of Jain's index.
fn standing(cell: &CellRun, lock: &str) -> Option<(f64, f64)> {
    let rounds = || cell.rounds.iter().filter(|r| r.lock == lock);
    let ops = Spread::of(rounds().map(|r| r.ops_per_s()))?;
    let jain = Spread::of(rounds().map(|r| jain(&r.shares())))?;
    Some((ops.median, jain.median))
}

fn rival(cell: &CellRun, lock: &str, champion: &str) -> Option<Rival> {
    let rounds = cell.rounds.iter().filter(|r| r.lock == lock);
    let ratios: Vec<f64> = rounds.filter_map(|r| cell.ratio(r, champion)).collect();
    Some(Rival {
        lock: lock.into(),
        jain: standing(cell, lock)?.1,
        ratio: median_interval(ratios)?,
    })
}

/// The median, and the narrowest pair of values of equal rank from both ends that encloses it with the confidence
/// wanted: the number of values below the median is binomial. Min and max if there are too few.
fn median_interval(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let spread = Spread::of(values.iter().copied())?;
    let rank = rank(values.len());
    Some(Spread {
        median: spread.median,
        min: values[rank],
        max: values[values.len() - 1 - rank],
    })
}

/// How many values to leave out at each end: the greatest k for which fewer than k + 1 of n fair coins show heads with a
/// probability of at most half of what the confidence leaves; 0 if not even the extremes have the confidence.
fn rank(n: usize) -> usize {
    let most = (1.0 - CONFIDENCE) / 2.0;
    // Of exactly k heads, and of k or fewer.
    let mut exactly = 0.5_f64.powi(n.min(1000) as i32);
    let mut at_most = exactly;
    let mut rank = 0;
    for k in 1..n.div_ceil(2) {
        exactly *= (n - k + 1) as f64 / k as f64;
        at_most += exactly;
        if at_most > most {
            break;
        }
        rank = k;
    }
    rank
}

/// The verdicts as a table, the answer in its last line.
pub fn render(run: &Run, champion: &str, verdicts: &[Verdict]) -> String {
    let mut table = Table::new();
    table
        .load_preset(ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "threads",
            "locks",
            "gap",
            "section",
            "ops/s",
            "Jain",
            "behind",
            "level",
            "ahead",
            "ahead but unfair",
        ]);
    for verdict in verdicts {
        let fair = || verdict.rivals.iter().filter(|r| r.is_fair());
        let behind = fair().filter(|r| r.is_behind()).count();
        let level = fair().filter(|r| !r.is_behind() && !r.is_ahead());
        let unfair = verdict.rivals.iter();
        let unfair = unfair.filter(|r| !r.is_fair() && r.is_ahead());
        table.add_row([
            verdict.cell.threads.to_string(),
            verdict.cell.locks.to_string(),
            verdict.cell.gap_cycles.to_string(),
            nanoseconds(verdict.cell.cs_ns as f64),
            magnitude(verdict.ops_per_s),
            format!("{:.3}", verdict.jain),
            behind.to_string(),
            names(level),
            names(verdict.lost_to()),
            names(unfair),
        ]);
    }
    for i in 0..7 {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!(
        "{champion} against each lock with a Jain index of at least {FAIR} (median of the rounds): behind it, level with \
         it, ahead of it; and ahead but unfair\nthroughput over that of {champion} in the same round: median ({})\n\n{table}\n\n{}\n",
        noise(run.settings.rounds),
        answer(champion, verdicts)
    )
}

fn noise(rounds: usize) -> String {
    if rounds < 6 {
        return format!("min..max of {rounds} rounds: too few for a confidence interval");
    }
    let (percent, first, last) = (CONFIDENCE * 100.0, rank(rounds) + 1, rounds - rank(rounds));
    format!(
        "value {first} to {last} of {rounds}: contains the median with at least {percent:.0} % confidence"
    )
}

fn names<'a>(rivals: impl Iterator<Item = &'a Rival>) -> String {
    let text = |r: &Rival| {
        let ratio = r.ratio;
        format!(
            "{} {:.3} ({:.3}..{:.3})",
            r.lock, ratio.median, ratio.min, ratio.max
        )
    };
    rivals.map(text).collect::<Vec<_>>().join(", ")
}

fn answer(champion: &str, verdicts: &[Verdict]) -> String {
    let lost = verdicts.iter().filter(|v| v.lost_to().count() > 0).count();
    let unfair = verdicts.iter().filter(|v| v.jain < FAIR).count();
    let first = match (verdicts.len(), lost) {
        (0, _) => return format!("{champion} was measured in no cell"),
        (cells, 0) => format!(
            "{champion} is at or above every fair lock, within the run's noise, in all {cells} cells"
        ),
        (cells, lost) => format!("{champion} is below a fair lock in {lost} of {cells} cells"),
    };
    match unfair {
        0 => first,
        _ => format!("{first}; it is not fair itself in {unfair} of them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::LockInfo;
    use crate::run::tests::{round, sample};

    #[test]
    fn the_interval_of_a_median_has_the_textbook_ranks() {
        // Tables for the sign test at 95 %: from 6 values on min to max, 9 values: 2nd to 8th, 20 values: 6th to 15th.
        let ranks = [1, 5, 6, 8, 9, 11, 12, 15, 20].map(rank);
        assert_eq!(ranks, [0, 0, 0, 0, 1, 1, 2, 3, 5]);
        let spread = median_interval((1..=9).map(f64::from).rev().collect());
        let expected = Spread {
            median: 5.0,
            min: 2.0,
            max: 8.0,
        };
        assert_eq!(spread, Some(expected));
        assert_eq!(median_interval(vec![]), None);
    }

    /// The sample's first cell with three more locks: one ahead in every round, one ahead on the median only, one
    /// ahead but unfair.
    fn with_rivals() -> Run {
        let mut run = sample();
        run.cells.truncate(1);
        let autolock = [4_000_000, 3_600_000, 6_600_000];
        for (i, ops) in autolock.into_iter().enumerate() {
            let half = ops / 2;
            let lucky = if i == 0 { half - 9 } else { half + 9 };
            run.cells[0].rounds.extend([
                round("faster", i, &[half + 9, half + 9], 1.0, 1.0),
                round("lucky", i, &[lucky, lucky], 1.0, 1.0),
                round("greedy", i, &[ops * 2, 9], 1.0, 1.0),
            ]);
        }
        run.locks
            .extend(["faster", "lucky", "greedy"].map(|name| LockInfo {
                name: name.into(),
                library: String::new(),
                fingerprint: None,
            }));
        run
    }

    #[test]
    fn only_a_fair_lock_that_is_ahead_beyond_the_noise_beats_the_champion() {
        let verdicts = verdicts(&with_rivals(), "autolock").expect("measured");
        let lost: Vec<_> = verdicts[0].lost_to().map(|r| r.lock.as_str()).collect();
        assert_eq!(lost, ["faster"]);
        assert_eq!(verdicts[0].rivals[0].lock, "greedy");
        let text = render(&with_rivals(), "autolock", &verdicts);
        assert!(text.contains("min..max of 3 rounds"), "{text}");
        assert!(
            text.ends_with("below a fair lock in 1 of 1 cells\n"),
            "{text}"
        );
    }

    #[test]
    fn a_champion_that_nobody_beats_is_said_so() {
        let mut run = sample();
        run.cells.truncate(1);
        let verdicts = verdicts(&run, "autolock").expect("measured");
        assert!(render(&run, "autolock", &verdicts).contains("every fair lock"));
    }

    #[test]
    fn a_champion_that_is_not_in_the_run_is_refused() {
        let error = verdicts(&sample(), "nobody").expect_err("refused");
        assert!(error.to_string().contains("glibc, autolock"), "{error}");
    }
}
