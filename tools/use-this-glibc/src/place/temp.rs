//! A file under a temporary name in the folder where it will stand.
//!
//! The name is made of the file's own, `.NAME.use-this-glibc`, and the file is locked while its run lives (flock(2)): a second
//! run on the same file sees that it is not alone, and what a killed run left is found, and removed, by the next one.
//!
//! The file is removed on every way out: when a [`Temp`] is dropped, and at SIGHUP, SIGINT and SIGTERM ([`remove_on_signals`]).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::error::{Error, Result};

/// Files to remove at a signal. Held while one is made, renamed or removed: it is in the list while it stands under its temporary name.
static STANDING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

const SUFFIX: &[u8] = b".use-this-glibc";
/// Of the file's name; the whole stays below the 255 bytes that a name may have.
const LONGEST: usize = 200;
/// Zeros of this size and alignment are left out: a hole.
const PAGE: usize = 4096;

/// Not in its place yet: removed when dropped.
#[derive(Debug)]
pub struct Temp {
    path: PathBuf,
    file: File,
}

impl Temp {
    /// An empty file for `of`, in its folder, for its user alone.
    pub fn create(of: &Path) -> Result<Self> {
        let path = temporary_name(of);
        let mut standing = standing();
        // Each failed round is another run's doing, or removed a killed run's file.
        for _ in 0..16 {
            let mut options = File::options();
            options.read(true).write(true).create_new(true).mode(0o600);
            match options.open(&path) {
                Ok(file) => {
                    // Another run may have found it before it was locked, and removed it.
                    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    if locked != Err(Errno::WOULDBLOCK) && stands(&file, &path) {
                        standing.push(path.clone());
                        return Ok(Self { path, file });
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    remove_abandoned(&path, of)?;
                }
                Err(error) => {
                    return Err(Error::Io(format!(
                        "cannot make a file in {}: {error}",
                        of.parent().unwrap_or(Path::new("/")).display()
                    )));
                }
            }
        }
        Err(busy(of))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes all bytes, pages of zeros as holes.
    pub fn fill(&self, bytes: &[u8]) -> Result<()> {
        self.write(bytes).map_err(|error| self.failed(&error))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let zero = |page: &[u8]| page.iter().all(|&byte| byte == 0);
        let mut at = 0;
        for run in bytes
            .chunks(PAGE)
            .collect::<Vec<_>>()
            .chunk_by(|a, b| zero(a) == zero(b))
        {
            let length = run.iter().map(|page| page.len()).sum::<usize>();
            if !zero(run[0]) {
                self.file.write_all_at(&bytes[at..at + length], at as u64)?;
            }
            at += length;
        }
        self.file.set_len(bytes.len() as u64)
    }

    /// On disk from here on.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed(&error))
    }

    /// Takes the place of `path`, at once.
    pub fn rename_over(self, path: &Path) -> Result<()> {
        self.move_away(path, |from| fs::rename(from, path))
    }

    /// Becomes `path`, which must not be there.
    pub fn rename_to_new(self, path: &Path) -> Result<()> {
        self.move_away(path, |from| {
            match renameat_with(CWD, from, CWD, path, RenameFlags::NOREPLACE) {
                // This file system cannot; the caller looked a moment ago.
                Err(Errno::INVAL | Errno::NOSYS) if path.symlink_metadata().is_err() => {
                    fs::rename(from, path)
                }
                result => Ok(result?),
            }
        })
    }

    fn move_away(self, to: &Path, rename: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
        let mut standing = standing();
        match rename(&self.path) {
            Ok(()) => {
                standing.retain(|path| *path != self.path);
                Ok(())
            }
            Err(error) => {
                let hint = match error.kind() {
                    ErrorKind::PermissionDenied => " (is it immutable? see lsattr)",
                    _ => "",
                };
                let shown = to.display();
                Err(Error::Io(format!("cannot replace {shown}: {error}{hint}")))
            }
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::Io(format!("cannot write {}: {error}", self.path.display()))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let mut standing = standing();
        if let Some(at) = standing.iter().position(|path| *path == self.path) {
            standing.swap_remove(at);
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// From here on a signal that ends the program removes its temporary files first. A signal that was ignored stays so.
/// A file that grows past its limit (`ulimit -f`) is an error and no signal.
pub fn remove_on_signals() -> io::Result<()> {
    let ending = [SIGHUP, SIGINT, SIGTERM]
        .into_iter()
        .filter(|&signal| !ignored(signal));
    let mut signals = Signals::new(ending)?;
    signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    thread::Builder::new().spawn(move || {
        for signal in &mut signals {
            // Not given back: nothing is renamed or made from here on.
            let standing = standing();
            for path in &*standing {
                let _ = fs::remove_file(path);
            }
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// As nohup(1) leaves it.
fn ignored(signal: i32) -> bool {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks only (no new action), and `action` is ours to write.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn standing() -> MutexGuard<'static, Vec<PathBuf>> {
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn temporary_name(of: &Path) -> PathBuf {
    let name = of.file_name().unwrap_or_default().as_bytes();
    let name = &name[..name.len().min(LONGEST)];
    let name = [b".", name, SUFFIX].concat();
    of.with_file_name(std::ffi::OsString::from_vec(name))
}

/// Removes what a killed run left. [`Error::Io`] if a run is at work with it, or if it is not ours.
fn remove_abandoned(path: &Path, of: &Path) -> Result<()> {
    let mut options = File::options();
    options.read(true).write(true);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let in_the_way = || {
        let shown = path.display();
        Error::Io(format!(
            "{shown} is in the way: remove it if nobody works on it"
        ))
    };
    let left = match options.open(path) {
        Ok(left) => left,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(_) => return Err(in_the_way()),
    };
    if !left.metadata().is_ok_and(|left| left.is_file()) {
        return Err(in_the_way());
    }
    match flock(&left, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if stands(&left, path) => fs::remove_file(path).map_err(|_| in_the_way()),
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(busy(of)),
        Err(_) => Err(in_the_way()),
    }
}

/// Is the open file the one of this name?
fn stands(file: &File, path: &Path) -> bool {
    let identity = |of: fs::Metadata| (of.dev(), of.ino());
    let open = file.metadata().map(identity);
    let named = path.symlink_metadata().map(identity);
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

fn busy(of: &Path) -> Error {
    let shown = of.display();
    Error::Io(format!(
        "another run is at work on {shown}: run again when it is done"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_written_with_holes_or_without() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = |byte: u8, size: usize| vec![byte; size];
        let contents = [
            vec![],
            page(0, 1),
            page(0, 3 * PAGE),
            [page(7, PAGE), page(0, 2 * PAGE)].concat(),
            [page(0, PAGE), page(7, 1)].concat(),
            [
                page(7, 3),
                page(0, PAGE),
                page(7, 3 * PAGE),
                page(0, PAGE + 5),
            ]
            .concat(),
        ];
        for bytes in contents {
            let temp = Temp::create(&folder.path().join("file")).expect("a file");
            temp.fill(&bytes).expect("written");
            assert!(fs::read(temp.path()).expect("read") == bytes);
            drop(temp);
            assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
        }
    }
}
