//! The library on a kernel with our patches, and on Debian's: `interpose/tests/tests/kernel.rs`, built here and run in machines; and memcached.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::{REPORTED, TIMED_OUT};
use crate::packages::{self, Ready};
use crate::project::{Project, cargo};
use crate::shell;

/// Seconds for all tests of a machine, which take a tenth of it.
const LIMIT: &str = "600";

/// In the examples' README, too.
const MEMCACHED: &[&str] = &[
    "--backends=kernel",
    "--generator=pipelined",
    "--threads=8",
    "--connections=8",
    "--rounds=1",
    "--duration=10s",
];

/// What came of each test, in words, and whether it is well. `image` is our kernel.
pub fn check(project: &Project, image: &Path) -> Result<Vec<(String, bool)>> {
    let program = build(project)?;
    let ours = image.to_str().context("a path that is not UTF-8")?;
    let mut done = Vec::new();
    for (name, kernel) in [
        ("patched", &["--kernel", ours][..]),
        ("stock", &["--stock"]),
    ] {
        let output = run(project, &program, name, kernel)?;
        done.extend(results(name, &output));
    }
    let what = "memcached on the patched kernel: right answers, slots used, waiters parked";
    done.push(match memcached(project, ours) {
        Ok(()) => (what.to_owned(), true),
        Err(error) => (format!("{what}: {error:#}"), false),
    });
    Ok(done)
}

/// Whether a waiter is parked is chance: four are in one such run, more or less. The example fails if none is.
fn memcached(project: &Project, image: &str) -> Result<()> {
    if let Ready::No(what_to_do) = packages::prepare("memcached") {
        bail!("{what_to_do}");
    }
    let mut tries = 3;
    loop {
        let output = machine(project, &["--kernel", image], |command| {
            command.arg(project.program("memcached-example"));
            command.arg("--lib").arg(project.preload()).args(MEMCACHED);
        })?;
        tries -= 1;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(());
        }
        if tries == 0 || !said.contains("no waiter was parked") {
            bail!("{}: {}", output.status, said.trim());
        }
    }
}

/// The tests, and what they run: a compiler takes long in the machine.
fn build(project: &Project) -> Result<PathBuf> {
    let test = |further: &[&str]| {
        let mut command = cargo();
        command.current_dir(&project.root);
        command.args(["test", "--quiet", "--package", "autolock-tests"]);
        command.args(["--test", "kernel"]).args(further);
        command
    };
    let artifacts = shell::output(&mut test(&["--no-run", "--message-format=json"]))?;
    let program = executable(&artifacts).context("cargo names no test program")?;
    let mut compile = test(&["all_programs_compile"]);
    compile.stdout(Stdio::null());
    shell::run(&mut compile)?;
    Ok(program)
}

/// What `--message-format=json` says was built.
fn executable(artifacts: &str) -> Option<PathBuf> {
    let messages = artifacts
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let programs = messages.filter(|it| it["target"]["name"] == "kernel");
    let mut paths = programs.filter_map(|it| it["executable"].as_str().map(PathBuf::from));
    paths.next()
}

/// One at a time: some set sysctls.
fn run(project: &Project, program: &Path, name: &str, kernel: &[&str]) -> Result<Output> {
    let output = machine(project, kernel, |command| {
        command.args(["env", &format!("TEST_KERNEL={name}")]);
        command.arg(format!("AUTOLOCK_LIB={}", project.preload().display()));
        command.arg(program).args([name, "--test-threads", "1"]);
    })?;
    if output.status.code() == Some(TIMED_OUT.into()) {
        bail!("the library's tests on the {name} kernel take longer than {LIMIT} s");
    }
    ensure!(
        matches!(output.status.code(), Some(0 | 101)),
        "the library's tests on the {name} kernel ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output)
}

/// A command in a machine. Where QEMU emulates several CPUs by a thread each, a breakpoint that the kernel has taken away again, while it
/// switched a static branch, is now and then still run: then all of it once more.
fn machine(project: &Project, kernel: &[&str], job: impl Fn(&mut Command)) -> Result<Output> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let mut tries = 3;
    loop {
        let mut command = Command::new(&this);
        command
            .args(["vm", "--timeout", LIMIT])
            .args(kernel)
            .arg("--");
        job(&mut command);
        command.current_dir(&project.root).stdin(Stdio::null());
        let output = command.output().context("cannot run this program")?;
        tries -= 1;
        if tries == 0 || !is_spoilt(&output) {
            return Ok(output);
        }
        println!("   the emulator spoilt the machine (int3), again");
    }
}

fn is_spoilt(output: &Output) -> bool {
    output.status.code() == Some(REPORTED.into())
        && String::from_utf8_lossy(&output.stderr).contains("Oops: int3")
}

/// libtest's lines; none are a failure, too.
fn results(kernel: &str, output: &Output) -> Vec<(String, bool)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut results: Vec<(String, bool)> = Vec::new();
    for line in text.lines() {
        let words = line
            .strip_prefix("test ")
            .and_then(|it| it.split_once(" ... "));
        if let Some((test, end)) = words {
            let test = test.rsplit("::").next().unwrap_or(test).replace('_', " ");
            results.push((format!("on the {kernel} kernel: {test}"), end == "ok"));
        }
    }
    let well = output.status.success();
    if results.is_empty() || !well && results.iter().all(|it| it.1) {
        results.push((format!("on the {kernel} kernel: no result"), false));
    }
    if !well {
        println!("{}", text.trim());
    }
    results
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn each_test_is_a_result_and_none_is_a_failure() {
        let results = |code: i32, text: &str| {
            let output = Output {
                status: ExitStatus::from_raw(code << 8),
                stdout: text.as_bytes().to_vec(),
                stderr: Vec::new(),
            };
            let results = results("patched", &output);
            results.into_iter().map(|it| it.1).collect::<Vec<_>>()
        };
        let text = "\nrunning 2 tests\ntest patched::a_b ... ok\ntest patched::c ... FAILED\n\ntest result: FAILED. 1 passed\n";
        assert_eq!(results(101, text), [true, false]);
        assert_eq!(results(0, "test patched::a_b ... ok\n"), [true]);
        assert_eq!(results(101, "test patched::a_b ... ok\n"), [true, false]);
        assert_eq!(results(0, "running 0 tests\n"), [false]);
    }

    #[test]
    fn cargo_names_the_program() {
        let artifacts = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"libc\"},\"executable\":null}\n\
                         {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"kernel\"},\"executable\":\"/t/kernel-1\"}\n\
                         {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(artifacts), Some(PathBuf::from("/t/kernel-1")));
        assert_eq!(executable("no JSON\n"), None);
    }
}
