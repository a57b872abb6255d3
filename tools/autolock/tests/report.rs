//! `autolock report` from outside, on captures made by hand: exit codes, one-line errors, text, JSON, and names from real binaries.

#[path = "support/synthetic.rs"]
mod synthetic;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use autolock_capture::layout::{frame, kind, site};
use object::{Object, ObjectSymbol};
use serde_json::Value;
use synthetic::{LockSays, MANY, SiteSays, Synthetic, server};

fn autolock(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_autolock"))
        .args(args)
        .output()
        .expect("autolock starts")
}

/// Its output, when it must go well.
fn report(args: &[&str]) -> String {
    let output = autolock(&[&["report"], args].concat());
    let error = text(&output.stderr);
    assert!(
        output.status.success() && error.is_empty(),
        "{args:?}: {error}"
    );
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&report(&[args, &["--json"]].concat())).expect("JSON")
}

/// A folder of its own for each test, gone afterwards.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).expect("written");
        self.path(name).to_str().expect("UTF-8").to_owned()
    }
}

#[test]
fn wrong_usage_is_one_line_and_exit_2() {
    for args in [
        &[][..],
        &["nonsense"],
        &["report"],
        &["report", "--nonsense", "x"],
        &["report", "--sort", "nothing", "x"],
        &["report", "--top", "x", "x"],
        &["report", "--diff", "a"],
        &["report", "--diff", "a", "b", "--list"],
        &["report", "c", "--diff", "a", "b"],
        &["report", "--list", "--json", "a"],
    ] {
        let output = autolock(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        assert!(error.starts_with("autolock: ") && output.stdout.is_empty());
    }
}

#[test]
fn what_is_no_capture_is_one_line_and_exit_1_and_the_others_are_reported() {
    let folder = Folder::new();
    let good = folder.write("good", &server().bytes());
    let cut = folder.write("cut", &server().bytes()[..1_000]);
    let other = folder.write("other", b"#!/bin/sh\n");
    let fifo = folder.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo").success());
    let fifo = fifo.to_str().expect("UTF-8");
    for bad in [&cut, &other, "/nowhere/x", "/dev/null", fifo, "/"] {
        for args in [
            &["report", bad, &good][..],
            &["report", bad],
            &["report", bad, "--json"],
            &["report", "--diff", bad, &good],
        ] {
            let output = autolock(args);
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
            assert!(error.contains(bad), "{error}");
        }
        let both = text(&autolock(&["report", bad, &good]).stdout);
        assert!(both.contains("server -t 4"), "{both}");
    }
}

#[test]
fn the_table_fits_100_columns_and_says_what_happened() {
    let folder = Folder::new();
    let mut capture = server();
    capture.dropped_operations(12);
    let path = folder.write("capture", &capture.bytes());
    let table = report(&[&path]);
    println!("{table}");
    let list = report(&[&path, "--list"]);
    assert!(
        list.lines().all(|line| line.chars().count() <= 100),
        "{list}"
    );
    assert!(table.contains(&list));
    for said in [
        "server -t 4",
        "pid 4242, recorded for 10.0s, sampled mode; it exited",
        "its locks are those of /nowhere/libc.so.6",
        "server+0x4010",
        "(x 200)",
        "because it was held there:",
        "Still waiting when it ended: 1 thread",
        "thread 4243 for 1.50s: server+0x4010 at 0x70001000, held by thread 4242",
        "Dropped: 12 operations not counted",
        "no names from /nowhere/server",
    ] {
        assert!(table.contains(said), "{said}:\n{table}");
    }
    // 20 holds of 100 ms.
    let row: Vec<&str> = list
        .lines()
        .skip_while(|l| !l.starts_with("server+0x4010"))
        .collect();
    assert!(
        row[0].contains("142ms") && row[1].contains("2.00s"),
        "{list}"
    );
}

#[test]
fn rows_are_sorted_cut_and_ungrouped_as_asked() {
    let folder = Folder::new();
    let path = folder.write("capture", &server().bytes());
    let first = |args: &[&str]| {
        let list = report(&[&[path.as_str(), "--list"], args].concat());
        // Below the two lines of the header.
        list.lines().nth(2).expect("a row").to_owned()
    };
    assert!(first(&[]).starts_with("server+0x4010"));
    assert!(first(&["--sort", "name"]).starts_with("mutex first used"));
    assert!(first(&["--sort", "acquired"]).starts_with("server+0x4010"));
    let rows = |args: &[&str]| {
        let list = report(&[&[path.as_str(), "--list"], args].concat());
        list.lines().filter(|line| line.contains(" wait ")).count()
    };
    assert_eq!(rows(&[]), 3);
    assert_eq!(rows(&["--top", "2"]), 2);
    assert_eq!(rows(&["--each", "--top", "100000"]), MANY as usize + 2);
    assert!(report(&[&path, "--top", "1"]).contains("2 more not shown"));
}

#[test]
fn json_has_totals_that_agree_with_its_sites() {
    let folder = Folder::new();
    let path = folder.write("capture", &server().bytes());
    let document = json(&[&path]);
    assert_eq!(document["version"], 1);
    assert_eq!(document["process"]["ending"], "exit");
    assert_eq!(document["totals"]["contended"], 101);
    assert_eq!(document["totals"]["wait_ns"], 142_000_000);
    let hot = &document["locks"][0];
    assert_eq!(hot["acquisitions"], 1_750);
    assert_eq!(hot["hold"]["total_ns"], 2_000_000_000_u64);
    let p50 = hot["hold"]["histogram"]["p50_ns"]
        .as_u64()
        .expect("a number");
    assert!(p50.abs_diff(100_000_000) <= 1_000_000, "{p50}");
    let sites = document["sites"].as_array().expect("sites");
    for kind in ["wait", "hold"] {
        let of_kind = sites.iter().filter(|s| s["kind"] == kind && s["lock"] == 0);
        let sum: u64 = of_kind.filter_map(|s| s["total_ns"].as_u64()).sum();
        assert_eq!(hot[kind]["total_ns"], sum);
    }
    let both = json(&[&path, &path]);
    assert_eq!(both.as_array().map(Vec::len), Some(2));
}

#[test]
fn two_captures_are_compared_lock_by_lock() {
    let folder = Folder::new();
    let a = folder.write("a", &server().bytes());
    let mut capture = server();
    let module = capture.module("/nowhere/new.so", &[]);
    capture.site(
        1,
        SiteSays(site::WAIT, 0, 0, [101, 142_000_000, 9_000_000, 101]),
    );
    capture.lock(LockSays {
        key: 0x9000,
        kind: kind::SPIN,
        place: frame::new(module, 0x77),
        acquisitions: 3,
        ..LockSays::default()
    });
    let b = folder.write("b", &capture.bytes());
    let text = report(&["--diff", &a, &b]);
    let line = text
        .lines()
        .find(|l| l.contains("wait in all"))
        .expect("a line");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["wait", "in", "all", "142ms", "284ms", "2.00"]);
    assert!(text.contains("Only in B: 1\n  new.so+0x77"), "{text}");
    let document = json(&["--diff", &a, &b]);
    let locks = document["locks"].as_array().expect("locks");
    assert_eq!(locks.len(), 4);
    assert_eq!(locks[0]["b"]["contended"], 202);
    let new = locks
        .iter()
        .find(|l| l["name"] == "new.so+0x77")
        .expect("the new lock");
    assert!(new["a"].is_null() && new["b"]["acquisitions"] == 3);
    for side in ["a", "b"] {
        let hot = &locks[0][side];
        let per_second = hot["wait"]["per_second_ns"].as_f64().expect("a number");
        let total = hot["wait"]["total_ns"].as_f64().expect("a number");
        assert!((per_second * 10.0 - total).abs() < 1.0);
    }
}

#[test]
fn files_are_written_and_of_several_captures_each_into_its_folder() {
    let folder = Folder::new();
    let path = folder.write("capture", &server().bytes());
    let out = folder.path("out");
    let written = |args: &[&str]| {
        let args = [&["report"], args, &["-o", out.to_str().expect("UTF-8")]].concat();
        let output = autolock(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(written(&[&path]).contains("server+0x4010"));
    let page = std::fs::read_to_string(out.join("index.html")).expect("a page");
    assert!(page.contains("server+0x4010"));
    std::fs::remove_dir_all(&out).expect("removed");
    let two = written(&[&path, &path, "--json"]);
    assert!(serde_json::from_str::<Value>(&two).is_ok());
    for name in ["capture", "capture.1"] {
        assert!(out.join(name).join("contention.pb.gz").is_file(), "{name}");
    }
    let blocked = folder.write("blocked", b"");
    let output = autolock(&["report", &path, "-o", &blocked]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
fn an_end_of_the_pipe_is_no_error() {
    let folder = Folder::new();
    let path = folder.write("capture", &server().bytes());
    let mut child = Command::new(env!("CARGO_BIN_EXE_autolock"))
        .args(["report", "--json", &path])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("autolock starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty());
}

/// A program with a lock inside a structure and a lock call inlined into its caller.
const PROGRAM: &str = r#"
#include <pthread.h>
struct cache { long pad[5]; pthread_mutex_t lock; };
struct cache the_cache;
static inline __attribute__((always_inline)) void lock_it(void) {
    pthread_mutex_lock(&the_cache.lock);
    __asm__ volatile(".globl after_lock\nafter_lock:");
}
__attribute__((noinline)) int use_cache(void) { lock_it(); return VARIANT; }
int main(void) { return use_cache(); }
"#;

fn tool(name: &str, args: &[&str]) {
    let output = Command::new(name).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(
        output.status.success(),
        "{name} {args:?}: {}",
        text(&output.stderr)
    );
}

fn compile(folder: &Folder, variant: &str) -> String {
    let source = folder.write("program.c", PROGRAM.as_bytes());
    let program = folder.path("program").to_str().expect("UTF-8").to_owned();
    let variant = format!("-DVARIANT={variant}");
    tool(
        "cc",
        &[
            "-g",
            "-O1",
            "-Wl,--build-id",
            &variant,
            &source,
            "-o",
            &program,
            "-lpthread",
        ],
    );
    program
}

/// A capture of that program: its lock, first used in `use_cache`.
fn capture_of(program: &Path) -> Synthetic {
    let bytes = std::fs::read(program).expect("the program");
    let file = object::File::parse(&*bytes).expect("ELF");
    let address = |name: &str| {
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
        symbol.expect("a symbol").address()
    };
    let id = file.build_id().expect("ELF").expect("a build id");
    let mut capture = Synthetic::new();
    let module = capture.module(program.to_str().expect("UTF-8"), id);
    let stack = capture.stack(&[(module, address("after_lock"))]);
    for (key, place) in [
        (0x5000, frame::new(module, address("the_cache") + 40)),
        (0x6000, 0),
    ] {
        let lock = capture.lock(LockSays {
            key,
            kind: kind::MUTEX,
            first_use: stack,
            place,
            acquisitions: 1,
            ..LockSays::default()
        });
        capture.site(lock, SiteSays(site::WAIT, stack, stack, [1, 5, 5, 1]));
    }
    capture
}

fn names(document: &Value) -> Vec<&str> {
    let locks = document["locks"].as_array().expect("locks");
    locks
        .iter()
        .filter_map(|lock| lock["name"].as_str())
        .collect()
}

#[test]
fn names_come_from_the_binary_and_its_debug_information_inlined_functions_too() {
    let folder = Folder::new();
    let program = compile(&folder, "0");
    let path = folder.write("capture", &capture_of(program.as_ref()).bytes());
    let wanted = [
        "the_cache+0x28",
        "mutex first used in lock_it (program.c:6)",
    ];
    let document = json(&[&path]);
    assert_eq!(names(&document), wanted);
    let functions = &document["stacks"][0]["frames"][0]["functions"];
    assert_eq!(functions[0]["name"], "lock_it");
    assert_eq!(
        (&functions[1]["name"], &functions[1]["line"]),
        (&"use_cache".into(), &9.into())
    );
    let before = json(&[&path])["locks"][0]["id"].clone();

    // Stripped, with its debug information beside it.
    let debug = folder
        .path("program.debug")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    tool("objcopy", &["--only-keep-debug", &program, &debug]);
    tool("strip", &["--strip-all", &program]);
    let without = json(&[&path]);
    assert!(
        names(&without)[0].starts_with("program+0x"),
        "{:?}",
        names(&without)
    );
    tool(
        "objcopy",
        &[&format!("--add-gnu-debuglink={debug}"), &program],
    );
    let document = json(&[&path]);
    assert_eq!(names(&document), wanted);
    assert_eq!(document["locks"][0]["id"], before);
}

#[test]
fn a_binary_that_was_built_anew_gives_no_names() {
    let folder = Folder::new();
    let program = compile(&folder, "0");
    let path = folder.write("capture", &capture_of(program.as_ref()).bytes());
    compile(&folder, "1");
    let document = json(&[&path]);
    assert!(
        names(&document)
            .iter()
            .all(|name| name.contains("program+0x"))
    );
    let note = document["notes"][0].as_str().expect("a note");
    assert!(note.contains("built anew"), "{note}");
}
