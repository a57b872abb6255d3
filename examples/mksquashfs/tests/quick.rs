//! The program end to end, with trees too small to say anything about speed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A run on a small tree.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mksquashfs-example"));
    command.args(["--rounds", "1"]).args(arguments);
    if !arguments.contains(&"--files") {
        command.args(["--files", "300"]);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the tools are here. Where they can be had from apt, CI must have them.
fn tools_are_here(tools: &[(&str, &str)]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (tool, package) in tools {
        if !std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()) {
            let reason = format!("{tool} is missing: apt-get install {package}");
            assert!(std::env::var_os("CI").is_none(), "{reason}");
            eprintln!("SKIPPED: {reason}");
            return false;
        }
    }
    true
}

const SQUASHFS: (&str, &str) = ("mksquashfs", "squashfs-tools");
const GCC: (&str, &str) = ("gcc", "gcc libc6-dev");

/// The library that `cargo xtask test` has built.
fn library() -> Option<PathBuf> {
    let library = std::env::var_os("AUTOLOCK_LIB").map(PathBuf::from);
    if library.is_none() {
        let reason = "AUTOLOCK_LIB does not name libautolock.so";
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("SKIPPED: {reason}");
    }
    library
}

#[test]
fn a_small_tree_comes_back_on_glibc() {
    if !tools_are_here(&[SQUASHFS]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let output = run(&["--glibc-only", "--json", &json.display().to_string()]);
    assert!(output.status.success(), "{output:?}");

    let text = fs::read_to_string(&json).expect("the report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1, "{report}");
    assert_eq!(runs[0]["lock"], "glibc");
    for part in ["pack", "unpack"] {
        assert!(runs[0][part]["seconds"].as_f64().is_some_and(|s| s > 0.0));
    }
}

#[test]
fn each_algorithm_is_proved_and_an_unknown_one_lists_those_that_there_are() {
    let (true, Some(library)) = (tools_are_here(&[SQUASHFS]), library()) else {
        return;
    };
    let library = library.display().to_string();
    let output = run(&["--lib", &library, "--algorithm", "mcs_stp,futex_spinlock"]);
    assert!(output.status.success(), "{output:?}");
    for name in ["mcs_stp", "futex_spinlock"] {
        // mksquashfs and unsquashfs.
        let proof = format!("autolock: algorithm={name} mutexes=");
        assert_eq!(said(&output).matches(&proof).count(), 2, "{output:?}");
    }

    let output = run(&["--lib", &library, "--algorithm", "nonesuch"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(said(&output).lines().count(), 1, "{output:?}");
    assert!(said(&output).contains("mcs_stp"), "{output:?}");
}

#[test]
fn a_library_that_takes_no_mutex_call_is_found_out() {
    if !tools_are_here(&[SQUASHFS]) {
        return;
    }
    let output = run(&["--lib", &bystander().display().to_string()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for name in ["mksquashfs", "unsquashfs"] {
        let problem = format!("{name}: the library printed no statistics (autolock, round 1)");
        assert!(said(&output).contains(&problem), "{output:?}");
    }
}

/// A shared library without mutex functions: libgcc's, which every Rust program on glibc loads.
fn bystander() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]));
    path.map(Path::new)
        .find(|path| path.to_string_lossy().contains("libgcc_s"))
        .expect("libgcc_s is loaded")
        .to_path_buf()
}

/// Puts a program of this name before Debian's on the search path: a script that may spoil what the real one, `$real`, does under a
/// preload.
fn spoiled(name: &str, script: &str) -> (tempfile::TempDir, std::ffi::OsString) {
    let path = std::env::var_os("PATH").expect("a search path");
    let real = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .expect("the real one");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    let text = format!("#!/bin/sh\nset -e\nreal={}\n{script}\n", real.display());
    fs::write(&file, text).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("made executable");
    let folders = std::iter::once(folder.path().to_path_buf()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).expect("a search path");
    (folder, path)
}

#[test]
fn one_wrong_byte_in_an_image_or_in_a_file_is_noticed() {
    if !tools_are_here(&[SQUASHFS]) {
        return;
    }
    // The image's last bytes are padding, which unsquashfs does not read.
    let image = "\"$real\" \"$@\"\nif [ -n \"$LD_PRELOAD\" ]; then printf x >> \"$2\"; fi";
    // unsquashfs -quiet -no-progress -no-xattrs -dest TREE ...
    let file =
        "\"$real\" \"$@\"\nif [ -n \"$LD_PRELOAD\" ]; then printf x >> \"$5/folder-0/file-7\"; fi";
    for (name, script, problem) in [
        (
            "mksquashfs",
            image,
            "the image is wrong: it differs from byte",
        ),
        (
            "unsquashfs",
            file,
            "1 wrong files came back: folder-0/file-7 has other bytes",
        ),
    ] {
        let (_folder, path) = spoiled(name, script);
        let output = command(&["--lib", &bystander().display().to_string()])
            .env("PATH", path)
            .output()
            .expect("the program starts");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said(&output).contains(problem), "{name}: {output:?}");
    }
}

#[test]
fn a_preload_whose_locks_do_not_lock_is_noticed() {
    if !tools_are_here(&[SQUASHFS, GCC]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("no_lock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/no_lock.c");
    let status = Command::new("gcc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(status.expect("gcc starts").success());

    // It crashes, hangs, gives up or packs nonsense: which of these, chance decides.
    let library = library.display().to_string();
    let output = run(&["--lib", &library, "--limit", "5", "--files", "4000"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = said(&output);
    let unproved = "the library printed no statistics";
    let mut problems = said
        .lines()
        .filter(|line| line.contains("(autolock, round 1)") && !line.contains(unproved));
    assert!(problems.next().is_some(), "{output:?}");
}

#[test]
fn what_is_missing_is_said_in_one_line_with_status_2() {
    let output = run(&["--lib", "/nonexistent/libautolock.so"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(said(&output).lines().count(), 1, "{output:?}");
    assert!(said(&output).contains("cargo xtask dist"), "{output:?}");

    assert_eq!(run(&["--processors", "0"]).status.code(), Some(2));
}
