//! `TEST_GLIBC=PREFIX cargo test -p autolock-tests`: every compiled program runs on the glibc that is installed there, rewritten with `use-this-glibc`.
//!
//! The programs look that it is so (`check_start`). Programs of the system that a test runs stay on the system's glibc.

use crate::preload::newest;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of that glibc, without links; none if the system's is under test.
pub fn prefix() -> Option<&'static Path> {
    static PREFIX: OnceLock<Option<PathBuf>> = OnceLock::new();
    let prefix = PREFIX.get_or_init(|| {
        let given = PathBuf::from(std::env::var_os("TEST_GLIBC")?);
        match given.canonicalize() {
            Ok(path) => Some(path),
            Err(error) => panic!("TEST_GLIBC={}: {error}", given.display()),
        }
    });
    prefix.as_deref()
}

/// Makes a program run on it.
pub(crate) fn rewrite(program: &Path, prefix: &Path) {
    let tool = newest(
        "USE_THIS_GLIBC",
        &[
            "dist/bin/use-this-glibc",
            "release/use-this-glibc",
            "debug/use-this-glibc",
        ],
        "cargo build --release -p use-this-glibc",
    );
    let mut command = Command::new(&tool);
    command
        .args(["--quiet", "--in-place", "--no-backup"])
        .args([prefix, program]);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run {}: {error}", tool.display()),
    };
    assert!(
        output.status.success(),
        "use-this-glibc {} {}: {}",
        prefix.display(),
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}
