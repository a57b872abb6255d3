//! One round: one lock, one cell, for the plan's duration, with every check that turns a
//! broken lock into an error.
//!
//! The only module that starts threads. Those of a lock that hangs are left behind: the
//! process is about to end.

use crate::clock::{self, Clock, tsc};
use crate::latency;
use crate::lock::Lock;
use crate::run::{Cell, Round};
use crate::usage::Usage;
use crate::workload::{Arena, Padded, Tally, Task};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Single-threaded: operations between two looks at the clock.
const BATCH: u32 = 1024;

/// How to measure: the same for every round of a run.
#[derive(Clone, Copy)]
pub struct Plan {
    pub duration: Duration,
    pub latency: bool,
    pub single_threaded: bool,
    /// How long threads may take to come back after the stop flag before it is a hang.
    pub hang_limit: Duration,
    pub clock: Clock,
}

/// Runs one lock in one cell for the plan's duration.
pub fn round(lock: &Lock, cell: &Cell, arena: &Arc<Arena>, plan: &Plan) -> Result<Round> {
    arena.init(lock)?;
    let tasks = (0..cell.threads).map(|i| Task::new(lock, cell, arena, plan, i));
    let before = Usage::now();
    let (tallies, stopped) = if plan.single_threaded {
        alone(tasks, plan)
    } else {
        together(tasks.collect(), plan).with_context(|| format!("lock '{}' ({cell})", lock.name))?
    };
    let after = Usage::now();

    let ops = tallies.iter().map(|t| t.ops).sum();
    let failures = tallies.iter().fold(0, |all, t| all | t.failures);
    ensure!(
        failures == 0,
        "BROKEN LOCK: lock or unlock of '{}' returned errors (or-ed together: {failures}) ({cell})",
        lock.name
    );
    arena.check(lock, cell, ops)?;
    arena.destroy(lock)?;

    let started = tallies.iter().map(|t| t.started).min().unwrap_or(stopped);
    Ok(Round {
        lock: lock.name.clone(),
        round: 0,
        position: 0,
        elapsed_s: plan.clock.ns(stopped.wrapping_sub(started)) / 1e9,
        thread_ops: tallies.iter().map(|t| t.ops).collect(),
        latency: if plan.latency {
            let recorders = tallies.iter().map(|t| &t.recorder);
            Some(latency::summarise(recorders, plan.clock)?)
        } else {
            None
        },
        user_s: after.user_s - before.user_s,
        system_s: after.system_s - before.system_s,
        voluntary_switches: after.voluntary - before.voluntary,
        involuntary_switches: after.involuntary - before.involuntary,
        handover_ns: None,
        futex_calls: None,
    })
}

/// The tasks (there is one) in the calling thread, no other thread anywhere.
fn alone(tasks: impl Iterator<Item = Task>, plan: &Plan) -> (Vec<Tally>, u64) {
    let length = plan.clock.cycles(plan.duration.as_nanos() as u64);
    let tallies = tasks
        .map(|task| {
            let mut tally = Tally::new();
            let start = tsc();
            let mut left = BATCH;
            task.run(&mut tally, || {
                left -= 1;
                if left > 0 {
                    return false;
                }
                left = BATCH;
                tsc().wrapping_sub(start) >= length
            });
            tally
        })
        .collect();
    (tallies, tsc())
}

/// One thread per task, from a barrier to the stop flag. A thread that never comes back
/// (a lost wake-up) is an error; its memory stays with it.
fn together(tasks: Vec<Task>, plan: &Plan) -> Result<(Vec<Tally>, u64)> {
    struct Shared {
        stop: Padded<AtomicBool>,
        start: Barrier,
        finished: Mutex<usize>,
        changed: Condvar,
    }
    let threads = tasks.len();
    let shared = Arc::new(Shared {
        stop: Padded(AtomicBool::new(false)),
        start: Barrier::new(threads + 1),
        finished: Mutex::new(0),
        changed: Condvar::new(),
    });
    let handles: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let mut tally = Tally::new();
                let stop = &shared.stop.0;
                shared.start.wait();
                task.run(&mut tally, || stop.load(Relaxed));
                if let Ok(mut finished) = shared.finished.lock() {
                    *finished += 1;
                }
                shared.changed.notify_one();
                tally
            })
        })
        .collect();
    shared.start.wait();
    clock::sleep(plan.duration);
    shared.stop.0.store(true, Relaxed);
    let stopped = tsc();

    let deadline = Instant::now() + plan.hang_limit;
    let mut finished = shared.finished.lock().map_err(panicked)?;
    while *finished < threads {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "HUNG: {} of {threads} threads did not come back within {:?} of the stop flag",
                threads - *finished,
                plan.hang_limit
            );
        }
        finished = shared
            .changed
            .wait_timeout(finished, left)
            .map_err(panicked)?
            .0;
    }
    drop(finished);
    let tallies = handles
        .into_iter()
        .map(|handle| handle.join().map_err(panicked))
        .collect::<Result<_>>()?;
    Ok((tallies, stopped))
}

fn panicked<E>(_: E) -> anyhow::Error {
    anyhow!("a measuring thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Source, tests::busted};

    fn plan(latency: bool) -> Plan {
        Plan {
            duration: Duration::from_millis(60),
            latency,
            single_threaded: false,
            hang_limit: Duration::from_secs(60),
            clock: Clock::calibrate(),
        }
    }

    fn cell(threads: usize, locks: usize, cs_ns: u64) -> Cell {
        Cell {
            threads,
            locks,
            gap_cycles: 0,
            cs_ns,
            lines: 2,
        }
    }

    #[test]
    fn a_lock_that_does_not_exclude_is_caught() {
        // Held for 20 us, two threads are sure to meet, on one CPU by preemption.
        let cell = cell(4, 1, 20_000);
        let arena = Arc::new(Arena::new(&cell, 40));
        let error = round(&busted(), &cell, &arena, &plan(false)).expect_err("not caught");
        assert!(error.to_string().contains("BROKEN LOCK"), "{error:#}");
    }

    #[test]
    fn glibc_passes_the_same_check_and_every_field_is_filled() {
        let glibc = Source::glibc().open().expect("glibc");
        for (threads, locks) in [(1, 1), (4, 1), (4, 7)] {
            let cell = cell(threads, locks, 10);
            let arena = Arc::new(Arena::new(&cell, 40));
            let round = round(&glibc, &cell, &arena, &plan(true)).expect("round");
            assert_eq!(round.thread_ops.len(), threads);
            assert!(round.ops() > 0 && round.elapsed_s > 0.0, "{round:?}");
            let latency = round.latency.expect("asked for");
            assert!(latency.p50_ns > 0.0 && latency.p50_ns <= latency.p99_ns);
            assert!(latency.p99_ns <= latency.p999_ns && latency.p999_ns <= latency.max_ns);
        }
    }

    #[test]
    fn an_error_from_the_lock_is_not_a_result() {
        unsafe extern "C" fn refuse(_: *mut libc::c_void) -> libc::c_int {
            libc::EINVAL
        }
        let mut lock = busted();
        lock.ops.lock = refuse;
        let cell = cell(1, 1, 10);
        let arena = Arc::new(Arena::new(&cell, 40));
        let error = round(&lock, &cell, &arena, &plan(false)).expect_err("not noticed");
        assert!(error.to_string().contains("returned errors"), "{error:#}");
    }

    #[test]
    fn alone_the_loop_ends_by_itself_in_the_calling_thread() {
        let plan = Plan {
            single_threaded: true,
            ..plan(false)
        };
        let glibc = Source::glibc().open().expect("glibc");
        let cell = cell(1, 1, 10);
        let arena = Arc::new(Arena::new(&cell, 40));
        let round = round(&glibc, &cell, &arena, &plan).expect("round");
        assert!(round.ops() >= u64::from(BATCH) - 1, "{round:?}");
    }

    #[test]
    fn a_lock_that_never_comes_back_is_called_hung() {
        unsafe extern "C" fn never(_: *mut libc::c_void) -> libc::c_int {
            loop {
                std::thread::park();
            }
        }
        let mut lock = busted();
        lock.ops.lock = never;
        let plan = Plan {
            hang_limit: Duration::from_millis(10),
            ..plan(false)
        };
        let cell = cell(2, 1, 10);
        let arena = Arc::new(Arena::new(&cell, 40));
        let error = round(&lock, &cell, &arena, &plan).expect_err("not noticed");
        assert!(format!("{error:#}").contains("HUNG: 2 of 2"), "{error:#}");
    }
}
