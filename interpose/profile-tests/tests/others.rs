//! Programs that know nothing of the profiler: those of the mutex preload's tests, and what a system has, say under it what they say without it.

use autolock_tests::{Compile, Installable, Run, autolock, cxx_compiler, skipped};
use profile_tests::{Beneath, Mode, Profiled};
use std::path::{Path, PathBuf};

/// Captures that are read of a program: some fork hundreds of children.
const READ: usize = 3;

/// The program's standard output is the same in both modes, on glibc and with `libautolock.so` beneath, and its captures can be read.
#[track_caller]
fn same(program: &Path, args: &[&str]) {
    let plain = Run::new(program).args(args).end().must_succeed();
    for (mode, beneath) in [
        (Mode::Sampled, Beneath::Glibc),
        (Mode::Full, Beneath::Autolock),
    ] {
        let finished = Profiled::on(program, mode, beneath)
            .args(args)
            .start()
            .end_reading(READ);
        assert!(finished.ended.succeeded(), "{}", finished.ended.story());
        assert!(
            finished.ended.stdout == plain.stdout,
            "{}: prints something else\n{}",
            finished.ended.what,
            first_difference(&plain.stdout, &finished.ended.stdout)
        );
    }
}

fn first_difference(plain: &str, profiled: &str) -> String {
    let pair = plain.lines().zip(profiled.lines()).find(|(a, b)| a != b);
    match pair {
        Some((a, b)) => format!("  without: {a}\n  profiled: {b}"),
        None => "  one of them ends early".to_owned(),
    }
}

macro_rules! same {
    ($($test:ident: $program:literal $($args:expr),+;)*) => {$(
        #[test]
        fn $test() {
            let program = Compile::program($program).build();
            $(same(&program, &$args);)+
        }
    )*};
}

same! {
    kinds_and_errors: "kinds_and_errors" [];
    raw_state: "raw_state" [];
    static_initialisers: "static_initialisers" [];
    misuse: "misuse" [];
    delegation: "delegation" [];
    condition_variables_on_every_kind: "cond_queue" ["default"], ["recursive"], ["errorcheck", "pshared"], ["adaptive"];
    a_ring_of_condition_variables: "cond_ring" [];
    a_storm_of_condition_variables: "cond_storm" ["fork"];
    c11_threads: "c11_threads" [];
    processes_that_share_a_mutex: "process_shared" ["both"], ["mixed"];
    fork_owner: "fork_owner" [];
    fork_under_contention: "fork_under_contention" [];
    exit_paths: "exit_paths" ["return"], ["outlive"];
    thread_exit: "thread_exit" [];
    signals: "signals" [];
    cancellation: "cancellation" [];
    no_allocation: "no_allocation" [];
    closed_descriptors: "environment" ["closed-fds"];
    nothing_is_touched_after_the_release: "release_is_final" [];
    the_next_owner_may_unmap_a_mutex_at_once: "destroy_after_unlock" ["default"], ["recursive"], ["default", "pshared"];
    a_waiting_process_that_is_killed_or_stopped: "lost_waiter" ["kill-waiting"], ["stop-waiting"];
    a_waiter_that_gives_up: "timed_out_waiter" [];
    thousands_of_threads: "many" [];
    torture_of_one_lock: "torture" ["8", "1", "100000", "pure"];
    torture_of_every_kind: "torture" ["16", "15", "20000", "mixed"];
}

#[test]
fn a_deepbind_library() {
    let library = Compile::library("deepbind_library").build();
    same(
        &Compile::program("deepbind").build(),
        &[&library.to_string_lossy()],
    );
}

#[test]
fn libraries_whose_constructors_fight_for_locks() {
    let program = Compile::program("loader").flag("-rdynamic").build();
    let library = Compile::library("loader_library").build();
    let library = library.to_string_lossy();
    same(&program, &[&library]);
    same(&program, &[&library, "first"]);
}

#[test]
fn another_preload_that_locks_before_and_after_ours() {
    let program = Compile::program("exit_paths").build();
    let early = Compile::library("early_preload").build();
    let stock = Run::new(&program)
        .arg("return")
        .preload(&early)
        .env("TEST_PRELOAD", "no")
        .env("EARLY_PRELOAD", "1")
        .end()
        .must_succeed();
    let front = Profiled::behind(
        &program,
        Mode::Sampled,
        Beneath::Glibc,
        std::slice::from_ref(&early),
    );
    let behind = Profiled::new(&program, Mode::Full).with(|run| run.preload(early.clone()));
    for run in [front, behind] {
        let finished = run.args(&["return"]).env("EARLY_PRELOAD", "1").end();
        assert!(finished.ended.succeeded(), "{}", finished.ended.story());
        assert_eq!(finished.ended.stdout, stock.stdout);
    }
}

#[test]
fn cxx_locks() {
    if !cxx_compiler() {
        return skipped("no C++ compiler", Installable::Apt("g++"));
    }
    same(&Compile::cxx_program("cxx_locks").build(), &[]);
}

fn find(command: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(command))
        .find(|path| path.is_file())
}

#[track_caller]
fn same_command(package: &'static str, command: &str, args: &[&str]) {
    match find(command) {
        Some(path) => same(&path, args),
        None => skipped(&format!("no {command}"), Installable::Apt(package)),
    }
}

#[test]
fn shells_and_their_children() {
    let script = "for i in 1 2 3; do (echo $i; exit $i); echo $?; done | sort";
    same_command("dash", "sh", &["-c", script]);
}

#[test]
fn xz_with_two_threads() {
    let script = "seq 300000 | xz -T2 -1 --block-size=300KiB | xz -dc -T2 | cksum";
    same_command("dash", "sh", &["-c", script]);
}

#[test]
fn python_threads_and_a_child() {
    let script = "
import threading, queue, subprocess, os
q, out, lock = queue.Queue(10), [], threading.Lock()
def work():
    while (item := q.get()) is not None:
        with lock: out.append(item * item)
threads = [threading.Thread(target=work) for _ in range(6)]
for t in threads: t.start()
for i in range(2000): q.put(i)
for t in threads: q.put(None)
for t in threads: t.join()
print(len(out), sum(out))
print(subprocess.run(['sh', '-c', 'echo $((6*7))'], capture_output=True, text=True).stdout)
";
    same_command("python3", "python3", &["-c", script]);
}

/// Beneath the profiler is really what the test says.
#[test]
fn the_record_says_whose_locks_were_profiled() {
    let program = profile_tests::compile("holds").build();
    for (beneath, wanted) in [
        (Beneath::Glibc, "libc.so.6".to_owned()),
        (Beneath::Autolock, autolock().to_string_lossy().into_owned()),
    ] {
        let finished = Profiled::on(&program, Mode::Sampled, beneath)
            .args(&["try-storm"])
            .must_be_right();
        let next = &finished.report().json["process"]["next"];
        assert!(
            next.as_str().is_some_and(|next| next.ends_with(&*wanted)),
            "{next}, not {wanted}"
        );
    }
}
