//! What the library needs of a process, what it leaves there, and what it says: options, statistics,
//! sandboxes, closed descriptors, secure-execution mode, allocators.

use autolock_tests::{
    Compile, Installable, Outcome, Run, autolock, both_pass, program, skipped, system_library,
};
use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;

fn plain() -> Run {
    Run::new(program("environment"))
        .arg("plain")
        .preload(autolock())
}

#[test]
fn without_options_nothing_is_said() {
    let ended = plain().end().must_succeed();
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""));
}

#[test]
fn an_unknown_option_gets_one_line_and_the_program_runs() {
    let ended = plain().env("AUTOLOCK_NO_SUCH_THING", "1").end();
    let ended = ended.must_succeed();
    assert_one_line(&ended.stderr, "AUTOLOCK_NO_SUCH_THING");
}

#[test]
fn a_bad_value_gets_one_line_and_the_program_runs() {
    for (name, value) in [
        ("AUTOLOCK_BACKEND", "wishful"),
        ("AUTOLOCK_STATS", "2"),
        ("AUTOLOCK_STATS", "\u{fffd}\u{fffd}"),
    ] {
        let ended = plain().env(name, value).end().must_succeed();
        assert_one_line(&ended.stderr, name);
    }
    let long = "x".repeat(100_000);
    let ended = plain().env("AUTOLOCK_BACKEND", &long).end();
    let ended = ended.must_succeed();
    assert_one_line(&ended.stderr, "AUTOLOCK_BACKEND");
}

fn assert_one_line(stderr: &str, about: &str) {
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("autolock: ") && stderr.ends_with('\n'),
        "{stderr}"
    );
    assert!(stderr.contains(about), "{stderr}");
}

/// The program parks four threads behind a held lock, lets hundreds of thousands of acquisitions
/// happen under contention, and uses one robust mutex.
#[test]
fn statistics_are_printed_when_asked_for() {
    let ended = plain().env("AUTOLOCK_STATS", "1").end().must_succeed();
    let mut values = HashMap::new();
    for line in ended.stderr.lines() {
        assert!(line.starts_with("autolock: "), "{}", ended.stderr);
        for word in line.split_whitespace() {
            if let Some((key, value)) = word.split_once('=')
                && let Ok(value) = value.parse::<u64>()
            {
                values.insert(key.to_owned(), value);
            }
        }
    }
    let value = |key: &str| match values.get(key) {
        Some(value) => *value,
        None => panic!("no {key}= in {}", ended.stderr),
    };
    assert!(value("acquired") >= value("contended"), "{}", ended.stderr);
    assert!(value("contended") >= 4, "{}", ended.stderr);
    assert!(value("parked") >= 4, "{}", ended.stderr);
    assert!(value("woken") >= 1, "{}", ended.stderr);
    assert!(value("spun") <= value("contended"), "{}", ended.stderr);
    // Lock and unlock of one robust mutex, whichever of the two is counted.
    assert!(value("delegated") >= 1, "{}", ended.stderr);
}

#[test]
fn closed_standard_descriptors_stay_closed() {
    both_pass("environment", &["closed-fds"]);
}

#[test]
fn little_address_space_is_enough() {
    both_pass("environment", &["small-as"]);
}

#[test]
fn locks_make_no_system_call_but_futex() {
    both_pass("environment", &["sandbox"]);
}

#[test]
fn proc_is_not_needed() {
    let program = program("environment");
    let ended = Run::new(&program).arg("no-proc").preload(autolock()).end();
    if ended.outcome == Outcome::Exited(77) {
        return skipped(ended.stderr.trim_end(), Installable::No);
    }
    ended.must_succeed();
    Run::new(&program).arg("no-proc").end().must_succeed();
}

#[test]
fn lock_and_unlock_never_allocate() {
    both_pass("no_allocation", &[]);
}

/// A set-user-ID program cannot be given a preload by its caller, but it may be linked with one.
#[test]
fn options_are_ignored_in_secure_execution_mode() {
    if !rustix::process::geteuid().is_root() {
        return skipped("making a set-user-ID program needs root", Installable::No);
    }
    // Where anybody may read: the program runs as nobody.
    let place = must("tempdir", tempfile::tempdir());
    must(
        "chmod",
        std::fs::set_permissions(place.path(), Permissions::from_mode(0o755)),
    );
    let library = place.path().join("libautolock.so");
    must("copy", std::fs::copy(autolock(), &library));
    let program = place.path().join("environment");
    let linked = Compile::program("environment")
        .flag("-Wl,--no-as-needed")
        .flag(library.to_string_lossy())
        .flag(format!("-Wl,-rpath,{}", place.path().display()))
        .build();
    must("copy", std::fs::copy(linked, &program));

    let run = |mode: &str| {
        Run::new(&program)
            .arg(mode)
            .env("TEST_PRELOAD", "yes")
            .env("AUTOLOCK_STATS", "1")
            .env("AUTOLOCK_NO_SUCH_THING", "1")
            .env("AUTOLOCK_BACKEND", "ebpf")
            .env("AUTOLOCK_SOCKET", place.path().join("nobody"))
            .end()
    };
    let open = run("plain").must_succeed();
    assert!(open.stderr.lines().count() >= 3, "{}", open.stderr);

    const NOBODY: u32 = 65534;
    must("chown", chown(&program, Some(NOBODY), None));
    must(
        "chmod",
        std::fs::set_permissions(&program, Permissions::from_mode(0o4755)),
    );
    let secure = run("secure");
    if secure.stderr.contains("AT_SECURE") {
        return skipped(
            &format!("{} ignores set-user-ID", place.path().display()),
            Installable::No,
        );
    }
    let secure = secure.must_succeed();
    assert_eq!(secure.stderr, "");
}

fn must<T>(what: &str, result: std::io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn beside_an_allocator(allocator: PathBuf) {
    let program = program("malloc_heavy");
    let run = || Run::new(&program);
    run()
        .preload(&allocator)
        .env("TEST_PRELOAD", "no")
        .end()
        .must_succeed();
    run()
        .preload(&allocator)
        .preload(autolock())
        .end()
        .must_succeed();
    run()
        .preload(autolock())
        .preload(&allocator)
        .end()
        .must_succeed();
}

#[test]
fn glibcs_malloc_under_contention() {
    both_pass("malloc_heavy", &[]);
}

#[test]
fn jemalloc_before_and_after() {
    match system_library("libjemalloc.so.2") {
        Some(library) => beside_an_allocator(library),
        None => skipped("no libjemalloc.so.2", Installable::Apt("libjemalloc2")),
    }
}

#[test]
fn tcmalloc_before_and_after() {
    match system_library("libtcmalloc_minimal.so.4") {
        Some(library) => beside_an_allocator(library),
        None => skipped(
            "no libtcmalloc_minimal.so.4",
            Installable::Apt("libtcmalloc-minimal4"),
        ),
    }
}

/// The loader calls malloc before any constructor runs, and this one locks mutexes of every kind.
#[test]
fn an_allocator_that_locks_before_our_constructor() {
    beside_an_allocator(
        Compile::library("malloc_preload")
            .flag("-fno-builtin")
            .build(),
    );
}
