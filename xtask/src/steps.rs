//! `test`: everything that CI runs, step by step, with one summary at the end.
//!
//! A failing step does not stop the others. A step whose tools are missing and cannot be
//! installed is skipped aloud, and fails under CI. The closing line, `N passed, N failed`, counts
//! tests where a step runs many and the step itself where it is one check.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::packages;
use crate::project::Project;

mod each;
mod tally;

use tally::{Tally, lacks};

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
        run: each::fmt,
    },
    Step {
        name: "clippy",
        about: "lints",
        packages: "build",
        needs_dist: false,
        run: each::clippy,
    },
    Step {
        name: "dist",
        about: "release build, laid out in target/dist",
        packages: "build",
        needs_dist: false,
        run: each::build,
    },
    Step {
        name: "tests",
        about: "unit tests and programs under the preloads",
        packages: "tests",
        needs_dist: true,
        run: each::tests,
    },
    Step {
        name: "profile",
        about: "programs that know what they did, under the profiler",
        packages: "tests",
        needs_dist: true,
        run: each::profile,
    },
    Step {
        name: "loom",
        about: "model check of the lock word's protocol",
        packages: "build",
        needs_dist: false,
        run: each::loom,
    },
    Step {
        name: "prove",
        about: "glibc's tests notice a broken lock",
        packages: "glibc-suite",
        needs_dist: false,
        run: each::prove,
    },
    Step {
        name: "glibc-suite",
        about: "glibc's own thread tests under the preload",
        packages: "glibc-suite",
        needs_dist: true,
        run: each::suite,
    },
    Step {
        name: "glibc",
        about: "the patched glibc: builds, passes what the unpatched one passes, routes waits through the preload",
        packages: "glibc",
        needs_dist: true,
        run: each::patched_glibc,
    },
    Step {
        name: "pair",
        about: "programs and memcached, rewritten to the patched glibc, under the preloads",
        packages: "pair",
        needs_dist: true,
        run: each::pair,
    },
    Step {
        name: "use-this-glibc",
        about: "real programs and odd inputs rewritten to the patched glibc run as before, in short",
        packages: "use-this-glibc",
        needs_dist: true,
        run: each::matrix,
    },
    Step {
        name: "callgrind",
        about: "no more instructions per lock+unlock pair than glibc",
        packages: "callgrind",
        needs_dist: true,
        run: each::instructions,
    },
    Step {
        name: "torture",
        about: "every lock under torture, in short; locks that are broken on purpose are noticed",
        packages: "build",
        needs_dist: true,
        run: each::torture,
    },
    Step {
        name: "memcached",
        about: "memcached under load on our mutex and on six other locks, in short",
        packages: "memcached",
        needs_dist: true,
        run: each::memcached,
    },
    Step {
        name: "mksquashfs",
        about: "mksquashfs and unsquashfs on our mutex and on six other locks, in short",
        packages: "mksquashfs",
        needs_dist: true,
        run: each::mksquashfs,
    },
    Step {
        name: "virtual-time",
        about: "two boots in QEMU on virtual time are identical",
        packages: "virtual-time",
        needs_dist: true,
        run: each::two_boots,
    },
    Step {
        name: "kernel",
        about: "Linux with our patches builds, commands run on it in QEMU, and the library uses it",
        packages: "kernel",
        needs_dist: true,
        run: each::machines,
    },
    Step {
        name: "selftests",
        about: "the kernel series' own tests, in QEMU",
        packages: "kernel",
        needs_dist: false,
        run: each::selftests,
    },
];

fn names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_names_are_distinct() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
