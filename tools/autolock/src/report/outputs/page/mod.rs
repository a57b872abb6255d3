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

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use figures::units::{magnitude, nanoseconds, significant, three_digits};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{View, flame, folded, hottest, names};
use crate::report::model::{Distribution, Dropped, Ending, Mode, Report, Site};

/// Locks that are shown in detail.
const DETAILS: usize = 20;
/// Of these the first are open.
const OPEN: usize = 2;
/// Longest name of a lock, in bytes.
const NAME: usize = 400;
/// What has an empty one.
const NO_NAME: &str = "(no name)";

/// The page's text.
pub(crate) fn render(report: &Report) -> Result<String> {
    let subject = Subject::new(report);
    let detailed = subject.order.iter().take(DETAILS).copied();
    let detailed: Vec<usize> = detailed.filter(|&lock| subject.has_detail(lock)).collect();
    let mut details = Vec::new();
    for (rank, &lock) in detailed.iter().enumerate() {
        details.push(detail::section(&subject, lock, rank < OPEN)?);
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
                    (sheet::section(&subject, &detailed))
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
    /// The hottest lock first.
    pub order: Vec<usize>,
    /// The sites of each lock, the longest in all first.
    pub sites: Vec<Vec<&'a Site>>,
    /// Time waited for all locks.
    pub waited_ns: u64,
    /// What each lock is called, with its address where others are called the same.
    names: Vec<String>,
}

impl<'a> Subject<'a> {
    fn new(report: &'a Report) -> Self {
        let mut sites = vec![Vec::new(); report.locks.len()];
        for site in &report.sites {
            if let Some(sites) = sites.get_mut(site.lock) {
                sites.push(site);
            }
        }
        for sites in &mut sites {
            sites.sort_by_key(|site: &&Site| std::cmp::Reverse((site.total_ns, site.count)));
        }
        Self {
            report,
            names: names::unique(report, NAME, |_, c| !c.is_control()),
            order: hottest(report),
            sites,
            waited_ns: report.locks.iter().map(|lock| lock.wait.total_ns).sum(),
        }
    }

    pub fn name(&self, lock: usize) -> &str {
        match self.names.get(lock).map_or("", String::as_str) {
            "" => NO_NAME,
            name => name,
        }
    }

    fn has_detail(&self, lock: usize) -> bool {
        let lock = &self.report.locks[lock];
        lock.wait.count + lock.hold.count + lock.timed_out.count > 0
    }

    fn title(&self) -> &str {
        let name = self.report.process.executable.rsplit('/').next();
        name.filter(|name| !name.is_empty()).unwrap_or(NO_NAME)
    }

    /// The page in a sentence or two.
    fn verdict(&self) -> Markup {
        let report = self.report;
        let contended: u64 = report.locks.iter().map(|lock| lock.wait.count).sum();
        let acquisitions: u64 = report.locks.iter().map(|lock| lock.acquisitions).sum();
        let running = report.process.duration_ns as f64;
        let most = self.order.first().map(|&lock| (lock, &report.locks[lock]));
        html! {
            p class="verdict" {
                @if contended == 0 {
                    "Nobody waited for a lock"
                    @if acquisitions > 0 { ": " (count(acquisitions)) " acquisitions, none contended" }
                    "."
                } @else {
                    "In " (nanoseconds(running)) " its threads waited "
                    strong { (nanoseconds(self.waited_ns as f64)) }
                    " for locks"
                    @if running > 0.0 {
                        " (" (three_digits(self.waited_ns as f64 / running)) " threads at a time)"
                    }
                    ", " (count(contended)) " of " (count(acquisitions)) " acquisitions contended. "
                    @if let Some((index, lock)) = most {
                        (percent(lock.wait.total_ns, self.waited_ns)) " of the time went to "
                        a href=(format!("#lock-{index}")) { strong { (self.name(index)) } }
                        "."
                    }
                }
            }
        }
    }

    fn facts(&self) -> Markup {
        let report = self.report;
        let process = &report.process;
        let used = report
            .locks
            .iter()
            .filter(|lock| lock.acquisitions > 0)
            .count();
        let cost = &report.cost;
        html! {
            dl class="facts" {
                dt { "command" } dd { code { (process.command.join(" ")) } }
                dt { "executable" } dd { code { (process.executable) } }
                dt { "process" }
                dd {
                    (process.pid) ", child of " (process.parent) ", " (process.threads) " threads at the end, "
                    (report.locks.len()) " locks"
                    @if used < report.locks.len() { ", " (used) " of them acquired" }
                }
                dt { "recorded" }
                dd { (date(process.started_ns)) ", for " (nanoseconds(process.duration_ns as f64)) "; " (ending(process.ending)) }
                @if let Some(next) = &process.next { dt { "locks of" } dd { code { (next) } } }
                dt { "mode" }
                dd {
                    @match process.mode {
                        Mode::Sampled => "sampled: every contended wait was timed; holds by samples, so that their counts and totals are estimates",
                        Mode::Full => "full: every wait and every hold was timed",
                    }
                }
                @if cost.native_ns > 0.0 {
                    dt { "cost" }
                    dd {
                        "an uncontended lock and unlock take " (significant(cost.native_ns)) " ns here; counting them adds "
                        (significant(cost.counted_ns)) " ns, timing them " (significant(cost.timed_ns)) " ns"
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

/// A quantile's time. The histogram only knows the bucket, whose top may lie above the greatest value.
fn quantile(times: &Distribution, quantile: f64) -> Option<u64> {
    if times.histogram.is_empty() {
        return None;
    }
    let ns = times.histogram.value_at_quantile(quantile);
    Some(if times.shared {
        ns
    } else {
        ns.min(times.max_ns)
    })
}

/// Small numbers as they are.
fn count(count: u64) -> String {
    if count < 10_000 {
        count.to_string()
    } else {
        magnitude(count as f64)
    }
}

/// A share in per cent; nothing of nothing is none.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "\u{2013}".into();
    }
    let share = 100.0 * part as f64 / whole as f64;
    match share {
        0.0 => "0 %".into(),
        v if v < 0.01 => "< 0.01 %".into(),
        v => format!("{} %", three_digits(v)),
    }
}
