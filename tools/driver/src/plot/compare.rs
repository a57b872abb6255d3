//! Two runs on one page: what differs between them, and cell by cell what changed. Pure.
//!
//! Two runs were not interleaved: only their ratios to a baseline of the same run can be
//! compared with confidence, and the page says so.

use super::figure::{Subject, without_threads};
use super::page::facts;
use super::sheet::{Entry, Figures, Row, Sheet};
use crate::run::{CellRun, Run};
use crate::table::{magnitude, nanoseconds};
use maud::{Markup, html};

/// Something that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub what: &'static str,
    /// Absolute figures mean nothing across it.
    pub machine: bool,
}

/// What differs, in the order of the facts.
pub fn differences(run: &Run, against: &Run) -> Vec<Difference> {
    let (a, b) = (&run.machine, &against.machine);
    let (s, t) = (&run.settings, &against.settings);
    let ghz = (a.tsc_ghz / b.tsc_ghz - 1.0).abs();
    let builds = |run: &Run| -> Vec<(String, Option<String>)> {
        let one = |l: &crate::run::LockInfo| (l.name.clone(), l.fingerprint.clone());
        run.locks.iter().map(one).collect()
    };
    let found = [
        ("processor", true, a.cpu != b.cpu),
        ("number of cores", true, a.cores != b.cores),
        ("TSC frequency", true, ghz > 0.01),
        ("kernel", true, a.kernel != b.kernel),
        ("glibc", true, a.glibc != b.glibc),
        ("on-CPU source", true, a.on_cpu != b.on_cpu),
        ("baseline", false, s.baseline != t.baseline),
        ("length of a round", false, s.duration_s != t.duration_s),
        ("warm-up", false, s.warm_up_s != t.warm_up_s),
        ("number of rounds", false, s.rounds != t.rounds),
        ("recording of latencies", false, s.latency != t.latency),
        (
            "single- or multi-threaded process",
            false,
            s.single_threaded != t.single_threaded,
        ),
        ("environment", false, a.environment != b.environment),
        ("compiler", false, a.rustc != b.rustc),
        ("revision", false, a.commit != b.commit),
        (
            "locks or their builds",
            false,
            builds(run) != builds(against),
        ),
    ];
    let differing = found.into_iter().filter(|(_, _, differs)| *differs);
    differing
        .map(|(what, machine, _)| Difference { what, machine })
        .collect()
}

/// The warning, and both runs' facts side by side.
pub fn head(run: &Run, against: &Run, names: [&str; 2]) -> Markup {
    let all = differences(run, against);
    let list = |machine: bool| -> String {
        let some = all.iter().filter(|d| d.machine == machine);
        some.map(|d| d.what).collect::<Vec<_>>().join(", ")
    };
    let (machine, other) = (list(true), list(false));
    let rows = facts(run).into_iter().chain(facts(against));
    let mut facts_by_name: Vec<(&str, [Option<String>; 2])> = Vec::new();
    let first = facts(run).len();
    for (i, (name, value)) in rows.enumerate() {
        let side = usize::from(i >= first);
        match facts_by_name.iter_mut().find(|(n, _)| *n == name) {
            Some((_, values)) => values[side] = Some(value),
            None => {
                let mut values = [None, None];
                values[side] = Some(value);
                facts_by_name.push((name, values));
            }
        }
    }
    html! {
        @if machine.is_empty() {
            p class="note" {
                "The same kind of machine, but two runs: not interleaved. What else the machine did differs;"
                " compare ratios to the baseline first."
            }
        } @else {
            div class="alarm" role="alert" {
                strong { "Different machines." }
                " They differ in " (machine) ". Absolute figures of these runs cannot be compared;"
                " ratios to the baseline of the same run can, with care."
            }
        }
        @if !run.cells.iter().any(|cell| partner(cell, against).is_some()) {
            div class="alarm" role="alert" { strong { "No cell is in both runs." } }
        }
        @if !other.is_empty() { p class="note" { "Also different: " (other) "." } }
        div class="scroll" {
            table class="facts" {
                thead { tr {
                    th {} th { (names[0]) " (solid)" } th { (names[1]) " (dashed)" }
                } }
                tbody { @for (name, [a, b]) in &facts_by_name {
                    tr class=[(a != b).then_some("differs")] {
                        th scope="row" { (name) }
                        td { (a.as_deref().unwrap_or("")) }
                        td { (b.as_deref().unwrap_or("")) }
                    }
                } }
            }
        }
    }
}

/// The cell of the other run with the same parameters.
fn partner<'a>(cell: &CellRun, against: &'a Run) -> Option<&'a CellRun> {
    against.cells.iter().find(|c| c.cell == cell.cell)
}

/// Per cell and lock of both: what each measured, and the first over the second.
pub fn sheet(subject: &Subject) -> Sheet {
    let (run, against) = (subject.runs[0], subject.runs[1]);
    let mut columns: Vec<String> = ["cell", "lock", "threads"].map(String::from).into();
    for measure in ["ratio", "ops/s", "Jain", "p50", "p99", "p99.9", "max"] {
        columns.extend([
            measure.into(),
            format!("{measure} other"),
            "quotient".into(),
        ]);
    }
    let mut sheet = Sheet {
        columns,
        rows: Vec::new(),
    };
    for cell in &run.cells {
        let Some(other) = partner(cell, against) else {
            continue;
        };
        for (lock, name) in subject.locks.iter().enumerate() {
            let (Some(a), Some(b)) = (
                Figures::of(run, cell, name),
                Figures::of(against, other, name),
            ) else {
                continue;
            };
            let mut entries = vec![
                Entry::words(without_threads(&cell.cell)),
                Entry::words(name),
                Entry::number(Some(cell.cell.threads as f64), |n| n.to_string()),
            ];
            let mut triple = |x: Option<f64>, y: Option<f64>, show: fn(f64) -> String| {
                let quotient = x.zip(y).map(|(x, y)| x / y).filter(|q| q.is_finite());
                entries.push(Entry::number(x, show));
                entries.push(Entry::number(y, show));
                entries.push(Entry::number(quotient, |q| format!("{q:.3}")));
            };
            let three: fn(f64) -> String = |v| format!("{v:.3}");
            triple(a.ratio.map(|r| r.median), b.ratio.map(|r| r.median), three);
            let ops = (a.ops_per_s.median, b.ops_per_s.median);
            triple(Some(ops.0), Some(ops.1), magnitude);
            triple(Some(a.jain.median), Some(b.jain.median), three);
            triple(a.p50, b.p50, nanoseconds);
            triple(a.p99, b.p99, nanoseconds);
            triple(a.p999, b.p999, nanoseconds);
            triple(a.max, b.max, nanoseconds);
            sheet.rows.push(Row { lock, entries });
        }
    }
    sheet.compact()
}

/// Cells of either run that the other lacks, in words.
pub fn unmatched(run: &Run, against: &Run) -> String {
    let count = |a: &Run, b: &Run| a.cells.iter().filter(|c| partner(c, b).is_none()).count();
    match (count(run, against), count(against, run)) {
        (0, 0) => "Both runs have the same cells.".into(),
        (a, _) if a == run.cells.len() => "No cell is in both runs: nothing to compare.".into(),
        (a, b) => format!(
            "Cells in the first run alone: {a}, in the second alone: {b}; in the figures, not in the table."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;

    fn other_machine() -> Run {
        let mut run = sample();
        run.machine.cpu = "Another CPU".into();
        run
    }

    #[test]
    fn another_machine_is_said_loudly_and_the_same_one_is_not() {
        let head_of = |other: &Run| head(&sample(), other, ["a", "b"]).into_string();
        let text = head_of(&other_machine());
        assert!(text.contains("Different machines") && text.contains("processor"));
        let text = head_of(&sample());
        assert!(!text.contains("Different machines"), "{text}");
        assert!(text.contains("not interleaved"), "{text}");
    }

    #[test]
    fn each_part_of_the_machine_counts_and_settings_do_not() {
        let changes: [fn(&mut Run); 4] = [
            |r| r.machine.cores += 1,
            |r| r.machine.kernel.push('x'),
            |r| r.machine.glibc.push('x'),
            |r| r.machine.tsc_ghz *= 1.1,
        ];
        for change in changes {
            let mut other = sample();
            change(&mut other);
            let found = differences(&sample(), &other);
            assert!(found.len() == 1 && found[0].machine, "{found:?}");
        }
        let mut other = sample();
        other.settings.rounds += 1;
        other.machine.tsc_ghz *= 1.001;
        let found = differences(&sample(), &other);
        assert!(found.len() == 1 && !found[0].machine, "{found:?}");
    }

    #[test]
    fn quotients_are_the_first_run_over_the_second() {
        let mut faster = sample();
        for round in faster.cells.iter_mut().flat_map(|c| &mut c.rounds) {
            if round.lock == "autolock" {
                round.elapsed_s /= 2.0;
            }
        }
        let slower = sample();
        let sheet = sheet(&Subject::new(&faster, Some(&slower)));
        assert_eq!(sheet.rows.len(), 4);
        let ops = sheet
            .columns
            .iter()
            .position(|c| c == "ops/s")
            .expect("ops/s");
        let quotient = |row: usize, column: usize| sheet.rows[row].entries[column + 2].value;
        assert_eq!(quotient(0, ops), Some(1.0), "glibc");
        assert_eq!(quotient(1, ops), Some(2.0), "autolock");
        let ratio = sheet
            .columns
            .iter()
            .position(|c| c == "ratio")
            .expect("ratio");
        assert_eq!(quotient(0, ratio), None, "the baseline has no ratio");
        assert_eq!(quotient(1, ratio), Some(2.0));
    }

    #[test]
    fn cells_that_only_one_run_has_are_counted() {
        let mut other = sample();
        other.cells[1].cell.threads = 32;
        let text = unmatched(&sample(), &other);
        assert!(
            text.contains("first run alone: 1, in the second alone: 1"),
            "{text}"
        );
        other.cells.remove(0);
        let text = unmatched(&sample(), &other);
        assert!(text.starts_with("No cell is in both"), "{text}");
        let text = head(&sample(), &other, ["a", "b"]).into_string();
        assert!(text.contains("No cell is in both"), "{text}");
    }
}
