//! `test`: everything that CI runs, step by step, with one summary at the end.
//!
//! A failing step does not stop the others. A step whose tools are missing and cannot be
//! installed is skipped aloud, and fails under CI. The closing line, `N passed, N failed`, counts
//! tests where a step runs many and the step itself where it is one check.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::packages::{self, Ready};
use crate::project::{Project, cargo, in_ci};
use crate::{callgrind, dist, glibc, glibc_suite, shell, use_this_glibc, virtual_time, vm};

#[derive(clap::Args)]
pub struct Options {
    /// Run only this step (may be repeated); the release build goes first if it needs one
    #[arg(long, value_name = "STEP", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    only: Vec<String>,
}

struct Step {
    name: &'static str,
    about: &'static str,
    /// Entry in the table of packages.
    packages: &'static str,
    needs_dist: bool,
    run: fn(&Project) -> Result<Tally>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "formatting",
        packages: "",
        needs_dist: false,
        run: fmt,
    },
    Step {
        name: "clippy",
        about: "lints",
        packages: "build",
        needs_dist: false,
        run: clippy,
    },
    Step {
        name: "dist",
        about: "release build, laid out in target/dist",
        packages: "build",
        needs_dist: false,
        run: build,
    },
    Step {
        name: "tests",
        about: "unit tests and programs under the preloads",
        packages: "tests",
        needs_dist: true,
        run: tests,
    },
    Step {
        name: "profile",
        about: "programs that know what they did, under the profiler",
        packages: "tests",
        needs_dist: true,
        run: profile,
    },
    Step {
        name: "loom",
        about: "model check of the lock word's protocol",
        packages: "build",
        needs_dist: false,
        run: loom,
    },
    Step {
        name: "prove",
        about: "glibc's tests notice a broken lock",
        packages: "glibc-suite",
        needs_dist: false,
        run: prove,
    },
    Step {
        name: "glibc-suite",
        about: "glibc's own thread tests under the preload",
        packages: "glibc-suite",
        needs_dist: true,
        run: suite,
    },
    Step {
        name: "glibc",
        about: "the patched glibc: builds, passes what the unpatched one passes, routes waits through the preload",
        packages: "glibc",
        needs_dist: true,
        run: patched_glibc,
    },
    Step {
        name: "pair",
        about: "programs and memcached, rewritten to the patched glibc, under the preloads",
        packages: "pair",
        needs_dist: true,
        run: pair,
    },
    Step {
        name: "use-this-glibc",
        about: "real programs and odd inputs rewritten to the patched glibc run as before, in short",
        packages: "use-this-glibc",
        needs_dist: true,
        run: matrix,
    },
    Step {
        name: "callgrind",
        about: "no more instructions per lock+unlock pair than glibc",
        packages: "callgrind",
        needs_dist: true,
        run: instructions,
    },
    Step {
        name: "torture",
        about: "every lock under torture, in short; locks that are broken on purpose are noticed",
        packages: "build",
        needs_dist: true,
        run: torture,
    },
    Step {
        name: "memcached",
        about: "memcached under load on our mutex and on six other locks, in short",
        packages: "memcached",
        needs_dist: true,
        run: memcached,
    },
    Step {
        name: "mksquashfs",
        about: "mksquashfs and unsquashfs on our mutex and on six other locks, in short",
        packages: "mksquashfs",
        needs_dist: true,
        run: mksquashfs,
    },
    Step {
        name: "virtual-time",
        about: "two boots in QEMU on virtual time are identical",
        packages: "virtual-time",
        needs_dist: true,
        run: two_boots,
    },
    Step {
        name: "kernel",
        about: "Linux with our patches builds, commands run on it in QEMU, and the library uses it",
        packages: "kernel",
        needs_dist: true,
        run: machines,
    },
    Step {
        name: "selftests",
        about: "the kernel series' own tests, in QEMU",
        packages: "kernel",
        needs_dist: false,
        run: selftests,
    },
];

fn names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    fn closing_line(self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            line.push_str(&format!(", {} skipped", self.skipped));
        }
        line
    }
}

pub fn run(project: &Project, options: &Options) -> Result<bool> {
    let mut chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|step| options.only.is_empty() || options.only.iter().any(|name| name == step.name))
        .collect();
    if chosen.iter().any(|step| step.needs_dist) && !chosen.iter().any(|step| step.name == "dist") {
        let dist = STEPS.iter().filter(|step| step.name == "dist");
        chosen.splice(0..0, dist);
    }
    // All in one go where that works; a step that still lacks something says so itself.
    let needs: Vec<&str> = chosen.iter().map(|step| step.packages).collect();
    packages::prepare_all(&needs);
    let mut done: Vec<(&Step, Tally, Duration)> = Vec::new();
    for step in chosen {
        println!("\n==> {}: {}", step.name, step.about);
        let started = Instant::now();
        let unbuilt = done
            .iter()
            .any(|(step, tally, _)| step.name == "dist" && tally.failed > 0);
        let tally = if step.needs_dist && unbuilt {
            println!("FAILED: needs the release build, which failed");
            Tally::FAILED
        } else {
            outcome(project, step)
        };
        done.push((step, tally, started.elapsed()));
    }
    let total = done
        .iter()
        .fold(Tally::default(), |sum, (_, tally, _)| sum.add(*tally));
    println!("\n==> summary");
    for (step, tally, took) in &done {
        println!(
            "{:<12} {:>6.1} s  {}",
            step.name,
            took.as_secs_f64(),
            tally.closing_line()
        );
    }
    println!("\n{}", total.closing_line());
    Ok(total.failed == 0)
}

fn outcome(project: &Project, step: &Step) -> Tally {
    if let Some(skipped) = lacks(step.packages) {
        return skipped;
    }
    match (step.run)(project) {
        Ok(tally) => tally,
        Err(error) => {
            println!("FAILED: {error:#}");
            Tally::FAILED
        }
    }
}

fn fmt(project: &Project) -> Result<Tally> {
    check(
        cargo()
            .current_dir(&project.root)
            .args(["fmt", "--all", "--check"]),
    )
}

fn clippy(project: &Project) -> Result<Tally> {
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

fn build(project: &Project) -> Result<Tally> {
    dist::build(project)?;
    Ok(Tally::PASSED)
}

fn tests(project: &Project) -> Result<Tally> {
    let mut command = cargo();
    command
        .current_dir(&project.root)
        .args(["test", "--workspace", "--no-fail-fast"]);
    // A step of its own.
    command.args(["--exclude", "profile-tests"]);
    command.env("AUTOLOCK_LIB", project.preload());
    cargo_test(&mut command)
}

fn profile(project: &Project) -> Result<Tally> {
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

fn loom(project: &Project) -> Result<Tally> {
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

fn prove(project: &Project) -> Result<Tally> {
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

fn suite(project: &Project) -> Result<Tally> {
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

fn patched_glibc(project: &Project) -> Result<Tally> {
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

fn pair(project: &Project) -> Result<Tally> {
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

/// What to answer where packages are missing and cannot be installed: skipped aloud, and failed under CI.
fn lacks(packages: &str) -> Option<Tally> {
    let Ready::No(what_to_do) = packages::prepare(packages) else {
        return None;
    };
    println!("SKIPPED: {what_to_do}");
    Some(if in_ci() {
        Tally::FAILED
    } else {
        Tally::SKIPPED
    })
}

fn matrix(project: &Project) -> Result<Tally> {
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

fn instructions(project: &Project) -> Result<Tally> {
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

fn torture(project: &Project) -> Result<Tally> {
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

fn memcached(project: &Project) -> Result<Tally> {
    example(project, "memcached-example")
}

fn mksquashfs(project: &Project) -> Result<Tally> {
    example(project, "mksquashfs-example")
}

fn example(project: &Project, name: &str) -> Result<Tally> {
    let mut example = Command::new(project.program(name));
    example.args(["--quick", "--algorithm", ALGORITHMS]);
    example.arg("--lib").arg(project.preload());
    check(&mut example)
}

fn two_boots(project: &Project) -> Result<Tally> {
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

fn machines(project: &Project) -> Result<Tally> {
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

fn selftests(project: &Project) -> Result<Tally> {
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

/// A command that is one check.
fn check(command: &mut Command) -> Result<Tally> {
    shell::run(command)?;
    Ok(Tally::PASSED)
}

/// `cargo test`, counted by its result lines.
fn cargo_test(command: &mut Command) -> Result<Tally> {
    let (status, text) = shell::tee(command)?;
    let mut tally = text
        .lines()
        .filter_map(result_line)
        .fold(Tally::default(), Tally::add);
    if !status.success() && tally.failed == 0 {
        // It did not compile, or a test program died.
        tally.failed = 1;
    }
    if status.success() && tally.passed == 0 {
        bail!("`{}` ran no test", shell::line(command));
    }
    Ok(tally)
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
fn result_line(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let mut parts = counts.split(';').map(str::trim);
        parts.find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted_and_other_lines_are_not() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            result_line(line),
            Some(Tally {
                passed: 3,
                failed: 2,
                skipped: 1
            })
        );
        assert_eq!(result_line("test a ... ok"), None);
    }

    #[test]
    fn closing_line_is_the_plain_form() {
        assert_eq!(Tally::PASSED.closing_line(), "1 passed, 0 failed");
        assert_eq!(
            Tally::PASSED.add(Tally::SKIPPED).closing_line(),
            "1 passed, 0 failed, 1 skipped"
        );
    }

    #[test]
    fn step_names_are_distinct() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
