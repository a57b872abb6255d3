//! `index.html`: one page that loads nothing, works without JavaScript, light and dark.
//!
//! From the whole to the parts: what the process was and how much it waited, who waits still, the locks as a table, the hottest in detail,
//! flame graphs. Names are what some program chose: maud escapes them all.
//!
//! | module | what it shows |
//! |---|---|
//! | `sheet` | the table of the locks |
//! | `detail` | a lock: distributions, who waited for whom, who held |
//! | `distribution` | wait and hold times on a percentile axis |
//! | `stack` | a call stack |
//! | `waiting` | threads that wait still, and circles of them |

mod detail;
mod distribution;
mod sheet;
mod stack;
mod waiting;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{View, flame, folded, names};
use crate::report::model::{Dropped, Ending, Mode, Report, Site, SiteKind};
use crate::report::rows::{Row, Totals};
use crate::report::units;

/// Locks that are shown in detail.
const DETAILS: usize = 20;
/// Of these the first are open.
const OPEN: usize = 2;
/// Longest name of a lock, in bytes.
const NAME: usize = 400;
/// What has an empty one.
const NO_NAME: &str = "(no name)";

/// The page's text.
pub(crate) fn render(report: &Report, rows: &[Row<'_>]) -> Result<String> {
    let subject = Subject::new(report, rows);
    let mut details = Vec::new();
    for rank in 0..rows.len().min(DETAILS) {
        details.push(detail::section(&subject, rank, rank < OPEN)?);
    }
    let mut flames = Vec::new();
    for view in View::ALL {
        let drawn = flame::inline(view, &folded::stacks(report, view))?;
        flames.extend(drawn.map(|drawn| (flame::title(view), drawn)));
    }
    let title = subject.title();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(figures::POLICY);
                title { (title) ": locks" }
                style {
                    (PreEscaped(figures::LOOK)) (PreEscaped(figures::PAGE))
                    (PreEscaped(include_str!("page.css")))
                }
            }
            body {
                header { h1 { (title) } (subject.verdict()) (subject.facts()) (subject.missing()) }
                main {
                    (waiting::section(&subject))
                    (sheet::section(&subject))
                    @if !details.is_empty() {
                        section class="group" {
                            h2 { "The hottest locks" }
                            @for detail in &details { (detail) "\n" }
                        }
                    }
                    @if !flames.is_empty() {
                        section class="group" id="flames" {
                            h2 { "Flame graphs" }
                            p class="hint" {
                                "The width is time, the callers stand below, the lock is the leaf in brackets; where the holder is "
                                "charged, who waited stands above it. Click a frame to zoom."
                            }
                            @for (title, flame) in &flames {
                                figure class="flame" {
                                    div class="tools" {
                                        strong { (title) }
                                        button type="button" class="unzoom" hidden { "reset zoom" }
                                    }
                                    (flame)
                                }
                                "\n"
                            }
                        }
                    }
                    (files())
                }
                div id="tip" role="status" hidden {}
                script { (PreEscaped(include_str!("page.js"))) (PreEscaped(figures::SHEET)) }
            }
        }
    };
    Ok(page.into_string())
}

/// A report, and what several parts of the page look up in it.
pub(super) struct Subject<'a> {
    pub report: &'a Report,
    /// The hottest lock first; a lock is known by its place here.
    pub rows: &'a [Row<'a>],
    pub totals: Totals,
    /// The sites of each lock of the report.
    sites: Vec<Vec<&'a Site>>,
    /// The row of each lock of the report.
    row_of: Vec<usize>,
    /// What each row is called, with its identity where others are called the same.
    names: Vec<String>,
}

impl<'a> Subject<'a> {
    fn new(report: &'a Report, rows: &'a [Row<'a>]) -> Self {
        let mut sites = vec![Vec::new(); report.locks.len()];
        for site in &report.sites {
            if let Some(sites) = sites.get_mut(site.lock) {
                sites.push(site);
            }
        }
        let mut row_of = vec![usize::MAX; report.locks.len()];
        for (rank, row) in rows.iter().enumerate() {
            for &lock in &row.indices {
                row_of[lock] = rank;
            }
        }
        Self {
            report,
            rows,
            totals: Totals::of(report),
            sites,
            row_of,
            names: names::unique(rows, NAME, |_, c| !c.is_control()),
        }
    }

    pub fn name(&self, rank: usize) -> &str {
        match self.names.get(rank).map_or("", String::as_str) {
            "" => NO_NAME,
            name => name,
        }
    }

    /// The name of a lock of the report.
    pub fn lock_name(&self, lock: usize) -> &str {
        self.name(self.row_of.get(lock).copied().unwrap_or(usize::MAX))
    }

    /// The sites of a row, each pair of stacks once, the longest in all first.
    pub fn sites(&self, rank: usize, kind: SiteKind) -> Vec<Site> {
        let mut merged: BTreeMap<(Option<usize>, Option<usize>), Site> = BTreeMap::new();
        let locks = self.rows[rank].indices.iter();
        for site in locks
            .flat_map(|&lock| &self.sites[lock])
            .filter(|site| site.kind == kind)
        {
            merged
                .entry((site.stack, site.holder))
                .and_modify(|sum| {
                    sum.count += site.count;
                    sum.total_ns += site.total_ns;
                    sum.samples += site.samples;
                    sum.max_ns = sum.max_ns.max(site.max_ns);
                })
                .or_insert_with(|| (*site).clone());
        }
        let mut sites: Vec<Site> = merged.into_values().collect();
        sites.sort_by_key(|site| Reverse((site.total_ns, site.count)));
        sites
    }

    fn title(&self) -> &str {
        let name = self.report.process.executable.rsplit('/').next();
        name.filter(|name| !name.is_empty()).unwrap_or(NO_NAME)
    }

    /// The page in a sentence or two.
    fn verdict(&self) -> Markup {
        let duration = self.report.process.duration_ns;
        let Totals {
            contended,
            acquisitions,
            wait_ns,
            ..
        } = self.totals;
        html! {
            p class="verdict" {
                @if contended == 0 {
                    "Nobody waited for a lock"
                    @if acquisitions > 0 { ": " (units::count(acquisitions)) " acquisitions, none contended" }
                    "."
                } @else {
                    "In " (units::time(duration)) " its threads waited "
                    strong { (units::time(wait_ns)) }
                    " for locks"
                    @if duration > 0 {
                        " (" (units::digits(wait_ns as f64 / duration as f64)) " threads at a time)"
                    }
                    ", " (units::count(contended)) " of " (units::count(acquisitions)) " acquisitions contended. "
                    @if let Some(row) = self.rows.first() {
                        (units::share(row.wait.total_ns, wait_ns)) " of the time went to "
                        a href="#lock-0" { strong { (self.name(0)) } }
                        "."
                    }
                }
            }
        }
    }

    fn facts(&self) -> Markup {
        let report = self.report;
        let process = &report.process;
        let cost = &report.cost;
        html! {
            dl class="facts" {
                dt { "command" } dd { code { (process.command.join(" ")) } }
                dt { "executable" } dd { code { (process.executable) } }
                dt { "process" }
                dd {
                    (process.pid) ", child of " (process.parent) ", " (process.threads) " threads at the end, "
                    (units::plural(self.totals.locks, "lock"))
                    @if (self.rows.len() as u64) < self.totals.locks { " of " (self.rows.len()) " identities" }
                    ", " (self.totals.contended_locks) " of them waited for"
                }
                dt { "recorded" }
                dd { (date(process.started_ns)) ", for " (units::time(process.duration_ns)) "; " (ending(process.ending)) }
                @if let Some(next) = &process.next { dt { "locks of" } dd { code { (next) } } }
                dt { "mode" }
                dd {
                    @match process.mode {
                        Mode::Sampled => {
                            "sampled: every contended wait was timed; of the holds " (units::share(self.totals.hold_samples, self.totals.holds))
                            ", so that their counts and totals are estimates"
                        },
                        Mode::Full => { "full: every wait and every hold was timed" },
                    }
                }
                @if cost.native_ns > 0.0 {
                    dt { "cost" }
                    dd {
                        "an uncontended lock and unlock take " (units::time_of(cost.native_ns)) " here; counting them adds "
                        (units::time_of(cost.counted_ns)) ", timing them " (units::time_of(cost.timed_ns))
                        ": " (units::percent(self.totals.overhead_ratio)) " of a CPU in this run"
                    }
                }
            }
        }
    }

    /// What a reader of the figures must know.
    fn missing(&self) -> Markup {
        let Dropped {
            operations,
            threads,
            stacks,
            sites,
            values,
            holds,
        } = self.report.dropped;
        let parts = [
            (operations, "operations that are counted nowhere"),
            (threads, "threads whose operations are counted nowhere"),
            (stacks, "stacks: their sites are \u{201c}unknown\u{201d}"),
            (sites, "waits and holds without a site"),
            (values, "values that are in no distribution"),
            (holds, "holds that were not seen to end"),
        ];
        let parts: Vec<_> = parts.iter().filter(|(missing, _)| *missing > 0).collect();
        html! {
            @if !parts.is_empty() {
                div class="note" {
                    "Not in these figures: "
                    @for (i, (missing, what)) in parts.iter().enumerate() {
                        @if i > 0 { "; " }
                        (missing) " " (what)
                    }
                    "."
                }
            }
            @for note in &self.report.notes { div class="note" { (note) } }
        }
    }
}

fn files() -> Markup {
    html! {
        section class="group" {
            h2 { "For other tools" }
            p class="hint" { "Written beside this page; times are nanoseconds unless said otherwise." }
            dl class="facts" {
                dt { code { "contention.pb.gz blame.pb.gz hold.pb.gz" } }
                dd { "profiles for pprof: waits by who waited, the same by who held, holds. " code { "go tool pprof -http=: contention.pb.gz" } }
                dt { code { "wait.hlog hold.hlog" } }
                dd { "HdrHistogram logs, a tag for each lock" }
                dt { code { "wait.hgrm hold.hgrm hgrm/" } }
                dd { "percentile distributions for HdrHistogram's plotters, in microseconds" }
                dt { code { "wait.folded blame.folded hold.folded" } }
                dd { "folded stacks; flame graphs of them that can be searched: " code { "wait.svg blame.svg hold.svg" } }
            }
        }
    }
}

fn ending(ending: Ending) -> String {
    match ending {
        Ending::Exit => "it returned from main or called exit".into(),
        Ending::UnderscoreExit(status) => format!("it called _exit({status})"),
        Ending::QuickExit => "it called quick_exit".into(),
        Ending::Signal(signal) => format!("signal {signal} ended it"),
        Ending::None => {
            "no end was recorded: it runs still, was killed, crashed or became another program"
                .into()
        }
    }
}

/// Of UTC.
fn date(ns: i64) -> String {
    let since = Duration::from_secs(u64::try_from(ns).unwrap_or(0) / 1_000_000_000);
    // What the crate cannot write, it cannot have been.
    let last = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since.min(last)).to_string()
}
