//! The measured loop: what one thread does, and the memory it does it on.
//!
//! Per operation: take one of the mutexes, touch the cache lines it protects, hold it
//! for a while, release it, wait for the gap. The counters in the cache lines are
//! incremented with a plain load and store, so their totals tell whether the lock
//! excludes; totals that are wrong are an error, never a result.
//!
//! Nothing in the loop allocates, prints or calls anything but the lock.

use crate::clock::{spin, tsc};
use crate::latency::Recorder;
use crate::lock::{Lock, Slot};
use crate::round::Plan;
use crate::run::Cell;
use anyhow::{Result, ensure};
use autolock_lock::algorithm::Operations;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A holding time up to this means the cache lines alone: reading the TSC costs as much.
pub const MINIMAL_HOLD_NS: u64 = 10;

/// Alone on its pair of cache lines: the prefetcher fetches pairs.
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// The locks of a cell and the counters they protect. All locks that are compared run on the
/// same addresses.
pub struct Arena {
    slots: Vec<Slot>,
    counters: Vec<Padded<AtomicU64>>,
    lines: usize,
}

impl Arena {
    /// `size`: bytes of the largest lock that will run here.
    pub fn new(cell: &Cell, size: usize) -> Arena {
        Arena {
            slots: (0..cell.locks).map(|_| Slot::new(size)).collect(),
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

    pub fn init(&self, lock: &Lock) -> Result<()> {
        for slot in &self.slots {
            let rc = slot.init(&lock.ops);
            ensure!(rc == 0, "lock '{}': init returned {rc}", lock.name);
        }
        for counter in &self.counters {
            counter.0.store(0, Relaxed);
        }
        Ok(())
    }

    pub fn destroy(&self, lock: &Lock) -> Result<()> {
        for slot in &self.slots {
            let rc = slot.destroy(&lock.ops);
            ensure!(rc == 0, "lock '{}': destroy returned {rc}", lock.name);
        }
        Ok(())
    }

    /// Every operation incremented one counter in each line.
    pub fn check(&self, lock: &Lock, cell: &Cell, ops: u64) -> Result<()> {
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
pub struct Task {
    ops: Operations,
    arena: Arc<Arena>,
    gap: u64,
    hold: u64,
    latency: bool,
    seed: u64,
}

/// What one thread did.
pub struct Tally {
    pub ops: u64,
    /// When the loop began, in TSC cycles.
    pub started: u64,
    /// All return codes or-ed together: 0 if every call succeeded.
    pub failures: i32,
    pub recorder: Recorder,
}

impl Task {
    pub fn new(lock: &Lock, cell: &Cell, arena: &Arc<Arena>, plan: &Plan, thread: usize) -> Task {
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

    pub fn run(&self, tally: &mut Tally, stop: impl FnMut() -> bool) {
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
            let mutex = arena.slots[slot].lock();
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
    pub fn new() -> Tally {
        Tally {
            ops: 0,
            started: 0,
            failures: 0,
            recorder: Recorder::new(),
        }
    }
}
