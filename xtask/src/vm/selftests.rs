//! The series' own tests (`tools/testing/selftests/auto_lock` in the patched tree), built here and run in a machine on it.
//!
//! They speak TAP; a result line is a result here. What the kernel reports fails them, whatever they say.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{REPORTED, TIMED_OUT};
use crate::kernel::{self, Config};
use crate::project::{Project, make_folder};
use crate::{packages, shell};

/// In the kernel's tree.
const FOLDER: &str = "tools/testing/selftests/auto_lock";

#[derive(clap::Args)]
pub struct Options {
    /// The kernel's configuration
    #[arg(long, value_enum, default_value_t)]
    pub config: Config,
    /// How often all rounds are to be gone through
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub factor: u32,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value = "2")]
    pub cpus: u16,
    /// Real time for all of them, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1500")]
    pub timeout: u64,
    /// Where to write the kernel's messages
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// The programs; all if left out
    pub programs: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config::default(),
            factor: 1,
            cpus: 2,
            timeout: 1500,
            log: None,
            programs: Vec::new(),
        }
    }
}

/// How many tests came out how.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Results {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

/// The verb.
pub fn run(project: &Project, options: &Options) -> Result<bool> {
    let results = results(project, options)?;
    println!(
        "selftests: {} passed, {} failed, {} skipped",
        results.passed, results.failed, results.skipped
    );
    Ok(results.failed == 0 && results.passed > 0)
}

/// Builds and runs them; their output is passed on.
pub fn results(project: &Project, options: &Options) -> Result<Results> {
    packages::require("vm")?;
    let (folder, programs) = build(project, options)?;
    let script = script(&programs, options.factor);
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command
        .args(["vm", "--timeout", &options.timeout.to_string()])
        .args(["--cpus", &options.cpus.to_string()])
        .args(["--config", options.config.name()])
        .arg("--folder")
        .arg(&folder)
        .current_dir(&project.root)
        .stdin(Stdio::null());
    if let Some(log) = &options.log {
        command.arg("--log").arg(std::path::absolute(log)?);
    }
    command.args(["--", "sh", "-c", &script]);
    let (status, text) = shell::tee(&mut command)?;
    let mut results = count(&text);
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0 | 1) => (),
        Some(TIMED_OUT) => bail!("the selftests take longer than {} s", options.timeout),
        Some(REPORTED) => results.failed += 1,
        _ => bail!("no selftests: {status}"),
    }
    Ok(results)
}

/// The folder with the programs, and their names.
fn build(project: &Project, options: &Options) -> Result<(PathBuf, Vec<String>)> {
    let source = kernel::source(
        project,
        &kernel::Options {
            config: options.config,
            ..Default::default()
        },
    )?;
    let work = source.parent().context("a tree without a folder")?;
    let headers = work
        .join(format!("objects-{}", options.config.name()))
        .join("usr/include");
    let folder = work.join("selftests");
    make_folder(&folder)?;
    let mut make = Command::new("make");
    make.arg("-s")
        .arg("-C")
        .arg(source.join(FOLDER))
        .arg(format!("OUTPUT={}", folder.display()))
        .arg(format!("KHDR_INCLUDES=-isystem {}", headers.display()))
        .stdout(Stdio::null());
    shell::run(&mut make)?;
    let known = std::fs::read_to_string(source.join(FOLDER).join("Makefile"))
        .context("cannot read the selftests' makefile")?;
    let known = programs(&known);
    if let Some(odd) = options.programs.iter().find(|it| !known.contains(it)) {
        bail!("no selftest {odd}; there are {}", known.join(", "));
    }
    let wanted = if options.programs.is_empty() {
        known
    } else {
        options.programs.clone()
    };
    Ok((folder, wanted))
}

/// What the makefile builds.
fn programs(makefile: &str) -> Vec<String> {
    let lines = makefile
        .lines()
        .filter(|line| line.starts_with("TEST_GEN_PROGS"));
    let words = lines.filter_map(|line| line.split_once('='));
    let words = words.flat_map(|(_, words)| words.split_whitespace());
    words.map(str::to_owned).collect()
}

fn script(programs: &[String], factor: u32) -> String {
    format!(
        "export AUTO_LOCK_FACTOR={factor}; bad=0\n\
         for program in {}; do echo \"# $program\"; ./$program 2>&1 || [ $? -eq 4 ] || bad=1; done\n\
         exit $bad",
        programs.join(" ")
    )
}

fn count(tap: &str) -> Results {
    let mut results = Results::default();
    for line in tap.lines() {
        let place = if line.starts_with("not ok ") {
            &mut results.failed
        } else if !line.starts_with("ok ") {
            continue;
        } else if line.contains("# SKIP") {
            &mut results.skipped
        } else {
            &mut results.passed
        };
        *place += 1;
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_is_counted_and_nothing_else_is() {
        let tap = "TAP version 13\n1..4\n#  RUN           a.b ...\n#            OK  a.b\nok 1 a.b\nnot ok 2 a.c\n\
                   ok 3 a.d # SKIP needs two CPUs\n# FAILED: 2 / 3 tests passed.\n";
        let expected = Results {
            passed: 1,
            failed: 1,
            skipped: 1,
        };
        assert_eq!(count(tap), expected);
        assert_eq!(count(""), Results::default());
    }

    #[test]
    fn the_makefile_says_which_programs_there_are() {
        let makefile = "CFLAGS += -O2\n\nTEST_GEN_PROGS := abi park\nTEST_GEN_PROGS += life\n\nLOCAL_HDRS += x.h\n";
        assert_eq!(programs(makefile), ["abi", "park", "life"]);
    }
}
