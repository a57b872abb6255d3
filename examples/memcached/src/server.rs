//! One memcached process: started on a free loopback port, asked for its statistics, ended by its
//! own process id. The process never outlives this program.

use crate::client::Connection;
use crate::failure::missing;
use crate::process::{Guarded, describe, end_with_this_program, find, last_line, wait_until};
use anyhow::{Context, Result, bail, ensure};
use example_common::glibc::{self, Rewritten};
use example_common::lock::Lock;
use serde::Serialize;
use std::collections::HashMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long memcached may take to answer its first request, and to end after SIGTERM.
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A port that we found free can be taken by someone else before memcached binds it: try again.
const START_ATTEMPTS: u32 = 3;

/// memcached's item memory. The load fits, so that no value may be missing.
const MEMORY_MIB: &str = "256";

/// How one memcached is to run.
pub struct Setup<'a> {
    pub program: &'a Program,
    /// Worker threads.
    pub threads: u16,
    pub lock: &'a Lock,
    /// The library to preload for any lock but glibc's.
    pub library: Option<&'a Path>,
    /// Further environment variables.
    pub environment: Vec<(&'static str, String)>,
}

/// How memcached ended.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Shutdown {
    /// Exit status 0 in answer to SIGTERM or SIGINT.
    Clean,
    /// Another end; the text says which.
    Unclean(String),
}

impl std::fmt::Display for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shutdown::Clean => f.write_str("clean"),
            Shutdown::Unclean(how) => write!(f, "UNCLEAN: {how}"),
        }
    }
}

/// What memcached itself says about the load it has served.
#[derive(Serialize, Clone, Debug)]
pub struct Served {
    /// Gets, sets and counter updates.
    pub operations: u64,
    /// CPU time of the whole process, user and system.
    pub cpu_seconds: f64,
    /// Values thrown out for want of memory: after one, a missing value proves nothing.
    pub evictions: u64,
}

pub struct Server {
    process: Guarded,
    threads: u16,
    address: SocketAddr,
    stderr: PathBuf,
    /// Holds `stderr`.
    _folder: tempfile::TempDir,
}

/// memcached as it is installed, or a copy of it that runs on another glibc.
pub enum Program {
    Installed(PathBuf),
    Rewritten(Rewritten),
}

impl Program {
    /// Where memcached stands, or the line that says how to get it. Rewritten if a `glibc` is given; `library` is what will be preloaded.
    pub fn find(glibc: Option<&Path>, library: Option<&Path>) -> Result<Self> {
        let installed = find("memcached").ok_or_else(|| {
            missing("memcached is missing: apt-get install memcached (or run `cargo xtask demo`)")
        })?;
        Ok(match glibc {
            Some(prefix) => Self::Rewritten(Rewritten::new(&installed, prefix, library)?),
            None => Self::Installed(installed),
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Installed(path) => path,
            Self::Rewritten(rewritten) => &rewritten.program,
        }
    }

    /// The folder of another glibc, without links; none for the system's.
    pub fn glibc(&self) -> Option<&Path> {
        match self {
            Self::Installed(_) => None,
            Self::Rewritten(rewritten) => Some(&rewritten.prefix),
        }
    }
}

impl Server {
    /// Starts memcached and waits until it answers.
    pub fn start(setup: &Setup) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::try_start(setup) {
                Err(_) if attempt < START_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn try_start(setup: &Setup) -> Result<Self> {
        let program = setup.program.path();
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let stderr = folder.path().join("stderr");
        let address = free_address()?;

        let mut command = Command::new(program);
        command
            .args([
                "-l",
                &address.ip().to_string(),
                "-p",
                &address.port().to_string(),
                "-U",
                "0",
            ])
            .args(["-t", &setup.threads.to_string(), "-m", MEMORY_MIB]);
        if running_as_root()? {
            // memcached wants the choice of user spelled out. Changing it would make /proc/PID/maps
            // unreadable where root lacks CAP_SYS_PTRACE, as in most containers.
            command.args(["-u", "root"]);
        }
        setup.lock.apply(&mut command, setup.library);
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr)?);
        end_with_this_program(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;

        let mut server = Self {
            process: Guarded(child),
            threads: setup.threads,
            address,
            stderr,
            _folder: folder,
        };
        server.wait_until_it_answers()?;
        if let Some(prefix) = setup.program.glibc() {
            ensure!(
                glibc::maps_its_libc(&server.maps()?, prefix),
                "memcached does not run on the glibc in {}",
                prefix.display()
            );
        }
        Ok(server)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.process.0.try_wait()? {
                let said = std::fs::read_to_string(&self.stderr).unwrap_or_default();
                bail!(
                    "memcached ended at once ({status}): {}",
                    last_line(&said).unwrap_or("no message")
                );
            }
            match self.is_ours() {
                Ok(true) => return Ok(()),
                Ok(false) => bail!("another memcached has taken port {}", self.address.port()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!(
                        "memcached gave no answer within {} s of its start",
                        START_LIMIT.as_secs()
                    )));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Whether whoever answers on our port is the process that we started.
    fn is_ours(&self) -> Result<bool> {
        let mut connection = Connection::open(self.address)?;
        connection.version()?;
        let stats = connection.stats()?;
        Ok(number::<u32>(&stats, "pid")? == self.process.0.id())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn version(&self) -> Result<String> {
        Connection::open(self.address)?.version()
    }

    /// Connections that memcached has open now, ours for the question included.
    pub fn connections(&self) -> Result<u64> {
        number(
            &Connection::open(self.address)?.stats()?,
            "curr_connections",
        )
    }

    /// Checks that every worker thread still answers. memcached deals new connections to its workers
    /// in turn, so that twice their number reaches each; a load generator would only get slower.
    pub fn check_workers(&self) -> Result<()> {
        for _ in 0..2 * self.threads {
            self.version()
                .context("a worker thread of memcached does not answer any more")?;
        }
        Ok(())
    }

    /// `error` with the reason, if the reason is that memcached has died.
    pub fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        // A process that dumps core closes its connections before its end can be seen.
        match wait_until(
            &mut self.process.0,
            Instant::now() + Duration::from_millis(500),
        ) {
            Ok(Some(status)) => {
                let said = std::fs::read_to_string(&self.stderr).unwrap_or_default();
                let last = last_line(&said)
                    .map(|line| format!(" (`{line}`)"))
                    .unwrap_or_default();
                error.context(format!(
                    "memcached ended under load, {}{last}",
                    describe(status)
                ))
            }
            _ => error,
        }
    }

    pub fn served(&self) -> Result<Served> {
        let stats = Connection::open(self.address)?.stats()?;
        let count = |name| number::<u64>(&stats, name);
        Ok(Served {
            operations: count("cmd_get")? + count("cmd_set")? + count("incr_hits")?,
            cpu_seconds: number::<f64>(&stats, "rusage_user")?
                + number::<f64>(&stats, "rusage_system")?,
            evictions: count("evictions")?,
        })
    }

    /// Whether `library` is mapped into the running process.
    pub fn has_mapped(&self, library: &Path) -> Result<bool> {
        Ok(crate::proof::maps_name(&self.maps()?, library))
    }

    /// Whether the running process has mapped autolockd's table, or another BPF map.
    pub fn has_mapped_a_table(&self) -> Result<bool> {
        Ok(self.maps()?.contains("anon_inode:bpf-map"))
    }

    fn maps(&self) -> Result<String> {
        std::fs::read_to_string(format!("/proc/{}/maps", self.pid()))
            .context("cannot read memcached's /proc/PID/maps")
    }

    /// Sends SIGTERM or SIGINT, waits for the end and gives it with what memcached wrote to stderr.
    pub fn stop(mut self, signal: libc::c_int) -> Result<(Shutdown, String)> {
        let pid = libc::pid_t::try_from(self.pid()).context("a process id out of range")?;
        // SAFETY: kill takes no pointers. The process is our child and has not been reaped (only
        // `wait_until` below and `Guarded` do that), so the id cannot belong to another process.
        if unsafe { libc::kill(pid, signal) } != 0 {
            return Err(std::io::Error::last_os_error())
                .context("cannot send a signal to memcached");
        }
        let status = wait_until(&mut self.process.0, Instant::now() + STOP_LIMIT)?;
        let said = std::fs::read(&self.stderr).unwrap_or_default();
        Ok((
            classify(status),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }
}

/// memcached answers SIGTERM and SIGINT by joining its threads and leaving `main` with status 0.
fn classify(status: Option<ExitStatus>) -> Shutdown {
    match status {
        None => Shutdown::Unclean(format!(
            "still running {} s after the signal to end, killed",
            STOP_LIMIT.as_secs()
        )),
        Some(status) if status.success() => Shutdown::Clean,
        Some(status) => Shutdown::Unclean(describe(status)),
    }
}

fn number<T: std::str::FromStr>(stats: &HashMap<String, String>, name: &str) -> Result<T> {
    stats
        .get(name)
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("memcached's stats have no usable `{name}`"))
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("cannot find a free port on 127.0.0.1")?;
    Ok(listener.local_addr()?)
}

fn running_as_root() -> Result<bool> {
    Ok(std::fs::metadata("/proc/self")
        .context("cannot read /proc/self: is /proc mounted?")?
        .uid()
        == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn only_exit_status_zero_in_time_is_clean() {
        assert_eq!(classify(Some(ExitStatus::from_raw(0))), Shutdown::Clean);
        for (status, says) in [
            (Some(ExitStatus::from_raw(11)), "signal 11"),
            (Some(ExitStatus::from_raw(3 << 8)), "status 3"),
            (None, "still running"),
        ] {
            let shutdown = classify(status);
            assert!(
                shutdown != Shutdown::Clean && shutdown.to_string().contains(says),
                "{shutdown}"
            );
        }
    }
}
