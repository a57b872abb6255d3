//! One lock: what it is, how long it was waited for and held, who waited for whom, who held it.

use anyhow::Result;
use figures::units::nanoseconds;
use maud::{Markup, html};

use super::{Subject, count, distribution, names, percent, quantile, stack};
use crate::report::model::{Distribution, Lock, Site, SiteKind};

/// Pairs of a waiter and a holder, and places of holds, that are shown of a lock.
const SITES: usize = 8;
/// Of these the first are open.
const OPEN: usize = 3;

pub(super) fn section(subject: &Subject, index: usize, open: bool) -> Result<Markup> {
    let lock = &subject.report.locks[index];
    let of = |kind: SiteKind| -> Vec<&Site> {
        let sites = subject.sites[index].iter().copied();
        sites.filter(|site| site.kind == kind).collect()
    };
    let figure = distribution::figure(lock)?;
    Ok(html! {
        details class="lock" id=(format!("lock-{index}")) open[open] {
            summary {
                h3 { (subject.name(index)) }
                " "
                span class="soft" {
                    (names::of_kind(lock.kind))
                    @if lock.wait.count > 0 {
                        ", waited for " (nanoseconds(lock.wait.total_ns as f64))
                        " (" (percent(lock.wait.total_ns, subject.waited_ns)) " of all waiting)"
                    } @else { ", not waited for" }
                }
            }
            div class="numbers" {
                div { (facts(subject, lock)) div class="scroll" { (times(lock)) } }
                @if let Some(figure) = figure {
                    figure {
                        (figure)
                        figcaption class="hint" {
                            @if !lock.wait.histogram.is_empty() { span class="dot wait" {} "wait" " " }
                            @if !lock.hold.histogram.is_empty() { span class="dot hold" {} "hold" }
                            @if lock.wait.shared || lock.hold.shared {
                                " (together with other locks of the same first use)"
                            }
                        }
                    }
                }
            }
            (pairs(subject, &of(SiteKind::Wait), lock.wait.total_ns, "Blocked here, because it was held there", "waited"))
            (pairs(subject, &of(SiteKind::TimedOut), lock.timed_out.total_ns, "Timed out here, because it was held there", "waited in vain"))
            (holds(subject, &of(SiteKind::Hold), lock.hold.total_ns, "Held from here"))
            (holds(subject, &of(SiteKind::Cond), lock.cond.total_ns, "Waited on condition variables here"))
        }
    })
}

fn facts(subject: &Subject, lock: &Lock) -> Markup {
    let duration = subject.report.process.duration_ns;
    html! {
        dl class="facts" {
            dt { "identity" }
            dd { code { (lock.id) } ", at " code { (format!("{:#x}", lock.address)) }
                @if lock.incarnations > 1 { ", " (lock.incarnations) " locks one after the other" }
            }
            @if let Some(first) = stack::heading(subject.report, lock.first_use) {
                dt { "first used in" } dd { code { (first) } }
            }
            dt { "acquired" }
            dd {
                (count(lock.acquisitions)) " times, " (count(lock.wait.count)) " contended ("
                (percent(lock.wait.count, lock.acquisitions)) ")"
                @if lock.recursions > 0 { "; by its holder again " (count(lock.recursions)) " times" }
                @if lock.failed_tries > 0 { "; " (count(lock.failed_tries)) " tries failed" }
            }
            @if lock.hold.total_ns > 0 && duration > 0 {
                dt { "held" } dd { (percent(lock.hold.total_ns, duration)) " of the time" }
            }
            @if lock.most_waiters > 0 { dt { "most waiters" } dd { (lock.most_waiters) " at once" } }
            @if lock.compared > 0 {
                dt { "owner changed" }
                dd { (percent(lock.changed, lock.compared)) " of " (count(lock.compared)) " successive acquisitions that were compared" }
            }
        }
    }
}

/// Each kind of time in a row.
fn times(lock: &Lock) -> Markup {
    let rows = [
        ("wait", &lock.wait),
        ("hold", &lock.hold),
        ("on condition variables", &lock.cond),
        ("of this acquiring again", &lock.reacquire),
        ("timed out", &lock.timed_out),
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
                @for (name, times) in rows.iter().filter(|(_, times)| times.count > 0) {
                    tr {
                        th { (name) }
                        td { (count(times.count)) }
                        td { (nanoseconds(times.total_ns as f64)) }
                        td { (nanoseconds(times.mean_ns())) }
                        @for (_, quantile) in quantiles { td { (at(times, quantile)) } }
                        td { (nanoseconds(times.max_ns as f64)) }
                        td { (count(times.samples)) }
                    }
                }
            }
        }
    }
}

fn at(times: &Distribution, at: f64) -> String {
    quantile(times, at).map_or_else(String::new, |ns| nanoseconds(ns as f64))
}

/// `3.2 s in 1.8 k waits, at most 12 ms`.
fn amount(site: &Site, whole: u64, what: &str) -> Markup {
    html! {
        strong { (nanoseconds(site.total_ns as f64)) }
        " " (what) " (" (percent(site.total_ns, whole)) "), "
        (count(site.count)) (if site.count == 1 { " time" } else { " times" })
        ", at most " (nanoseconds(site.max_ns as f64))
    }
}

fn pairs(subject: &Subject, sites: &[&Site], whole: u64, title: &str, what: &str) -> Markup {
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

fn holds(subject: &Subject, sites: &[&Site], whole: u64, title: &str) -> Markup {
    let report = subject.report;
    html! {
        @if !sites.is_empty() {
            h4 { (title) }
            @for site in sites.iter().take(SITES) {
                details class="pair" {
                    summary {
                        (amount(site, whole, ""))
                        @if site.count > 0 { ", " (nanoseconds(site.total_ns as f64 / site.count as f64)) " on average" }
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

fn rest(sites: &[&Site], whole: u64) -> Markup {
    let rest = sites.get(SITES..).unwrap_or_default();
    let total: u64 = rest.iter().map(|site| site.total_ns).sum();
    html! {
        @if !rest.is_empty() {
            p class="hint" { (rest.len()) " more: " (nanoseconds(total as f64)) " (" (percent(total, whole)) ")" }
        }
    }
}
