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
        &["plot"],
        &["plot", "a.json", "b.json"],
        &["--bench", "plot", "a.json"],
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
        &["plot", "/nowhere/run.json"],
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

#[test]
fn a_run_is_plotted_beside_its_json_and_against_another() {
    let folder = tempfile::tempdir().expect("scratch folder");
    let json = folder.path().join("run.json");
    let other = folder.path().join("other.json");
    bench(&json, &["--threads", "1,2"]);
    bench(&other, &["--threads", "1,2"]);
    let (json, other) = (
        json.to_str().expect("UTF-8"),
        other.to_str().expect("UTF-8"),
    );
    for (args, made) in [
        (&["plot", json][..], "run-plots"),
        (
            &["plot", json, "--against", other],
            "run-against-other-plots",
        ),
    ] {
        let output = driver(args);
        let said = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let page = folder.path().join(made).join("index.html");
        assert!(said.contains(page.to_str().expect("UTF-8")), "{said}");
        let page = std::fs::read_to_string(page).expect("the page");
        assert!(page.contains("glibc") && page.contains("</html>"));
        // This driver's runs have histograms.
        assert!(page.contains("all rounds together"));
        let files = std::fs::read_dir(folder.path().join(made)).expect("the folder");
        let svg = files.filter(|f| {
            let path = f.as_ref().expect("entry").path();
            path.extension().is_some_and(|e| e == "svg")
        });
        assert!(svg.count() >= 6);
    }
    let blocked = folder.path().join("run.json").join("plots");
    let output = driver(&["plot", json, "--out", blocked.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.contains("cannot make the folder") && error.lines().count() == 1,
        "{error}"
    );
    let output = driver(&["plot", json, "--highlight", "nobody"]);
    assert_eq!(output.status.code(), Some(2));
}
