//! Memory within bounds, whatever the program does; places without disk, descriptors, system calls; other allocators; options.

use autolock_tests::{Compile, Installable, Outcome, Run, skipped, system_library};
use profile_tests::{Finished, Mode, Profiled, compile, profiler};
use std::path::{Path, PathBuf};
use std::process::Command;

fn surroundings(mode: &str) -> Profiled {
    Profiled::new(compile("surroundings").build(), Mode::Sampled).args(&[mode])
}

fn crowd(args: &[&str]) {
    let program = compile("crowd").build();
    let own = |stdout: &str| profile_tests::Truth::parse(stdout).values["own-memory-kb"];
    let plain = Run::new(&program).args(args).end().must_succeed();
    for mode in [Mode::Sampled, Mode::Full] {
        let finished = Profiled::new(&program, mode).args(args).must_be_right();
        // What is not in the record: at most a page or two for each of the 64 threads.
        let (with, without) = (own(&finished.ended.stdout), own(&plain.stdout));
        assert!(
            with <= without + 2048,
            "{with} KiB of its own, {without} KiB without the profiler"
        );
    }
}

#[test]
fn a_hundred_thousand_locks_by_each_of_64_threads() {
    crowd(&["each"]);
}

#[test]
fn a_hundred_thousand_times_by_each_of_64_threads() {
    crowd(&["often"]);
}

#[test]
fn a_hundred_thousand_locks_of_its_own_for_each_of_64_threads() {
    crowd(&["own"]);
}

#[test]
fn a_million_locks_that_live_for_a_moment() {
    crowd(&["short-lived", "destroyed"]);
}

#[test]
fn a_million_locks_that_are_never_destroyed() {
    crowd(&["short-lived", "forgotten"]);
}

#[test]
fn a_process_that_never_locks_leaves_nothing_and_says_nothing() {
    let finished = surroundings("never-locks").end();
    let finished_well = finished.ended.succeeded() && finished.ended.stderr.is_empty();
    assert!(finished_well, "{}", finished.ended.story());
    let left = finished
        .folder
        .path()
        .read_dir()
        .expect("the folder")
        .count();
    assert_eq!(left, 0);
}

#[test]
fn a_closed_stderr_is_not_written_to() {
    let finished = surroundings("closed-stderr").must_be_right();
    let data = std::fs::read(finished.folder.path().join("data")).expect("the program's file");
    assert_eq!(data, b"data\n");
}

#[test]
fn a_daemon_that_closes_all_descriptors() {
    surroundings("closes-all").must_be_right();
}

#[test]
fn descriptors_have_the_numbers_that_they_would_have() {
    surroundings("descriptors").must_be_right();
}

#[test]
fn system_calls_are_forbidden_after_a_while() {
    let finished = surroundings("sandbox").end();
    if finished.ended.outcome == Outcome::Exited(77) {
        return skipped(finished.ended.stderr.trim_end(), Installable::No);
    }
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    finished.must_be_right();
}

#[test]
fn files_that_may_not_grow() {
    let finished = surroundings("small-files").end();
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    assert_eq!(finished.ended.stdout, "did all\n");
}

#[test]
fn little_address_space() {
    let finished = surroundings("little-memory").end();
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    assert_eq!(finished.ended.stdout, "did all\n");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program mounts a file system of 256 KiB in a mount namespace of its own, works on it, and goes on when it is full.
#[test]
fn a_full_disk_does_not_kill() {
    if !is_root() {
        return skipped("mounting needs root", Installable::No);
    }
    let program = compile("surroundings").build();
    let profiled = Profiled::new("/usr/bin/unshare", Mode::Sampled);
    let disk = profiled.folder().join("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let finished = profiled
        .args(&["--mount", &program.to_string_lossy(), "no-room"])
        .args(&[&disk.to_string_lossy()])
        .end();
    if finished.ended.outcome == Outcome::Exited(77)
        || finished.ended.stderr.contains("unshare failed")
    {
        return skipped(finished.ended.stderr.trim_end(), Installable::No);
    }
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    assert_eq!(finished.ended.stdout, "did all\n");
}

#[test]
fn a_chroot_without_anything() {
    if !is_root() {
        return skipped("chroot needs root", Installable::No);
    }
    let profiled = surroundings("chroot");
    let folder = profiled.folder().to_owned();
    let finished = profiled.args(&[&folder.to_string_lossy()]).end();
    if finished.ended.outcome == Outcome::Exited(77) {
        return skipped(finished.ended.stderr.trim_end(), Installable::No);
    }
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    finished.must_be_right();
}

/// Nobody may write to `/proc`, root included.
#[test]
fn a_folder_that_cannot_be_written_to() {
    let finished = surroundings("plain")
        .with(|run| run.directory("/proc/self"))
        .end();
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    assert!(
        finished.ended.stderr.lines().count() >= 1,
        "it does not say that there is no capture"
    );
}

fn beside_an_allocator(allocator: PathBuf, program: &Path, args: &[&str]) {
    // In front of the profiler, and behind it.
    let front = Profiled::behind(
        program,
        Mode::Sampled,
        profile_tests::Beneath::Glibc,
        std::slice::from_ref(&allocator),
    );
    let behind = Profiled::new(program, Mode::Sampled).with(|run| run.preload(allocator.clone()));
    for run in [front, behind] {
        let finished = run.args(args).end();
        assert!(finished.ended.succeeded(), "{}", finished.ended.story());
        // An allocator holds all its locks across fork, more than a thread remembers.
        let mut wrong = finished.wrong();
        wrong.retain(|what| !(what.contains("dropped") && what.ends_with(" holds")));
        assert_eq!(wrong, Vec::<String>::new(), "{}", finished.ended.story());
    }
}

/// Allocators that lock for themselves: their locks are in the record beside the program's, which are right.
fn beside(allocator: PathBuf) {
    beside_an_allocator(allocator.clone(), &compile("holds").build(), &["counts"]);
    beside_an_allocator(allocator.clone(), &compile("ends").build(), &["threads"]);
    beside_an_allocator(allocator.clone(), &compile("processes").build(), &["fork"]);
    let heavy = autolock_tests::program("malloc_heavy");
    for front in [true, false] {
        let front: &[PathBuf] = if front {
            std::slice::from_ref(&allocator)
        } else {
            &[]
        };
        let mut run = Profiled::behind(&heavy, Mode::Sampled, profile_tests::Beneath::Glibc, front);
        if front.is_empty() {
            run = run.with(|run| run.preload(allocator.clone()));
        }
        let finished: Finished = run.end();
        assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    }
}

#[test]
fn jemalloc_before_and_after() {
    match system_library("libjemalloc.so.2") {
        Some(path) => beside(path),
        None => skipped("no jemalloc", Installable::Apt("libjemalloc2")),
    }
}

#[test]
fn tcmalloc_before_and_after() {
    match system_library("libtcmalloc_minimal.so.4") {
        Some(path) => beside(path),
        None => skipped("no tcmalloc", Installable::Apt("libtcmalloc-minimal4")),
    }
}

#[test]
fn an_allocator_that_takes_mutexes_of_every_kind() {
    beside(Compile::library("malloc_preload").build());
}

#[test]
fn the_table_is_printed_on_demand_and_at_an_interval() {
    // SIGUSR1 is the program's own signal in this mode; SIGURG is nobody's.
    let finished = Profiled::new(compile("holds").build(), Mode::Sampled)
        .args(&["long", "20", "100"])
        .env("AUTOLOCK_PROFILE_INTERVAL", "500ms")
        .must_be_right();
    let tables = finished.ended.stderr.matches(" acquisitions, ").count();
    assert!(
        tables >= 3,
        "{tables} tables in 2 s: {}",
        finished.ended.story()
    );

    let started = Profiled::new(compile("holds").build(), Mode::Sampled)
        .args(&["long", "20", "100"])
        .env("AUTOLOCK_PROFILE_SIGNAL", "USR2")
        .start();
    let folder = started.folder().to_owned();
    // The capture is there once the first lock was taken, and then the signal is ours.
    while folder.read_dir().expect("the folder").next().is_none() {
        std::thread::yield_now();
    }
    // Asked before its first lock is in the record, it has nothing to print: so more than once, in about half of its time.
    for _ in 0..10 {
        rustix::process::kill_process(started.running.pid(), rustix::process::Signal::USR2)
            .expect("the program is there");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let finished = started.end();
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    let finished = finished.must_be_right();
    let tables = finished.ended.stderr.matches(" acquisitions, ").count();
    assert!(tables >= 2, "{tables} tables: {}", finished.ended.story());
}

#[test]
fn options_choose_the_file_or_none() {
    let finished = surroundings("plain")
        .env("AUTOLOCK_PROFILE_FILE", "there-%p-%e-100%%.lockprof")
        .must_be_right();
    let name = finished.report().path.file_name().expect("a name");
    let name = name.to_string_lossy().into_owned();
    let pid = finished.report().pid();
    assert!(
        name.starts_with(&format!("there-{pid}-surroundings")) && name.ends_with("-100%.lockprof"),
        "{name}"
    );
    let finished = surroundings("plain")
        .env("AUTOLOCK_PROFILE_FILE", "none")
        .end();
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    assert!(finished.reports.is_empty());
    assert!(
        finished.ended.stderr.contains("used"),
        "no table: {}",
        finished.ended.story()
    );
    let finished = surroundings("plain")
        .env("AUTOLOCK_PROFILE_TABLE", "0")
        .must_be_right();
    assert!(
        !finished.ended.stderr.contains("mutex"),
        "{}",
        finished.ended.story()
    );
}

#[test]
fn bad_options_get_one_line_and_the_default() {
    for (name, value) in [
        ("AUTOLOCK_PROFILE", "wishful"),
        ("AUTOLOCK_PROFILE_MEMORY", "much"),
        ("AUTOLOCK_PROFILE_SIGNAL", "NOSUCH"),
        ("AUTOLOCK_PROFILE_INTERVAL", "-1"),
        ("AUTOLOCK_PROFILE_NO_SUCH_THING", "1"),
    ] {
        let quiet = surroundings("plain")
            .env("AUTOLOCK_PROFILE_TABLE", "0")
            .must_be_right();
        let finished = surroundings("plain")
            .env("AUTOLOCK_PROFILE_TABLE", "0")
            .env(name, value)
            .must_be_right();
        assert_eq!(
            finished.ended.stderr.lines().count(),
            quiet.ended.stderr.lines().count() + 1,
            "{}",
            finished.ended.story()
        );
        assert!(
            finished.ended.stderr.contains(name),
            "{}",
            finished.ended.story()
        );
    }
}

/// The bound is the user's: a tenth of the memory, and the counts still add up.
#[test]
fn memory_is_what_was_asked_for() {
    let finished = Profiled::new(compile("crowd").build(), Mode::Sampled)
        .args(&["each"])
        .env("AUTOLOCK_PROFILE_MEMORY", "6M")
        .end();
    assert!(finished.ended.succeeded(), "{}", finished.ended.story());
    let report = finished.report();
    let length = std::fs::metadata(&report.path).expect("the capture").len();
    assert!(length <= 6 << 20, "{length} bytes");
    assert_eq!(
        report.total("acquisitions") + report.dropped("operations"),
        6_400_000
    );
}

/// The preload asks for libc and the loader, and for nothing else.
#[test]
fn the_library_needs_only_libc() {
    let output = Command::new("readelf").arg("-d").arg(profiler()).output();
    let Ok(output) = output else {
        return skipped("no readelf", Installable::Apt("binutils"));
    };
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.contains("(NEEDED)")) {
        assert!(
            line.contains("[libc.so.6]") || line.contains("[ld-linux-x86-64.so.2]"),
            "{line}"
        );
    }
    assert!(text.contains("(NEEDED)"), "{text}");
}
