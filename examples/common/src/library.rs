//! Where the preloads and the tool for them are. Looks at the file system, and starts nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::failure::missing;

/// The mutexes.
pub const AUTOLOCK: &str = "libautolock.so";
/// The profiler.
pub const PROFILER: &str = "libpthread-mutex-profile.so";
/// Reads what the profiler recorded.
pub const TOOL: &str = "autolock";

/// The library `name` to preload, as an absolute path without links: the one given, or the one in the usual places.
pub fn find(name: &str, given: Option<&Path>) -> Result<PathBuf> {
    let candidates = match given {
        Some(path) => vec![path.to_path_buf()],
        None => usual_places("lib", name),
    };
    let found = candidates
        .iter()
        .find_map(|path| path.canonicalize().ok().filter(|path| path.is_file()))
        .ok_or_else(|| match given {
            Some(path) => missing(format!(
                "no library at {}: build it with `cargo xtask dist` and give its path with --lib",
                path.display()
            )),
            None => missing(format!(
                "{name} not found: run `cargo xtask dist`, or give its path with --lib"
            )),
        })?;
    // The loader splits LD_PRELOAD at spaces and colons and knows no quoting.
    if found.to_string_lossy().contains([' ', ':']) {
        return Err(missing(format!(
            "LD_PRELOAD cannot name {}: copy the library to a path without spaces and colons",
            found.display()
        )));
    }
    Ok(found)
}

/// The program `name`, built with the library: in the `bin` beside its `lib`, or in the usual places.
pub fn program(name: &str, library: Option<&Path>) -> Result<PathBuf> {
    let beside = library
        .and_then(Path::parent)
        .map(|lib| lib.join("../bin").join(name));
    beside
        .into_iter()
        .chain(usual_places("bin", name))
        .find_map(|path| path.canonicalize().ok().filter(|path| path.is_file()))
        .ok_or_else(|| missing(format!("{name} not found: run `cargo xtask dist`")))
}

/// `../lib` and `../dist/lib` beside this program (the installed and the cargo layout), then the
/// workspace's `target/dist/lib` seen from the current folder; the same of `bin`.
fn usual_places(kind: &str, name: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(folder) = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_path_buf))
    {
        places.push(folder.join("..").join(kind).join(name));
        places.push(folder.join("../dist").join(kind).join(name));
    }
    places.push(Path::new("target/dist").join(kind).join(name));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_said_in_one_line() {
        let error = find(AUTOLOCK, Some(Path::new("/nonexistent/libautolock.so")))
            .expect_err("no such file");
        assert!(error.to_string().contains("cargo xtask dist"), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
