//! The measured loop, and one round of it with one lock.
//!
//! Per operation: take one of the mutexes, touch the cache lines it protects, hold it
//! for a while, release it, wait for the gap. The counters in the cache lines are
//! incremented with a plain load and store, so their totals tell whether the lock
//! excludes; a round whose totals are wrong is an error, never a result.

use crate::clock::{self, Clock, spin, tsc};
use crate::latency::{self, Recorder};
use crate::lock::{Lock, MutexOps, Slot};
use crate::run::{Cell, Round};
use anyhow::{Context, Result, bail, ensure};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A holding time up to this means the cache lines alone: reading the TSC costs as much.
pub const MINIMAL_HOLD_NS: u64 = 10;
/// How long threads may take to come back after the stop flag before we call it a hang.
const HANG_LIMIT: Duration = Duration::from_secs(30);
/// Single-threaded: operations between two looks at the clock.
const BATCH: u32 = 1024;

#[repr(align(128))]
struct Padded<T>(T);

/// The mutexes of a cell and the counters they protect. Both locks of a pair run on the
/// same addresses.
pub struct Arena {
    slots: Vec<Slot>,
    counters: Vec<Padded<AtomicU64>>,
    lines: usize,
}

impl Arena {
    pub fn new(cell: &Cell) -> Arena {
        Arena {
            slots: (0..cell.locks).map(|_| Slot::new()).collect(),
            counters: (0..cell.locks * cell.lines)
                .map(|_| Padded(AtomicU64::new(0)))
                .collect(),
            lines: cell.lines,
        }
    }

    #[inline(always)]
    fn counters_of(&self, slot: usize) -> &[Padded<AtomicU64>] {
        &self.counters[slot * self.lines..][..self.lines]
    }

    fn init(&self, lock: &Lock) -> Result<()> {
        for slot in &self.slots {
            let rc = slot.init(&lock.ops);
            ensure!(rc == 0, "lock '{}': init returned {rc}", lock.name);
        }
        for counter in &self.counters {
            counter.0.store(0, Relaxed);
        }
        Ok(())
    }

    fn destroy(&self, lock: &Lock) -> Result<()> {
        for slot in &self.slots {
            let rc = slot.destroy(&lock.ops);
            ensure!(rc == 0, "lock '{}': destroy returned {rc}", lock.name);
        }
        Ok(())
    }

    /// Every operation incremented one counter in each line.
    fn check(&self, lock: &Lock, cell: &Cell, ops: u64) -> Result<()> {
        for line in 0..self.lines {
            let counted: u64 = (0..self.slots.len())
                .map(|slot| self.counters_of(slot)[line].0.load(Relaxed))
                .sum();
            ensure!(
                counted == ops,
                "BROKEN LOCK: '{}' did not exclude: line {line} counted {counted} of {ops} \
                 operations ({cell})",
                lock.name
            );
        }
        Ok(())
    }
}

/// What one thread does; read before the loop, never in it.
struct Task {
    ops: MutexOps,
    arena: Arc<Arena>,
    gap: u64,
    hold: u64,
    latency: bool,
    seed: u64,
}

/// What one thread did.
struct Tally {
    ops: u64,
    started: u64,
    /// All return codes or-ed together: 0 if every call succeeded.
    failures: i32,
    recorder: Recorder,
}

impl Task {
    fn new(lock: &Lock, cell: &Cell, arena: &Arc<Arena>, plan: &Plan, thread: usize) -> Task {
        Task {
            ops: lock.ops,
            arena: Arc::clone(arena),
            gap: cell.gap_cycles,
            hold: if cell.cs_ns > MINIMAL_HOLD_NS {
                plan.clock.cycles(cell.cs_ns)
            } else {
                0
            },
            latency: plan.latency,
            // Not zero, and the same for every lock.
            seed: (thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    fn run(&self, tally: &mut Tally, stop: impl FnMut() -> bool) {
        tally.started = tsc();
        match (self.latency, self.arena.slots.len() > 1) {
            (false, false) => self.hammer::<false, false>(tally, stop),
            (false, true) => self.hammer::<false, true>(tally, stop),
            (true, false) => self.hammer::<true, false>(tally, stop),
            (true, true) => self.hammer::<true, true>(tally, stop),
        }
    }

    #[inline(never)]
    fn hammer<const LATENCY: bool, const MANY: bool>(
        &self,
        tally: &mut Tally,
        mut stop: impl FnMut() -> bool,
    ) {
        let (lock, unlock) = (self.ops.lock, self.ops.unlock);
        let (gap, hold) = (self.gap, self.hold);
        let arena = &*self.arena;
        let locks = arena.slots.len() as u64;
        let mut random = self.seed;
        let mut slot = 0;
        let (mut ops, mut failures) = (0, 0);
        while !stop() {
            if MANY {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                slot = (((random >> 32) * locks) >> 32) as usize;
            }
            let mutex = arena.slots[slot].mutex();
            let counters = arena.counters_of(slot);
            let before = if LATENCY { tsc() } else { 0 };
            // SAFETY: the mutex is initialised by this lock and lives in the arena, which
            // this task keeps alive.
            failures |= unsafe { lock(mutex) };
            let waited = if LATENCY {
                tsc().saturating_sub(before)
            } else {
                0
            };
            critical_section(counters, hold);
            // SAFETY: as above, and this thread locked it.
            failures |= unsafe { unlock(mutex) };
            ops += 1;
            if LATENCY {
                tally.recorder.record(waited);
            }
            if gap > 0 {
                spin(gap);
            }
        }
        tally.ops = ops;
        tally.failures = failures;
    }
}

/// Load and store, not an atomic addition: only the lock keeps the counters right. The
/// first counter's store comes last, so a lock that fails anywhere in the section is seen.
#[inline(always)]
fn critical_section(counters: &[Padded<AtomicU64>], hold: u64) {
    let Some((first, others)) = counters.split_first() else {
        return;
    };
    let count = first.0.load(Relaxed);
    for counter in others {
        counter.0.store(counter.0.load(Relaxed) + 1, Relaxed);
    }
    if hold > 0 {
        spin(hold);
    }
    first.0.store(count + 1, Relaxed);
}

impl Tally {
    fn new() -> Tally {
        Tally {
            ops: 0,
            started: 0,
            failures: 0,
            recorder: Recorder::new(),
        }
    }
}

/// How to measure: the same for every round of a run.
#[derive(Clone, Copy)]
pub struct Plan {
    pub duration: Duration,
    pub latency: bool,
    pub single_threaded: bool,
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

    let deadline = Instant::now() + HANG_LIMIT;
    let mut finished = match shared.finished.lock() {
        Ok(guard) => guard,
        Err(_) => bail!("a measuring thread panicked"),
    };
    while *finished < threads {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "HUNG: {} of {threads} threads did not come back within {} s of the stop flag",
                threads - *finished,
                HANG_LIMIT.as_secs()
            );
        }
        finished = match shared.changed.wait_timeout(finished, left) {
            Ok((guard, _)) => guard,
            Err(_) => bail!("a measuring thread panicked"),
        };
    }
    drop(finished);
    let tallies = handles
        .into_iter()
        .map(|handle| {
            handle
                .join()
                .map_err(|_| anyhow::anyhow!("a measuring thread panicked"))
        })
        .collect::<Result<_>>()?;
    Ok((tallies, stopped))
}

/// What the process has used up so far.
struct Usage {
    user_s: f64,
    system_s: f64,
    voluntary: i64,
    involuntary: i64,
}

impl Usage {
    fn now() -> Usage {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage fills the struct it is given; RUSAGE_SELF cannot fail.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        // SAFETY: all-zero bytes are a valid rusage, whatever getrusage wrote of it.
        let usage = unsafe { usage.assume_init() };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        Usage {
            user_s: seconds(usage.ru_utime),
            system_s: seconds(usage.ru_stime),
            voluntary: usage.ru_nvcsw,
            involuntary: usage.ru_nivcsw,
        }
    }
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
        let arena = Arc::new(Arena::new(&cell));
        let error = round(&busted(), &cell, &arena, &plan(false)).expect_err("not caught");
        assert!(error.to_string().contains("BROKEN LOCK"), "{error:#}");
    }

    #[test]
    fn glibc_passes_the_same_check_and_every_field_is_filled() {
        let glibc = Source::glibc().open().expect("glibc");
        for (threads, locks) in [(1, 1), (4, 1), (4, 7)] {
            let cell = cell(threads, locks, 10);
            let arena = Arc::new(Arena::new(&cell));
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
        unsafe extern "C" fn refuse(_: *mut libc::pthread_mutex_t) -> libc::c_int {
            libc::EINVAL
        }
        let mut lock = busted();
        lock.ops.lock = refuse;
        let cell = cell(1, 1, 10);
        let arena = Arc::new(Arena::new(&cell));
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
        let arena = Arc::new(Arena::new(&cell));
        let round = round(&glibc, &cell, &arena, &plan).expect("round");
        assert!(round.ops() >= u64::from(BATCH) - 1, "{round:?}");
    }
}
