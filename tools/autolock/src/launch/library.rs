//! Where the preloads are, and what `LD_PRELOAD` becomes. Looks at the file system and the environment, changes neither.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The mutexes.
pub const AUTOLOCK: &str = "libautolock.so";
/// The profiler.
pub const PROFILER: &str = "libpthread-mutex-profile.so";
/// Names the folder of both.
pub const FOLDER: &str = "AUTOLOCK_LIB_DIR";

/// The library `name`: `given`, or in the usual places. Absolute, for programs change folders.
pub fn find(name: &str, given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return usable(given).with_context(|| format!("no library at {}", given.display()))?;
    }
    if let Some(folder) = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
        let path = Path::new(&folder).join(name);
        return usable(&path)
            .with_context(|| format!("no library at {}, which {FOLDER} names", path.display()))?;
    }
    search(name, &usual_folders())
}

/// The library `name` in the folder of `other`, or in the usual places.
pub fn find_beside(name: &str, other: &Path) -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> = other.parent().map(Path::to_path_buf).into_iter().collect();
    folders.extend(std::env::var_os(FOLDER).map(PathBuf::from));
    folders.extend(usual_folders());
    search(name, &folders)
}

fn search(name: &str, folders: &[PathBuf]) -> Result<PathBuf> {
    folders
        .iter()
        .find_map(|folder| usable(&folder.join(name)))
        .with_context(|| {
            format!("{name} not found: build it with `cargo xtask dist`, or name it with --lib or its folder with {FOLDER}")
        })?
}

/// `../lib` beside this program (installed), its own folder (just built).
fn usual_folders() -> Vec<PathBuf> {
    let executable = std::env::current_exe().and_then(|path| path.canonicalize());
    let Some(folder) = executable
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf))
    else {
        return Vec::new();
    };
    vec![folder.join("../lib"), folder]
}

/// The path that the loader is told; none if there is no such file.
fn usable(path: &Path) -> Option<Result<PathBuf>> {
    let path = path.canonicalize().ok().filter(|path| path.is_file())?;
    Some(nameable(&path).map(|()| path))
}

/// The loader splits LD_PRELOAD at spaces and colons and knows no quoting.
fn nameable(path: &Path) -> Result<()> {
    let awkward = path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b" :".contains(byte));
    ensure!(
        !awkward,
        "LD_PRELOAD cannot name {}: copy the library to a path without spaces and colons",
        path.display()
    );
    Ok(())
}

/// `LD_PRELOAD`: ours in their order, then what was there, without the same libraries again.
pub fn preload(ours: &[PathBuf], there: Option<&OsStr>) -> OsString {
    let name = |path: &[u8]| {
        Path::new(OsStr::from_bytes(path))
            .file_name()
            .map(OsStr::to_os_string)
    };
    let mut list: Vec<Vec<u8>> = ours
        .iter()
        .map(|path| path.as_os_str().as_bytes().to_vec())
        .collect();
    let there = there.unwrap_or_default().as_bytes();
    for entry in there.split(|byte| b" :".contains(byte)) {
        let again = list.iter().any(|other| name(other) == name(entry));
        if !entry.is_empty() && !again {
            list.push(entry.to_vec());
        }
    }
    OsString::from_vec(list.join(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_preloaded_stays_behind_ours_and_none_comes_twice() {
        let list = |there: &str| {
            let ours = [
                PathBuf::from("/a/libpthread-mutex-profile.so"),
                PathBuf::from("/a/libautolock.so"),
            ];
            preload(&ours, Some(OsStr::new(there)))
        };
        let ours = "/a/libpthread-mutex-profile.so:/a/libautolock.so";
        assert_eq!(list(""), ours);
        assert_eq!(
            list("libjemalloc.so.2 /b/libx.so"),
            format!("{ours}:libjemalloc.so.2:/b/libx.so").as_str()
        );
        assert_eq!(
            list("/old/libautolock.so:libjemalloc.so.2"),
            format!("{ours}:libjemalloc.so.2").as_str()
        );
        assert_eq!(preload(&[PathBuf::from("/a/b.so")], None), "/a/b.so");
    }

    #[test]
    fn a_missing_library_is_said_in_one_line() {
        for error in [
            find(AUTOLOCK, Some(Path::new("/nowhere/libautolock.so"))).expect_err("no such file"),
            search(AUTOLOCK, &[PathBuf::from("/nowhere")]).expect_err("no such folder"),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("libautolock.so") && !text.contains('\n'),
                "{text}"
            );
        }
    }

    #[test]
    fn a_path_that_the_loader_would_split_is_refused() {
        assert!(nameable(Path::new("/a/b.so")).is_ok());
        assert!(nameable(Path::new("/a b/c.so")).is_err());
        assert!(nameable(Path::new("/a:b/c.so")).is_err());
    }
}
