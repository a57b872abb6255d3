//! Runs a program under the profiler in a folder of its own, and reads what it left there.

use crate::check::{Mode, check};
use crate::report::{Report, try_read};
use crate::truth::Truth;
use autolock_tests::{Compile, Ended, Run, Running, autolock, newest};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

/// `libpthread-mutex-profile.so`.
pub fn profiler() -> PathBuf {
    newest(
        "AUTOLOCK_PROFILE_LIB",
        &[
            "dist/lib/libpthread-mutex-profile.so",
            "release/libpthread_mutex_profile.so",
        ],
        "cargo build --release -p pthread-mutex-profile",
    )
}

/// The tool that reads captures.
pub fn tool() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| {
        newest(
            "AUTOLOCK_TOOL",
            &["dist/bin/autolock", "release/autolock", "debug/autolock"],
            "cargo build --release -p autolock-tool",
        )
    })
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

/// A program of this crate.
pub fn compile(name: &str) -> Compile {
    Compile::program(name).in_folder(programs())
}

/// A shared object of this crate.
pub fn library(name: &str) -> Compile {
    Compile::library(name).in_folder(programs())
}

/// Whose locks are profiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beneath {
    Glibc,
    Autolock,
    /// Another lock of the collection.
    Algorithm(&'static str),
}

/// One run under the profiler.
pub struct Profiled {
    run: Run,
    folder: TempDir,
    mode: Mode,
}

/// A run that goes on.
pub struct Started {
    pub running: Running,
    folder: TempDir,
    mode: Mode,
}

/// What a run left behind.
pub struct Finished {
    pub ended: Ended,
    pub truth: Truth,
    /// The captures, in the order of their beginnings.
    pub reports: Vec<Report>,
    /// What the tool said of captures that it cannot read.
    pub unreadable: Vec<String>,
    pub folder: TempDir,
    mode: Mode,
}

impl Profiled {
    /// The program under the profiler, on glibc.
    pub fn new(program: impl AsRef<OsStr>, mode: Mode) -> Self {
        Self::on(program, mode, Beneath::Glibc)
    }

    pub fn on(program: impl AsRef<OsStr>, mode: Mode, beneath: Beneath) -> Self {
        Self::behind(program, mode, beneath, &[])
    }

    /// With libraries in front of the profiler: between it and the program.
    pub fn behind(
        program: impl AsRef<OsStr>,
        mode: Mode,
        beneath: Beneath,
        front: &[PathBuf],
    ) -> Self {
        let folder = match TempDir::new() {
            Ok(folder) => folder,
            Err(error) => panic!("cannot make a folder: {error}"),
        };
        let mut run = Run::new(program).directory(folder.path());
        for library in front {
            run = run.preload(library);
        }
        run = run.preload(profiler());
        if mode == Mode::Full {
            run = run.env("AUTOLOCK_PROFILE", "full");
        }
        match beneath {
            Beneath::Glibc => {}
            Beneath::Autolock => run = run.preload(autolock()),
            Beneath::Algorithm(name) => {
                run = run.preload(autolock()).env("AUTOLOCK_ALGORITHM", name);
            }
        }
        Self { run, folder, mode }
    }

    /// Changes the run.
    pub fn with(mut self, change: impl FnOnce(Run) -> Run) -> Self {
        self.run = change(self.run);
        self
    }

    pub fn args(self, args: &[&str]) -> Self {
        self.with(|run| run.args(args))
    }

    pub fn env(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.with(|run| run.env(name, value))
    }

    /// Where it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn start(self) -> Started {
        Started {
            running: self.run.start(),
            folder: self.folder,
            mode: self.mode,
        }
    }

    /// Runs it, whatever becomes of it.
    pub fn end(self) -> Finished {
        self.start().end()
    }

    /// Runs it; it must succeed, and the record must be right.
    #[track_caller]
    pub fn must_be_right(self) -> Finished {
        let finished = self.end();
        assert!(finished.ended.succeeded(), "{}", finished.ended.story());
        finished.must_be_right()
    }
}

impl Started {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn end(self) -> Finished {
        self.end_reading(usize::MAX)
    }

    /// Waits for its end, and reads so many of its captures.
    pub fn end_reading(self, most: usize) -> Finished {
        let ended = self.running.end();
        let (mut reports, mut unreadable) = (Vec::new(), Vec::new());
        for path in captures(self.folder.path()).into_iter().take(most) {
            match try_read(&path) {
                Ok(report) => reports.push(report),
                Err(words) => unreadable.push(words),
            }
        }
        reports.sort_by_key(Report::started_ns);
        Finished {
            truth: Truth::parse(&ended.stdout),
            ended,
            reports,
            unreadable,
            folder: self.folder,
            mode: self.mode,
        }
    }
}

/// Files in a folder that are called as captures are.
fn captures(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().contains(".lockprof")
        })
        .collect();
    paths.sort();
    paths
}

impl Finished {
    /// What is wrong with the record, process by process.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = self.unreadable.clone();
        let mut told = 0;
        for ((pid, image), process) in &self.truth.processes {
            let mut of_it = self.reports.iter().filter(|r| r.pid() == u64::from(*pid));
            match of_it.nth(*image as usize - 1) {
                Some(report) => {
                    told += 1;
                    let found = check(process, report, self.mode);
                    wrong.extend(found.into_iter().map(|w| format!("{pid}.{image} {w}")));
                }
                None => wrong.push(format!("{pid}.{image} left no capture")),
            }
        }
        if told == 0 && wrong.is_empty() {
            wrong.push("the program said nothing to compare with".to_owned());
        }
        if told < self.reports.len() {
            wrong.push(format!(
                "{} captures of {told} processes",
                self.reports.len()
            ));
        }
        wrong
    }

    /// The record says what the program said.
    #[track_caller]
    pub fn must_be_right(self) -> Self {
        let wrong = self.wrong();
        let some: Vec<_> = wrong.iter().take(12).map(String::as_str).collect();
        assert!(
            wrong.is_empty(),
            "{}\n{:?}, {} things are wrong:\n  {}",
            self.ended.story(),
            self.mode,
            wrong.len(),
            some.join("\n  ")
        );
        self
    }

    /// The only capture.
    #[track_caller]
    pub fn report(&self) -> &Report {
        assert_eq!(self.reports.len(), 1, "{}", self.ended.story());
        &self.reports[0]
    }
}
