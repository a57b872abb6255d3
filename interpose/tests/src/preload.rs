//! Where the libraries to preload are.

use crate::compile::target_dir;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// `libautolock.so`: `$AUTOLOCK_LIB`, or the newer of the two that the workspace builds.
///
/// Panics with what to do when there is none.
pub fn autolock() -> PathBuf {
    newest(
        "AUTOLOCK_LIB",
        &["dist/lib/libautolock.so", "release/libautolock.so"],
        "cargo build --release -p autolock",
    )
}

/// What the variable names, or the newest of these files under the target directory.
///
/// Panics with what to do when there is none.
pub fn newest(variable: &str, names: &[&str], build: &str) -> PathBuf {
    if let Some(given) = std::env::var_os(variable) {
        let path = PathBuf::from(given);
        return match path.canonicalize() {
            Ok(path) => path,
            Err(error) => panic!("{variable}={}: {error}", path.display()),
        };
    }
    let target = target_dir();
    let newest = names
        .iter()
        .map(|name| target.join(name))
        .filter_map(|path| Some((modified(&path)?, path)))
        .max();
    match newest {
        Some((_, path)) => path,
        None => panic!(
            "no {} under {}: run `{build}`, or set {variable}",
            names[0],
            target.display()
        ),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// A shared library of the system by its file name, as the loader would find it.
pub fn system_library(name: &str) -> Option<PathBuf> {
    [
        "/usr/lib/x86_64-linux-gnu",
        "/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/usr/local/lib",
    ]
    .iter()
    .map(|directory| Path::new(directory).join(name))
    .find(|path| path.exists())
}
