//! Many threads, many mutexes, everything at once. `broken.rs` shows that these can fail.

use autolock_tests::both_pass;

#[test]
fn two_threads_one_lock() {
    both_pass("torture", &["2", "1", "3000000", "pure"]);
}

#[test]
fn eight_threads_one_lock() {
    both_pass("torture", &["8", "1", "500000", "pure"]);
}

#[test]
fn many_threads_few_locks() {
    both_pass("torture", &["48", "3", "60000", "pure"]);
}

#[test]
fn every_operation_on_one_lock() {
    both_pass("torture", &["8", "1", "150000", "mixed"]);
}

#[test]
fn every_operation_on_every_kind() {
    both_pass("torture", &["16", "15", "150000", "mixed"]);
}

#[test]
fn as_many_locks_as_threads() {
    both_pass("torture", &["40", "40", "50000", "mixed"]);
}
