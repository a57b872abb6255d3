//! One lock: what it is, how long it was waited for and held, who waited for whom, who held it.

use anyhow::Result;
use maud::{Markup, html};

use super::{Subject, distribution, stack};
use crate::report::identity::kind_name;
use crate::report::model::{Distribution, Lock, Site, SiteKind};
use crate::report::rows::{self, Row};
use crate::report::units;

/// Pairs of a waiter and a holder, and places of holds, that are shown of a lock.
const SITES: usize = 8;
/// Of these the first are open.
const OPEN: usize = 3;

pub(super) fn section(subject: &Subject, rank: usize, open: bool) -> Result<Markup> {
    let row = &subject.rows[rank];
    let of = |kind: SiteKind| subject.sites(rank, kind);
    let figure = distribution::figure(row)?;
    Ok(html! {
        details class="lock" id=(format!("lock-{rank}")) open[open] {
            summary {
                h3 { (subject.name(rank)) }
                " "
                span class="soft" {
                    (kind_name(row.lock.kind))
                    @if row.wait.count > 0 {
                        ", waited for " (units::time(row.wait.total_ns))
                        " (" (units::share(row.wait.total_ns, subject.totals.wait_ns)) " of all waiting)"
                    } @else { ", not waited for" }
                }
            }
            div class="numbers" {
                div { (facts(subject, row)) div class="scroll" { (times(row)) } }
                @if let Some(figure) = figure {
                    figure {
                        (figure)
                        figcaption class="hint" {
                            @if !row.wait.histogram.is_empty() { span class="dot wait" {} "wait" " " }
                            @if !row.hold.histogram.is_empty() { span class="dot hold" {} "hold" }
                            @if others(&row.wait) || others(&row.hold) {
                                " (together with other locks of the same first use)"
                            }
                        }
                    }
                }
            }
            (pairs(subject, &of(SiteKind::Wait), row.wait.total_ns, "Blocked here, because it was held there", "waited"))
            (pairs(subject, &of(SiteKind::TimedOut), row.timed_out.total_ns, "Timed out here, because it was held there", "waited in vain"))
            (holds(subject, &of(SiteKind::Hold), row.hold.total_ns, "Held from here"))
            (holds(subject, &of(SiteKind::Cond), row.cond.total_ns, "Waited on condition variables here"))
        }
    })
}

fn facts(subject: &Subject, row: &Row<'_>) -> Markup {
    let report = subject.report;
    let sum = |of: fn(&Lock) -> u64| {
        row.indices
            .iter()
            .map(|&i| of(&report.locks[i]))
            .sum::<u64>()
    };
    let recursions = sum(|lock| lock.recursions);
    let incarnations = sum(|lock| u64::from(lock.incarnations));
    let (locks, duration) = (row.indices.len() as u64, report.process.duration_ns);
    html! {
        dl class="facts" {
            dt { "identity" }
            dd {
                code { (row.lock.id) } ", "
                @if locks > 1 { (units::plural(locks, "lock")) ", the first " }
                "at " code { (format!("{:#x}", row.lock.address)) }
                @if incarnations > locks { "; counting those that were destroyed " (units::count(incarnations)) }
            }
            @if let Some(first) = stack::heading(report, row.lock.first_use) {
                dt { "first used in" } dd { code { (first) } }
            }
            dt { "acquired" }
            dd {
                (units::count(row.acquisitions)) " times, " (units::count(row.wait.count)) " contended ("
                (units::share(row.wait.count, row.acquisitions)) ")"
                @if recursions > 0 { "; by its holder again " (units::count(recursions)) " times" }
                @if row.failed_tries > 0 { "; " (units::count(row.failed_tries)) " tries failed" }
            }
            @if row.hold.total_ns > 0 && duration > 0 {
                dt { "held" } dd { (units::share(row.hold.total_ns, duration)) " of the time" }
            }
            @if row.most_waiters > 0 { dt { "most waiters" } dd { (row.most_waiters) " at once" } }
            @if row.compared > 0 {
                dt { "owner changed" }
                dd { (units::share(row.changed, row.compared)) " of " (units::count(row.compared)) " successive acquisitions that were compared" }
            }
        }
    }
}

/// Each kind of time in a row.
fn times(row: &Row<'_>) -> Markup {
    let kinds = [
        ("wait", &row.wait),
        ("hold", &row.hold),
        ("on condition variables", &row.cond),
        ("of this acquiring again", &row.reacquire),
        ("timed out", &row.timed_out),
    ];
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
    html! {
        table class="times" {
            thead {
                tr {
                    th {} th { "count" } th { "total" } th { "mean" }
                    @for (name, _) in quantiles { th { (name) } }
                    th { "max" } th title="how many of them were timed; the others are estimated by them" { "timed" }
                }
            }
            tbody {
                @for (name, times) in kinds.iter().filter(|(_, times)| times.count > 0) {
                    tr {
                        th { (name) }
                        td { (units::count(times.count)) }
                        td { (units::time(times.total_ns)) }
                        td { (units::time_of(times.mean_ns())) }
                        @for (_, quantile) in quantiles { td { (at(times, quantile)) } }
                        td { (units::time(times.max_ns)) }
                        td { (units::count(times.samples)) }
                    }
                }
            }
        }
    }
}

fn at(times: &Distribution, at: f64) -> String {
    match times.histogram.is_empty() {
        true => String::new(),
        false => units::time(rows::quantile(times, at)),
    }
}

/// Whether a histogram has values of locks of another identity, for lack of memory.
fn others(times: &Distribution) -> bool {
    times.shared && times.histogram.len() > times.count
}

/// `3.2 s in 1.8 k waits, at most 12 ms`.
fn amount(site: &Site, whole: u64, what: &str) -> Markup {
    html! {
        strong { (units::time(site.total_ns)) }
        " " (what) " (" (units::share(site.total_ns, whole)) "), "
        (units::count(site.count)) (if site.count == 1 { " time" } else { " times" })
        ", at most " (units::time(site.max_ns))
    }
}

fn pairs(subject: &Subject, sites: &[Site], whole: u64, title: &str, what: &str) -> Markup {
    let report = subject.report;
    let unknown = || "not known".to_owned();
    html! {
        @if !sites.is_empty() {
            h4 { (title) }
            @for (i, site) in sites.iter().take(SITES).enumerate() {
                @let same = site.stack.is_some() && site.stack == site.holder;
                details class="pair" open[i < OPEN] {
                    summary {
                        (amount(site, whole, what)) ": "
                        code { (stack::heading(report, site.stack).unwrap_or_else(unknown)) }
                        " \u{2190} "
                        @if same { "another thread at the same place" }
                        @else { code { (stack::heading(report, site.holder).unwrap_or_else(unknown)) } }
                    }
                    div class="sides" {
                        div class="side waiter" { h5 { "blocked here" } (stack::list(report, site.stack)) }
                        div class="side holder" {
                            h5 { "held from here" }
                            @if same { p class="hint" { "by another thread at the same place" } }
                            @else { (stack::list(report, site.holder)) }
                        }
                    }
                }
            }
            (rest(sites, whole))
        }
    }
}

fn holds(subject: &Subject, sites: &[Site], whole: u64, title: &str) -> Markup {
    let report = subject.report;
    html! {
        @if !sites.is_empty() {
            h4 { (title) }
            @for site in sites.iter().take(SITES) {
                details class="pair" {
                    summary {
                        (amount(site, whole, ""))
                        @if site.count > 0 { ", " (units::time_of(site.total_ns as f64 / site.count as f64)) " on average" }
                        ": "
                        code { (stack::heading(report, site.stack).unwrap_or_else(|| "not known".into())) }
                    }
                    div class="side" { (stack::list(report, site.stack)) }
                }
            }
            (rest(sites, whole))
        }
    }
}

fn rest(sites: &[Site], whole: u64) -> Markup {
    let rest = sites.get(SITES..).unwrap_or_default();
    let total: u64 = rest.iter().map(|site| site.total_ns).sum();
    html! {
        @if !rest.is_empty() {
            p class="hint" { (rest.len()) " more: " (units::time(total)) " (" (units::share(total, whole)) ")" }
        }
    }
}
