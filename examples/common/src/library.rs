//! Where libautolock.so is. Looks at the file system, and starts nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::failure::missing;

const LIBRARY: &str = "libautolock.so";

/// The library to preload, as an absolute path without links: the one given, or the one in the usual places.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    let candidates = match given {
        Some(path) => vec![path.to_path_buf()],
        None => usual_places(),
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
                "{LIBRARY} not found: run `cargo xtask dist`, or give its path with --lib"
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

/// `../lib` and `../dist/lib` beside this program (the installed and the cargo layout), then the
/// workspace's `target/dist/lib` seen from the current folder.
fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(folder) = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_path_buf))
    {
        places.push(folder.join("../lib").join(LIBRARY));
        places.push(folder.join("../dist/lib").join(LIBRARY));
    }
    places.push(Path::new("target/dist/lib").join(LIBRARY));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_said_in_one_line() {
        let error = find(Some(Path::new("/nonexistent/libautolock.so"))).expect_err("no such file");
        assert!(error.to_string().contains("cargo xtask dist"), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
