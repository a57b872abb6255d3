//! Asks the new loader what it would load, without running the program: `LOADER --list FILE` reads the text, since the exit status lies.

use std::path::Path;

use crate::error::Result;
use crate::prefix::Prefix;

/// Fails ([`crate::error::Error::Check`]) unless the loader finds every library, and finds `libc.so.6` and every other library that the prefix has in the prefix.
/// `file` is the changed file under a temporary name in `origin`'s folder, so that `$ORIGIN` is the same.
pub fn check(file: &Path, prefix: &Prefix) -> Result<()> {
    let _ = (file, prefix);
    todo!()
}
