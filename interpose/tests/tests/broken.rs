//! The tests can fail: preloads with one thing wrong (`programs/broken_preload.c`), each met by the
//! program that is there to catch it. The same preload with nothing wrong passes, here and now, so
//! that each failure is the broken part's own.

use autolock_tests::{Compile, Installable, Run, cxx_compiler, must_break, skipped};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn preload(variant: &str) -> PathBuf {
    Compile::library("broken_preload")
        .define("BROKEN", variant)
        .build()
}

/// `program` passes under the control and does not under `variant`. A hang counts when every
/// thread sleeps for a second, or when it lasts six times as long as the whole passing run and two
/// seconds.
fn caught_by(program: PathBuf, args: &[&str], variant: &str) {
    let start = Instant::now();
    let control = Run::new(&program)
        .args(args)
        .preload(preload("BREAK_NONE"))
        .end()
        .must_succeed();
    let deadline = Duration::from_secs(2) + 6 * start.elapsed();
    if control.stdout.is_empty() {
        must_break(&program, args, &preload(variant), deadline);
        return;
    }
    // A transcript: a difference is a failure too.
    let broken = Run::new(&program)
        .args(args)
        .preload(preload(variant))
        .deadline(deadline)
        .give_up_on_sleepers()
        .end();
    assert!(
        !broken.succeeded() || broken.stdout != control.stdout,
        "{} prints what it prints on a lock that works",
        broken.what
    );
}

macro_rules! caught {
    ($($test:ident: $variant:literal by $program:literal $args:expr;)*) => {$(
        #[test]
        fn $test() {
            caught_by(Compile::program($program).build(), &$args, $variant);
        }
    )*};
}

caught! {
    a_wrong_errno_is_caught: "BREAK_ERRNO" by "kinds_and_errors" [];
    a_forgotten_user_is_caught: "BREAK_NUSERS" by "raw_state" [];
    a_lock_that_needs_init_is_caught: "BREAK_NEEDS_INIT" by "static_initialisers" [];
    a_write_past_the_end_is_caught: "BREAK_NEIGHBOUR" by "misuse" [];
    no_exclusion_is_caught: "BREAK_EXCLUSION" by "torture" ["8", "1", "100000", "pure"];
    no_exclusion_is_caught_among_everything: "BREAK_EXCLUSION" by "torture" ["16", "8", "20000", "mixed"];
    an_unlock_that_never_wakes_is_caught: "BREAK_NO_WAKE" by "torture" ["8", "1", "100000", "pure"];
    waiters_of_glibc_left_asleep_are_caught: "BREAK_FOREIGN_WAITERS" by "cond_queue" ["default"];
    waiters_of_glibc_left_asleep_are_caught_in_a_ring: "BREAK_FOREIGN_WAITERS" by "cond_ring" [];
    waiters_of_glibc_left_asleep_are_caught_in_a_storm: "BREAK_FOREIGN_WAITERS" by "cond_storm" [];
    waiters_of_c11_left_asleep_are_caught: "BREAK_FOREIGN_WAITERS" by "c11_threads" [];
    waiters_without_the_preload_left_asleep_are_caught: "BREAK_FOREIGN_WAITERS" by "process_shared" ["mixed"];
    private_futexes_on_shared_mutexes_are_caught: "BREAK_PRIVATE_FUTEX" by "process_shared" ["both"];
    a_touch_after_the_release_is_caught: "BREAK_TOUCH" by "release_is_final" [];
    a_touch_after_the_wake_is_caught: "BREAK_TOUCH_LATE" by "release_is_final" [];
    a_look_back_at_a_freed_mutex_is_caught: "BREAK_LINGER" by "destroy_after_unlock" ["default"];
    a_parents_thread_id_is_caught: "BREAK_STALE_TID" by "fork_owner" [];
    a_parents_thread_id_is_caught_under_contention: "BREAK_STALE_TID" by "fork_under_contention" [];
    a_parents_spinner_is_caught: "BREAK_SPINNER_DUTY" by "fork_under_contention" [];
    a_dead_spinners_duty_is_caught: "BREAK_SPINNER_DUTY" by "lost_waiter" ["kill-waiting"];
    a_stopped_spinners_duty_is_caught: "BREAK_SPINNER_DUTY" by "lost_waiter" ["stop-waiting"];
    a_frozen_spinners_duty_is_caught: "BREAK_SPINNER_DUTY" by "frozen_waiter" ["waiting"];
    state_lost_before_key_destructors_is_caught: "BREAK_TLS_DESTRUCTOR" by "thread_exit" [];
    eintr_is_caught: "BREAK_EINTR" by "signals" [];
    an_early_timeout_is_caught: "BREAK_EARLY_TIMEOUT" by "signals" [];
    an_allocation_on_the_slow_path_is_caught: "BREAK_MALLOC" by "no_allocation" [];
    a_system_call_that_sandboxes_refuse_is_caught: "BREAK_YIELD" by "environment" ["sandbox"];
    a_wait_that_acts_on_a_cancellation_is_caught: "BREAK_CANCEL" by "cancellation" [];
    a_write_past_one_of_many_mutexes_is_caught: "BREAK_NEIGHBOUR" by "many" [];
    a_timed_waiters_duty_is_caught: "BREAK_TIMED_DUTY" by "timed_out_waiter" [];
    a_robust_mutex_not_passed_on_is_caught: "BREAK_KEEPS_ROBUST" by "delegation" [];
    waiters_that_get_nowhere_are_caught: "BREAK_RARE_LOOKS" by "no_thread_starves" [];
    waiters_that_get_nowhere_are_caught_beside_busy_cpus: "BREAK_RARE_LOOKS" by "starved_waiter" [];
    a_spoilt_errno_is_caught: "BREAK_SPOILS_ERRNO" by "torture" ["16", "8", "20000", "mixed"];
    a_wait_spoilt_by_a_handler_is_caught: "BREAK_HANDLER" by "signals" [];
}

/// A plain futex lock, as glibc's, loses the wake-up together with the process that was woken:
/// what these two demand is more than a lock without faults gives.
#[test]
fn a_sleep_without_a_backstop_is_caught() {
    for (name, how) in [("lost_waiter", "kill-woken"), ("frozen_waiter", "woken")] {
        let program = Compile::program(name).build();
        must_break(
            &program,
            &[how],
            &preload("BREAK_NONE"),
            Duration::from_secs(4),
        );
    }
}

#[test]
fn waiters_of_cxx_left_asleep_are_caught() {
    if !cxx_compiler() {
        return skipped("no C++ compiler", Installable::Apt("g++"));
    }
    let program = Compile::cxx_program("cxx_locks").build();
    caught_by(program, &[], "BREAK_FOREIGN_WAITERS");
}

#[test]
fn a_deepbind_librarys_waiters_left_asleep_are_caught() {
    let library = Compile::library("deepbind_library").build();
    caught_by(
        Compile::program("deepbind").build(),
        &[&library.to_string_lossy()],
        "BREAK_FOREIGN_WAITERS",
    );
}

#[test]
fn a_late_look_up_under_the_loaders_lock_is_caught() {
    let library = Compile::library("loader_library").build();
    caught_by(
        Compile::program("loader").flag("-rdynamic").build(),
        &[&library.to_string_lossy(), "first"],
        "BREAK_LATE_DLSYM",
    );
}

#[test]
fn a_lock_that_needs_its_constructor_or_dies_with_its_destructor_is_caught() {
    let program = Compile::program("exit_paths").build();
    let early = Compile::library("early_preload").build();
    for variant in ["BREAK_NONE", "BREAK_NEEDS_CONSTRUCTOR", "BREAK_DESTRUCTOR"] {
        let ended = Run::new(&program)
            .arg("return")
            .env("EARLY_PRELOAD", "1")
            .preload(preload(variant))
            .preload(&early)
            .end();
        assert_eq!(
            ended.succeeded(),
            variant == "BREAK_NONE",
            "{}",
            ended.story()
        );
    }
}
