//! glibc's own code works on the same mutexes at the same time: condition variables, C11, the C++
//! library, libraries opened with RTLD_DEEPBIND, processes without the preload.

use autolock_tests::{
    Compile, Installable, Run, autolock, both_pass, cxx_compiler, same_transcript, skipped,
};

#[test]
fn a_bounded_queue_works_with_condition_variables_on_every_kind() {
    for kind in ["default", "normal", "recursive", "errorcheck", "adaptive"] {
        both_pass("cond_queue", &[kind]);
        both_pass("cond_queue", &[kind, "pshared"]);
    }
}

#[test]
fn no_wake_up_is_lost_in_a_ring_of_condition_variables() {
    both_pass("cond_ring", &[]);
}

#[test]
fn c11_mutexes_and_conditions_are_as_on_glibc() {
    same_transcript("c11_threads", &[]);
}

#[test]
fn cxx_mutexes_and_conditions_are_as_on_glibc() {
    if !cxx_compiler() {
        return skipped("no C++ compiler", Installable::Apt("g++"));
    }
    let program = Compile::cxx_program("cxx_locks").build();
    let stock = Run::new(&program).end().must_succeed();
    let ours = Run::new(&program).preload(autolock()).end().must_succeed();
    assert!(stock.stdout.lines().count() > 8, "{}", stock.stdout);
    assert_eq!(stock.stdout, ours.stdout);
}

#[test]
fn a_deepbind_library_on_glibcs_functions_shares_the_mutexes() {
    let library = Compile::library("deepbind_library").build();
    both_pass("deepbind", &[&library.to_string_lossy()]);
}

#[test]
fn processes_with_the_preload_share_a_mutex() {
    both_pass("process_shared", &["both"]);
}

#[test]
fn a_process_without_the_preload_shares_a_mutex_with_one_that_has_it() {
    both_pass("process_shared", &["mixed"]);
}
