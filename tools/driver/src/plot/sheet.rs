//! A table that is shown twice: sortable in the page, and as text to be copied.

use super::figure::{LockIndex, Subject};
use crate::run::{CellRun, Round, Run};
use crate::summary::{Spread, jain};
use crate::table::{magnitude, nanoseconds, significant};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::ASCII_MARKDOWN};
use maud::{Markup, html};

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub text: String,
    /// What the column is sorted by; none goes last.
    pub value: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub lock: LockIndex,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Sheet {
    /// The first two are words, all others numbers.
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// Columns of words at the left: cell and lock.
const WORDS: usize = 2;

impl Entry {
    pub fn words(text: impl Into<String>) -> Entry {
        let text = text.into();
        Entry { text, value: None }
    }

    pub fn number(value: Option<f64>, show: impl Fn(f64) -> String) -> Entry {
        Entry {
            text: value.map_or_else(String::new, show),
            value,
        }
    }
}

impl Sheet {
    /// Without the columns that hold nothing.
    pub fn compact(mut self) -> Sheet {
        let kept: Vec<bool> = (0..self.columns.len())
            .map(|i| i < WORDS || self.rows.iter().any(|r| !r.entries[i].text.is_empty()))
            .collect();
        let mut keep = kept.iter();
        self.columns.retain(|_| *keep.next().unwrap_or(&true));
        for row in &mut self.rows {
            let mut keep = kept.iter();
            row.entries.retain(|_| *keep.next().unwrap_or(&true));
        }
        self
    }

    pub fn html(&self) -> Markup {
        html! {
            div class="scroll" {
                table class="sheet" {
                    thead { tr { @for (i, column) in self.columns.iter().enumerate() {
                        th scope="col" aria-sort="none" { button type="button" data-column=(i) { (column) } }
                    } } }
                    tbody { @for (i, row) in self.rows.iter().enumerate() {
                        tr class=(format!("R{}", row.lock)) data-lock=(row.lock) data-row=(i) {
                            @for (i, entry) in row.entries.iter().enumerate() {
                                @if i == WORDS - 1 {
                                    td { i class=(format!("dot L{}", row.lock)) {} (entry.text) }
                                } @else if i < WORDS {
                                    td { (entry.text) }
                                } @else {
                                    td class="number" data-value=[entry.value] { (entry.text) }
                                }
                            }
                        }
                        "\n"
                    } }
                }
            }
        }
    }

    pub fn text(&self) -> String {
        let mut table = Table::new();
        table
            .load_preset(ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(&self.columns);
        for row in &self.rows {
            // A bar would begin a new column.
            table.add_row(row.entries.iter().map(|e| e.text.replace('|', "\\|")));
        }
        for i in WORDS..self.columns.len() {
            if let Some(column) = table.column_mut(i) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{table}\n")
    }
}

/// A figure of one lock in one cell, by round.
pub struct Figures {
    pub ratio: Option<Spread>,
    pub ops_per_s: Spread,
    pub jain: Spread,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    pub max: Option<f64>,
    pub cpu_s: f64,
    pub handover_ns: Option<f64>,
    pub futex: Option<f64>,
    pub voluntary: f64,
    pub involuntary: f64,
}

impl Figures {
    /// Medians over the rounds; none if the lock has no round there.
    pub fn of(run: &Run, cell: &CellRun, lock: &str) -> Option<Figures> {
        let baseline = &run.settings.baseline;
        let rounds = || cell.rounds.iter().filter(|r| r.lock == lock);
        let spread = |f: &dyn Fn(&Round) -> Option<f64>| Spread::of(rounds().filter_map(f));
        let median = |f: &dyn Fn(&Round) -> Option<f64>| spread(f).map(|s| s.median);
        let latency =
            |f: fn(&crate::latency::Latency) -> f64| median(&|r| r.latency.as_ref().map(f));
        let partner = |r: &Round| {
            let same = |other: &&Round| other.lock == *baseline && other.round == r.round;
            Some(r.ops_per_s() / cell.rounds.iter().find(same)?.ops_per_s())
        };
        Some(Figures {
            ratio: (lock != baseline).then(|| spread(&partner)).flatten(),
            ops_per_s: spread(&|r| Some(r.ops_per_s()))?,
            jain: spread(&|r| Some(jain(&r.shares())))?,
            p50: latency(|l| l.p50_ns),
            p99: latency(|l| l.p99_ns),
            p999: latency(|l| l.p999_ns),
            max: latency(|l| l.max_ns),
            cpu_s: median(&|r| Some(r.per_million(r.user_s + r.system_s)))?,
            handover_ns: median(&|r| r.handover_ns),
            futex: median(&|r| Some(r.per_million(r.futex_calls? as f64))),
            voluntary: median(&|r| Some(r.per_million(r.voluntary_switches as f64)))?,
            involuntary: median(&|r| Some(r.per_million(r.involuntary_switches as f64)))?,
        })
    }
}

/// Every cell and lock of a run.
pub fn of_run(subject: &Subject) -> Sheet {
    let run = subject.runs[0];
    let columns = [
        "cell",
        "lock",
        "threads",
        "ops/s",
        "ops/s min",
        "ops/s max",
        "ratio",
        "ratio min",
        "ratio max",
        "Jain",
        "Jain min",
        "p50",
        "p99",
        "p99.9",
        "max",
        "CPU s/Mop",
        "hand-over",
        "futex/Mop",
        "vol/Mop",
        "invol/Mop",
    ];
    let mut sheet = Sheet {
        columns: columns.map(String::from).into(),
        rows: Vec::new(),
    };
    for cell in &run.cells {
        for (lock, name) in subject.locks.iter().enumerate() {
            let Some(f) = Figures::of(run, cell, name) else {
                continue;
            };
            let ratio =
                |part: fn(Spread) -> f64| Entry::number(f.ratio.map(part), |r| format!("{r:.3}"));
            let ops = |value| Entry::number(Some(value), magnitude);
            let share = |value| Entry::number(Some(value), |j| format!("{j:.3}"));
            let ns = |value| Entry::number(value, nanoseconds);
            sheet.rows.push(Row {
                lock,
                entries: vec![
                    Entry::words(super::figure::without_threads(&cell.cell)),
                    Entry::words(name),
                    Entry::number(Some(cell.cell.threads as f64), |n| n.to_string()),
                    ops(f.ops_per_s.median),
                    ops(f.ops_per_s.min),
                    ops(f.ops_per_s.max),
                    ratio(|r| r.median),
                    ratio(|r| r.min),
                    ratio(|r| r.max),
                    share(f.jain.median),
                    share(f.jain.min),
                    ns(f.p50),
                    ns(f.p99),
                    ns(f.p999),
                    ns(f.max),
                    Entry::number(Some(f.cpu_s), significant),
                    ns(f.handover_ns),
                    Entry::number(f.futex, magnitude),
                    Entry::number(Some(f.voluntary), magnitude),
                    Entry::number(Some(f.involuntary), magnitude),
                ],
            });
        }
    }
    sheet.compact()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;

    #[test]
    fn a_row_per_cell_and_lock_and_no_empty_column() {
        let run = sample();
        let sheet = of_run(&Subject::new(&run, None));
        assert_eq!(sheet.rows.len(), 4);
        assert!(sheet.columns.iter().any(|c| c == "p99"));
        assert!(
            sheet.columns.iter().all(|c| c != "hand-over"),
            "nothing to say"
        );
        for row in &sheet.rows {
            assert_eq!(row.entries.len(), sheet.columns.len());
        }
        let ratio = sheet
            .columns
            .iter()
            .position(|c| c == "ratio")
            .expect("ratio");
        assert_eq!(sheet.rows[0].entries[ratio].value, None, "the baseline");
        let value = sheet.rows[1].entries[ratio].value.expect("autolock");
        assert!((value - 2.0).abs() < 1e-9, "{value}");
    }

    #[test]
    fn a_bar_in_a_name_does_not_break_the_text_table() {
        let mut run = sample();
        run.locks[1].name = "a|b".into();
        for round in run.cells.iter_mut().flat_map(|c| &mut c.rounds) {
            if round.lock == "autolock" {
                round.lock = "a|b".into();
            }
        }
        let text = of_run(&Subject::new(&run, None)).text();
        assert!(text.contains(r"a\|b") && !text.contains("a|b"), "{text}");
    }
}
