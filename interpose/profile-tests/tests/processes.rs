//! Processes that multiply, become others and end in every way: a record each, which starts at zero.

use autolock_tests::Outcome;
use profile_tests::{Beneath, Mode, Profiled, compile, library};

#[track_caller]
fn right(program: &str, args: &[&str], captures: usize) {
    for beneath in [Beneath::Glibc, Beneath::Autolock] {
        let finished = Profiled::on(compile(program).build(), Mode::Sampled, beneath)
            .args(args)
            .must_be_right();
        assert_eq!(
            finished.reports.len(),
            captures,
            "{}",
            finished.ended.story()
        );
    }
}

#[track_caller]
fn ends_with(args: &[&str], outcome: Outcome) {
    for beneath in [Beneath::Glibc, Beneath::Autolock] {
        for mode in [Mode::Sampled, Mode::Full] {
            let finished = Profiled::on(compile("ends").build(), mode, beneath)
                .args(args)
                .end();
            assert_eq!(
                finished.ended.outcome,
                outcome,
                "{}",
                finished.ended.story()
            );
            finished.must_be_right();
        }
    }
}

macro_rules! right {
    ($($test:ident: $args:expr, $captures:literal;)*) => {$(
        #[test]
        fn $test() {
            right("processes", &$args, $captures);
        }
    )*};
}

right! {
    a_child_starts_at_zero: ["fork"], 2;
    a_child_that_never_locks_leaves_nothing: ["silent"], 2;
    a_grandchild_too: ["twice"], 3;
    a_child_of_underscore_fork: ["underscore"], 2;
    a_lock_that_is_held_across_fork: ["holding"], 2;
    children_of_a_process_whose_threads_lock_all_the_time: ["among-threads"], 21;
    a_process_that_becomes_others_leaves_a_capture_for_each: ["exec-first"], 4;
    an_exec_that_fails_changes_nothing: ["exec-in-vain"], 1;
    vfork_and_posix_spawn: ["vfork-spawn"], 4;
    a_child_without_a_parent: ["orphaned"], 2;
}

macro_rules! ends {
    ($($test:ident: $mode:literal, $outcome:expr;)*) => {$(
        #[test]
        fn $test() {
            ends_with(&[$mode], $outcome);
        }
    )*};
}

ends! {
    return_from_main: "return", Outcome::Exited(0);
    exit: "exit", Outcome::Exited(3);
    underscore_exit: "_exit", Outcome::Exited(5);
    upper_case_exit: "_Exit", Outcome::Exited(6);
    quick_exit: "quick_exit", Outcome::Exited(4);
    abort: "abort", Outcome::Killed(6);
    a_crash: "crash", Outcome::Killed(11);
    a_kill: "kill", Outcome::Killed(9);
    exit_from_another_thread: "other-thread", Outcome::Exited(0);
    main_ends_before_its_threads: "main-leaves", Outcome::Exited(0);
    threads_that_come_and_go: "threads", Outcome::Exited(0);
    constructors_destructors_and_key_destructors: "odd-places", Outcome::Exited(0);
}

#[test]
fn a_library_that_is_opened_and_closed_again_and_again() {
    let library = library("names_library").build();
    ends_with(
        &["opened-late", &library.to_string_lossy()],
        Outcome::Exited(0),
    );
}

#[test]
fn locks_before_main() {
    Profiled::new(compile("ends").build(), Mode::Sampled)
        .args(&["odd-places"])
        .env("TRUTH_EARLY", "1")
        .must_be_right();
}
