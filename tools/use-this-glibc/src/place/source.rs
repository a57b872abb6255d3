//! Reading the program, and knowing it again.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Larger files are not read: 4 GiB.
const LARGEST: u64 = 4 << 30;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// A file that was read whole.
#[derive(Debug)]
pub struct Source {
    /// As the user named it.
    pub given: PathBuf,
    /// Absolute, without links in it.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub(super) file: File,
    pub(super) metadata: Metadata,
}

impl Source {
    /// Reads regular files only, and no setuid or setgid ones ([`Error::Unsupported`]). Symbolic links are followed.
    pub fn read(given: &Path) -> Result<Self> {
        let shown = given.display();
        let failed = |error| Error::Io(format!("cannot read {shown}: {error}"));
        let path = given.canonicalize().map_err(failed)?;
        // Before it is opened: opening a device may do something.
        regular(given, &path.metadata().map_err(failed)?)?;
        // Should it have become a FIFO: without waiting for its writer.
        let mut options = File::options();
        options.read(true);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let mut file = options.open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        regular(given, &metadata)?;
        let mode = metadata.mode();
        if mode & (SETUID | SETGID) != 0 {
            let bit = if mode & SETUID != 0 {
                "setuid"
            } else {
                "setgid"
            };
            return Err(Error::Unsupported(format!(
                "{shown} is {bit}: whoever may write to the prefix would have its rights; take the bit away first (chmod -s) if it need not have it"
            )));
        }
        if metadata.len() > LARGEST {
            return Err(Error::Unsupported(format!(
                "{shown} is larger than {} GiB",
                LARGEST >> 30
            )));
        }
        let mut bytes = Vec::new();
        let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if bytes.try_reserve_exact(size.saturating_add(1)).is_err() {
            return Err(Error::Io(format!(
                "cannot read {shown}: not enough memory for its {size} bytes"
            )));
        }
        let mut limited = (&mut file).take(LARGEST);
        limited.read_to_end(&mut bytes).map_err(failed)?;
        let source = Self {
            given: given.into(),
            path,
            bytes,
            file,
            metadata,
        };
        if source.bytes.len() as u64 != source.metadata.len() {
            return Err(source.changed());
        }
        Ok(source)
    }

    /// How many names the file has.
    pub fn links(&self) -> u64 {
        self.metadata.nlink()
    }

    /// Does the name still stand for the file that was read, and is that as it was?
    /// By device, inode, size and time of modification.
    pub fn still_the_same(&self) -> Result<()> {
        let same = self.path.symlink_metadata().is_ok_and(|now| {
            let time = |of: &Metadata| (of.mtime(), of.mtime_nsec());
            self.is(&now)
                && now.len() == self.metadata.len()
                && time(&now) == time(&self.metadata)
                && now.mode() == self.metadata.mode()
        });
        if same { Ok(()) } else { Err(self.changed()) }
    }

    /// Is it the same file, by whatever name?
    pub(super) fn is(&self, other: &Metadata) -> bool {
        (other.dev(), other.ino()) == (self.metadata.dev(), self.metadata.ino())
    }

    fn changed(&self) -> Error {
        Error::Check(format!(
            "{} was changed by someone else meanwhile: run again",
            self.given.display()
        ))
    }
}

fn regular(given: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = if metadata.is_dir() {
        "a folder"
    } else {
        "a device, pipe or socket"
    };
    Err(Error::Unsupported(format!(
        "{} is {kind}, not a program",
        given.display()
    )))
}
