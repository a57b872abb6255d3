//! How often and how long: what a program counted and timed itself, the record says too. In both modes, on glibc, on libautolock.so and on another lock beneath.

use autolock_tests::{Compile, Installable, cxx_compiler, skipped};
use profile_tests::{Beneath, Mode, Profiled, compile};
use std::path::Path;

const SETUPS: [(Mode, Beneath); 5] = [
    (Mode::Sampled, Beneath::Glibc),
    (Mode::Full, Beneath::Glibc),
    (Mode::Sampled, Beneath::Autolock),
    (Mode::Full, Beneath::Autolock),
    (Mode::Sampled, Beneath::Algorithm("mcs_stp")),
];

#[track_caller]
fn right_everywhere(program: &Path, args: &[&str]) {
    for (mode, beneath) in SETUPS {
        Profiled::on(program, mode, beneath)
            .args(args)
            .must_be_right();
    }
}

macro_rules! right {
    ($($test:ident: $program:literal $args:expr;)*) => {$(
        #[test]
        fn $test() {
            right_everywhere(&compile($program).build(), &$args);
        }
    )*};
}

right! {
    twenty_holds_of_100_ms_are_two_seconds: "holds" ["long", "20", "100"];
    each_of_many_locks_has_its_own_count: "holds" ["counts"];
    every_kind_of_mutex_and_every_call: "holds" ["kinds"];
    a_dead_owners_mutex_is_acquired: "holds" ["owner-dead"];
    failed_tries_are_no_acquisitions: "holds" ["try-storm"];
    a_recursive_hold_lasts_from_first_to_last: "holds" ["recursive"];
    unlocked_by_another_thread: "holds" ["handed-over"];
    long_holds_after_a_burst_of_short_ones: "holds" ["burst"];
    more_held_at_once_than_a_thread_remembers: "holds" ["many-held"];
    destroyed_and_made_again: "holds" ["remade"];
    an_idle_condition_variable_is_no_hold: "conditions" ["idle", "plain", "500", "0"];
    nor_with_a_time_limit: "conditions" ["idle", "timed", "200", "30"];
    nor_with_a_clock_of_its_own: "conditions" ["idle", "clock", "200", "30"];
    nor_is_it_a_wait_for_a_mutex_that_the_signaller_keeps: "conditions" ["idle", "plain", "500", "100"];
    condition_variables_that_time_out: "conditions" ["times-out"];
    producers_and_consumers: "conditions" ["queue"];
    a_cancelled_wait_on_a_condition_variable: "conditions" ["cancelled"];
    a_recursive_mutex_that_is_waited_with: "conditions" ["recursive"];
    c11_locks: "c11" [];
    every_call_of_read_write_locks: "rwlocks" ["counts"];
    readers_and_writers_at_once: "rwlocks" ["mixed"];
    spin_locks: "spins" [];
}

#[test]
fn cxx_locks() {
    if !cxx_compiler() {
        return skipped("no C++ compiler", Installable::Apt("g++"));
    }
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let program = Compile::cxx_program("cxx").in_folder(programs).build();
    right_everywhere(&program, &[]);
}
