//! Two captures side by side: lock by lock, percentile by percentile; as text and as JSON.
//!
//! Locks are matched by identity, all of one identity together. Absolute figures of two runs compare only as far as the runs do: beside them
//! stand those per acquisition and per second of the run.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::identity::kind_name;
use super::model::{Distribution, Kind, Process, Report};
use super::rows::{Row, Sort, Totals, quantile, rows, value};
use super::units::{count, digits, percent, plural, time, time_of};

/// Changes when a field changes its meaning or goes.
const VERSION: u32 = 1;
/// Width of what a line is about.
const WHAT: usize = 30;

/// Two captures: their paths and what they say.
pub struct Pair<'a> {
    pub a: (&'a Path, &'a Report),
    pub b: (&'a Path, &'a Report),
}

/// Both as JSON: `locks` has those of both, `a` or `b` of a lock is null where it is not in that capture.
#[derive(Serialize)]
pub struct Document<'a> {
    version: u32,
    a: Run<'a>,
    b: Run<'a>,
    locks: Vec<Both<'a>>,
}

#[derive(Serialize)]
struct Run<'a> {
    capture: String,
    process: &'a Process,
    totals: Totals,
}

#[derive(Serialize)]
struct Both<'a> {
    id: &'a str,
    name: &'a str,
    kind: Kind,
    a: Option<Side>,
    b: Option<Side>,
    /// What it is sorted by.
    #[serde(skip)]
    rank: u64,
}

/// A lock in one capture.
#[derive(Serialize)]
struct Side {
    /// Locks of this identity.
    locks: usize,
    acquisitions: u64,
    acquisitions_per_s: f64,
    contended: u64,
    contended_ratio: f64,
    wait: Times,
    hold: Times,
}

#[derive(Serialize)]
struct Times {
    count: u64,
    total_ns: u64,
    mean_ns: f64,
    /// The total over the acquisitions.
    per_acquisition_ns: f64,
    /// The total over the seconds recorded.
    per_second_ns: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
}

impl<'a> Pair<'a> {
    /// Both, in the order of A's capture, then what is only in B.
    pub fn document(&self) -> Document<'a> {
        self.sorted(Sort::default())
    }

    fn sorted(&self, by: Sort) -> Document<'a> {
        let (a, b) = (rows(self.a.1, false), rows(self.b.1, false));
        let in_a: HashSet<&str> = a.iter().map(|row| row.lock.id.as_str()).collect();
        let in_b: HashMap<&str, &Row<'a>> =
            b.iter().map(|row| (row.lock.id.as_str(), row)).collect();
        let both = |a: Option<&Row<'a>>, b: Option<&Row<'a>>| {
            let lock = a.or(b)?.lock;
            let rank = a.into_iter().chain(b).map(|row| value(row, by)).max();
            Some(Both {
                id: &lock.id,
                name: &lock.name,
                kind: lock.kind,
                a: a.map(|row| Side::of(row, self.a.1)),
                b: b.map(|row| Side::of(row, self.b.1)),
                rank: rank.unwrap_or(0),
            })
        };
        let of_a = a
            .iter()
            .filter_map(|row| both(Some(row), in_b.get(row.lock.id.as_str()).copied()));
        let of_b = b.iter().filter(|row| !in_a.contains(row.lock.id.as_str()));
        let mut locks: Vec<Both<'_>> = of_a
            .chain(of_b.filter_map(|row| both(None, Some(row))))
            .collect();
        locks.sort_by_key(|lock| (Reverse(lock.rank), lock.name, lock.id));
        let run = |(path, report): (&Path, &'a Report)| Run {
            capture: path.display().to_string(),
            process: &report.process,
            totals: Totals::of(report),
        };
        Document {
            version: VERSION,
            a: run(self.a),
            b: run(self.b),
            locks,
        }
    }

    /// The `top` locks of both, then those of only one.
    pub fn text(&self, by: Sort, top: usize) -> String {
        let document = self.sorted(by);
        let mut text = String::new();
        for (name, run, report) in [("A", &document.a, self.a.1), ("B", &document.b, self.b.1)] {
            let _ = writeln!(
                text,
                "{name}: {} ({}; {})",
                run.capture,
                run.process.command.join(" "),
                time(run.process.duration_ns)
            );
            for note in &report.notes {
                let _ = writeln!(text, "   Note: {note}.");
            }
        }
        let locks = &document.locks;
        let pairs = locks
            .iter()
            .filter_map(|lock| Some((lock, lock.a.as_ref()?, lock.b.as_ref()?)));
        for (lock, a, b) in pairs.clone().take(top) {
            block(&mut text, lock, a, b);
        }
        let more = pairs.count().saturating_sub(top);
        if more != 0 {
            let _ = writeln!(text, "\n{more} more locks in both (--top)");
        }
        only(
            &mut text,
            "A",
            top,
            locks.iter().filter(|l| l.b.is_none()),
            |l| l.a.as_ref(),
        );
        only(
            &mut text,
            "B",
            top,
            locks.iter().filter(|l| l.a.is_none()),
            |l| l.b.as_ref(),
        );
        text
    }
}

impl Side {
    fn of(row: &Row<'_>, report: &Report) -> Self {
        let seconds = report.process.duration_ns as f64 / 1e9;
        let times = |d: &Distribution| Times {
            count: d.count,
            total_ns: d.total_ns,
            mean_ns: d.mean_ns(),
            per_acquisition_ns: over(d.total_ns as f64, row.acquisitions as f64),
            per_second_ns: over(d.total_ns as f64, seconds),
            p50_ns: quantile(d, 0.5),
            p90_ns: quantile(d, 0.9),
            p99_ns: quantile(d, 0.99),
            p999_ns: quantile(d, 0.999),
            max_ns: d.max_ns,
        };
        Self {
            locks: row.indices.len(),
            acquisitions: row.acquisitions,
            acquisitions_per_s: over(row.acquisitions as f64, seconds),
            contended: row.wait.count,
            contended_ratio: over(row.wait.count as f64, row.acquisitions as f64),
            wait: times(&row.wait),
            hold: times(&row.hold),
        }
    }
}

/// 0 if there is nothing to divide by: JSON has no other word for it.
fn over(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

fn block(text: &mut String, lock: &Both<'_>, a: &Side, b: &Side) {
    let _ = writeln!(
        text,
        "\n{} ({}, id {})\n{:WHAT$}{:>12}{:>12}{:>9}",
        lock.name,
        kind_name(lock.kind),
        lock.id,
        "",
        "A",
        "B",
        "B/A"
    );
    let mut line = |what: &str, show: fn(f64) -> String, of: &dyn Fn(&Side) -> f64| {
        let (a, b) = (of(a), of(b));
        let ratio = match a {
            0.0 => "-".to_owned(),
            _ => digits(b / a),
        };
        let _ = writeln!(text, "  {what:28}{:>12}{:>12}{ratio:>9}", show(a), show(b));
    };
    let whole = |n: f64| count(n as u64);
    if a.locks > 1 || b.locks > 1 {
        line("locks", whole, &|s| s.locks as f64);
    }
    line("acquisitions", whole, &|s| s.acquisitions as f64);
    line("acquisitions a second", whole, &|s| s.acquisitions_per_s);
    line("contended", percent, &|s| s.contended_ratio);
    for (what, of) in [
        ("wait", (|s| &s.wait) as fn(&Side) -> &Times),
        ("hold", |s| &s.hold),
    ] {
        if of(a).count == 0 && of(b).count == 0 {
            continue;
        }
        let mut line = |name: &str, get: fn(&Times) -> f64| {
            line(&format!("{what} {name}"), time_of, &|s| get(of(s)));
        };
        line("in all", |t| t.total_ns as f64);
        line("per second of the run", |t| t.per_second_ns);
        line("per acquisition", |t| t.per_acquisition_ns);
        line("p50", |t| t.p50_ns as f64);
        line("p90", |t| t.p90_ns as f64);
        line("p99", |t| t.p99_ns as f64);
        line("p99.9", |t| t.p999_ns as f64);
        line("max", |t| t.max_ns as f64);
    }
}

fn only<'a>(
    text: &mut String,
    capture: &str,
    top: usize,
    locks: impl Iterator<Item = &'a Both<'a>>,
    side: fn(&'a Both<'a>) -> Option<&'a Side>,
) {
    let locks: Vec<(&Both<'_>, &Side)> =
        locks.filter_map(|lock| Some((lock, side(lock)?))).collect();
    if locks.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nOnly in {capture}: {}", locks.len());
    for (lock, side) in locks.iter().take(top) {
        let _ = writeln!(
            text,
            "  {} ({}, id {}): {}, {} contended, waited {}, held {}",
            lock.name,
            kind_name(lock.kind),
            lock.id,
            plural(side.acquisitions, "acquisition"),
            percent(side.contended_ratio),
            time(side.wait.total_ns),
            time(side.hold.total_ns)
        );
    }
    if locks.len() > top {
        let _ = writeln!(text, "  {} more (--top)", locks.len() - top);
    }
}
