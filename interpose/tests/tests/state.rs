//! What a caller can see of a mutex: results, errors and the fields that glibc's own code reads.

use autolock_tests::same_transcript;

#[test]
fn every_operation_on_every_kind_returns_what_glibc_returns() {
    same_transcript("kinds_and_errors", &[]);
}

#[test]
fn the_fields_that_glibc_reads_are_as_glibc_leaves_them() {
    same_transcript("raw_state", &[]);
}

#[test]
fn static_initialisers_of_every_kind_need_no_init() {
    same_transcript("static_initialisers", &[]);
}

#[test]
fn misuse_does_what_it_does_on_glibc_and_harms_no_neighbour() {
    same_transcript("misuse", &[]);
}

#[test]
fn robust_and_priority_mutexes_are_glibcs_own() {
    same_transcript("delegation", &[]);
}
