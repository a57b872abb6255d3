//! The measured loop: what one thread does, and the memory it does it on.
//!
//! Per operation: take one of the mutexes, touch the cache lines it protects, hold it
//! for a while, release it, wait for the gap. The counters in the cache lines are
//! incremented with a plain load and store, so their totals tell whether the lock
//! excludes; totals that are wrong are an error, never a result.
//!
//! With latencies on, the first line also says which thread was the last to hold the lock and, for a sample of the
//! releases, when it let go: so the next thread knows whether the lock changed hands and how long that took. A sample is
//! due every 2048 cycles on average, after a random time: one reading of the clock more in the critical section costs
//! at most a percent that way, and no position in a streak of acquisitions is favoured.
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
    counters: Vec<Line>,
    lines: usize,
}

/// What a lock protects: alone on its pair of cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Line {
    /// Operations under the lock so far.
    count: AtomicU64,
    // Of a lock's first line only:
    /// The last holder, from 1; 0 if there was none.
    holder: AtomicU64,
    /// When an operation's holder let go, in TSC cycles ...
    released: AtomicU64,
    /// ... and the count after that operation.
    released_at: AtomicU64,
}

impl Arena {
    /// `size`: bytes of the largest lock that will run here.
    pub fn new(cell: &Cell, size: usize) -> Arena {
        Arena {
            slots: (0..cell.locks).map(|_| Slot::new(size)).collect(),
            counters: (0..cell.locks * cell.lines)
                .map(|_| Line::default())
                .collect(),
            lines: cell.lines,
        }
    }

    #[inline(always)]
    fn lines_of(&self, slot: usize) -> &[Line] {
        &self.counters[slot * self.lines..][..self.lines]
    }

    pub fn init(&self, lock: &Lock) -> Result<()> {
        for slot in &self.slots {
            let rc = slot.init(&lock.ops);
            ensure!(rc == 0, "lock '{}': init returned {rc}", lock.name);
        }
        for line in &self.counters {
            let Line {
                count,
                holder,
                released,
                released_at,
            } = line;
            for word in [count, holder, released, released_at] {
                word.store(0, Relaxed);
            }
        }
        Ok(())
    }

    /// Operations so far; approximate while threads run.
    pub fn progress(&self) -> u64 {
        let first = self.counters.iter().step_by(self.lines);
        first.map(|line| line.count.load(Relaxed)).sum()
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
                .map(|slot| self.lines_of(slot)[line].count.load(Relaxed))
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
    /// From 1, for [`Line::holder`].
    me: u64,
    seed: u64,
}

/// What one thread did.
pub struct Tally {
    /// Operations done.
    pub done: u64,
    /// Those that count: done before the round was over.
    pub ops: u64,
    /// When the loop began and ended, in TSC cycles.
    pub started: u64,
    pub ended: u64,
    /// All return codes or-ed together: 0 if every call succeeded.
    pub failures: i32,
    /// Acquisitions by another thread than the one before.
    pub changed_hands: u64,
    /// Calls of futex(2), where they are known.
    pub futex_calls: Option<u64>,
    /// Latencies of acquisitions.
    pub recorder: Recorder,
    /// From a release to this thread's acquisition.
    pub handovers: Recorder,
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
            me: thread as u64 + 1,
            // Not zero, and the same for every lock.
            seed: (thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Operates for as long as `go`, which is asked before each operation and right after the one before it.
    pub fn run(&self, tally: &mut Tally, go: impl FnMut() -> bool) {
        tally.started = tsc();
        match (self.latency, self.arena.slots.len() > 1) {
            (false, false) => self.hammer::<false, false>(tally, go),
            (false, true) => self.hammer::<false, true>(tally, go),
            (true, false) => self.hammer::<true, false>(tally, go),
            (true, true) => self.hammer::<true, true>(tally, go),
        }
        tally.ended = tsc();
        tally.ops = tally.done;
    }

    #[inline(never)]
    fn hammer<const LATENCY: bool, const MANY: bool>(
        &self,
        tally: &mut Tally,
        mut go: impl FnMut() -> bool,
    ) {
        let (lock, unlock) = (self.ops.lock, self.ops.unlock);
        let (gap, hold, me) = (self.gap, self.hold, self.me);
        let arena = &*self.arena;
        let locks = arena.slots.len() as u64;
        let (mut random, mut jitter) = (self.seed, self.seed);
        let mut slot = 0;
        let (mut done, mut failures) = (0, 0);
        // When the next release is to be timed.
        let mut due = 0;
        while go() {
            if gap > 0 {
                spin(gap);
            }
            if MANY {
                slot = (((xorshift(&mut random) >> 32) * locks) >> 32) as usize;
            }
            let mutex = arena.slots[slot].lock();
            let lines = arena.lines_of(slot);
            let before = if LATENCY { tsc() } else { 0 };
            // SAFETY: the mutex is initialised by this lock and lives in the arena, which
            // this task keeps alive.
            failures |= unsafe { lock(mutex) };
            let mut handover = None;
            let now = if LATENCY { tsc() } else { 0 };
            if LATENCY && lines[0].holder.load(Relaxed) != me {
                handover = lines[0].taken_over(me, before, now, &mut tally.changed_hands);
            }
            critical_section(lines, hold);
            if LATENCY && now >= due {
                lines[0].let_go();
                due = now + xorshift(&mut jitter) % SAMPLE_CYCLES;
            }
            // SAFETY: as above, and this thread locked it.
            failures |= unsafe { unlock(mutex) };
            done += 1;
            if LATENCY {
                tally.recorder.record(now.saturating_sub(before));
                if let Some(cycles) = handover {
                    tally.handovers.record(cycles);
                }
            }
        }
        tally.done = done;
        tally.failures = failures;
    }
}

/// The longest time between two releases that are timed, if the lock is released often enough; half of it on average.
const SAMPLE_CYCLES: u64 = 4096;

#[inline(always)]
fn xorshift(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

impl Line {
    /// The lock has come to thread `me`, which began to wait at `before` and has had it since `now`: the time since the
    /// release, if that was timed and later than `before`.
    #[inline(always)]
    fn taken_over(&self, me: u64, before: u64, now: u64, changed_hands: &mut u64) -> Option<u64> {
        let previous = self.holder.load(Relaxed);
        self.holder.store(me, Relaxed);
        if previous == 0 {
            return None;
        }
        *changed_hands += 1;
        let timed = self.released_at.load(Relaxed) == self.count.load(Relaxed);
        let released = self.released.load(Relaxed);
        (timed && before < released).then(|| now.saturating_sub(released))
    }

    /// The holder is about to release.
    #[inline(always)]
    fn let_go(&self) {
        self.released_at.store(self.count.load(Relaxed), Relaxed);
        self.released.store(tsc(), Relaxed);
    }
}

/// Load and store, not an atomic addition: only the lock keeps the counters right. The
/// first counter's store comes last, so a lock that fails anywhere in the section is seen.
#[inline(always)]
fn critical_section(lines: &[Line], hold: u64) {
    let Some((first, others)) = lines.split_first() else {
        return;
    };
    let count = first.count.load(Relaxed);
    for line in others {
        line.count.store(line.count.load(Relaxed) + 1, Relaxed);
    }
    if hold > 0 {
        spin(hold);
    }
    first.count.store(count + 1, Relaxed);
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            done: 0,
            ops: 0,
            started: 0,
            ended: 0,
            failures: 0,
            changed_hands: 0,
            futex_calls: None,
            recorder: Recorder::new(),
            handovers: Recorder::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_is_timed_if_the_waiter_was_there_and_the_release_was() {
        let line = Line::default();
        let mut changed = 0;
        // The first holder takes it over from nobody.
        assert_eq!(line.taken_over(1, 5, 10, &mut changed), None);
        critical_section(std::slice::from_ref(&line), 0);
        line.let_go();
        let released = line.released.load(Relaxed);
        let (before, now) = (released - 10, released + 70);
        assert_eq!(line.taken_over(2, before, now, &mut changed), Some(70));
        critical_section(std::slice::from_ref(&line), 0);
        // This release was not timed: the stamp is that of the one before.
        assert_eq!(line.taken_over(1, before, now, &mut changed), None);
        critical_section(std::slice::from_ref(&line), 0);
        line.let_go();
        // Who comes after the release did not wait for it.
        let late = line.released.load(Relaxed) + 1;
        assert_eq!(line.taken_over(2, late, late + 9, &mut changed), None);
        assert_eq!(changed, 3);
    }
}
