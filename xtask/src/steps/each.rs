//! The steps themselves, in the order of the table.

use std::process::Command;

use anyhow::Result;

use super::tally::{Tally, cargo_test, check, lacks};
use crate::project::{Project, cargo, in_ci};
use crate::{callgrind, dist, glibc, glibc_suite, shell, use_this_glibc, virtual_time, vm};

pub(super) fn fmt(project: &Project) -> Result<Tally> {
    check(
        cargo()
            .current_dir(&project.root)
            .args(["fmt", "--all", "--check"]),
    )
}

pub(super) fn clippy(project: &Project) -> Result<Tally> {
    let mut command = cargo();
    command.current_dir(&project.root);
    command.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    check(&mut command)
}

pub(super) fn build(project: &Project) -> Result<Tally> {
    dist::build(project)?;
    Ok(Tally::PASSED)
}

pub(super) fn tests(project: &Project) -> Result<Tally> {
    let mut command = cargo();
    command
        .current_dir(&project.root)
        .args(["test", "--workspace", "--no-fail-fast"]);
    // A step of its own.
    command.args(["--exclude", "profile-tests"]);
    command.env("AUTOLOCK_LIB", project.preload());
    cargo_test(&mut command)
}

pub(super) fn profile(project: &Project) -> Result<Tally> {
    let mut command = cargo();
    command.current_dir(&project.root).args([
        "test",
        "--package",
        "profile-tests",
        "--no-fail-fast",
    ]);
    // Most of these programs sleep most of the time.
    command.args(["--", "--test-threads", "4"]);
    command
        .env("AUTOLOCK_LIB", project.preload())
        .env("AUTOLOCK_PROFILE_LIB", project.profiler())
        .env("AUTOLOCK_TOOL", project.program("autolock"));
    cargo_test(&mut command)
}

pub(super) fn loom(project: &Project) -> Result<Tally> {
    let mut command = cargo();
    command
        .current_dir(&project.root)
        .env("RUSTFLAGS", "--cfg loom");
    command.args([
        "test",
        "--release",
        "--package",
        "autolock-lock",
        "--test",
        "loom_mutex",
        "--test",
        "loom_locks",
        "--test",
        "loom_outer",
    ]);
    // A folder of its own: other flags would rebuild everything else each time.
    command.arg("--target-dir").arg(project.target.join("loom"));
    cargo_test(&mut command)
}

pub(super) fn prove(project: &Project) -> Result<Tally> {
    let options = glibc_suite::Options {
        prove: true,
        ..Default::default()
    };
    let report = glibc_suite::run(project, &project.preload(), &options)?;
    Ok(Tally {
        passed: report.passed,
        failed: report.failed.len(),
        skipped: 0,
    })
}

pub(super) fn suite(project: &Project) -> Result<Tally> {
    let report = glibc_suite::run(
        project,
        &project.preload(),
        &glibc_suite::Options::default(),
    )?;
    let short = usize::from(!report.holds() && report.failed.is_empty());
    let failed = report.failed.len() + short;
    Ok(Tally {
        passed: report.passed,
        failed,
        skipped: 0,
    })
}

pub(super) fn patched_glibc(project: &Project) -> Result<Tally> {
    Ok(match glibc::step::run(project)? {
        Some(outcome) => Tally {
            passed: outcome.passed,
            failed: outcome.failed,
            skipped: 0,
        },
        None => Tally::SKIPPED,
    })
}

/// Tests of programs that wait on condition variables; by package.
const WAITING: &[(&str, &[&str])] = &[
    (
        "autolock-tests",
        &[
            "algorithms",
            "beside_glibc",
            "by_symbol",
            "life_of_a_process",
            "state",
        ],
    ),
    ("profile-tests", &["broken", "counts", "waits"]),
];

pub(super) fn pair(project: &Project) -> Result<Tally> {
    let Some(kept) = glibc::step::build(project)? else {
        return Ok(Tally::SKIPPED);
    };
    let mut tally = Tally::default();
    for (package, tests) in WAITING {
        let mut command = cargo();
        command.current_dir(&project.root);
        command.args(["test", "--no-fail-fast", "--package", package]);
        command.args(tests.iter().flat_map(|test| ["--test", test]));
        command
            .env("TEST_GLIBC", &kept.patched)
            .env("USE_THIS_GLIBC", project.program("use-this-glibc"))
            .env("AUTOLOCK_LIB", project.preload())
            .env("AUTOLOCK_PROFILE_LIB", project.profiler())
            .env("AUTOLOCK_TOOL", project.program("autolock"));
        tally = tally.add(cargo_test(&mut command)?);
    }
    let mut memcached = Command::new(project.program("memcached-example"));
    memcached.args(["--quick", "--generator", "memcslap"]);
    memcached.args(["--algorithm", "mcs_stp,mcs_autolock,malthusian"]);
    memcached.arg("--lib").arg(project.preload());
    memcached.arg("--glibc").arg(&kept.patched);
    Ok(tally.add(check(&mut memcached)?))
}

pub(super) fn matrix(project: &Project) -> Result<Tally> {
    if let Some(skipped) = lacks("glibc") {
        return Ok(skipped);
    }
    let Some(kept) = glibc::step::build(project)? else {
        return Ok(Tally::SKIPPED);
    };
    let options = use_this_glibc::Options {
        short: true,
        ..Default::default()
    };
    let report = use_this_glibc::run(project, &kept.patched, &options)?;
    let failed = report.failures().len() + report.silent();
    Ok(Tally {
        passed: report.passed(),
        failed,
        skipped: 0,
    })
}

pub(super) fn instructions(project: &Project) -> Result<Tally> {
    let report = callgrind::measure(project, &project.preload())?;
    print!("{report}");
    let promised: Vec<_> = report.rows.iter().filter(|row| row.promised()).collect();
    let failed = promised.iter().filter(|row| row.more()).count();
    Ok(Tally {
        passed: promised.len() - failed,
        failed,
        skipped: 0,
    })
}

pub(super) fn torture(project: &Project) -> Result<Tally> {
    let mut driver = Command::new(project.program("driver"));
    driver.args(["--test", "--all", "--threads", "1,2,4,16,64"]);
    let (status, text) = shell::tee(&mut driver)?;
    // The closing line is of the same form as ours.
    let count = |word: &str| {
        let counts = text.lines().last().unwrap_or_default();
        let mut parts = counts.split(", ");
        parts.find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    let (passed, failed) = (count("passed").unwrap_or(0), count("failed").unwrap_or(0));
    Ok(Tally {
        passed,
        // The self-check may have failed alone.
        failed: failed.max(usize::from(!status.success())),
        skipped: 0,
    })
}

/// Locks to run real programs on: as different as can be, and all of them bearable with more threads than CPUs.
const ALGORITHMS: &str = "tas,ticket_autolock,mcs_stp,malthusian,mutexee,flexguard";

pub(super) fn memcached(project: &Project) -> Result<Tally> {
    example(project, "memcached-example")
}

pub(super) fn mksquashfs(project: &Project) -> Result<Tally> {
    example(project, "mksquashfs-example")
}

fn example(project: &Project, name: &str) -> Result<Tally> {
    let mut example = Command::new(project.program(name));
    example.args(["--quick", "--algorithm", ALGORITHMS]);
    example.arg("--lib").arg(project.preload());
    check(&mut example)
}

pub(super) fn two_boots(project: &Project) -> Result<Tally> {
    let image = match virtual_time::Image::of_dist(project) {
        // No kernel to be had: the machine may be offline.
        Err(error) if !in_ci() => {
            println!("SKIPPED: {error:#}");
            return Ok(Tally::SKIPPED);
        }
        image => image?,
    };
    let mut tally = Tally::default();
    for (text, good) in virtual_time::check(&image) {
        println!("{}: {text}", if good { "ok" } else { "FAILED" });
        tally = tally.add(if good { Tally::PASSED } else { Tally::FAILED });
    }
    Ok(tally)
}

pub(super) fn machines(project: &Project) -> Result<Tally> {
    if let Some(skipped) = lacks("vm") {
        return Ok(skipped);
    }
    // Debian's kernel is booted, too.
    if !in_ci()
        && let Err(error) = virtual_time::guest::kernel(project, virtual_time::guest::KERNEL)
    {
        println!("SKIPPED: {error:#}");
        return Ok(Tally::SKIPPED);
    }
    let mut tally = Tally::default();
    for (text, good) in vm::step::check(project)? {
        println!("{}: {text}", if good { "ok" } else { "FAILED" });
        tally = tally.add(if good { Tally::PASSED } else { Tally::FAILED });
    }
    Ok(tally)
}

pub(super) fn selftests(project: &Project) -> Result<Tally> {
    if let Some(skipped) = lacks("vm") {
        return Ok(skipped);
    }
    let results = vm::selftests::results(project, &vm::selftests::Options::default())?;
    Ok(Tally {
        passed: results.passed,
        failed: results.failed,
        skipped: results.skipped,
    })
}
