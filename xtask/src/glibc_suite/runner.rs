//! Runs one test program: its environment, its time limit, and cleaning up after it.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wait_timeout::ChildExt;

use super::source::Suite;
use crate::project::{Project, make_folder};

/// The tests' own limits (20 s where they name none) times this: the machine may be busy.
const TIMEOUT_FACTOR: &str = "2";
/// And whatever they say, no longer than this.
const LIMIT: Duration = Duration::from_secs(60);
/// What a test that has nothing to test here ends with.
const UNSUPPORTED: i32 = 77;
/// In the environment of everything that we start, so that strays can be found.
const MARK: &str = "AUTOLOCK_GLIBC_SUITE_RUN";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    Unsupported,
    TimedOut,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
            Self::TimedOut => "timed-out",
        }
    }
}

pub struct Run {
    pub outcome: Outcome,
    pub took: Duration,
}

impl Run {
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }
}

pub struct Runner {
    bin: PathBuf,
    /// Working folder of every test.
    here: PathBuf,
    /// What they print, a file each.
    logs: PathBuf,
    mark: String,
}

impl Runner {
    pub fn new(project: &Project, suite: &Suite) -> Result<Self> {
        let work = project.work_folder("glibc-suite")?;
        let here = work.join("here");
        let logs = work.join("logs");
        make_folder(&here)?;
        make_folder(&logs)?;
        // Some tests open their folder's makefile, as any file that is there.
        std::fs::write(here.join("Makefile"), "# opened by tst-cancel4\n")
            .with_context(|| format!("cannot write to {}", here.display()))?;
        Ok(Self {
            bin: suite.bin.clone(),
            here,
            logs,
            mark: format!("{}.", std::process::id()),
        })
    }

    pub fn run(&self, name: &str, preload: Option<&Path>) -> Result<Run> {
        self.run_within(name, preload, LIMIT)
    }

    pub fn run_within(&self, name: &str, preload: Option<&Path>, limit: Duration) -> Result<Run> {
        let label = preload
            .and_then(Path::file_stem)
            .map_or("plain".into(), |s| s.to_string_lossy());
        let log_path = self.logs.join(format!("{name}.{label}"));
        let log = File::create(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let mark = format!("{}{name}.{label}", self.mark);
        let mut command = self.command(name, preload);
        command.env(MARK, &mark);
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log);
        let started = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let ended = child
            .wait_timeout(limit)
            .with_context(|| format!("cannot wait for {name}"))?;
        let outcome = match ended {
            Some(status) => match status.code() {
                Some(0) => Outcome::Passed,
                Some(UNSUPPORTED) => Outcome::Unsupported,
                // The driver's own limit ends it by SIGALRM's default or a failure code.
                _ if status.signal() == Some(Signal::SIGALRM as i32) => Outcome::TimedOut,
                _ => Outcome::Failed,
            },
            None => {
                kill_marked(&mark);
                child
                    .wait()
                    .with_context(|| format!("cannot reap {name}"))?;
                Outcome::TimedOut
            }
        };
        Ok(Run {
            outcome,
            took: started.elapsed(),
        })
    }

    fn command(&self, name: &str, preload: Option<&Path>) -> Command {
        let program = self.bin.join(name);
        let mut command = Command::new(&program);
        match name {
            "tst-cancel7" | "tst-cancelx7" => {
                command
                    .arg("--command")
                    .arg(format!("exec {}", program.display()));
            }
            // A million rounds of three threads take half a minute on two cores.
            "tst-mutex10" => {
                command.args(["--iterations", "100000"]);
            }
            "tst-exec4" => {
                command.arg(&program);
            }
            "tst-umask1" => {
                command.arg(self.here.join(format!("tst-umask1.{}", preload.is_some())));
            }
            _ => {}
        }
        command
            .current_dir(&self.here)
            .env("TMPDIR", &self.here)
            .env("TIMEOUTFACTOR", TIMEOUT_FACTOR)
            .env("LC_ALL", "C")
            .env_remove("LD_PRELOAD")
            .process_group(0);
        if name == "tst-mutex10" {
            command.env("GLIBC_TUNABLES", "glibc.elision.enable=1");
        }
        if let Some(lib) = preload {
            command.env("LD_PRELOAD", lib);
        }
        command
    }

    /// A preload that the loader ignores would pass everything: make it say where it bound.
    pub fn check_that_preload_binds(&self, lib: &Path) -> Result<()> {
        let mut command = self.command("tst-mutex1", Some(lib));
        command
            .env("LD_DEBUG", "bindings")
            .env("LD_BIND_NOW", "1")
            .stdin(Stdio::null());
        let output = command.output().context("cannot start tst-mutex1")?;
        let text = String::from_utf8_lossy(&output.stderr);
        let bound = format!(
            "to {} [0]: normal symbol `pthread_mutex_lock'",
            lib.display()
        );
        if !text.contains(&bound) {
            bail!(
                "the tests do not bind pthread_mutex_lock to {}: is it a preload?",
                lib.display()
            );
        }
        Ok(())
    }

    /// A folder for files that a run may leave behind.
    pub fn scratch(&self) -> &Path {
        &self.here
    }

    /// Ends whatever any test left running.
    pub fn sweep(&self) {
        kill_marked(&self.mark);
    }
}

/// Kills every process whose environment carries our mark with this beginning.
fn kill_marked(beginning: &str) {
    let needle = format!("{MARK}={beginning}");
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let pid = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        let Ok(environment) = std::fs::read(process.path().join("environ")) else {
            continue;
        };
        if environment
            .split(|byte| *byte == 0)
            .any(|entry| entry.starts_with(needle.as_bytes()))
        {
            // It may have ended meanwhile.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}
