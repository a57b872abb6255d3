//! The library and the real `autolockd`, on machines that permit eBPF. What the library makes of a table is in `on_cpu`.

// How to start it, without leaving anything behind.
#[path = "../../../tools/autolockd/tests/support/mod.rs"]
mod support;

use autolock_tests::{Ended, Installable, Run, autolock, program, skipped};
use support::Place;

fn environment() -> Run {
    Run::new(program("environment"))
        .arg("plain")
        .preload(autolock())
        .env("AUTOLOCK_STATS", "1")
}

/// The first line about the source.
#[track_caller]
fn source(ended: &Ended) -> &str {
    match ended
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("autolock: source="))
    {
        Some(line) => line,
        None => panic!("no source: {}", ended.story()),
    }
}

#[test]
fn a_program_finds_the_daemon_where_it_usually_is() {
    let Some(place) = Place::with_default_socket() else {
        return;
    };
    let without = environment().end().must_succeed();
    assert_eq!(source(&without), "user (no autolockd listens)");
    let daemon = place.start();
    let with = environment().end().must_succeed();
    let line = source(&with);
    // Waiters that saw the holder run, or sleep: nobody knows which, but the table knew.
    assert!(line.starts_with("ebpf "), "{line}");
    assert!(!line.contains(" running=0 off-cpu=0 "), "{line}");
    assert!(daemon.stop().success());
    let after = environment().end().must_succeed();
    assert_eq!(source(&after), "user (no autolockd listens)");
}

#[test]
fn a_program_in_another_pid_namespace_is_told_so() {
    let Some(place) = Place::new() else {
        return;
    };
    let _daemon = place.start();
    let ended = Run::new("unshare")
        .args(&["--pid", "--fork", "--mount-proc"])
        .arg(program("environment"))
        .arg("plain")
        .preload(autolock())
        .env("AUTOLOCK_STATS", "1")
        .env("AUTOLOCK_SOCKET", place.socket())
        .end();
    if ended.stderr.contains("unshare: ") {
        return skipped(ended.stderr.trim_end(), Installable::No);
    }
    let ended = ended.must_succeed();
    // Its own, before that of the program that made the namespace.
    let expected = "user (this process is in another PID namespace than autolockd)";
    assert_eq!(source(&ended), expected);
}

#[test]
fn programs_outlive_the_daemon_and_the_next_one() {
    let Some(place) = Place::new() else {
        return;
    };
    let daemon = place.start();
    let running: Vec<_> = ["pure", "mixed"]
        .map(|what| {
            Run::new(program("torture"))
                .args(&["8", "2", "300000", what])
                .preload(autolock())
                .env("AUTOLOCK_SOCKET", place.socket())
                .env("AUTOLOCK_BACKEND", "ebpf")
                .start()
        })
        .into_iter()
        .collect();
    daemon.kill();
    let next = place.start();
    next.kill();
    let last = place.start();
    for program in running {
        program.end().must_succeed();
    }
    assert!(last.stop().success());
}
