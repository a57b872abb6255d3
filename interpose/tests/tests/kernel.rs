//! The library on a kernel with `linux-patches/`: `cargo xtask vm` runs it there. What it makes of slots is in `slots`, on any kernel.

use autolock_tests::{Ended, Installable, Run, autolock, program, skipped};

const SYSCTL: &str = "/proc/sys/kernel/auto_lock";

/// Whether this is such a kernel, with its autolocks switched on.
fn is_patched() -> bool {
    let on = std::fs::read_to_string(SYSCTL).is_ok_and(|value| value.trim() == "1");
    if !on {
        skipped(
            &format!("no kernel with autolocks, or {SYSCTL} is 0"),
            Installable::No,
        );
    }
    on
}

fn run(name: &str, args: &[&str]) -> Run {
    Run::new(program(name))
        .args(args)
        .preload(autolock())
        .env("AUTOLOCK_STATS", "1")
}

#[track_caller]
fn figure(ended: &Ended, key: &str) -> u64 {
    let found = ended.stderr.lines().find_map(|line| {
        let mut words = line.strip_prefix("autolock: source=kernel ")?.split(' ');
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    });
    match found {
        Some(found) => found,
        None => panic!("no {key}: {}", ended.story()),
    }
}

#[test]
fn the_kernel_is_the_first_choice() {
    if is_patched() {
        let ended = run("slots", &["contend"]).end().must_succeed();
        assert_eq!(figure(&ended, "slots"), 5);
        let ended = run("slots", &["alone"]).end().must_succeed();
        assert_eq!(figure(&ended, "slots"), 1);
    }
}

#[test]
fn slots_end_with_threads_and_processes() {
    if is_patched() {
        for step in [
            "churn", "crowd", "hold", "fork", "_Fork", "clone", "vfork", "exec",
        ] {
            let steps = ["contend", step, "contend"];
            let ended = run("slots", &steps).end().must_succeed();
            assert!(figure(&ended, "slots") >= 5, "{}", ended.stderr);
            assert_eq!(figure(&ended, "unserved"), 0, "{}", ended.stderr);
        }
    }
}

/// Threads that contend for the first time when a filter that knows futex(2) alone is in place.
#[test]
fn nobody_registers_in_a_sandbox() {
    if is_patched() {
        run("environment", &["sandbox"]).end().must_succeed();
    }
}

#[test]
fn waiters_are_parked_and_not_forgotten() {
    if is_patched() {
        let mut parks = 0;
        for _ in 0..20 {
            let args = ["16", "3", "10000", "mixed"];
            let ended = run("torture", &args).end().must_succeed();
            parks += figure(&ended, "parks");
            if parks > 0 {
                break;
            }
        }
        assert!(parks > 0, "nobody was parked");
        for (name, args) in [
            ("timed_out_waiter", &[][..]),
            ("no_thread_starves", &[]),
            ("process_shared", &["both"]),
            ("fork_under_contention", &[]),
            ("no_allocation", &[]),
        ] {
            run(name, args).end().must_succeed();
        }
    }
}
