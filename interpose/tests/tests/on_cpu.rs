//! autolockd's table as the library sees it: how it is found and given up, what becomes of it with the process, and what happens when it lies.
//!
//! The daemon is a stand-in ([`FakeAutolockd`]): no eBPF, no privilege.

use autolock_oncpu::table::{NOT_RUNNING, RUNNING};
use autolock_tests::fake_autolockd::{FakeAutolockd, Manner, Threads};
use autolock_tests::{Ended, Installable, Outcome, Run, autolock, program, skipped};
use std::cell::Cell;
use std::path::Path;

const SILENT: &str = "autolockd does not answer in time";

/// A program under the preload that looks for this daemon, and says what it did.
fn run(program: impl AsRef<Path>, daemon: &FakeAutolockd) -> Run {
    Run::new(program.as_ref())
        .preload(autolock())
        .env("AUTOLOCK_SOCKET", daemon.socket())
        .env("AUTOLOCK_STATS", "1")
}

/// Again where the machine was too busy for the stand-in to answer in time.
fn until_answered(run: impl Fn() -> Run) -> Ended {
    for _ in 0..50 {
        let ended = run().end();
        if !ended.stderr.contains(SILENT) {
            return ended;
        }
    }
    panic!("{SILENT}, 50 times on end");
}

fn with_steps(daemon: &FakeAutolockd, steps: &[&str]) -> Run {
    run(program("on_cpu"), daemon)
        .arg(daemon.table())
        .args(steps)
}

/// `programs/on_cpu.c`, which writes the table itself, and how often the daemon was asked.
fn steps(steps: &[&str]) -> (Ended, u32) {
    let daemon = FakeAutolockd::new(Manner::Grants, Threads::AsWritten);
    let before = Cell::new(0);
    let ended = until_answered(|| {
        before.set(daemon.connections());
        with_steps(&daemon, steps)
    });
    (ended, daemon.connections() - before.get())
}

/// What the library was told of holders.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    running: u64,
    off: u64,
    unknown: u64,
}

/// `None` if it had no table.
#[track_caller]
fn told(ended: &Ended) -> Option<Told> {
    let line = match ended
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("autolock: source="))
    {
        Some(line) => line,
        None => panic!("no source: {}", ended.story()),
    };
    let value = |key: &str| {
        line.split(' ')
            .find_map(|word| word.strip_prefix(key))
            .and_then(|value| value.parse().ok())
    };
    line.starts_with("ebpf ").then(|| Told {
        running: value("running=").unwrap_or_else(|| panic!("{line}")),
        off: value("off-cpu=").unwrap_or_else(|| panic!("{line}")),
        unknown: value("unknown=").unwrap_or_else(|| panic!("{line}")),
    })
}

/// Which answers there were, in the order running, off the CPU, unknown.
#[track_caller]
fn kinds(ended: &Ended) -> [bool; 3] {
    let told = table_of(ended);
    [told.running > 0, told.off > 0, told.unknown > 0]
}

#[track_caller]
fn table_of(ended: &Ended) -> Told {
    told(ended).unwrap_or_else(|| panic!("no table: {}", ended.story()))
}

#[track_caller]
fn permitted(ended: Ended) -> Option<Ended> {
    if ended.outcome == Outcome::Exited(77) {
        let why = ended.stderr.lines().next().unwrap_or_default();
        skipped(why, Installable::No);
        return None;
    }
    Some(ended.must_succeed())
}

#[test]
fn a_table_that_beats_is_believed() {
    let (ended, asked) = steps(&["running"]);
    assert_eq!(kinds(&ended.must_succeed())[..2], [true, false]);
    let (ended, _) = steps(&["off"]);
    assert_eq!(kinds(&ended.must_succeed())[..2], [false, true]);
    assert_eq!(asked, 1);
}

#[test]
fn a_stale_table_is_not_believed_and_believed_again_when_it_beats() {
    let (ended, _) = steps(&["running", "stale-off"]);
    assert_eq!(kinds(&ended.must_succeed()), [true, false, true]);
    let (ended, _) = steps(&["stale-running", "off"]);
    assert_eq!(kinds(&ended.must_succeed()), [false, true, true]);
    let (ended, _) = steps(&["running", "stale-running", "off"]);
    assert_eq!(kinds(&ended.must_succeed()), [true, true, true]);
}

#[test]
fn a_child_of_fork_keeps_the_table() {
    let (ended, asked) = steps(&["running", "fork", "off"]);
    assert_eq!(kinds(&ended.must_succeed())[..2], [true, true]);
    assert_eq!(asked, 1);
}

#[test]
fn a_program_that_is_executed_asks_anew_and_inherits_no_descriptor() {
    let (ended, asked) = steps(&["running", "exec", "off"]);
    assert_eq!(kinds(&ended.must_succeed())[..2], [false, true]);
    assert_eq!(asked, 2);
}

#[test]
fn dropped_privileges_and_another_root_leave_the_table() {
    for steps_of_one in [
        &["running", "chroot", "off"][..],
        &["running", "nobody", "off"],
        &["chroot", "nobody", "running", "fork", "off"],
    ] {
        let (ended, _) = steps(steps_of_one);
        if let Some(ended) = permitted(ended) {
            assert_eq!(kinds(&ended)[..2], [true, true]);
        }
    }
}

#[test]
fn a_program_that_starts_in_another_root_does_without() {
    let root = must(tempfile::tempdir());
    let program = program("on_cpu");
    let libc = autolock_tests::system_library("libc.so.6");
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2").to_path_buf();
    for file in [program.clone(), autolock(), loader]
        .into_iter()
        .chain(libc)
    {
        let copy = root.path().join(must(file.strip_prefix("/")));
        if let Some(folder) = copy.parent() {
            must(std::fs::create_dir_all(folder));
        }
        must(std::fs::copy(&file, &copy));
    }
    let (ended, asked) = steps(&["new-root", &root.path().to_string_lossy(), "running"]);
    if let Some(ended) = permitted(ended) {
        assert_eq!(told(&ended), None, "{}", ended.stderr);
        assert_eq!(asked, 1);
    }
}

#[test]
fn under_a_seccomp_filter_nobody_is_asked() {
    let (ended, asked) = steps(&["filter", "running"]);
    let ended = ended.must_succeed();
    assert_eq!(told(&ended), None, "{}", ended.stderr);
    assert_eq!(asked, 1, "by the unfiltered one");
    // The filter does forbid it.
    let daemon = FakeAutolockd::new(Manner::Grants, Threads::AsWritten);
    let ended = with_steps(&daemon, &["filter", "running"])
        .env("AUTOLOCK_BACKEND", "ebpf")
        .end();
    const SIGSYS: i32 = 31;
    assert_eq!(ended.outcome, Outcome::Killed(SIGSYS), "{}", ended.story());
}

#[test]
fn user_asks_nobody() {
    let daemon = FakeAutolockd::new(Manner::Grants, Threads::AsWritten);
    let ended = with_steps(&daemon, &["running"])
        .env("AUTOLOCK_BACKEND", "user")
        .end()
        .must_succeed();
    assert_eq!(told(&ended), None);
    assert_eq!(daemon.connections(), 0);
}

/// The program runs, with the same descriptors and `errno` as ever; `ebpf` says in a line why there is no table, `auto` says nothing.
#[track_caller]
fn refused(daemon: &FakeAutolockd, why: &str) {
    let end = |run: &dyn Fn() -> Run| {
        let ended = if why == SILENT {
            run().end()
        } else {
            until_answered(run)
        };
        ended.must_succeed()
    };
    let ended = end(&|| with_steps(daemon, &["running"]));
    assert_eq!(told(&ended), None, "{}", ended.stderr);
    assert!(ended.stderr.contains(why), "{why}: {}", ended.stderr);
    // Unasked nothing is said, so how it went there is not known.
    let ended = with_steps(daemon, &["running"]).env("AUTOLOCK_STATS", "0");
    assert_eq!(ended.end().must_succeed().stderr, "");
    let ended = end(&|| {
        with_steps(daemon, &["running"])
            .env("AUTOLOCK_STATS", "0")
            .env("AUTOLOCK_BACKEND", "ebpf")
    });
    let expected = format!("autolock: AUTOLOCK_BACKEND=ebpf: {why}; using user space\n");
    assert_eq!(ended.stderr, expected);
}

#[test]
fn whatever_the_daemon_answers_the_program_runs() {
    let stranger = "who listens is not autolockd, or of another version";
    let namespace = "this process is in another PID namespace than autolockd";
    let table = "autolockd's table cannot be mapped";
    for (manner, why) in [
        (Manner::ForeignPidNamespace, namespace),
        (Manner::AnotherPid, namespace),
        (Manner::Unsure, "autolockd could not find out who asks"),
        (Manner::OtherVersion, stranger),
        (Manner::NotAutolockd, stranger),
        (Manner::TooShort, stranger),
        (Manner::TooLong, stranger),
        (Manner::HangsUp, stranger),
        (Manner::NoTable, stranger),
        (Manner::Stream, stranger),
        (Manner::WithoutDescriptor, table),
        (Manner::ShortTable, table),
        (
            Manner::TwoDescriptors,
            "this process may open no more files",
        ),
        (Manner::Silent, SILENT),
        (Manner::Full, SILENT),
    ] {
        refused(&FakeAutolockd::new(manner, Threads::AsWritten), why);
    }
}

#[test]
fn without_a_daemon_the_program_runs() {
    let daemon = FakeAutolockd::new(Manner::Grants, Threads::AsWritten);
    let socket = daemon.socket();
    let none = "no autolockd listens";
    // A socket that nobody listens on any more.
    must(std::fs::remove_file(&socket));
    drop(must(std::os::unix::net::UnixListener::bind(&socket)));
    refused(&daemon, none);
    must(std::fs::remove_file(&socket));
    refused(&daemon, none);
    must(std::fs::write(&socket, ""));
    refused(&daemon, none);
    must(std::fs::remove_file(&socket));
    must(std::os::unix::fs::symlink("socket", &socket));
    refused(&daemon, none);
}

/// All threads behind a held lock go to sleep though the table calls its holder running for ever: nobody spins without a bound.
#[test]
fn a_holder_that_runs_for_ever_is_not_spun_on_for_ever() {
    let daemon = FakeAutolockd::new(Manner::Grants, Threads::All(RUNNING));
    let ended = until_answered(|| run(program("environment"), &daemon).arg("plain"));
    let ended = ended.must_succeed();
    let told = table_of(&ended);
    assert!(told.running > 0 && told.off == 0, "{told:?}");
}

/// Under a filter that allows futex(2) alone; with closed standard streams; in little address space, where the table may not fit.
#[test]
fn with_a_table_too_waiting_takes_no_system_call_but_futex_and_no_memory() {
    for threads in [Threads::All(RUNNING), Threads::Random] {
        let daemon = FakeAutolockd::new(Manner::Grants, threads);
        for (name, mode) in [
            ("environment", &["sandbox"][..]),
            ("environment", &["closed-fds"]),
            ("environment", &["small-as"]),
            ("no_allocation", &[]),
        ] {
            let ended = until_answered(|| run(program(name), &daemon).args(mode));
            let ended = ended.must_succeed();
            // It ends by _exit, and says nothing, in the sandbox.
            if mode.is_empty() {
                assert!(table_of(&ended).running > 0, "{}", ended.stderr);
            }
        }
    }
}

/// A table that calls everybody off the CPU does so of the thread that asks, and is not believed.
#[test]
fn a_table_of_others_is_not_believed() {
    let daemon = FakeAutolockd::new(Manner::Grants, Threads::All(NOT_RUNNING));
    let args = ["8", "1", "50000", "pure"];
    let ended = until_answered(|| run(program("torture"), &daemon).args(&args));
    let ended = ended.must_succeed();
    let told = table_of(&ended);
    assert!(told.off == 0 && told.unknown > 0, "{told:?}");
}

#[test]
fn lies_cost_time_and_never_progress() {
    for (threads, all) in [
        (Threads::All(RUNNING), [true, false]),
        (Threads::EveryOther, [true, true]),
        (Threads::Random, [true, true]),
    ] {
        let daemon = FakeAutolockd::new(Manner::Grants, threads);
        for args in [
            ["8", "1", "50000", "pure"],
            ["24", "3", "20000", "pure"],
            ["16", "15", "20000", "mixed"],
        ] {
            let ended = until_answered(|| run(program("torture"), &daemon).args(&args));
            let ended = ended.must_succeed();
            let told = table_of(&ended);
            let seen = [told.running > 0, told.off > 0];
            assert_eq!(seen, all, "{threads:?} {args:?} {told:?}");
        }
    }
}

/// The collection's locks that ask after holders and waiters.
#[test]
fn lies_cost_the_collections_locks_no_progress_either() {
    for algorithm in [
        "clh_autolock",
        "flexguard",
        "mcs_autolock",
        "rseq_autolock",
        "spin_autolock",
        "ticket_autolock",
    ] {
        for threads in [Threads::All(RUNNING), Threads::EveryOther, Threads::Random] {
            let daemon = FakeAutolockd::new(Manner::Grants, threads);
            let args = ["6", "2", "3000", "pure"];
            run(program("torture"), &daemon)
                .args(&args)
                .env("AUTOLOCK_ALGORITHM", algorithm)
                .end()
                .must_succeed();
        }
    }
}

/// The frozen table of a daemon that has gone is a lie, too, until it is noticed.
#[test]
fn under_lies_no_waiter_is_forgotten() {
    for threads in [Threads::All(RUNNING), Threads::EveryOther, Threads::Random] {
        let daemon = FakeAutolockd::new(Manner::Grants, threads);
        for (name, args) in [
            ("no_thread_starves", &[][..]),
            ("timed_out_waiter", &[]),
            ("process_shared", &["both"]),
        ] {
            run(program(name), &daemon).args(args).end().must_succeed();
        }
    }
    let daemon = FakeAutolockd::new(Manner::Grants, Threads::Random);
    run(program("fork_under_contention"), &daemon)
        .end()
        .must_succeed();
}

fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
