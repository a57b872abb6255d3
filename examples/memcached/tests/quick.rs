//! The program end to end, with loads too small to say anything about speed.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the program with a small load from memcslap; memaslap would need the network to be built.
fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memcached-example"))
        .args([
            "--generator",
            "memcslap",
            "--threads",
            "2",
            "--duration",
            "300ms",
        ])
        .args(["--connections", "4", "--rounds", "1"])
        .args(arguments)
        .output()
        .expect("the program starts")
}

/// Whether memcached and memcslap are here. Where they can be had from apt, CI must have them.
fn tools_are_here() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for tool in ["memcached", "memcslap"] {
        if !std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()) {
            let reason = format!("{tool} is missing: apt-get install memcached libmemcached-tools");
            assert!(std::env::var_os("CI").is_none(), "{reason}");
            eprintln!("SKIPPED: {reason}");
            return false;
        }
    }
    true
}

#[test]
fn a_small_load_on_glibc_is_served_without_a_wrong_value() {
    if !tools_are_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let output = run(&["--glibc-only", "--json", &json.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("| glibc"));

    let text = std::fs::read_to_string(&json).expect("the report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1, "{report}");
    assert!(
        runs[0]["load"]["operations"]
            .as_u64()
            .is_some_and(|count| count > 0)
    );
    assert!(
        runs[0]["verified_requests"]
            .as_u64()
            .is_some_and(|count| count > 0)
    );
    assert_eq!(runs[0]["wrong_values"], 0);
    assert_eq!(runs[0]["shutdown"], "clean");
}

#[test]
fn each_algorithm_is_proved_and_an_unknown_one_lists_those_that_there_are() {
    let Some(library) = std::env::var_os("AUTOLOCK_LIB").map(PathBuf::from) else {
        let reason = "AUTOLOCK_LIB does not name libautolock.so";
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("SKIPPED: {reason}");
        return;
    };
    if !tools_are_here() {
        return;
    }
    let library = library.display().to_string();
    let output = run(&["--lib", &library, "--algorithm", "mcs_stp,futex_spinlock"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for name in ["mcs_stp", "futex_spinlock"] {
        assert!(
            said.contains(&format!("autolock: algorithm={name} mutexes=")),
            "{said}"
        );
        let row = format!("| {name} ");
        assert!(String::from_utf8_lossy(&output.stdout).contains(&row));
    }

    let output = run(&["--lib", &library, "--algorithm", "nonesuch"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("mcs_stp"), "{said}");
}

#[test]
fn what_the_profiler_records_agrees_with_what_is_known_and_with_itself() {
    let Some(library) = std::env::var_os("AUTOLOCK_LIB").map(PathBuf::from) else {
        let reason = "AUTOLOCK_LIB does not name libautolock.so";
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("SKIPPED: {reason}");
        return;
    };
    if !tools_are_here() {
        return;
    }
    // Laid out with it.
    let library = library.with_file_name("libpthread-mutex-profile.so");
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json").display().to_string();
    let keep = folder.path().join("kept").display().to_string();
    let library = library.display().to_string();
    let output = run(&[
        "--profile",
        "--full",
        "--lib",
        &library,
        "--json",
        &json,
        "--keep",
        &keep,
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&json).expect("the report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    let locks: Vec<_> = runs.iter().filter_map(|run| run["lock"].as_str()).collect();
    assert_eq!(locks, ["glibc", "profiled", "profiled-full"]);
    assert!(runs[0]["profile"].is_null());
    for run in &runs[1..] {
        assert_eq!(run["shutdown"], "clean");
        let problems = &run["profile"]["problems"];
        assert!(problems.as_array().is_some_and(Vec::is_empty), "{run}");
        let page = format!(
            "{}-2-threads-round-1/report/index.html",
            run["lock"].as_str().expect("a name")
        );
        assert!(Path::new(&keep).join(page).is_file());
    }
}

#[test]
fn a_library_that_takes_no_mutex_call_is_found_out() {
    if !tools_are_here() {
        return;
    }
    let bystander = some_mapped_library();
    let output = run(&["--lib", &bystander.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("mutex calls go past the library: pthread_mutex_"),
        "{said}"
    );
}

/// A shared library without mutex functions: libgcc's, which every Rust program on glibc loads.
fn some_mapped_library() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]));
    path.map(Path::new)
        .find(|path| path.to_string_lossy().contains("libgcc_s"))
        .expect("libgcc_s is loaded")
        .to_path_buf()
}

#[test]
fn what_is_missing_is_said_in_one_line_with_status_2() {
    let output = run(&["--lib", "/nonexistent/libautolock.so"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("cargo xtask dist"), "{said}");

    if let Some(library) = std::env::var_os("AUTOLOCK_LIB") {
        let library = library.to_string_lossy().into_owned();
        let output = run(&["--lib", &library, "--glibc", "/nonexistent"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("no glibc in /nonexistent"), "{said}");
    }

    let output = run(&["--duration", "5h"]);
    assert_eq!(output.status.code(), Some(2));
}
