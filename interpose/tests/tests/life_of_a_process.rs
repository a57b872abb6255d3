//! Mutexes from the first constructor to the last destructor: fork, dlopen, other preloads, signal
//! handlers, threads that end and threads that outlive main.

use autolock_tests::{Compile, Run, autolock, both_pass, same_transcript};

#[test]
fn a_fork_child_is_judged_as_the_owner_that_it_is() {
    same_transcript("fork_owner", &[]);
}

#[test]
fn fork_under_contention_leaves_working_mutexes_on_both_sides() {
    both_pass("fork_under_contention", &[]);
}

fn with_loader_library(args: &[&str]) {
    let program = Compile::program("loader").flag("-rdynamic").build();
    let library = Compile::library("loader_library").build();
    Run::new(&program)
        .arg(&library)
        .args(args)
        .end()
        .must_succeed();
    Run::new(&program)
        .arg(&library)
        .args(args)
        .preload(autolock())
        .end()
        .must_succeed();
}

#[test]
fn constructors_and_destructors_of_opened_libraries_may_fight_for_locks() {
    with_loader_library(&[]);
}

#[test]
fn any_mutex_call_may_be_the_first_while_dlopen_holds_its_lock() {
    with_loader_library(&["first"]);
}

#[test]
fn mutexes_work_in_atexit_handlers_and_destructors() {
    same_transcript("exit_paths", &["return"]);
}

#[test]
fn threads_that_outlive_main_keep_their_mutexes() {
    same_transcript("exit_paths", &["outlive"]);
}

#[test]
fn another_preload_may_lock_before_our_constructor_and_after_our_destructor() {
    let program = Compile::program("exit_paths").build();
    let early = Compile::library("early_preload").build();
    let stock = Run::new(&program)
        .arg("return")
        .preload(&early)
        .env("TEST_PRELOAD", "no")
        .env("EARLY_PRELOAD", "1")
        .end()
        .must_succeed();
    // The constructor of whichever is listed last runs first.
    for order in [[early.clone(), autolock()], [autolock(), early]] {
        let mut run = Run::new(&program).arg("return").env("EARLY_PRELOAD", "1");
        for library in order {
            run = run.preload(library);
        }
        assert_eq!(run.end().must_succeed().stdout, stock.stdout);
    }
}

#[test]
fn mutexes_work_in_destructors_of_thread_keys() {
    both_pass("thread_exit", &[]);
}

#[test]
fn signals_neither_end_nor_shorten_a_wait_and_their_handlers_may_lock() {
    both_pass("signals", &[]);
}

#[test]
fn cancellation_meets_locked_mutexes_as_posix_has_it() {
    both_pass("cancellation", &[]);
}
