//! The table of the locks, the hottest first: a part of it, or all of it behind a line to click.

use maud::{Markup, html};

use super::{DETAILS, Subject};
use crate::report::identity::kind_name;
use crate::report::model::Distribution;
use crate::report::rows::{self, Row};
use crate::report::units;

/// Locks that are in view at once.
const ROWS: usize = 50;
/// Locks that are there at all: a browser can bear this many.
const ALL: usize = 10_000;

struct Column {
    title: &'static str,
    tip: &'static str,
    /// Text and, for sorting, the value behind it; none is not known.
    cell: fn(&Subject, &Row<'_>) -> Option<(String, f64)>,
}

fn time(ns: u64) -> Option<(String, f64)> {
    (ns > 0).then(|| (units::time(ns), ns as f64))
}

fn number(count: u64) -> Option<(String, f64)> {
    Some((units::count(count), count as f64))
}

fn some(count: u64) -> Option<(String, f64)> {
    (count > 0).then(|| (units::count(count), count as f64))
}

fn share(part: u64, whole: u64) -> Option<(String, f64)> {
    (whole > 0).then(|| (units::share(part, whole), part as f64 / whole as f64))
}

fn quantile(times: &Distribution, at: f64) -> Option<(String, f64)> {
    (!times.histogram.is_empty())
        .then(|| rows::quantile(times, at))
        .map(|ns| (units::time(ns), ns as f64))
}

const COLUMNS: &[Column] = &[
    Column {
        title: "wait",
        tip: "time that all threads together waited for it",
        cell: |_, l| time(l.wait.total_ns),
    },
    Column {
        title: "of all",
        tip: "share of the waiting for all locks",
        cell: |s, l| share(l.wait.total_ns, s.totals.wait_ns),
    },
    Column {
        title: "acquired",
        tip: "successful acquisitions",
        cell: |_, l| number(l.acquisitions),
    },
    Column {
        title: "contended",
        tip: "acquisitions that had to wait",
        cell: |_, l| number(l.wait.count),
    },
    Column {
        title: "of these",
        tip: "share of the acquisitions that had to wait",
        cell: |_, l| share(l.wait.count, l.acquisitions),
    },
    Column {
        title: "wait p50",
        tip: "median of the contended waits",
        cell: |_, l| quantile(&l.wait, 0.5),
    },
    Column {
        title: "p99",
        tip: "99 % of the contended waits are at most this long",
        cell: |_, l| quantile(&l.wait, 0.99),
    },
    Column {
        title: "max",
        tip: "the longest wait",
        cell: |_, l| time(l.wait.max_ns),
    },
    Column {
        title: "held",
        tip: "time that it was held, of all holders together",
        cell: |_, l| time(l.hold.total_ns),
    },
    Column {
        title: "hold p50",
        tip: "median of the holds",
        cell: |_, l| quantile(&l.hold, 0.5),
    },
    Column {
        title: "p99",
        tip: "99 % of the holds are at most this long",
        cell: |_, l| quantile(&l.hold, 0.99),
    },
    Column {
        title: "max",
        tip: "the longest hold that was timed",
        cell: |_, l| time(l.hold.max_ns),
    },
    Column {
        title: "waiters",
        tip: "the most threads that waited at once",
        cell: |_, l| some(u64::from(l.most_waiters)),
    },
    Column {
        title: "changed",
        tip: "how often the next owner was another thread",
        cell: |_, l| share(l.changed, l.compared),
    },
    Column {
        title: "failed tries",
        tip: "trylock that found it held",
        cell: |_, l| some(l.failed_tries),
    },
    Column {
        title: "time-outs",
        tip: "timed acquisitions that timed out",
        cell: |_, l| some(l.timed_out.count),
    },
];

pub(super) fn section(subject: &Subject) -> Markup {
    let all = subject.rows.len();
    html! {
        section class="group" id="locks" {
            h2 { "Locks" }
            @if all == 0 {
                p { "No lock was used." }
            } @else {
                p class="hint" {
                    "The most waited for first; locks that were first used at the same place are one. "
                    "Click a heading to sort, a name for what is known about it. Point at a heading for its meaning."
                }
                @if all > 8 {
                    input id="search" type="search" placeholder="only locks with these words" aria-label="Only locks with these words";
                }
                (table(subject, all.min(ROWS)))
                @if all > ROWS {
                    details {
                        summary { @if all > ALL { "the first " (ALL) " of " (all) " locks" } @else { "all " (all) " locks" } }
                        (table(subject, all.min(ALL)))
                    }
                }
            }
        }
    }
}

fn table(subject: &Subject, rows: usize) -> Markup {
    html! {
        div class="scroll" {
            table class="sheet" {
                thead {
                    tr {
                        th aria-sort="none" title="symbol, module and offset, or where it was first used" { button type="button" { "lock" } }
                        th aria-sort="none" title="what kind of lock it is" { button type="button" { "kind" } }
                        @for (i, column) in COLUMNS.iter().enumerate() {
                            th title=(column.tip) aria-sort=(if i == 0 { "descending" } else { "none" }) {
                                button type="button" { (column.title) }
                            }
                        }
                    }
                }
                tbody {
                    @for (rank, row) in subject.rows[..rows].iter().enumerate() {
                        tr data-row=(rank) {
                            td class="name" title=(row.lock.id) {
                                @if rank < DETAILS {
                                    a href=(format!("#lock-{rank}")) { (subject.name(rank)) }
                                } @else { (subject.name(rank)) }
                            }
                            td { (kind_name(row.lock.kind)) }
                            @for (i, column) in COLUMNS.iter().enumerate() {
                                @match (column.cell)(subject, row) {
                                    Some((text, value)) => {
                                        td class="number" data-value=(value) {
                                            @if i == 1 && value > 0.0 { (bar(value)) }
                                            (text)
                                        }
                                    },
                                    None => td class="number" {},
                                }
                            }
                        }
                        "\n"
                    }
                }
            }
        }
    }
}

/// A share as a length.
fn bar(share: f64) -> Markup {
    let width = format!("width:{:.1}px", 40.0 * share.clamp(0.0, 1.0));
    html! { span class="bar" { span style=(width) {} } }
}
