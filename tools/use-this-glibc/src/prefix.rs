//! The glibc below a folder: its loader, its libraries, its version.

use std::path::{Path, PathBuf};

use crate::error::Result;

/// A complete glibc: a loader that runs and a libc beside it, both for x86-64.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// Absolute, without links in it, as it goes into programs.
    pub folder: PathBuf,
    /// `ld-linux-x86-64.so.2`: the new `PT_INTERP`.
    pub loader: PathBuf,
    /// The folder of `libc.so.6`; it begins the run path.
    pub lib: PathBuf,
    /// As the loader prints it, such as `2.36`.
    pub version: String,
    /// Directories that this loader searches by itself (its `--list-diagnostics` or `--help`, read as text).
    pub default_folders: Vec<PathBuf>,
}

impl Prefix {
    /// Looks in `lib`, `lib64` and `lib/x86_64-linux-gnu`, and runs the loader. An incomplete prefix is
    /// [`crate::error::Error::Usage`] with what is missing.
    pub fn open(folder: &Path) -> Result<Self> {
        let _ = folder;
        todo!()
    }
}
