//! Who waited where, for whom: threads that provably wait, in functions with names.

use autolock_tests::Outcome;
use profile_tests::{Beneath, Mode, Profiled, compile};

const SETUPS: [(Mode, Beneath); 5] = [
    (Mode::Sampled, Beneath::Glibc),
    (Mode::Full, Beneath::Glibc),
    (Mode::Sampled, Beneath::Autolock),
    (Mode::Full, Beneath::Autolock),
    (Mode::Sampled, Beneath::Algorithm("mcs_stp")),
];

#[track_caller]
fn right_everywhere(program: &str, args: &[&str]) {
    let program = compile(program).build();
    for (mode, beneath) in SETUPS {
        Profiled::on(&program, mode, beneath)
            .args(args)
            .must_be_right();
    }
}

#[test]
fn a_wait_is_charged_to_the_waiter_and_the_holder_it_waited_for() {
    right_everywhere("waits", &["pairs"]);
}

#[test]
fn five_waiters_at_once_are_five() {
    right_everywhere("waits", &["five"]);
}

#[test]
fn owners_that_change_are_counted() {
    right_everywhere("waits", &["turns"]);
}

#[test]
fn a_time_out_is_charged_to_the_holder_and_is_no_acquisition() {
    right_everywhere("waits", &["time-outs"]);
}

#[test]
fn readers_beside_writers() {
    right_everywhere("rwlocks", &["beside"]);
}

#[test]
fn a_deadlock_that_was_killed_says_who_waits_for_whom() {
    let program = compile("waits").build();
    for (mode, beneath) in SETUPS {
        let finished = Profiled::on(&program, mode, beneath)
            .args(&["deadlock"])
            .end();
        assert_eq!(
            finished.ended.outcome,
            Outcome::Killed(9),
            "{}",
            finished.ended.story()
        );
        finished.must_be_right();
    }
}
