//! Shows that the suite can fail: deliberately broken preloads, a fault each, must be caught.
//!
//! The same library without a fault is the control and must pass, so that what is caught is the
//! fault and not the harness.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::Report;
use super::runner::{Runner, Way};
use super::source::Suite;
use crate::shell;

/// A build of the broken preload and the tests that have to notice. Some of them hang.
const FAULTS: &[(&str, &[&str])] = &[
    ("FAULT_TRYLOCK", &["tst-mutex4"]),
    ("FAULT_NO_WAKE", &["tst-mutex7", "tst-cond2"]),
    (
        "FAULT_NO_EXCLUSION",
        &["tst-mutex4", "tst-mutex6", "tst-cond7"],
    ),
];
/// A sound lock takes a second for the longest of them.
const LIMIT: Duration = Duration::from_secs(8);

/// What one fault came to: who noticed, and what is wrong with the proof.
struct Proof {
    fault: &'static str,
    noticed: Vec<&'static str>,
    failures: Vec<String>,
}

pub fn run(suite: &Suite, runner: &Runner) -> Result<Report> {
    let control = Way::plain().under(&compile(suite, runner, "CONTROL")?, "with the control");
    runner.check_binding(&control)?;
    let proofs: Vec<Result<Proof>> = std::thread::scope(|scope| {
        let start = |&(fault, tests): &(&'static str, &'static [&'static str])| {
            let control = &control;
            scope.spawn(move || prove(suite, runner, control, fault, tests))
        };
        let running: Vec<_> = FAULTS.iter().map(start).collect();
        let panicked = |_| Err(anyhow!("a worker of the proof panicked"));
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect()
    });
    runner.sweep();
    let mut report = Report {
        passed_base: 0,
        passed: 0,
        failed: Vec::new(),
        floor: 0,
    };
    for proof in proofs {
        let proof = proof?;
        println!(
            "   {}: noticed by {}",
            proof.fault,
            proof.noticed.join(", ")
        );
        report.passed += usize::from(proof.failures.is_empty());
        report.failed.extend(proof.failures);
    }
    for failure in &report.failed {
        println!("   FAILED: {failure}");
    }
    Ok(report)
}

fn prove(
    suite: &Suite,
    runner: &Runner,
    control: &Way,
    fault: &'static str,
    tests: &[&'static str],
) -> Result<Proof> {
    let broken = Way::plain().under(&compile(suite, runner, fault)?, "with the fault");
    let mut proof = Proof {
        fault,
        noticed: Vec::new(),
        failures: Vec::new(),
    };
    for test in tests {
        if !runner.run_within(test, control, LIMIT)?.passed() {
            proof
                .failures
                .push(format!("{test} fails with the sound control"));
        }
        if !runner.run_within(test, &broken, LIMIT)?.passed() {
            proof.noticed.push(test);
        }
    }
    if proof.noticed.is_empty() {
        proof.failures.push(format!("{fault} went unnoticed"));
    }
    Ok(proof)
}

fn compile(suite: &Suite, runner: &Runner, fault: &str) -> Result<PathBuf> {
    let lib = runner.scratch().join(format!("broken-{fault}.so"));
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-shared", "-fPIC"])
        .arg(format!("-D{fault}"));
    cc.arg(suite.glue.join("broken.c")).arg("-o").arg(&lib);
    shell::output(&mut cc)?;
    Ok(lib)
}
