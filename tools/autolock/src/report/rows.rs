//! Rows of a table: locks of equal identity in one, or each by itself; sorted. And the sums over a whole capture.

use std::cmp::Reverse;
use std::collections::HashMap;

use clap::ValueEnum;
use serde::Serialize;

use super::identity::kind_name;
use super::model::{Distribution, Kind, Lock, Report, Values};

/// What a table is sorted by, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Time waited for it in all
    #[default]
    Wait,
    /// Mean wait
    WaitAvg,
    /// 99th percentile of the waits
    WaitP99,
    /// Longest wait
    WaitMax,
    /// Time held in all
    Hold,
    /// Mean hold
    HoldAvg,
    /// 99th percentile of the holds
    HoldP99,
    /// Longest hold
    HoldMax,
    /// Contended acquisitions
    Contended,
    /// Acquisitions
    Acquired,
    /// How often the owner changed
    Changed,
    /// Most threads waiting at once
    Waiters,
    /// Tries that failed
    Failed,
    /// Timed acquisitions that timed out
    TimedOut,
    /// Name
    Name,
}

/// One lock, or all of one identity.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The first of them.
    pub lock: &'a Lock,
    /// Their indices in [`Report::locks`].
    pub indices: Vec<usize>,
    /// As in [`Lock`], added up; the maximum of `most_waiters`.
    pub acquisitions: u64,
    pub failed_tries: u64,
    pub most_waiters: u32,
    pub compared: u64,
    pub changed: u64,
    pub wait: Distribution,
    pub hold: Distribution,
    pub cond: Distribution,
    pub reacquire: Distribution,
    pub timed_out: Distribution,
    /// Histograms that locks share and that are in already.
    added: Vec<Values>,
}

impl<'a> Row<'a> {
    fn new(index: usize, lock: &'a Lock) -> Self {
        let d = [&lock.wait, &lock.hold, &lock.cond];
        let shared = d.into_iter().filter(|d| d.shared);
        Self {
            lock,
            indices: vec![index],
            acquisitions: lock.acquisitions,
            failed_tries: lock.failed_tries,
            most_waiters: lock.most_waiters,
            compared: lock.compared,
            changed: lock.changed,
            added: shared.map(|d| d.histogram.clone()).collect(),
            wait: lock.wait.clone(),
            hold: lock.hold.clone(),
            cond: lock.cond.clone(),
            reacquire: lock.reacquire.clone(),
            timed_out: lock.timed_out.clone(),
        }
    }

    fn add(&mut self, index: usize, lock: &Lock) {
        self.indices.push(index);
        self.acquisitions += lock.acquisitions;
        self.failed_tries += lock.failed_tries;
        self.most_waiters = self.most_waiters.max(lock.most_waiters);
        self.compared += lock.compared;
        self.changed += lock.changed;
        for (sum, one) in [
            (&mut self.wait, &lock.wait),
            (&mut self.hold, &lock.hold),
            (&mut self.cond, &lock.cond),
            (&mut self.reacquire, &lock.reacquire),
            (&mut self.timed_out, &lock.timed_out),
        ] {
            add(sum, one, &mut self.added);
        }
    }

    /// See [`name`].
    pub fn name(&self) -> String {
        name(self.lock)
    }
}

/// A lock's name; of readers and writers, which of them.
pub fn name(lock: &Lock) -> String {
    match lock.kind {
        Kind::Readers | Kind::Writers | Kind::Spin => {
            format!("{} ({})", lock.name, kind_name(lock.kind))
        }
        _ => lock.name.clone(),
    }
}

/// Adds `one` to `sum`. A histogram that several locks share is added once.
fn add(sum: &mut Distribution, one: &Distribution, added: &mut Vec<Values>) {
    sum.count += one.count;
    sum.total_ns += one.total_ns;
    sum.samples += one.samples;
    sum.max_ns = sum.max_ns.max(one.max_ns);
    if one.shared {
        if added.iter().any(|known| known.same(&one.histogram)) {
            return;
        }
        added.push(one.histogram.clone());
    }
    if sum.histogram.is_empty() {
        sum.histogram = one.histogram.clone();
    } else if !one.histogram.is_empty() {
        sum.histogram.auto(true);
        // Resizes itself, so it takes all.
        let _ = sum.histogram.add(&*one.histogram);
    }
}

/// The rows of a report: a row for each identity, or for each lock; in the order of the capture.
pub fn rows(report: &Report, each: bool) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut row_of: HashMap<&str, usize> = HashMap::new();
    for (index, lock) in report.locks.iter().enumerate() {
        if !each {
            if let Some(&row) = row_of.get(lock.id.as_str()) {
                rows[row].add(index, lock);
                continue;
            }
            row_of.insert(&lock.id, rows.len());
        }
        rows.push(Row::new(index, lock));
    }
    rows
}

/// What rows are sorted by.
pub fn value(row: &Row<'_>, by: Sort) -> u64 {
    match by {
        Sort::Wait => row.wait.total_ns,
        Sort::WaitAvg => row.wait.mean_ns() as u64,
        Sort::WaitP99 => quantile(&row.wait, 0.99),
        Sort::WaitMax => row.wait.max_ns,
        Sort::Hold => row.hold.total_ns,
        Sort::HoldAvg => row.hold.mean_ns() as u64,
        Sort::HoldP99 => quantile(&row.hold, 0.99),
        Sort::HoldMax => row.hold.max_ns,
        Sort::Contended => row.wait.count,
        Sort::Acquired => row.acquisitions,
        Sort::Changed => row.changed,
        Sort::Waiters => u64::from(row.most_waiters),
        Sort::Failed => row.failed_tries,
        Sort::TimedOut => row.timed_out.count,
        Sort::Name => 0,
    }
}

/// Sorts rows, the most first; of equals, those with more acquisitions, then by name and address, so that the order never varies.
pub fn sort(rows: &mut [Row<'_>], by: Sort) {
    rows.sort_by_cached_key(|row| {
        let more = if by == Sort::Name {
            0
        } else {
            row.acquisitions
        };
        (
            Reverse(value(row, by)),
            Reverse(more),
            row.lock.name.clone(),
            row.lock.address,
            row.lock.id.clone(),
        )
    });
}

/// A percentile, never above the true maximum, which the histogram knows to 2 digits only; 0 if there is none.
pub fn quantile(distribution: &Distribution, quantile: f64) -> u64 {
    match distribution.histogram.is_empty() {
        true => 0,
        false if distribution.shared => distribution.histogram.value_at_quantile(quantile),
        false => distribution
            .histogram
            .value_at_quantile(quantile)
            .min(distribution.max_ns),
    }
}

/// Sums over all locks of a capture.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Locks.
    pub locks: u64,
    /// Those that somebody waited for.
    pub contended_locks: u64,
    /// Acquisitions.
    pub acquisitions: u64,
    /// Contended ones.
    pub contended: u64,
    /// Time waited.
    pub wait_ns: u64,
    /// Holds (an estimate in sampled mode).
    pub holds: u64,
    /// Of these really timed.
    pub hold_samples: u64,
    /// Time held (likewise an estimate).
    pub hold_ns: u64,
    /// Failed tries.
    pub failed_tries: u64,
    /// Timed acquisitions that timed out.
    pub timed_out: u64,
    /// CPU time that the profiler cost, all threads together: an estimate from its cost per operation.
    pub overhead_ns: f64,
    /// This over the time recorded.
    pub overhead_ratio: f64,
}

impl Totals {
    pub fn of(report: &Report) -> Self {
        let mut totals = Self::default();
        for lock in &report.locks {
            totals.locks += 1;
            totals.contended_locks += u64::from(lock.wait.count != 0);
            totals.acquisitions += lock.acquisitions;
            totals.contended += lock.wait.count;
            totals.wait_ns += lock.wait.total_ns;
            totals.holds += lock.hold.count;
            totals.hold_samples += lock.hold.samples;
            totals.hold_ns += lock.hold.total_ns;
            totals.failed_tries += lock.failed_tries;
            totals.timed_out += lock.timed_out.count;
        }
        let timed = totals.hold_samples.min(totals.acquisitions);
        let counted = totals.acquisitions - timed;
        let cost = &report.cost;
        totals.overhead_ns = counted as f64 * cost.counted_ns + timed as f64 * cost.timed_ns;
        if report.process.duration_ns != 0 {
            totals.overhead_ratio = totals.overhead_ns / report.process.duration_ns as f64;
        }
        totals
    }
}
