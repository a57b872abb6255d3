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
        &["--bench", "--threads", "8-4"],
        &["--bench", "--gap", "-1"],
        &["--bench", "--extra", "5 apples"],
        &["--bench", "--cs", "5"],
        &["--bench", "--iter", "0"],
        &["--bench", "--iter", "10", "--total", "10"],
        &["--bench", "--cpus", "none"],
        &["--bench", "glibc", "--cpus", "1023"],
        &["--bench", "glibc", "--num-cpus", "100000"],
        &["--bench", "nobody"],
        &["--bench", "glibc", "nobody*"],
        &["--bench", "{glibc"],
        &["--list", "nobody"],
        &["--champion", "glibc"],
        &["--summary", "run.json", "glibc"],
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
            "glibc",
            "--rounds",
            "1",
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
fn a_name_that_matches_nothing_brings_up_the_known_ones() {
    for args in [
        &["--bench", "mcs", "nobody*"],
        &["--list", "--all", "nobody*"],
    ] {
        let error = text(&driver(args).stderr);
        assert!(error.starts_with("driver: no lock is called 'nobody*'; known: glibc, autolock, "));
        assert!(error.contains("tas") && error.contains("mcs"), "{error}");
    }
}

/// The cells of a tab-separated list, without its header.
fn list(args: &[&str]) -> Vec<Vec<String>> {
    let output = driver(&[&["--list"], args].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let list = text(&output.stdout);
    let mut rows = list
        .lines()
        .map(|l| l.split('\t').map(str::to_owned).collect());
    let header: Option<Vec<String>> = rows.next();
    assert_eq!(
        header.expect("a header"),
        ["name", "order", "waiting", "about", "source"]
    );
    rows.collect()
}

#[test]
fn the_list_describes_every_lock_and_says_which_is_missing() {
    let rows = list(&["--lib", "/nowhere/a.so", "--lock", "mine=/b.so"]);
    assert!(rows.iter().all(|row| row.len() == 5), "{rows:?}");
    assert_eq!(rows[0][0], "glibc");
    assert_eq!(rows[1][0], "autolock");
    assert!(rows[1][3].ends_with("/nowhere/a.so (missing)"), "{rows:?}");
    let mine = rows.iter().find(|row| row[0] == "mine").expect("its row");
    assert_eq!(mine[3], "/b.so (missing)");
    assert!(rows.len() > 4, "the collection is missing: {rows:?}");
}

#[test]
fn patterns_choose_as_for_file_names() {
    let names = |patterns: &[&str]| -> Vec<String> {
        list(patterns)
            .into_iter()
            .map(|row| row[0].clone())
            .collect()
    };
    assert_eq!(names(&["mcs"]), ["mcs"]);
    assert_eq!(names(&["{mcs,tas}", "gl?bc"]), ["glibc", "tas", "mcs"]);
    assert!(names(&["m*"]).contains(&"mcs".to_owned()));
    assert_eq!(names(&["--all"]), names(&[]));
}

#[test]
fn help_shows_examples() {
    let output = driver(&["--help"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("driver --bench --single-threaded"));
}

fn bench(json: &Path, more: &[&str]) -> String {
    let path = json.to_str().expect("UTF-8");
    let mut common = vec!["--bench", "glibc", "--rounds", "2"];
    if !more.contains(&"--iter") && !more.contains(&"--total") {
        common.extend(["--duration", "20ms"]);
    }
    let output = driver(&[&common[..], more, &["--json", path]].concat());
    let error = text(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert_eq!(error, "", "nothing on stderr when it is no terminal");
    text(&output.stdout)
}

#[test]
fn a_run_prints_the_same_table_from_its_json() {
    let folder = tempfile::tempdir().expect("scratch folder");
    let json = folder.path().join("run.json");
    let table = bench(&json, &["--threads", "1,3", "--locks", "1,5"]);
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
    let more = ["--single-threaded", "--no-latency", "--gap", "0"];
    let table = bench(&json, &more);
    assert!(table.contains("single-threaded process"), "{table}");
    assert!(!table.contains("p99"), "{table}");
}

/// The records of a CSV, and its facts; by column and row.
struct Csv {
    facts: Vec<String>,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Csv {
    /// No field of these runs has a comma in it.
    fn read(text: &str) -> Csv {
        let (facts, lines): (Vec<_>, Vec<_>) = text.lines().partition(|l| l.starts_with("# "));
        let split = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut lines = lines.into_iter().map(split);
        Csv {
            facts: facts.into_iter().map(str::to_owned).collect(),
            header: lines.next().expect("a header"),
            rows: lines.collect(),
        }
    }

    fn column(&self, name: &str) -> Vec<&str> {
        let column = self.header.iter().position(|h| h == name);
        let column = column.unwrap_or_else(|| panic!("no column {name}"));
        self.rows.iter().map(|row| &row[column][..]).collect()
    }
}

#[test]
fn fixed_work_is_exact_in_the_csv() {
    let folder = tempfile::tempdir().expect("scratch folder");
    let json = folder.path().join("run.json");
    for (work, expected) in [
        (["--iter", "2k"], ["2000", "6000"]),
        (["--total", "5003"], ["5003", "5003"]),
    ] {
        let more = [&work[..], &["--threads", "1,3", "--csv", "--pin"]].concat();
        let csv = Csv::read(&bench(&json, &more));
        for (threads, ops) in csv.column("threads").iter().zip(csv.column("ops")) {
            assert_eq!(ops, expected[usize::from(*threads == "3")], "{work:?}");
        }
        assert_eq!(csv.rows.len(), 4);
        for (first, all) in csv.column("first_s").iter().zip(csv.column("elapsed_s")) {
            let (first, all): (f64, f64) = (first.parse().expect("s"), all.parse().expect("s"));
            assert!(0.0 < first && first <= all, "{first} {all}");
        }
        let facts = csv.facts.join("\n");
        for fact in [
            "# CPU: ",
            "# Linux: ",
            "# glibc: 2.",
            "# on-CPU source: user",
            "# pinned: true",
        ] {
            assert!(facts.contains(fact), "{fact} is not in {facts}");
        }
    }
}

#[test]
fn the_csv_of_a_run_and_of_its_json_are_the_same_and_without_a_time_there_is_no_first() {
    let folder = tempfile::tempdir().expect("scratch folder");
    let json = folder.path().join("run.json");
    let text_of_run = bench(&json, &["--threads", "2", "--csv"]);
    let output = driver(&["--csv", "--summary", json.to_str().expect("UTF-8")]);
    assert_eq!(text(&output.stdout), text_of_run);
    let csv = Csv::read(&text_of_run);
    assert_eq!(csv.column("first_s"), ["", ""]);
    assert_eq!(csv.column("lock"), ["glibc", "glibc"]);
    assert!(
        csv.column("changed_hands")
            .iter()
            .all(|n| n.parse::<u64>().is_ok())
    );
}

#[test]
fn locks_of_the_collection_run_beside_the_baseline_and_are_judged() {
    let folder = tempfile::tempdir().expect("scratch folder");
    let json = folder.path().join("run.json");
    let more = ["tas", "--threads", "1-2", "--futex-calls", "own"];
    let table = bench(&json, &more);
    for lock in ["| glibc |", "| tas   |"] {
        assert_eq!(table.matches(lock).count(), 2, "{table}");
    }
    let json = json.to_str().expect("UTF-8");
    let output = driver(&["--summary", json, "--champion", "tas"]);
    let summary = text(&output.stdout);
    assert!(summary.contains("min..max of 2 rounds"), "{summary}");
    let verdict = summary.lines().last().expect("lines");
    assert!(
        verdict.starts_with("tas is ") && verdict.contains("2 cells"),
        "{summary}"
    );
    let output = driver(&["--summary", json, "--champion", "mcs"]);
    assert_eq!(output.status.code(), Some(2), "not in this run");
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
fn progress_that_is_asked_for_is_a_line_for_each_cell_where_there_is_no_terminal() {
    let args = "--bench glibc --rounds 1 --duration 5ms --warm-up 1ms --threads 1,2 --progress";
    let output = driver(&args.split(' ').collect::<Vec<_>>());
    let error = text(&output.stderr);
    assert!(
        error.starts_with("driver: cell 1 of 2: threads 1,"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn a_run_that_takes_long_says_so_at_once() {
    // It cannot write its JSON only after it has said so; the file is the first thing that it writes.
    let args = "--bench glibc --threads 1-100 --rounds 100 --json /dev/full";
    let output = driver(&args.split(' ').collect::<Vec<_>>());
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("(100 cells, 1 locks, 100 each) take 4h 11m"),
        "{error}"
    );
}

#[test]
fn a_committed_run_of_the_past_is_still_read() {
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/runs");
    let run = runs.join("2026-11-21-2-core-intel-xeon/contended.json");
    let output = driver(&[
        "--summary",
        run.to_str().expect("UTF-8"),
        "--champion",
        "autolock",
    ]);
    let summary = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(summary.contains("value 2 to 8 of 9"), "{summary}");
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
