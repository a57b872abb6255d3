//! Threads that waited when the capture ended, and circles of threads that wait for each other.

use maud::{Markup, html};

use super::{Subject, stack};
use crate::report::model::Waiting;
use crate::report::places::circles;
use crate::report::units;

/// Threads that are shown.
const SHOWN: usize = 100;
/// Circles that are shown.
const CIRCLES: usize = 5;
/// Of those in circles the first are open.
const OPEN: usize = 4;

pub(super) fn section(subject: &Subject) -> Markup {
    let waiting = &subject.report.waiting;
    let circles = circles(waiting);
    // Those in circles first, then the longest.
    let mut order: Vec<(bool, &Waiting)> = waiting
        .iter()
        .map(|thread| {
            (
                !circles.iter().flatten().any(|tid| *tid == thread.tid),
                thread,
            )
        })
        .collect();
    order.sort_by_key(|(free, thread)| (*free, std::cmp::Reverse(thread.for_ns)));
    html! {
        @if !waiting.is_empty() {
            section class="group" id="waiting" {
                h2 { "Waiting at the end" }
                @for circle in circles.iter().take(CIRCLES) {
                    div class="alarm" {
                        strong { @if circle.len() == 1 { "A thread waits for itself" } @else { "Deadlock? " (circle.len()) " threads wait for each other" } }
                        ol {
                            @for thread in circle.iter().filter_map(|tid| waiting.iter().find(|thread| thread.tid == *tid)) {
                                li {
                                    "thread " (thread.tid) " waits for " code { (subject.lock_name(thread.lock)) }
                                    @if let Some(lock) = subject.report.locks.get(thread.lock) { " at " code { (format!("{:#x}", lock.address)) } }
                                    ", held by " (thread.holder_tid.unwrap_or(0))
                                }
                            }
                        }
                    }
                }
                @if circles.len() > CIRCLES { p { (circles.len() - CIRCLES) " more circles" } }
                p class="hint" {
                    "Threads that were waiting when the capture ended: for how long, and who held the lock when they began to wait."
                }
                @for (i, (free, thread)) in order.iter().take(SHOWN).enumerate() {
                    (card(subject, thread, i < OPEN && !free))
                }
                @if order.len() > SHOWN { p class="hint" { (order.len() - SHOWN) " more" } }
            }
        }
    }
}

fn card(subject: &Subject, thread: &Waiting, open: bool) -> Markup {
    html! {
        details class="pair" open[open] {
            summary {
                "thread " strong { (thread.tid) } " has been waiting for "
                code { (subject.lock_name(thread.lock)) } " for " strong { (units::time(thread.for_ns)) }
                @match thread.holder_tid {
                    Some(tid) => { ", held by thread " strong { (tid) } },
                    None => ", its holder is not known",
                }
            }
            div class="sides" {
                div class="side waiter" { h5 { "blocked here" } (stack::list(subject.report, thread.stack)) }
                div class="side holder" { h5 { "held from here" } (stack::list(subject.report, thread.holder)) }
            }
        }
    }
}
