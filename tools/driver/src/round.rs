//! One round: one lock, one cell, for a time or until fixed work is done, with every check that turns a
//! broken lock into an error.

use crate::clock::Clock;
use crate::futex::Method;
use crate::latency;
use crate::lock::Lock;
use crate::run::{Cell, Round};
use crate::threads::{Outcome, alone, together};
use crate::workload::{Arena, Tally, Task};
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::Duration;

/// When a round is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// After this time.
    Time(Duration),
    /// When each thread has done so many operations.
    Each(u64),
    /// When the threads have done so many operations together.
    Total(u64),
}

/// How to measure: the same for every round of a run.
#[derive(Clone)]
pub struct Plan {
    pub work: Work,
    pub latency: bool,
    pub single_threaded: bool,
    /// Thread i runs on the i-th of these CPUs, and round again.
    pub pin: Option<Arc<[usize]>>,
    pub futex: Method,
    /// How long nothing may move, beside what a critical section and a gap take, before it is a hang.
    pub hang_limit: Duration,
    pub clock: Clock,
}

/// Runs one lock in one cell as the plan says.
pub fn round(lock: &Lock, cell: &Cell, arena: &Arc<Arena>, plan: &Plan) -> Result<Round> {
    arena.init(lock)?;
    let tasks = (0..cell.threads).map(|i| Task::new(lock, cell, arena, plan, i));
    let Outcome {
        tallies,
        over,
        usage: (before, after),
    } = if plan.single_threaded {
        alone(tasks, plan)
    } else {
        together(tasks.collect(), cell, arena, plan)
            .with_context(|| format!("lock '{}' ({cell})", lock.name))?
    };

    let done = tallies.iter().map(|t| t.done).sum();
    let failures = tallies.iter().fold(0, |all, t| all | t.failures);
    ensure!(
        failures == 0,
        "BROKEN LOCK: lock or unlock of '{}' returned errors (or-ed together: {failures}) ({cell})",
        lock.name
    );
    arena.check(lock, cell, done)?;
    arena.destroy(lock)?;

    let started = tallies.iter().map(|t| t.started).min().unwrap_or(over);
    let seconds = |end: u64| plan.clock.ns(end.wrapping_sub(started)) / 1e9;
    let fixed = !matches!(plan.work, Work::Time(_));
    let latencies = |recorder: fn(&Tally) -> &latency::Recorder| {
        latency::summarise(tallies.iter().map(recorder), plan.clock)
    };
    let handover = if tallies.iter().all(|t| t.handovers.is_empty()) {
        None
    } else {
        Some(latencies(|t| &t.handovers)?)
    };
    Ok(Round {
        lock: lock.name.clone(),
        round: 0,
        position: 0,
        elapsed_s: seconds(over),
        thread_ops: tallies.iter().map(|t| t.ops).collect(),
        thread_s: tallies
            .iter()
            .filter(|_| fixed)
            .map(|t| seconds(t.ended))
            .collect(),
        latency: if plan.latency {
            Some(latencies(|t| &t.recorder)?)
        } else {
            None
        },
        user_s: after.user_s - before.user_s,
        system_s: after.system_s - before.system_s,
        voluntary_switches: after.voluntary - before.voluntary,
        involuntary_switches: after.involuntary - before.involuntary,
        handover_ns: handover.as_ref().map(|h| h.p50_ns),
        handover_histogram: handover.and_then(|h| h.histogram),
        changed_hands: plan
            .latency
            .then(|| tallies.iter().map(|t| t.changed_hands).sum()),
        futex_calls: if plan.futex.knows(&lock.name) {
            tallies.iter().map(|t| t.futex_calls).sum()
        } else {
            None
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus;
    use crate::lock::{Source, tests::busted};
    use crate::threads::BATCH;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::thread;

    fn plan(latency: bool) -> Plan {
        Plan {
            work: Work::Time(Duration::from_millis(60)),
            latency,
            single_threaded: false,
            pin: None,
            futex: Method::Own,
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
            // Each thread's last operation ended after the round and does not count.
            let late = arena.progress() - round.ops();
            assert!((1..=threads as u64).contains(&late), "{late} of {threads}");
            let latency = round.latency.expect("asked for");
            assert!(latency.p50_ns > 0.0 && latency.p50_ns <= latency.p99_ns);
            assert!(latency.p99_ns <= latency.p999_ns && latency.p999_ns <= latency.max_ns);
        }
    }

    #[test]
    fn fixed_work_is_done_to_the_operation() {
        let glibc = Source::glibc().open().expect("glibc");
        for (threads, locks) in [(1, 1), (3, 1), (4, 7)] {
            let cell = cell(threads, locks, 10);
            let arena = Arc::new(Arena::new(&cell, 40));
            let measure = |work| {
                let plan = Plan {
                    work,
                    ..plan(false)
                };
                round(&glibc, &cell, &arena, &plan).expect("round")
            };
            let each = measure(Work::Each(1234));
            assert_eq!(each.thread_ops, vec![1234; threads]);
            for total in [1, 5, 12_345] {
                let shared = measure(Work::Total(total));
                assert_eq!(shared.ops(), total);
                assert_eq!(shared.thread_s.len(), threads);
                let first = shared.first_s().expect("fixed work");
                assert!(first > 0.0 && first <= shared.elapsed_s, "{shared:?}");
            }
        }
    }

    /// Locks that go to another thread each time: the word is the last holder's thread-local address, plus 1 while held.
    mod alternating {
        use super::{AtomicU64, Relaxed, thread::yield_now};
        use libc::{c_int, c_void};
        use std::sync::atomic::Ordering::{Acquire, Release};

        thread_local! {
            static ME: u64 = const { 0 };
        }

        fn me() -> u64 {
            ME.with(|me| std::ptr::from_ref(me).addr() as u64)
        }

        unsafe fn word<'a>(lock: *mut c_void) -> &'a AtomicU64 {
            // SAFETY: the arena's memory, zeroed and aligned.
            unsafe { &*lock.cast() }
        }

        pub unsafe extern "C" fn lock(lock: *mut c_void) -> c_int {
            // SAFETY: the caller's.
            let word = unsafe { word(lock) };
            loop {
                let last = word.load(Relaxed);
                if last & 1 == 0
                    && last != me()
                    && word
                        .compare_exchange(last, me() | 1, Acquire, Relaxed)
                        .is_ok()
                {
                    return 0;
                }
                yield_now();
            }
        }

        pub unsafe extern "C" fn unlock(lock: *mut c_void) -> c_int {
            // SAFETY: the caller's.
            unsafe { word(lock) }.store(me(), Release);
            0
        }
    }

    #[test]
    fn a_lock_that_changes_hands_each_time_shows_each_and_how_long_it_took() {
        let mut lock = busted();
        lock.ops.lock = alternating::lock;
        lock.ops.unlock = alternating::unlock;
        let plan = Plan {
            work: Work::Each(2000),
            ..plan(true)
        };
        let cell = cell(2, 1, 1000);
        let arena = Arc::new(Arena::new(&cell, 40));
        let round = round(&lock, &cell, &arena, &plan).expect("round");
        assert_eq!(round.changed_hands, Some(2 * 2000 - 1));
        assert!(round.handover_ns.expect("sampled") > 0.0);
        let all = latency::decode(&round.handover_histogram.expect("sampled")).expect("valid");
        assert!(!all.is_empty() && all.len() < 2 * 2000, "{}", all.len());
    }

    #[test]
    fn our_own_locks_tell_their_futex_calls_and_others_do_not() {
        assert!(autolock_shim::nodes::start());
        let cell = cell(2, 1, 10);
        let calls = |source: Source| {
            let lock = source.open().expect("opens");
            let arena = Arc::new(Arena::new(&cell, lock.size));
            let round = round(&lock, &cell, &arena, &plan(false)).expect("round");
            round.futex_calls
        };
        let mcs = Source::collection().find(|source| source.name == "mcs");
        assert_eq!(calls(mcs.expect("in the collection")), Some(0), "it spins");
        assert_eq!(calls(Source::glibc()), None);
    }

    #[test]
    fn pinned_threads_share_the_cpus_in_turn() {
        let cpus = cpus::allowed().expect("affinity");
        let plan = Plan {
            pin: Some(cpus[..1].into()),
            ..plan(false)
        };
        let glibc = Source::glibc().open().expect("glibc");
        let cell = cell(3, 1, 10);
        let arena = Arc::new(Arena::new(&cell, 40));
        assert!(round(&glibc, &cell, &arena, &plan).expect("round").ops() > 0);
        let nowhere = Plan {
            pin: Some([1023].into()),
            ..plan
        };
        let error = round(&glibc, &cell, &arena, &nowhere).expect_err("no such CPU");
        assert!(format!("{error:#}").contains("cannot pin"), "{error:#}");
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
