//! A program and a prefix to a [`Change`], and what speaks against it.

use std::path::Path;

use crate::elf::{Change, RunPath};
use crate::error::Result;
use crate::prefix::Prefix;

/// What the user asked for besides the prefix.
#[derive(Debug, Clone)]
pub struct Wishes {
    pub run_path: RunPath,
    /// `--add-needed`.
    pub add_needed: Vec<Vec<u8>>,
}

/// What would be done to one program.
#[derive(Debug, Clone)]
pub struct Plan {
    pub change: Change,
    /// Names among `change.add_needed` that nobody asked for, with the library on whose account they are there: the library has a
    /// run path of its own, for which the program's does not count.
    pub added_for: Vec<(String, String)>,
    /// One line each: what the user should know (a libcrypt of the prefix shadows the system's, a weak version is missing ...).
    pub warnings: Vec<String>,
}

/// `original` is the program's file before any change of ours; `path` is where it stands (for `$ORIGIN`).
/// Needed versions that the closure lacks are [`crate::error::Error::Check`], libraries that nothing finds too.
pub fn plan(original: &[u8], path: &Path, prefix: &Prefix, wishes: &Wishes) -> Result<Plan> {
    let _ = (original, path, prefix, wishes);
    todo!()
}
