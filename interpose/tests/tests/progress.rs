//! Nobody is left asleep on a free lock, whatever happens to the other waiters, and nobody touches
//! a mutex that is no longer his.

use std::time::Duration;

use autolock_tests::{Compile, Installable, Outcome, Run, autolock, both_pass, skipped};

const KINDS: [&str; 5] = ["default", "normal", "recursive", "errorcheck", "adaptive"];

#[test]
fn unlock_does_not_touch_the_mutex_after_its_release() {
    both_pass("release_is_final", &[]);
}

#[test]
fn the_next_owner_may_destroy_and_unmap_a_mutex_at_once() {
    for kind in KINDS {
        both_pass("destroy_after_unlock", &[kind]);
    }
    both_pass("destroy_after_unlock", &["default", "pshared"]);
}

#[test]
fn a_waiting_process_that_is_killed_leaves_nobody_asleep() {
    both_pass("lost_waiter", &["kill-waiting"]);
}

#[test]
fn a_waiting_process_that_is_stopped_leaves_nobody_asleep() {
    both_pass("lost_waiter", &["stop-waiting"]);
}

/// On glibc these hang: the wake-up dies with the process that was woken.
#[test]
fn a_process_that_is_killed_or_stopped_when_woken_leaves_nobody_asleep() {
    let program = Compile::program("lost_waiter").build();
    for how in ["kill-woken", "stop-woken"] {
        Run::new(&program)
            .arg(how)
            .preload(autolock())
            .end()
            .must_succeed();
    }
}

fn frozen(how: &str, on_glibc_too: bool) {
    let program = Compile::program("frozen_waiter").build();
    let ours = Run::new(&program).arg(how).preload(autolock()).end();
    if ours.outcome == Outcome::Exited(77) {
        return skipped(
            &format!("frozen_waiter: {}", ours.stderr.trim_end()),
            Installable::No,
        );
    }
    ours.must_succeed();
    if on_glibc_too {
        Run::new(&program).arg(how).end().must_succeed();
    }
}

#[test]
fn a_waiting_thread_that_is_frozen_leaves_nobody_asleep() {
    frozen("waiting", true);
}

/// On glibc this hangs until the thread is let go on.
#[test]
fn a_thread_that_is_frozen_when_woken_leaves_nobody_asleep() {
    frozen("woken", false);
}

#[test]
fn a_waiter_that_gives_up_leaves_nobody_asleep() {
    both_pass("timed_out_waiter", &[]);
}

#[test]
fn waiters_of_sched_idle_beside_busy_cpus_leave_nobody_asleep() {
    both_pass("starved_waiter", &[]);
}

#[test]
fn a_polite_thread_among_greedy_ones_gets_its_turns() {
    both_pass("no_thread_starves", &[]);
}

#[test]
fn waiters_that_signals_interrupt_get_the_mutex_all_the_same() {
    // 20 s of CPU time; the program itself says when nobody gets on.
    let path = Compile::program("signal_storm").build();
    for preload in [None, Some(autolock())] {
        let mut run = Run::new(&path).deadline(Duration::from_secs(300));
        if let Some(library) = preload {
            run = run.preload(library);
        }
        run.end().must_succeed();
    }
}

#[test]
fn thousands_of_threads_and_a_hundred_thousand_mutexes() {
    both_pass("many", &[]);
}
