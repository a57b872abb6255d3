//! The command line from outside: exit codes, one-line errors, and a run that goes
//! through JSON. Timing is never judged here.

use std::path::Path;
use std::process::{Command, Output};

fn driver(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_driver"))
        .args(args)
        .output()
        .expect("driver starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn wrong_usage_is_one_line_and_exit_2() {
    for args in [
        &[][..],
        &["--bench", "--list"],
        &["--nonsense"],
        &["--bench", "--threads", "x"],
        &["--bench", "--gap", "-1"],
        &["--bench", "--cs", "5"],
        &["--bench", "--compare", "glibc,nobody"],
        &["--bench", "--baseline", "nobody"],
        &["--bench", "--lib", "/nowhere/libautolock.so"],
        &["--bench", "--single-threaded", "--threads", "2"],
        &["--bench", "--lock", "a=/a.so", "--lock", "a=/b.so"],
    ] {
        let output = driver(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        assert!(error.starts_with("driver: ") && output.stdout.is_empty());
    }
}

#[test]
fn a_file_that_cannot_be_read_or_written_is_one_line_and_exit_1() {
    for args in [
        &["--summary", "/nowhere/run.json"][..],
        &[
            "--bench",
            "--compare",
            "glibc",
            "--json",
            "/nowhere/run.json",
        ],
    ] {
        let output = driver(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(error.contains("/nowhere/run.json"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn the_list_names_every_lock_and_says_which_is_missing() {
    let output = driver(&["--list", "--lib", "/nowhere/a.so", "--lock", "mine=/b.so"]);
    let list = text(&output.stdout);
    assert!(output.status.success());
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(
        lines,
        [
            "glibc\tlibc.so.6",
            "autolock\t/nowhere/a.so (missing)",
            "mine\t/b.so (missing)"
        ]
    );
}

#[test]
fn help_shows_examples() {
    let output = driver(&["--help"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("driver --bench --single-threaded"));
}

fn bench(json: &Path, more: &[&str]) -> String {
    let path = json.to_str().expect("UTF-8");
    let common = [
        "--bench",
        "--compare",
        "glibc",
        "--duration",
        "20ms",
        "--rounds",
        "2",
    ];
    let output = driver(&[&common, more, &["--json", path]].concat());
    let error = text(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert_eq!(error, "", "nothing on stderr when it is no terminal");
    text(&output.stdout)
}

#[test]
fn a_run_prints_the_same_table_from_its_json() {
    let folder = tempfile::tempdir().expect("scratch folder");
    let json = folder.path().join("run.json");
    let table = bench(&json, &["--threads", "1,3", "--locks", "1,5", "--progress"]);
    assert_eq!(table.matches("| glibc |").count(), 4, "{table}");
    let output = driver(&["--summary", json.to_str().expect("UTF-8")]);
    let summary = text(&output.stdout);
    assert!(output.status.success());
    assert!(summary.starts_with(&table), "{summary}");
    assert!(
        summary.contains("worse than glibc") && summary.ends_with(": 0\n"),
        "{summary}"
    );
}

#[test]
fn the_single_threaded_mode_starts_no_thread() {
    // The driver asks glibc after every round and fails if there ever was a second one.
    let folder = tempfile::tempdir().expect("scratch folder");
    let json = folder.path().join("run.json");
    let more = [
        "--single-threaded",
        "--no-latency",
        "--gap",
        "0",
        "--progress",
    ];
    let table = bench(&json, &more);
    assert!(table.contains("single-threaded process"), "{table}");
    assert!(!table.contains("p99"), "{table}");
}
