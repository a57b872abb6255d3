//! The load generators, and the figures they print.
//!
//! memaslap keeps a number of connections busy for a given time. memcslap sends a given number of
//! requests, so it is started again and again until the time is over. Both stop by themselves and
//! are killed if they do not. The pipelined load is made by this program.

mod parse;
mod pipelined;

pub use parse::Load;

use crate::cli::Choice;
use crate::failure::missing;
use crate::memaslap::{self, Memaslap};
use crate::process::{Guarded, last_line, need, output, wait_until};
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time beyond the asked duration that a generator may take: memaslap sleeps a second at its end.
const GRACE: Duration = Duration::from_secs(20);

/// memaslap's keys, values and commands: 32 bytes, 100 bytes, one set (command 0) to nine gets
/// (command 1). Small, so that locks matter more than copying. Given as a file, because without one
/// memaslap writes its defaults to the user's home.
const MEMASLAP_CONFIGURATION: &str = "key\n32 32 1\nvalue\n100 100 1\ncmd\n0 0.1\n1 0.9\n";

/// Requests per connection in one run of memcslap: well under a second.
const MEMCSLAP_REQUESTS: u64 = 500;

/// A load generator that is known to run here.
#[derive(Debug)]
pub enum Generator {
    Memaslap(Memaslap),
    Memcslap(PathBuf),
    /// Our own; by name alone.
    Pipelined,
}

impl Generator {
    /// The generator that `choice` stands for, fetched and built if need be. `progress` is told of
    /// long steps; `note` of a fall-back.
    pub fn find(choice: Choice, progress: &dyn Fn(&str), note: &dyn Fn(&str)) -> Result<Self> {
        let memcslap = || need("memcslap", "libmemcached-tools").map(Self::Memcslap);
        match choice {
            Choice::Pipelined => Ok(Self::Pipelined),
            Choice::Memcslap => memcslap(),
            Choice::Memaslap => memaslap::obtain(progress).map(Self::Memaslap).map_err(|error| {
                missing(format!("memaslap cannot be had ({error:#}): put that right or use --generator memcslap"))
            }),
            Choice::Auto => memaslap::obtain(progress)
                .map(Self::Memaslap)
                .or_else(|error| {
                    note(&format!(
                        "memaslap cannot be had ({error:#}); using memcslap instead"
                    ));
                    memcslap()
                }),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Memaslap(_) => "memaslap",
            Self::Memcslap(_) => "memcslap",
            Self::Pipelined => "pipelined load",
        }
    }

    /// None: this program.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Memaslap(memaslap) => Some(&memaslap.path),
            Self::Memcslap(path) => Some(path),
            Self::Pipelined => None,
        }
    }

    /// The generator's own version line.
    pub fn version(&self) -> Result<String> {
        let Some(path) = self.path() else {
            return Ok(self.name().to_string());
        };
        let text = output(Command::new(path).arg("--version"), self.name())?;
        Ok(text.lines().next().unwrap_or_default().trim().to_string())
    }

    /// Connections that the generator opens when asked for `wanted`.
    pub fn connections(&self, wanted: u16) -> u16 {
        match self {
            Self::Memaslap(_) => memaslap_connections(wanted),
            Self::Memcslap(_) | Self::Pipelined => wanted,
        }
    }

    /// Loads `address` for `duration` and gives what the generator reported.
    pub fn load(&self, address: SocketAddr, connections: u16, duration: Duration) -> Result<Load> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        match self {
            Self::Pipelined => pipelined::load(address, connections, duration),
            Self::Memaslap(memaslap) => {
                let configuration = folder.path().join("memaslap.cnf");
                std::fs::write(&configuration, MEMASLAP_CONFIGURATION)?;
                let mut command = Command::new(&memaslap.path);
                command
                    .arg("-F")
                    .arg(&configuration)
                    .args([
                        "-s",
                        &address.to_string(),
                        "-T",
                        &memaslap_threads(connections).to_string(),
                    ])
                    .args(["-c", &self.connections(connections).to_string()])
                    // A working set of a thousand values per connection, one read in ten checked.
                    .args(["-w", "1k", "-v", "0.1"])
                    // Latencies come only with an interval: one that never ends within the run.
                    .args(["-S", "3600s"])
                    .args(["-t", &format!("{}s", whole_seconds(duration))]);
                parse::memaslap(&run(&mut command, folder.path(), duration + GRACE)?)
            }
            Self::Memcslap(path) => {
                let end = Instant::now() + duration;
                let mut text = String::new();
                while Instant::now() < end {
                    let mut command = Command::new(path);
                    command
                        .args(["--test=get", "--servers", &address.to_string()])
                        .args([
                            format!("--concurrency={connections}"),
                            format!("--execute-number={MEMCSLAP_REQUESTS}"),
                        ]);
                    text += &run(&mut command, folder.path(), GRACE)?;
                }
                parse::memcslap(&text)
            }
        }
    }
}

/// memaslap counts in whole seconds.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000) as u64
}

/// memaslap's own threads: it must leave the processors to memcached as well as it can.
fn memaslap_threads(connections: u16) -> u16 {
    connections.min(2)
}

/// memaslap wants the same number of connections in each of its threads.
fn memaslap_connections(wanted: u16) -> u16 {
    wanted.next_multiple_of(memaslap_threads(wanted))
}

/// Runs a generator to its end and gives what it wrote to stdout. Its output passes through `folder`.
fn run(command: &mut Command, folder: &Path, limit: Duration) -> Result<String> {
    let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&stdout)?)
        .stderr(std::fs::File::create(&stderr)?);
    let mut child = Guarded(
        command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?,
    );
    let status = wait_until(&mut child.0, Instant::now() + limit)?;
    let read = |path| {
        std::fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    let (text, said) = (read(&stdout), read(&stderr));
    match status {
        Some(status) if status.success() => Ok(text),
        Some(status) => bail!(
            "{name} failed ({status}): {}",
            last_line(&said)
                .or(last_line(&text))
                .unwrap_or("no message")
        ),
        None => bail!(
            "{name} was still running {} s after its start: memcached or its connections hang",
            limit.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memaslap_gets_whole_seconds_and_whole_threads() {
        assert_eq!(whole_seconds(Duration::from_millis(500)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(5)), 5);
        assert_eq!([1, 2, 3, 64].map(memaslap_connections), [1, 2, 4, 64]);
    }
}
