//! One daemon for a table, and one for a socket: locks that the kernel releases however their holder ends.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held while the daemon runs.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Locks the folder of the pinned table.
///
/// # Errors
/// Another daemon has it.
pub fn lock_table(folder: &Path) -> Result<Lock> {
    let file = File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
    lock(file, &format!("the table below {}", folder.display()))
}

/// Locks a file beside the socket. The file stays: removing it could leave two daemons with a lock each.
///
/// # Errors
/// Another daemon has it, or the folder cannot be written.
pub fn lock_socket(socket: &Path) -> Result<Lock> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    lock(file, &format!("the socket {}", socket.display()))
}

fn lock(file: File, what: &str) -> Result<Lock> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Lock(lock)),
        Err((_, Errno::EWOULDBLOCK)) => {
            bail!("another autolockd has {what}: `autolockd --status` tells of it; stop it first")
        }
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {what}")),
    }
}
