//! Threads that waited when the capture ended, and circles of threads that wait for each other.

use std::collections::HashMap;

use figures::units::nanoseconds;
use maud::{Markup, html};

use super::{Subject, stack};
use crate::report::model::Waiting;

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
        .enumerate()
        .map(|(i, thread)| (!circles.iter().any(|circle| circle.contains(&i)), thread))
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
                            @for &i in circle {
                                @let thread = &waiting[i];
                                li {
                                    "thread " (thread.tid) " waits for " code { (subject.name(thread.lock)) }
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
                code { (subject.name(thread.lock)) } " for " strong { (nanoseconds(thread.for_ns as f64)) }
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

/// Indices of threads each of which waits for the next, and the last for the first.
fn circles(waiting: &[Waiting]) -> Vec<Vec<usize>> {
    let by_tid: HashMap<u32, usize> = waiting
        .iter()
        .enumerate()
        .map(|(i, w)| (w.tid, i))
        .collect();
    let next = |i: usize| by_tid.get(&waiting[i].holder_tid?).copied();
    // The walk that came by first; a thread that its own walk comes to again is on a circle.
    let mut walked = vec![usize::MAX; waiting.len()];
    let mut circles = Vec::new();
    for start in 0..waiting.len() {
        let mut at = Some(start);
        while let Some(i) = at.filter(|&i| walked[i] == usize::MAX) {
            walked[i] = start;
            at = next(i);
        }
        if let Some(first) = at.filter(|&i| walked[i] == start) {
            let rest = std::iter::successors(next(first), |&i| next(i)).take_while(|&i| i != first);
            circles.push([first].into_iter().chain(rest).collect());
        }
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(tid: u32, holder_tid: Option<u32>) -> Waiting {
        Waiting {
            tid,
            lock: 0,
            for_ns: 0,
            stack: None,
            holder_tid,
            holder: None,
        }
    }

    #[test]
    fn circles_are_found_once_and_chains_are_none() {
        let waits = [(1, 2), (2, 3), (3, 1), (4, 1), (5, 9), (6, 6), (7, 5)];
        let mut threads: Vec<Waiting> = waits.iter().map(|&(a, b)| thread(a, Some(b))).collect();
        threads.push(thread(8, None));
        assert_eq!(circles(&threads), [vec![0, 1, 2], vec![5]]);
        threads.remove(1);
        assert_eq!(circles(&threads), [vec![4]]);
        assert!(circles(&[]).is_empty());
    }
}
