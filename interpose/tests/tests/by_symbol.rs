//! Whether libc's condition variables work on the mutex by its functions' symbols, as a glibc with `glibc-patches/` does (`TEST_GLIBC`), or inside, as stock glibc
//! does; and what that makes possible: locks whose state is not glibc's.

use autolock_tests::{Compile, Run, autolock, both_pass, glibc, must_break, program};
use std::path::PathBuf;
use std::time::Duration;

fn preload(state: &str) -> PathBuf {
    Compile::library("foreign_preload")
        .define("STATE", state)
        .build()
}

/// The way to wait and its end, and how often by symbol: released, re-acquired.
fn parsed(line: &str) -> (&str, &str, &str) {
    line.split_once(": released by symbol ")
        .and_then(|(way, counts)| {
            let (released, acquired) = counts.split_once(", re-acquired ")?;
            Some((way, released, acquired))
        })
        .unwrap_or_else(|| panic!("{line}"))
}

#[track_caller]
fn every_wait_is(wanted: &str, stdout: &str) {
    assert_eq!(stdout.lines().count(), 18, "{stdout}");
    for line in stdout.lines() {
        let (_, released, acquired) = parsed(line);
        assert_eq!((released, acquired), (wanted, wanted), "{line}");
    }
}

#[test]
fn a_wait_releases_and_re_acquires_by_symbol_or_inside_as_its_glibc_has_it() {
    let run = Run::new(program("waits_by_symbol"));
    let stdout = run.preload(preload("COUNTS")).end().must_succeed().stdout;
    let wanted = if glibc::prefix().is_some() {
        "once"
    } else {
        "never"
    };
    every_wait_is(wanted, &stdout);
}

/// Programs that wait, on a lock of which glibc could make nothing.
#[test]
fn waits_work_with_a_lock_whose_state_is_foreign_on_a_patched_glibc_alone() {
    let foreign = preload("FOREIGN");
    for name in ["waits_by_symbol", "cond_storm"] {
        let program = program(name);
        if glibc::prefix().is_none() {
            must_break(&program, &[], &foreign, Duration::from_secs(10));
            continue;
        }
        let ended = Run::new(&program).preload(&foreign).end().must_succeed();
        if name == "waits_by_symbol" {
            every_wait_is("once", &ended.stdout);
        }
    }
}

/// Who waits in a chosen algorithm's order, the statistics say.
#[test]
fn a_chosen_algorithm_knows_whether_waits_come_back_to_it() {
    let ended = Run::new(program("alone"))
        .preload(autolock())
        .env("AUTOLOCK_ALGORITHM", "mcs_stp")
        .env("AUTOLOCK_STATS", "1")
        .end()
        .must_succeed();
    let wanted = if glibc::prefix().is_some() {
        "condition-waits=interposed"
    } else {
        "condition-waits=libc"
    };
    assert!(ended.stderr.contains(wanted), "{}", ended.stderr);
}

/// Broadcasts, producers and consumers, time-outs, cancellations and forks, all at once.
#[test]
fn a_storm_of_waits_is_weathered_on_every_lock() {
    let program = program("cond_storm");
    both_pass("cond_storm", &["fork"]);
    for algorithm in ["mcs_stp", "mcs_autolock", "malthusian", "futex_spinlock"] {
        Run::new(&program)
            .preload(autolock())
            .env("AUTOLOCK_ALGORITHM", algorithm)
            .arg("fork")
            .end()
            .must_succeed();
    }
}
