//! `AUTOLOCK_ALGORITHM`: programs run on other locks as on glibc's mutex, condition variables, timed locks, every kind and fork included.
//!
//! Four locks of different make: barging and sleeping, a sleeping FIFO, a queue with nodes that skips sleepers, a queue with a passive set. Those that only spin
//! are right as well, and take hours here: their programs have more threads than the machine CPUs.
//!
//! Not run here are the programs that look for a second waiter in glibc's word (`raw_state`, `misuse`): such a waiter is in the inner lock. Nor `deepbind`:
//! see `outer.rs` and the README for what is released past the preload.

use autolock_tests::{Compile, Run, autolock, program};
use std::path::Path;

const ALGORITHMS: [&str; 4] = [
    "futex_spinlock",
    "ticket_autolock",
    "mcs_autolock",
    "malthusian",
];

fn on(algorithm: &str, program: &Path, args: &[&str]) -> Run {
    Run::new(program)
        .args(args)
        .preload(autolock())
        .env("AUTOLOCK_ALGORITHM", algorithm)
}

/// Passes on each, and prints what it prints on glibc.
#[track_caller]
fn as_on_glibc(program: &Path, args: &[&str]) {
    let stock = Run::new(program).args(args).end().must_succeed();
    for algorithm in ALGORITHMS {
        let ours = on(algorithm, program, args).end().must_succeed();
        assert_eq!(ours.stdout, stock.stdout, "{}", ours.what);
        assert_eq!(ours.stderr, "", "{}", ours.what);
    }
}

macro_rules! as_on_glibc {
    ($($test:ident: $program:literal $args:expr;)*) => {$(
        #[test]
        fn $test() {
            as_on_glibc(&Compile::program($program).build(), &$args);
        }
    )*};
}

as_on_glibc! {
    c11_mutexes_and_conditions: "c11_threads" [];
    cancellation_in_a_condition_wait: "cancellation" [];
    condition_variables_in_a_ring: "cond_ring" [];
    delegated_kinds_stay_glibcs: "delegation" [];
    a_mutex_is_destroyed_and_unmapped_at_once: "destroy_after_unlock" ["recursive"];
    a_fork_child_starts_with_locks_of_its_own: "fork_owner" [];
    fork_under_contention: "fork_under_contention" [];
    every_operation_on_every_kind: "kinds_and_errors" [];
    thousands_of_threads_and_a_hundred_thousand_mutexes: "many" [];
    a_mutex_is_its_bytes: "moved_mutex" [];
    lock_and_unlock_never_allocate: "no_allocation" [];
    a_mutex_shared_with_a_process_without_the_preload: "process_shared" ["mixed"];
    signals_and_handlers: "signals" [];
    static_initialisers: "static_initialisers" [];
    destructors_of_thread_keys: "thread_exit" [];
    every_operation_at_once: "torture" ["16", "5", "20000", "mixed"];
}

#[test]
fn bounded_queues_on_every_kind() {
    for kind in ["default", "recursive", "errorcheck", "adaptive"] {
        as_on_glibc(&program("cond_queue"), &[kind]);
    }
}

/// Every name that the library knows runs a program, and the statistics say that it did: even those that only spin, with one thread.
#[test]
fn every_known_name_runs() {
    let complaint = on("nonesuch", &program("alone"), &[])
        .end()
        .must_succeed()
        .stderr;
    let names = complaint.split("known are ").nth(1).unwrap_or_default();
    let names: Vec<_> = names.trim().split(", ").collect();
    assert!(names.len() > 30 && names[0] == "autolock", "{complaint}");
    for name in &names[1..] {
        let ended = on(name, &program("alone"), &[])
            .env("AUTOLOCK_STATS", "1")
            .end()
            .must_succeed();
        let used = format!("algorithm={name} mutexes=");
        let (_, mutexes) = ended.stderr.split_once(&used).unwrap_or_default();
        let mutexes = mutexes.split(' ').next().unwrap_or_default();
        assert!(
            mutexes.parse::<u32>().is_ok_and(|n| n > 0),
            "{name}: {}",
            ended.stderr
        );
        assert!(ended.stderr.contains("unserved=0"), "{}", ended.stderr);
    }
}

/// Without addresses for the locks: one line, and the program runs on the default algorithm.
#[test]
fn little_address_space_is_said_and_survived() {
    let ended = Run::new("/bin/sh")
        .args(&["-c", "ulimit -v 100000; exec \"$0\""])
        .arg(program("static_initialisers"))
        .preload(autolock())
        .env("AUTOLOCK_ALGORITHM", "mcs")
        .end()
        .must_succeed();
    assert!(
        ended.stderr.contains("no addresses for its locks") && ended.stderr.contains("autolock"),
        "{}",
        ended.stderr
    );
}
