//! `--test` from outside: locks that work pass, locks that are broken on purpose fail the test that their fault is for, and
//! a failure can be had again by the command that its line gives. Timing is never judged.

use std::process::{Command, Output};

const TESTS: [&str; 7] = [
    "exclusion",
    "try_lock",
    "starvation",
    "misuse",
    "oversubscription",
    "preemption",
    "wakeups",
];

fn driver(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_driver"))
        .args(args)
        .output()
        .expect("driver starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// What it says, and that the exit code is `code`.
fn test(args: &[&str], code: i32) -> String {
    let output = driver(&[&["--test"], args].concat());
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

#[test]
fn locks_that_work_pass() {
    let said = test(&["glibc", "tas", "mcs", "--threads", "1,2,4"], 0);
    for lock in ["glibc", "tas", "mcs"] {
        let row = said.lines().find(|l| l.starts_with(&format!("| {lock} ")));
        let row = row.unwrap_or_else(|| panic!("no row of {lock}: {said}"));
        assert_eq!(row.matches("PASS").count(), TESTS.len(), "{said}");
    }
    assert!(said.contains("63 passed, 0 failed"), "{said}");
}

#[test]
fn the_busted_lock_fails_every_test() {
    let said = test(&["busted", "--threads", "4"], 1);
    for name in TESTS {
        let failure = format!("FAIL busted: {name} with 4 threads: ");
        assert!(said.contains(&failure), "{name}: {said}");
    }
    assert!(said.contains("0 passed, 7 failed"), "{said}");
}

#[test]
fn each_test_notices_the_fault_that_it_is_for() {
    for name in TESTS {
        let lock = format!("busted_{name}");
        let said = test(&[&lock, "--only", name, "--threads", "4"], 1);
        assert!(said.contains("0 passed, 1 failed"), "{said}");
    }
}

#[test]
fn a_lock_that_loses_a_wake_up_is_a_failure_and_not_a_hang() {
    let said = test(
        &["busted_wakeups", "--only", "wakeups", "--threads", "4"],
        1,
    );
    assert!(said.contains("all threads asleep"), "{said}");
}

#[test]
fn a_failure_says_how_to_have_it_again() {
    let first = test(&["busted_{starvation,misuse}", "--threads", "4"], 1);
    let again = |said: &str| -> Vec<String> {
        said.lines()
            .filter_map(|line| Some(line.split_once("; again: driver ")?.1.to_owned()))
            .collect()
    };
    let commands = again(&first);
    assert_eq!(commands.len(), 2, "{first}");
    for command in commands {
        let words: Vec<_> = command.split(' ').collect();
        let said = test(&words[1..], 1);
        assert_eq!(again(&said), [command.as_str()], "{said}");
    }
}

#[test]
fn wrong_usage_is_one_line_and_exit_2() {
    for args in [
        &["nobody"][..],
        &["--only", "nonsense"],
        &["tas", "--threads", "0"],
        &["tas", "--seed", "x"],
        &["tas", "--duration", "5"],
        &["--bench"],
    ] {
        let said = test(args, 2);
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    }
    let output = driver(&["--bench", "--seed", "1"]);
    assert_eq!(output.status.code(), Some(2), "--seed is for --test");
}

#[test]
fn the_list_says_what_the_broken_locks_are() {
    let list = text(&driver(&["--list", "busted*"]).stdout);
    let broken = list
        .lines()
        .filter(|line| line.contains("broken on purpose"));
    assert_eq!(broken.count(), 1 + TESTS.len(), "{list}");
}
