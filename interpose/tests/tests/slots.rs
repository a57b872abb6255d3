//! The kernel's slots as the library sees them: who gets one and when, what becomes of it with the process, what the library does when it is parked, and
//! what happens when the kernel refuses or lies.
//!
//! The kernel is a stand-in (`programs/fake_kernel.c`), which works on any kernel; `kernel` runs on a real one.

use autolock_tests::{Compile, Ended, Installable, Outcome, Run, autolock, program, skipped};
use std::sync::OnceLock;

/// A program on such a kernel, and what both did.
fn run(name: &str, args: &[&str], manner: &str) -> Run {
    static FAKE: OnceLock<std::path::PathBuf> = OnceLock::new();
    let fake = FAKE.get_or_init(|| {
        Compile::library("fake_kernel")
            .flag("-Wl,-z,initfirst")
            .build()
    });
    Run::new(program(name))
        .args(args)
        .preload(autolock())
        .preload(fake)
        .env("AUTOLOCK_BACKEND", "kernel")
        .env("AUTOLOCK_STATS", "1")
        .env("FAKE_KERNEL", format!("{manner},report"))
}

/// `None` where there are no seccomp filters, of which the stand-in is made.
#[track_caller]
fn passed(run: Run) -> Option<Ended> {
    let ended = run.end();
    if ended.outcome == Outcome::Exited(77) {
        skipped(ended.stderr.trim_end(), Installable::No);
        return None;
    }
    Some(ended.must_succeed())
}

/// A figure of the library's own line.
#[track_caller]
fn figure(ended: &Ended, key: &str) -> u64 {
    figure_in(ended, "autolock: source=kernel ", key)
}

/// A figure of what the stand-in did.
#[track_caller]
fn fakes(ended: &Ended, key: &str) -> u64 {
    figure_in(ended, "fake kernel: ", key)
}

#[track_caller]
fn figure_in(ended: &Ended, start: &str, key: &str) -> u64 {
    let found = ended.stderr.lines().find_map(|line| {
        let mut words = line.strip_prefix(start)?.split(' ');
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    });
    match found {
        Some(found) => found,
        None => panic!("no {key} in '{start}': {}", ended.story()),
    }
}

#[test]
fn who_meets_contention_gets_a_slot_and_nobody_else() {
    let Some(alone) = passed(run("slots", &["alone"], "silent")) else {
        return;
    };
    assert_eq!(figure(&alone, "slots"), 1, "the main thread");
    let Some(contend) = passed(run("slots", &["contend"], "silent")) else {
        return;
    };
    assert_eq!(figure(&contend, "slots"), 5);
    assert_eq!(fakes(&contend, "creates"), 5, "each asks once");
    let Some(hold) = passed(run("slots", &["hold"], "silent")) else {
        return;
    };
    assert_eq!(figure(&hold, "slots"), 3, "the holder and its waiter");
}

#[test]
fn a_thread_without_a_slot_does_without() {
    let Some(crowd) = passed(run("slots", &["crowd"], "slots=3")) else {
        return;
    };
    assert_eq!(figure(&crowd, "slots"), 3);
    assert_eq!(figure(&crowd, "unserved"), 22);
}

#[test]
fn slots_are_used_again() {
    let Some(churn) = passed(run("slots", &["churn"], "slots=3")) else {
        return;
    };
    assert_eq!(figure(&churn, "slots"), 101);
    assert_eq!(figure(&churn, "unserved"), 0);
}

#[test]
fn no_child_touches_its_parents_slots() {
    for child in ["fork", "_Fork", "clone", "vfork"] {
        for manner in ["silent", "storm"] {
            let steps = ["contend", child, "contend"];
            let Some(ended) = passed(run("slots", &steps, manner)) else {
                return;
            };
            if manner == "silent" {
                assert_eq!(
                    figure(&ended, "slots"),
                    if child == "vfork" { 10 } else { 9 }
                );
            }
        }
    }
}

/// It finds that the slot is not its own, and gives it back; its parent gets one.
#[test]
fn a_child_of_vfork_takes_none_for_its_parent() {
    let Some(ended) = passed(run("slots", &["vfork"], "silent")) else {
        return;
    };
    assert_eq!(figure(&ended, "slots"), 2);
    assert!(fakes(&ended, "creates") > 2, "{}", ended.stderr);
}

#[test]
fn a_program_that_is_executed_begins_anew() {
    let Some(ended) = passed(run("slots", &["contend", "exec", "alone"], "silent")) else {
        return;
    };
    assert_eq!(figure(&ended, "slots"), 1);
}

#[test]
fn a_kernel_that_refuses_gets_one_line_and_the_program_runs() {
    for (manner, why) in [
        ("off", "the sysctl kernel.auto_lock is 0"),
        ("strange", "this kernel's autolocks are of another version"),
    ] {
        let Some(ended) = passed(run("slots", &["contend", "fork"], manner)) else {
            return;
        };
        let line = format!("autolock: AUTOLOCK_BACKEND=kernel: {why}; using user space\n");
        assert!(ended.stderr.contains(&line), "{}", ended.stderr);
        let source = format!("autolock: source=user ({why})\n");
        assert!(ended.stderr.contains(&source), "{}", ended.stderr);
    }
}

/// The stand-in's own filter is one.
#[test]
fn under_a_seccomp_filter_the_kernel_is_not_asked_unless_by_name() {
    for backend in ["auto", "ebpf", "user"] {
        let run = run("slots", &["contend"], "silent").env("AUTOLOCK_BACKEND", backend);
        let Some(ended) = passed(run) else { return };
        assert!(!ended.stderr.contains("creates"), "{}", ended.stderr);
        assert!(ended.stderr.contains("source=user"), "{}", ended.stderr);
    }
}

/// At any instruction: whether a waiter is interrupted while it is armed is chance, so there are many.
#[test]
fn a_waiter_that_loses_its_cpu_is_parked_and_woken() {
    for _ in 0..20 {
        let run = run("torture", &["8", "1", "50000", "pure"], "storm");
        let Some(ended) = passed(run) else { return };
        if figure(&ended, "parks") > 0 && fakes(&ended, "wakes") > 0 {
            assert!(figure(&ended, "parks") <= fakes(&ended, "parks"));
            assert!(figure(&ended, "off-cpu") + figure(&ended, "running") > 0);
            return;
        }
    }
    panic!("nobody was parked");
}

#[test]
fn parked_waiters_are_not_forgotten() {
    // Not under a storm: who sleeps because of a thread that fork left behind needs a time-out, and never gets to it.
    for (name, args, manners) in [
        (
            "torture",
            &["12", "3", "5000", "pure"][..],
            &["storm", "storm,lies", "storm,slots=3"][..],
        ),
        ("torture", &["12", "15", "5000", "mixed"], &["storm"]),
        ("timed_out_waiter", &[], &["storm"]),
        ("no_allocation", &[], &["storm"]),
        ("no_thread_starves", &[], &["lies"]),
        ("process_shared", &["both"], &["lies"]),
        ("fork_under_contention", &[], &["slots=3", "lies"]),
    ] {
        for manner in manners {
            if passed(run(name, args, manner)).is_none() {
                return;
            }
        }
    }
}

/// The collection's locks that ask after holders, and those whose waiters are parked.
#[test]
fn parked_waiters_of_the_collections_locks_are_not_forgotten() {
    for algorithm in [
        "clh_autolock",
        "flexguard",
        "mcs_autolock",
        "rseq_autolock",
        "spin_autolock",
        "ticket_autolock",
    ] {
        for manner in ["storm", "storm,lies"] {
            let run = run("torture", &["6", "2", "3000", "pure"], manner)
                .env("AUTOLOCK_ALGORITHM", algorithm);
            let Some(ended) = passed(run) else { return };
            assert!(figure(&ended, "slots") > 1, "{}", ended.stderr);
        }
    }
}
