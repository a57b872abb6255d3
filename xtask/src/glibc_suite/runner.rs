//! Runs one test program: how it is started, its environment, its time limit, and cleaning up after it.

use std::ffi::{OsStr, OsString};
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

/// How a test is started.
#[derive(Debug, Clone)]
pub struct Way {
    /// In names of files.
    label: String,
    /// After "passes".
    pub words: &'static str,
    /// Folder with the loader and the libraries of another glibc than the installed one.
    glibc: Option<PathBuf>,
    preload: Option<PathBuf>,
}

impl Way {
    pub fn plain() -> Self {
        Self {
            label: "plain".to_owned(),
            words: "without the preload",
            glibc: None,
            preload: None,
        }
    }

    /// By the loader of the glibc in `prefix`.
    pub fn on_glibc(prefix: &Path, label: &str, words: &'static str) -> Self {
        Self {
            label: label.to_owned(),
            words,
            glibc: Some(prefix.join("lib")),
            preload: None,
        }
    }

    /// The same under a preload.
    pub fn under(mut self, lib: &Path, words: &'static str) -> Self {
        let stem = lib.file_stem().unwrap_or_default().to_string_lossy();
        self.label = if self.glibc.is_some() {
            format!("{}-{stem}", self.label)
        } else {
            stem.into_owned()
        };
        self.words = words;
        self.preload = Some(lib.to_owned());
        self
    }

    /// The command line that runs `program`; a test that runs itself again has to know it. The loader makes `program` its argv[0].
    fn command_line(&self, program: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(lib) = &self.glibc {
            words.push(lib.join("ld-linux-x86-64.so.2").into());
            words.push("--library-path".into());
            words.push(lib.into());
        }
        words.push(program.into());
        words
    }

    /// The library that has to serve `pthread_mutex_lock`, where that is not the system's.
    fn server(&self) -> Option<PathBuf> {
        let libc = || Some(self.glibc.as_ref()?.join("libc.so.6"));
        self.preload.clone().or_else(libc)
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

    pub fn run(&self, name: &str, way: &Way) -> Result<Run> {
        self.run_within(name, way, LIMIT)
    }

    pub fn run_within(&self, name: &str, way: &Way, limit: Duration) -> Result<Run> {
        let label = &way.label;
        let log_path = self.logs.join(format!("{name}.{label}"));
        let log = File::create(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let mark = format!("{}{name}.{label}", self.mark);
        let mut command = self.command(name, way);
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

    fn command(&self, name: &str, way: &Way) -> Command {
        let line = way.command_line(&self.bin.join(name));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        match name {
            "tst-cancel7" | "tst-cancelx7" => {
                let mut again = OsString::from("exec ");
                again.push(line.join(OsStr::new(" ")));
                command.arg("--command").arg(again);
            }
            // A million rounds of three threads take half a minute on two cores.
            "tst-mutex10" => {
                command.args(["--iterations", "100000"]);
            }
            "tst-exec4" => {
                command.args(&line);
            }
            "tst-umask1" => {
                command.arg(self.here.join(format!("tst-umask1.{}", way.label)));
            }
            _ => {}
        }
        command
            .current_dir(&self.here)
            .env("TMPDIR", &self.here)
            .env("TIMEOUTFACTOR", TIMEOUT_FACTOR)
            .env("LC_ALL", "C")
            .env_remove("LD_PRELOAD")
            // cargo sets it, and it would come before the other glibc.
            .env_remove("LD_LIBRARY_PATH")
            .process_group(0);
        if name == "tst-mutex10" {
            command.env("GLIBC_TUNABLES", "glibc.elision.enable=1");
        }
        if let Some(lib) = &way.preload {
            command.env("LD_PRELOAD", lib);
        }
        command
    }

    /// A preload or a glibc that the loader ignores would pass everything: make it say where it bound.
    pub fn check_binding(&self, way: &Way) -> Result<()> {
        let Some(lib) = way.server() else {
            return Ok(());
        };
        let mut command = self.command("tst-mutex1", way);
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
                "the tests do not bind pthread_mutex_lock to {}: is it a preload, or a glibc?",
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
