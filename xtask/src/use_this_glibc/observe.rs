//! What a program does when it is run: exit status, output, complaints. Bounded in time and output, without input, without what it started.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use wait_timeout::ChildExt;

const LIMIT: Duration = Duration::from_secs(60);

/// More than any of the programs writes.
const MOST_OUTPUT: u64 = 8 << 20;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
    /// The time limit; the program was killed.
    Late,
    /// The kernel did not start it (the error number).
    NotStarted(i32),
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(out, "exit {status}"),
            Self::Signal(signal) => write!(out, "signal {signal}"),
            Self::Late => write!(out, "still running after {} s", LIMIT.as_secs()),
            Self::NotStarted(errno) => write!(
                out,
                "not started: {}",
                std::io::Error::from_raw_os_error(*errno)
            ),
        }
    }
}

/// What one run showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub end: End,
    pub out: Vec<u8>,
    pub complaints: Vec<u8>,
}

impl Seen {
    /// Where two runs differ first, in one line.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.end != other.end {
            let why = last_line(&other.complaints);
            return Some(format!("{} instead of {}: {why}", other.end, self.end));
        }
        let text = |name: &str, was: &[u8], is: &[u8]| {
            let at = was.iter().zip(is).take_while(|(a, b)| a == b).count();
            let line = is[..at]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let shown: String = String::from_utf8_lossy(&is[line..])
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(160)
                .collect();
            (was != is).then(|| format!("{name} differs at byte {at}: {shown}"))
        };
        text("standard output", &self.out, &other.out)
            .or_else(|| text("standard error", &self.complaints, &other.complaints))
    }

    /// A status and outputs that a run of the same program can be held against.
    pub fn ended_by_itself(&self) -> bool {
        matches!(self.end, End::Exit(_))
    }
}

pub fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.trim().lines().last().unwrap_or_default();
    line.chars().take(200).collect()
}

/// A folder to run in and for what a run leaves behind.
pub struct Bench {
    folder: PathBuf,
}

impl Bench {
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("run"))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    pub fn run<S: AsRef<OsStr>>(&self, program: &Path, words: &[S]) -> Result<Seen> {
        self.run_with(program, words, &[])
    }

    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        words: &[S],
        variables: &[(&str, &OsStr)],
    ) -> Result<Seen> {
        Ok(self.run_as(program, words, variables)?.0)
    }

    /// The same surroundings each time: a few variables, no input, an empty folder, no terminal on the standard streams.
    /// The process id too.
    fn run_as<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        words: &[S],
        variables: &[(&str, &OsStr)],
    ) -> Result<(Seen, u32)> {
        let (out, complaints) = (self.folder.join("stdout"), self.folder.join("stderr"));
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot make {}", path.display()))
        };
        let work = self.folder.join("run");
        let mut command = Command::new(program);
        command.args(words).current_dir(&work).env_clear();
        for (name, value) in [
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("TZ", "UTC"),
        ] {
            command.env(name, value);
        }
        command.env("HOME", &work).envs(variables.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&complaints)?);
        // Its own group: what it leaves behind is ended with it. No code between fork and exec, so that a damaged
        // file is not handed to a shell.
        command.process_group(0);
        let mut process = 0;
        let end = match command.spawn() {
            Err(error) => End::NotStarted(error.raw_os_error().unwrap_or(0)),
            Ok(mut child) => {
                process = child.id();
                let group = Pid::from_raw(i32::try_from(process)?);
                let status = child.wait_timeout(LIMIT)?;
                // Nobody may be left.
                let _ = killpg(group, Signal::SIGKILL);
                match status {
                    None => {
                        child.wait()?;
                        End::Late
                    }
                    Some(status) => match status.code() {
                        Some(code) => End::Exit(code),
                        None => End::Signal(status.signal().unwrap_or(0)),
                    },
                }
            }
        };
        let seen = Seen {
            end,
            out: head(&out)?,
            complaints: head(&complaints)?,
        };
        Ok((seen, process))
    }

    /// The libraries that the loader initialised in the program's process in a real run, those that were opened later among them.
    pub fn loaded<S: AsRef<OsStr>>(&self, program: &Path, words: &[S]) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("loader");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let report = folder.join("says");
        let variables = [
            ("LD_DEBUG", "libs".as_ref()),
            ("LD_DEBUG_OUTPUT", report.as_os_str()),
        ];
        let (_, process) = self.run_as(program, words, &variables)?;
        // One file a process. None: no dynamic loader ran.
        let text = std::fs::read(report.with_extension(process.to_string())).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut loaded: Vec<PathBuf> = Vec::new();
        for path in text
            .lines()
            .filter_map(|line| line.split_once("calling init: "))
            .map(|(_, path)| PathBuf::from(path))
        {
            if !loaded.contains(&path) {
                loaded.push(path);
            }
        }
        Ok(loaded)
    }
}

fn head(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MOST_OUTPUT).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> (tempfile::TempDir, Bench) {
        let folder = tempfile::tempdir().expect("a folder");
        let bench = Bench::new(folder.path()).expect("a bench");
        (folder, bench)
    }

    #[test]
    fn status_output_and_complaints_are_seen_and_told_apart() {
        let (_folder, bench) = bench();
        let sh = |text: &str| {
            bench
                .run(Path::new("/bin/sh"), &["-c", text])
                .expect("a run")
        };
        let seen = sh("echo a; echo b >&2; exit 3");
        assert_eq!(seen.end, End::Exit(3));
        assert_eq!(
            (seen.out.as_slice(), seen.complaints.as_slice()),
            (&b"a\n"[..], &b"b\n"[..])
        );
        assert_eq!(seen.difference(&seen.clone()), None);
        for other in [
            "echo a; echo b >&2; exit 4",
            "echo c; echo b >&2; exit 3",
            "echo a; echo d >&2; exit 3",
            "kill -9 $$",
        ] {
            assert!(seen.difference(&sh(other)).is_some(), "{other}");
        }
    }

    #[test]
    fn libraries_of_the_process_itself_are_seen() {
        let (_folder, bench) = bench();
        let loaded = bench
            .loaded(Path::new("/bin/sh"), &["-c", "/bin/ls >/dev/null; :"])
            .expect("a run");
        let named = |name: &str| {
            loaded
                .iter()
                .any(|path| path.to_string_lossy().contains(name))
        };
        assert!(named("/libc.so.6"), "{loaded:?}");
        assert!(!named("libselinux"), "ls is another process: {loaded:?}");
    }
}
