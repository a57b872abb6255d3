//! The tests can fail: profilers with one thing wrong (`programs/broken_profile.c`), and records that were changed, each noticed by the check that is there for
//! it. The same with nothing wrong passes, here and now.

use autolock_capture::Capture;
use autolock_capture::layout::{self, Lock, Site, site};
use autolock_tests::{Ended, glibc};
use profile_tests::{Beneath, Finished, Mode, Profiled, Report, check, compile, library, read};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::path::PathBuf;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

fn front(variant: &str) -> PathBuf {
    library("broken_profile").define("BROKEN", variant).build()
}

fn run(variant: &str, mode: Mode, program: &str, args: &[&str]) -> Finished {
    let program = compile(program).build();
    let mut profiled =
        Profiled::behind(&program, mode, Beneath::Glibc, &[front(variant)]).args(args);
    if variant == "COUNT_TIME_OUTS" {
        profiled = profiled.with(|run| run.preload(front("LIAR")));
    }
    profiled.end()
}

fn story(ended: &Ended) -> String {
    ended.story()
}

/// The record of the run behind the variant is wrong, and right without it.
#[track_caller]
fn caught(variant: &str, program: &str, args: &[&str]) {
    for mode in [Mode::Sampled, Mode::Full] {
        let control = run("NONE", mode, program, args);
        let wrong = control.wrong();
        assert!(
            wrong.is_empty(),
            "{}\n  {}",
            story(&control.ended),
            wrong.join("\n  ")
        );
        let broken = run(variant, mode, program, args);
        assert_eq!(
            broken.ended.outcome,
            control.ended.outcome,
            "{}",
            story(&broken.ended)
        );
        let wrong = broken.wrong();
        assert!(
            !wrong.is_empty(),
            "{variant} was not noticed: {}",
            story(&broken.ended)
        );
        eprintln!("{variant}: {}", wrong.join("\n  "));
    }
}

macro_rules! caught {
    ($($test:ident: $variant:literal by $program:literal $args:expr;)*) => {$(
        #[test]
        fn $test() {
            caught($variant, $program, &$args);
        }
    )*};
}

caught! {
    idle_time_as_hold_time_is_caught: "HIDE_CONDITIONS" by "conditions" ["idle", "plain", "100", "50"];
    failed_tries_that_are_not_counted_are_caught: "HIDE_TRIES" by "holds" ["try-storm"];
    lost_acquisitions_are_caught: "HIDE_SOME" by "holds" ["counts"];
    lost_waits_are_caught: "HIDE_WAITS" by "waits" ["five"];
    an_unknown_holder_is_caught: "HIDE_HOLDERS" by "waits" ["pairs"];
    a_recursive_hold_that_begins_late_is_caught: "HIDE_FIRST_LEVEL" by "holds" ["recursive"];
    readers_as_writers_are_caught: "READERS_ARE_WRITERS" by "rwlocks" ["counts"];
    time_outs_as_acquisitions_are_caught: "COUNT_TIME_OUTS" by "waits" ["time-outs"];
    an_unnoticed_exit_is_caught: "HIDE_EXIT" by "ends" ["_exit"];
    locks_that_are_never_given_back_are_caught: "HIDE_DESTROY" by "crowd" ["short-lived", "destroyed"];
}

/// What stands on stderr when the program has handled its signal.
#[test]
fn a_program_whose_handler_replaces_ours_is_caught() {
    for (variant, table) in [("NONE", true), ("HIDE_HANDLERS", false)] {
        let finished = run(variant, Mode::Sampled, "signals", &["early"]);
        let before = finished.ended.stderr.split("handled 1\n").next();
        let found = before.is_some_and(|before| before.contains("used"));
        assert_eq!(found, table, "{variant}: {}", story(&finished.ended));
    }
}

/// A copy of the capture with something changed in it, read.
fn changed(report: &Report, change: impl Fn(Capture)) -> Report {
    let path = report.path.with_extension("changed");
    std::fs::copy(&report.path, &path).expect("a file beside the capture");
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .expect("the copy");
    let length = file.metadata().expect("its length").len() as usize;
    // SAFETY: a new shared mapping, of a file that nobody else knows.
    let base = unsafe {
        mmap(
            null_mut(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )
    }
    .expect("a mapping");
    let start = NonNull::new(base).expect("a mapping").cast();
    // SAFETY: page-aligned, writable, as long as the file, which has a header since it was read before; unmapped only after the last use.
    change(unsafe { Capture::new(start, length) });
    // SAFETY: the mapping from above, whole.
    unsafe { munmap(base, length) }.expect("munmap");
    read(&path)
}

/// Looks for the lock that the program talks about.
fn the_lock(capture: Capture, address: u64, change: impl Fn(&Lock)) {
    let mut found = false;
    for (_, lock) in capture.all::<Lock>() {
        if lock.key.load(Relaxed) & !3 == address {
            change(lock);
            found = true;
        }
    }
    assert!(found, "no lock at {address:#x}");
}

fn sites(capture: Capture, address: u64, kind: u32, change: impl Fn(&Site)) {
    let mut found = false;
    for (_, site) in capture.all::<Site>() {
        let lock = capture.get::<Lock>(site.lock.load(Relaxed));
        let mine = lock.is_some_and(|lock| lock.key.load(Relaxed) & !3 == address);
        if mine && site.kind.load(Relaxed) == kind {
            change(site);
            found = true;
        }
    }
    assert!(found, "no site of kind {kind} at {address:#x}");
}

fn add(number: &AtomicU64, what: u64) {
    number.fetch_add(what, Relaxed);
}

fn scale(number: &AtomicU64, percent: u64) {
    number.store(number.load(Relaxed) * percent / 100, Relaxed);
}

type Change = fn(Capture, u64);

#[track_caller]
fn every_change_is_noticed(program: &str, args: &[&str], changes: &[(&str, Change)]) {
    let mode = Mode::Full;
    let finished = Profiled::new(compile(program).build(), mode)
        .args(args)
        .must_be_right();
    let truth = finished.truth.processes.values().next().expect("a process");
    let address = truth.locks.last().expect("a lock").address;
    let same = changed(finished.report(), |_| {});
    assert_eq!(check(truth, &same, mode), Vec::<String>::new());
    for (what, change) in changes {
        let other = changed(finished.report(), |capture| change(capture, address));
        let wrong = check(truth, &other, mode);
        assert!(!wrong.is_empty(), "{what} was not noticed");
        eprintln!("{what}: {}", wrong.join("\n  "));
    }
}

#[test]
fn changed_records_of_waits_are_noticed() {
    every_change_is_noticed(
        "waits",
        &["pairs"],
        &[
            ("an acquisition more", |c, a| {
                the_lock(c, a, |lock| add(&lock.acquisitions, 1));
            }),
            ("a failed try more", |c, a| {
                the_lock(c, a, |lock| add(&lock.failed, 1));
            }),
            ("a waiter more at once", |c, a| {
                the_lock(c, a, |lock| {
                    lock.most_waiters.fetch_add(1, Relaxed);
                });
            }),
            ("an owner that changed less often", |c, a| {
                the_lock(c, a, |lock| {
                    lock.changed.fetch_sub(1, Relaxed);
                });
            }),
            ("another kind", |c, a| {
                the_lock(c, a, |lock| lock.kind.store(layout::kind::SPIN, Relaxed));
            }),
            ("another place", |c, a| {
                the_lock(c, a, |lock| add(&lock.place, 4096));
            }),
            ("a wait more at each place", |c, a| {
                sites(c, a, site::WAIT, |site| add(&site.count, 1));
            }),
            // What a waiter can know of its wait is less exact than what a holder knows of its hold.
            ("waits that are a tenth longer", |c, a| {
                sites(c, a, site::WAIT, |site| scale(&site.total_ns, 110));
            }),
            ("waits that are a tenth shorter", |c, a| {
                sites(c, a, site::WAIT, |site| scale(&site.total_ns, 90));
            }),
            ("waiter and holder exchanged", |c, a| {
                sites(c, a, site::WAIT, |site| {
                    let waiter = site.stack.swap(site.holder.load(Relaxed), Relaxed);
                    site.holder.store(waiter, Relaxed);
                });
            }),
            ("holders that are unknown", |c, a| {
                sites(c, a, site::WAIT, |site| site.holder.store(0, Relaxed));
            }),
            ("something dropped", |c, _| {
                add(&c.header().dropped.sites, 1)
            }),
        ],
    );
}

#[test]
fn changed_records_of_holds_are_noticed() {
    every_change_is_noticed(
        "holds",
        &["long", "10", "50"],
        &[
            ("holds that are 3 % shorter", |c, a| {
                sites(c, a, site::HOLD, |site| scale(&site.total_ns, 97));
            }),
            ("holds that are 3 % longer", |c, a| {
                sites(c, a, site::HOLD, |site| scale(&site.total_ns, 103));
            }),
            ("a hold less", |c, a| {
                sites(c, a, site::HOLD, |site| {
                    site.count.fetch_sub(1, Relaxed);
                });
            }),
            ("holds as idle time", |c, a| {
                sites(c, a, site::HOLD, |site| {
                    site.kind.store(site::COND, Relaxed)
                });
            }),
            ("holds as waits", |c, a| {
                sites(c, a, site::HOLD, |site| {
                    site.kind.store(site::WAIT, Relaxed)
                });
            }),
        ],
    );
}

#[test]
fn changed_records_of_condition_variables_and_time_outs_are_noticed() {
    every_change_is_noticed(
        "conditions",
        &["idle", "plain", "50", "0"],
        &[
            ("idle time as a hold", |c, a| {
                sites(c, a, site::COND, |site| {
                    site.kind.store(site::HOLD, Relaxed)
                });
            }),
            ("idle time as a wait for the mutex", |c, a| {
                sites(c, a, site::COND, |site| {
                    site.kind.store(site::WAIT, Relaxed)
                });
            }),
        ],
    );
    every_change_is_noticed(
        "waits",
        &["time-outs"],
        &[
            ("time-outs as waits", |c, a| {
                sites(c, a, site::TIMEOUT, |site| {
                    site.kind.store(site::WAIT, Relaxed)
                });
            }),
            ("time-outs as acquisitions", |c, a| {
                the_lock(c, a, |lock| add(&lock.acquisitions, 5));
            }),
        ],
    );
}

/// Only a libc that re-acquires through the profiler makes such records.
#[test]
fn changed_records_of_reacquisitions_are_noticed() {
    if glibc::prefix().is_none() {
        return;
    }
    every_change_is_noticed(
        "conditions",
        &["idle", "plain", "50", "50"],
        &[
            ("re-acquiring as idling", |c, a| {
                sites(c, a, site::REACQUIRE, |site| {
                    site.total_ns.store(0, Relaxed)
                });
            }),
            ("re-acquiring as a wait of its own", |c, a| {
                sites(c, a, site::REACQUIRE, |site| {
                    site.kind.store(site::WAIT, Relaxed)
                });
            }),
            ("a re-acquisition more", |c, a| {
                sites(c, a, site::REACQUIRE, |site| add(&site.count, 1));
            }),
            ("an acquisition more", |c, a| {
                the_lock(c, a, |lock| add(&lock.acquisitions, 1));
            }),
            ("holders that are unknown", |c, a| {
                sites(c, a, site::REACQUIRE, |site| site.holder.store(0, Relaxed));
            }),
        ],
    );
}

/// A deadlock's record in which a thread waits for nobody, or for something else.
#[test]
fn changed_records_of_deadlocks_are_noticed() {
    let finished = Profiled::new(compile("waits").build(), Mode::Full)
        .args(&["deadlock"])
        .end()
        .must_be_right();
    let truth = finished.truth.processes.values().next().expect("a process");
    type Field = fn(&layout::Thread) -> &AtomicU32;
    let fields: [(&str, Field); 4] = [
        ("what it waits for", |thread| &thread.waiting_for),
        ("where it waits", |thread| &thread.waiting_stack),
        ("the holder", |thread| &thread.waiting_holder_tid),
        ("where the holder took it", |thread| &thread.waiting_holder),
    ];
    for (what, field) in fields {
        let other = changed(finished.report(), |capture| {
            for (_, thread) in capture.all::<layout::Thread>() {
                field(thread).store(0, Relaxed);
            }
        });
        let wrong = check(truth, &other, Mode::Full);
        assert!(!wrong.is_empty(), "{what} may be forgotten unnoticed");
    }
}
