//! Where a lock is fought over, "blocked here, because it was held there", and who waits still: as text.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write;

use super::identity::{brief, is_wrapper};
use super::model::{Ending, Function, Report, SiteKind, Waiting};
use super::rows::Row;
use super::table::title;
use super::units::{plural, share, time};

/// Sites of one lock.
const SITES: usize = 3;
/// Sites with less than one in so many of the lock's wait are not shown, but for the first.
const SMALL: u64 = 100;
/// Functions of one stack.
const FUNCTIONS: usize = 8;
/// Threads that wait.
const THREADS: usize = 20;

/// The contention sites of these locks, the longest waited at first.
pub fn contention<'a>(text: &mut String, report: &Report, rows: impl Iterator<Item = &'a Row<'a>>) {
    let rows: Vec<&Row<'_>> = rows.collect();
    let row_of: HashMap<usize, usize> = rows
        .iter()
        .enumerate()
        .flat_map(|(number, row)| row.indices.iter().map(move |&lock| (lock, number)))
        .collect();
    let mut sites: Vec<HashMap<_, (u64, u64, u64)>> = vec![HashMap::new(); rows.len()];
    for site in report
        .sites
        .iter()
        .filter(|site| site.kind == SiteKind::Wait)
    {
        if let Some(&row) = row_of.get(&site.lock) {
            let sum = sites[row].entry((site.stack, site.holder)).or_default();
            *sum = (
                sum.0 + site.count,
                sum.1 + site.total_ns,
                sum.2.max(site.max_ns),
            );
        }
    }
    for (row, sites) in rows.into_iter().zip(sites) {
        let mut sites: Vec<_> = sites.into_iter().collect();
        sites.sort_by_key(|&(places, (times, total, _))| (Reverse(total), Reverse(times), places));
        let _ = writeln!(text, "\n{}", title(row));
        if row.cond.count != 0 {
            let again = match row.reacquire.count {
                0 => String::new(),
                n => format!(
                    ", {n} times acquired again in {} in all",
                    time(row.reacquire.total_ns)
                ),
            };
            let _ = writeln!(
                text,
                "  {} on condition variables, {} in all{again}: neither waits nor holds",
                plural(row.cond.count, "wait"),
                time(row.cond.total_ns),
            );
        }
        let whole = row.wait.total_ns;
        let shown = sites
            .iter()
            .take_while(|(_, (_, total, _))| total.saturating_mul(SMALL) >= whole);
        let shown = shown.count().clamp(1, SITES);
        let more = sites.len().saturating_sub(shown);
        for ((here, there), (times, total, max)) in sites.into_iter().take(shown) {
            let _ = writeln!(
                text,
                "  {} of its wait: {}, {} in all, {} at most",
                share(total, whole),
                plural(times, "time"),
                time(total),
                time(max)
            );
            stack(text, report, "blocked here", here);
            stack(text, report, "because it was held there", there);
        }
        if more != 0 {
            let _ = writeln!(text, "  elsewhere: {}", plural(more as u64, "more site"));
        }
    }
}

fn stack(text: &mut String, report: &Report, what: &str, stack: Option<usize>) {
    let _ = writeln!(text, "    {what}:");
    let Some(stack) = stack.and_then(|stack| report.stacks.get(stack)) else {
        let _ = writeln!(text, "      (let go before it could be seen)");
        return;
    };
    let all: Vec<&Function> = stack.frames.iter().flat_map(|f| &f.functions).collect();
    // Of C++'s and Rust's own layers nobody wants to read twelve.
    let mut users: Vec<&Function> = all
        .iter()
        .copied()
        .filter(|f| !is_wrapper(&f.name))
        .collect();
    if users.is_empty() {
        users.clone_from(&all);
    }
    users.truncate(FUNCTIONS);
    for function in &users {
        let _ = writeln!(text, "      {}", brief(function));
    }
    let more = all.len() - users.len();
    if more != 0 {
        let _ = writeln!(text, "      ... {more} more");
    }
}

/// Threads that were waiting at the end, and circles of them.
pub fn waiting(text: &mut String, report: &Report) {
    if report.waiting.is_empty() {
        return;
    }
    let (when, at_least) = match report.process.ending {
        Ending::None => ("when the record stopped", "at least "),
        _ => ("when it ended", ""),
    };
    let count = plural(report.waiting.len() as u64, "thread");
    let _ = writeln!(text, "\nStill waiting {when}: {count}");
    for circle in circles(&report.waiting) {
        let names: Vec<String> = circle.iter().map(|tid| format!("thread {tid}")).collect();
        let _ = match circle.as_slice() {
            [_] => writeln!(
                text,
                "  Deadlock: {} waits for a lock that it holds itself",
                names[0]
            ),
            _ => writeln!(
                text,
                "  Deadlock: {} waits for {}",
                names.join(" waits for "),
                names[0]
            ),
        };
    }
    let mut waiting: Vec<&Waiting> = report.waiting.iter().collect();
    waiting.sort_by_key(|w| (Reverse(w.for_ns), w.tid));
    for one in waiting.iter().take(THREADS) {
        let holder = match one.holder_tid {
            Some(tid) => format!("held by thread {tid}"),
            None => "held by a thread that is not known".to_owned(),
        };
        let lock = report.locks.get(one.lock);
        let _ = writeln!(
            text,
            "  thread {} for {at_least}{}: {} at {:#x}, {holder}",
            one.tid,
            time(one.for_ns),
            lock.map_or("?", |lock| &lock.name),
            lock.map_or(0, |lock| lock.address),
        );
        stack(text, report, "blocked here", one.stack);
        stack(text, report, "because it was held there", one.holder);
    }
    if waiting.len() > THREADS {
        let _ = writeln!(text, "  {} more threads", waiting.len() - THREADS);
    }
}

/// Threads each of which waits for the next, and the last for the first; each circle once, from its smallest thread id.
pub fn circles(waiting: &[Waiting]) -> Vec<Vec<u32>> {
    let holder_of: HashMap<u32, u32> = waiting
        .iter()
        .filter_map(|w| Some((w.tid, w.holder_tid?)))
        .collect();
    // Every thread waits for one other at most, so a walk that meets its own trail has closed a circle.
    let mut walk_of: HashMap<u32, usize> = HashMap::new();
    let mut circles = Vec::new();
    for (walk, start) in waiting.iter().map(|w| w.tid).enumerate() {
        let mut trail = Vec::new();
        let mut tid = start;
        while let Some(&next) = holder_of.get(&tid)
            && !walk_of.contains_key(&tid)
        {
            walk_of.insert(tid, walk);
            trail.push(tid);
            tid = next;
        }
        if walk_of.get(&tid) == Some(&walk)
            && let Some(from) = trail.iter().position(|&seen| seen == tid)
        {
            let mut circle = trail.split_off(from);
            let smallest = (0..circle.len()).min_by_key(|&i| circle[i]).unwrap_or(0);
            circle.rotate_left(smallest);
            circles.push(circle);
        }
    }
    circles.sort();
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(pairs: &[(u32, u32)]) -> Vec<Waiting> {
        let one = |&(tid, holder): &(u32, u32)| Waiting {
            tid,
            lock: 0,
            for_ns: 0,
            stack: None,
            holder_tid: Some(holder).filter(|&tid| tid != 0),
            holder: None,
        };
        pairs.iter().map(one).collect()
    }

    #[test]
    fn circles_of_waiters_are_found_once_and_tails_are_not_in_them() {
        assert!(circles(&waits(&[(1, 2), (2, 3), (3, 0)])).is_empty());
        assert!(circles(&waits(&[(1, 2), (3, 2)])).is_empty());
        assert_eq!(circles(&waits(&[(7, 7)])), [[7]]);
        let two = waits(&[(9, 5), (5, 3), (3, 5), (8, 9), (4, 6), (6, 2), (2, 4)]);
        assert_eq!(circles(&two), [vec![2, 4, 6], vec![3, 5]]);
    }
}
