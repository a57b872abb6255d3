//! An `autolockd` for the length of a benchmark.
//!
//! May touch: the calling thread's mount namespace, which everything that is started afterwards shares; a scratch folder.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use super::guarded;
use crate::Usage;
use crate::project::Project;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A BPF file system and a socket for one daemon after the other.
pub struct Place {
    program: PathBuf,
    folder: TempDir,
}

impl Place {
    /// Moves this thread into a mount namespace of its own: to be called before anything else is started.
    pub fn new(project: &Project) -> Result<Self> {
        if !geteuid().is_root() {
            return Err(Usage("autolockd has to be started: run this as root".into()).into());
        }
        let folder = tempfile::tempdir().context("cannot make a scratch folder")?;
        let place = Self {
            program: project.program("autolockd"),
            folder,
        };
        fs::create_dir(place.bpffs())?;
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .and_then(|()| {
                mount(Some("bpf"), &place.bpffs(), Some("bpf"), MsFlags::empty(), none)
            })
            .context("a BPF file system cannot be mounted in a mount namespace of our own: run this as root, outside of containers")?;
        Ok(place)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A folder for whoever needs one; gone with the benchmark.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    fn bpffs(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    /// Starts a daemon, and waits until its program is attached.
    pub fn start(&self) -> Result<Daemon> {
        let notify = self.folder.path().join("notify");
        let _ = fs::remove_file(&notify);
        let notices = UnixDatagram::bind(&notify)?;
        notices.set_read_timeout(Some(Duration::from_millis(50)))?;
        let log = self.folder.path().join("log");
        let child = guarded(&self.program)
            .arg("--socket")
            .arg(self.socket())
            .arg("--bpffs")
            .arg(self.bpffs())
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start autolockd")?;
        let mut daemon = Daemon(child);
        let begin = Instant::now();
        let mut notice = [0; 64];
        loop {
            match notices.recv(&mut notice) {
                Ok(_) if notice.starts_with(b"READY=1") => return Ok(daemon),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot hear from autolockd"),
            }
            let ended = daemon.0.try_wait()?;
            if ended.is_some() || begin.elapsed() > START_LIMIT {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("autolockd does not start: {}", said.trim());
            }
        }
    }
}

/// A running daemon; stopped when it is dropped.
pub struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // The process is ours and has not been waited for.
        if let Ok(pid) = self.0.id().try_into() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}
