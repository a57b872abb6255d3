//! The change: interpreter, run path, needed libraries.
//!
//! Nothing of the file moves. What has to grow (program headers, dynamic strings, the dynamic section if it has no spare
//! entries) is copied to the end of the file, into one more `PT_LOAD`, and pointed at from there.

use crate::error::Result;

/// Which tag holds the run path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunPath {
    /// `DT_RPATH`: also for the libraries of the libraries.
    Rpath,
    /// `DT_RUNPATH`: for the program's own needed libraries alone.
    Runpath,
}

/// What to change; the rest stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The new `PT_INTERP`, without NUL.
    pub interpreter: Option<Vec<u8>>,
    /// The new run path; takes the place of `DT_RPATH` and `DT_RUNPATH` both.
    pub run_path: Option<(RunPath, Vec<u8>)>,
    /// Needed libraries that come after those that are there.
    pub add_needed: Vec<Vec<u8>>,
}

/// The changed file: the original's bytes, a few of them overwritten, the new segment, and the [`undo`](super::undo) record.
///
/// `original` must not be a changed file itself: take the change back first ([`super::undo::original`]).
/// The same input gives the same output. Refusals are [`crate::error::Error::Unsupported`].
pub fn apply(original: &[u8], change: &Change) -> Result<Vec<u8>> {
    let _ = (original, change);
    todo!()
}
