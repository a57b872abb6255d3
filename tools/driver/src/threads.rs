//! The loops of one round: in this thread, or in threads that start together and end by a stop flag or with the work.
//!
//! The only module that starts threads. Those of a lock that hangs are left behind: the
//! process is about to end.

use crate::clock::{self, tsc};
use crate::cpus;
use crate::futex::Meter;
use crate::round::{Plan, Work};
use crate::run::Cell;
use crate::usage::Usage;
use crate::workload::{Arena, Padded, Tally, Task};
use anyhow::{Context, Result, anyhow, bail};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Single-threaded: operations between two looks at the clock.
pub const BATCH: u32 = 1024;

/// What the threads did in a round.
pub struct Outcome {
    pub tallies: Vec<Tally>,
    /// When the time was over or the work done, in TSC cycles.
    pub over: u64,
    /// What the process had used before they started, and when it was over: what threads use up afterwards to get
    /// through a queue of waiters belongs to no operation that counts.
    pub usage: (Usage, Usage),
}

/// The tasks (there is one) in the calling thread, no other thread anywhere.
pub fn alone(tasks: impl Iterator<Item = Task>, plan: &Plan) -> Outcome {
    let taken = AtomicU64::new(0);
    let before = Usage::now();
    let tallies = tasks
        .map(|task| {
            let start = tsc();
            let mut left = BATCH;
            let over = |length: Duration| {
                left -= 1;
                if left > 0 {
                    return false;
                }
                left = BATCH;
                tsc().wrapping_sub(start) >= plan.clock.cycles(length.as_nanos() as u64)
            };
            operate(&task, plan, 1, &taken, over)
        })
        .collect();
    Outcome {
        tallies,
        over: tsc(),
        usage: (before, Usage::now()),
    }
}

/// One thread's round. `over`: whether so much time has passed, asked between operations.
fn operate(
    task: &Task,
    plan: &Plan,
    threads: usize,
    taken: &AtomicU64,
    mut over: impl FnMut(Duration) -> bool,
) -> Tally {
    let mut tally = Tally::new();
    let meter = Meter::start(plan.futex);
    match plan.work {
        Work::Time(length) => task.run(&mut tally, || !over(length)),
        Work::Each(ops) => {
            let mut left = ops;
            task.run(&mut tally, || {
                let more = left > 0;
                left = left.saturating_sub(1);
                more
            });
        }
        Work::Total(ops) => {
            let batch = batch(ops, threads);
            let mut left = 0;
            task.run(&mut tally, || {
                if left == 0 {
                    // Relaxed: a ticket, ordered with nothing.
                    left = ops
                        .saturating_sub(taken.fetch_add(batch, Relaxed))
                        .min(batch);
                }
                let more = left > 0;
                left = left.saturating_sub(1);
                more
            });
        }
    }
    tally.futex_calls = meter.stop();
    tally
}

/// Shared work is taken in batches, so that its counter does not become what is measured; small ones, so that nobody
/// has much left when the others are done.
fn batch(ops: u64, threads: usize) -> u64 {
    (ops / (threads as u64 * 64)).clamp(1, 1024)
}

/// What the threads of a round share.
struct Shared {
    stop: Padded<AtomicBool>,
    /// Operations of shared work that somebody has taken on.
    taken: Padded<AtomicU64>,
    start: Barrier,
    finished: Mutex<usize>,
    changed: Condvar,
}

/// One thread per task, from a barrier to the stop flag or the end of the work. A thread that never comes back
/// (a lost wake-up) is an error; its memory stays with it.
pub fn together(tasks: Vec<Task>, cell: &Cell, arena: &Arena, plan: &Plan) -> Result<Outcome> {
    let threads = tasks.len();
    let shared = Arc::new(Shared {
        stop: Padded(AtomicBool::new(false)),
        taken: Padded(AtomicU64::new(0)),
        start: Barrier::new(threads + 1),
        finished: Mutex::new(0),
        changed: Condvar::new(),
    });
    let mut handles = Vec::new();
    for (i, task) in tasks.into_iter().enumerate() {
        let (shared, plan) = (Arc::clone(&shared), plan.clone());
        let body = move || -> Result<Tally> {
            let pinned = match &plan.pin {
                Some(cpus) => cpus::restrict(&[cpus[i % cpus.len()]]),
                None => Ok(()),
            };
            shared.start.wait();
            let mut tally = operate(&task, &plan, threads, &shared.taken.0, |_| {
                shared.stop.0.load(Relaxed)
            });
            if matches!(plan.work, Work::Time(_)) {
                // The stop flag came during the last operation: until it ends, time goes by that does not count. Where
                // a lock needs milliseconds for each, that one operation of each thread would be a good part of them.
                tally.ops = tally.done.saturating_sub(1);
            }
            if let Ok(mut finished) = shared.finished.lock() {
                *finished += 1;
            }
            shared.changed.notify_one();
            pinned.context("cannot pin a thread")?;
            Ok(tally)
        };
        let handle = std::thread::Builder::new()
            .spawn(body)
            .with_context(|| format!("cannot start thread {} of {threads}", i + 1))?;
        handles.push(handle);
    }
    let before = Usage::now();
    shared.start.wait();
    let timed = match plan.work {
        Work::Time(duration) => {
            clock::sleep(duration);
            shared.stop.0.store(true, Relaxed);
            Some((tsc(), Usage::now()))
        }
        Work::Each(_) | Work::Total(_) => None,
    };
    let operation = Duration::from_nanos(cell.cs_ns + plan.clock.ns(cell.gap_cycles) as u64);
    wait_for_all(&shared, threads, arena, plan.hang_limit + 2 * operation)?;
    let tallies = handles
        .into_iter()
        .map(|handle| handle.join().map_err(panicked)?)
        .collect::<Result<Vec<Tally>>>()?;
    let (over, after) = timed.unwrap_or_else(|| {
        let last = tallies.iter().map(|t| t.ended).max();
        (last.unwrap_or_else(tsc), Usage::now())
    });
    Ok(Outcome {
        tallies,
        over,
        usage: (before, after),
    })
}

/// Waits while anything moves: an operation is done or a thread comes back.
fn wait_for_all(shared: &Shared, threads: usize, arena: &Arena, limit: Duration) -> Result<()> {
    let look = limit.min(Duration::from_secs(1));
    let mut watch = Watch::new(limit, Instant::now());
    let mut finished = shared.finished.lock().map_err(panicked)?;
    while *finished < threads {
        if watch.hangs((*finished, arena.progress()), Instant::now()) {
            bail!(
                "HUNG: {} of {threads} threads have not come back, and nothing has moved for {limit:?}",
                threads - *finished,
            );
        }
        finished = shared
            .changed
            .wait_timeout(finished, look)
            .map_err(panicked)?
            .0;
    }
    Ok(())
}

/// Tells slow from stuck: however long all of it takes, it is no hang while something moves. A queue of spinning
/// waiters takes a scheduler's slice, and some, for each of them.
struct Watch {
    limit: Duration,
    /// Threads that are back and operations done, and since when it has been so many.
    seen: (usize, u64),
    since: Instant,
}

impl Watch {
    fn new(limit: Duration, now: Instant) -> Watch {
        Watch {
            limit,
            seen: (0, 0),
            since: now,
        }
    }

    fn hangs(&mut self, seen: (usize, u64), now: Instant) -> bool {
        if seen != self.seen {
            (self.seen, self.since) = (seen, now);
        }
        now.duration_since(self.since) >= self.limit
    }
}

fn panicked<E>(_: E) -> anyhow::Error {
    anyhow!("a measuring thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_small_against_the_work_and_never_empty() {
        assert_eq!(batch(1, 16), 1);
        assert_eq!(batch(1_000_000, 16), 976);
        assert_eq!(batch(u64::MAX, 1), 1024);
    }

    #[test]
    fn what_moves_is_slow_and_what_does_not_hangs() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut watch = Watch::new(Duration::from_secs(30), start);
        // An operation every 20 s, then a thread, then nothing.
        assert!(!watch.hangs((0, 0), at(29)));
        for (s, seen) in [(30, (0, 1)), (50, (0, 2)), (75, (0, 3)), (100, (1, 3))] {
            assert!(!watch.hangs(seen, at(s)), "after {s} s");
        }
        assert!(!watch.hangs((1, 3), at(129)));
        assert!(watch.hangs((1, 3), at(130)));
    }
}
