//! The glibc below a folder: its loader, its libraries, its version.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::loader::{Loader, Object};
use crate::trace;

const LOADER: &str = "ld-linux-x86-64.so.2";
const LIBC: &str = "libc.so.6";
/// Where a glibc of its own, one of Fedora's kind and one of Debian's kind keep their files.
const PLACES: [&str; 3] = ["lib", "lib64", "lib/x86_64-linux-gnu"];

/// A complete glibc: a loader that runs and a libc beside it, both for x86-64.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// Absolute, without links in it, as it goes into programs.
    pub folder: PathBuf,
    /// `ld-linux-x86-64.so.2`: the new `PT_INTERP`.
    pub loader: PathBuf,
    /// The folder of `libc.so.6`, without links; it begins the run path.
    pub lib: PathBuf,
    /// As the loader prints it, such as `2.36`.
    pub version: String,
    /// Where the loader searches by itself.
    pub search: Loader,
}

impl Prefix {
    /// Looks in `lib`, `lib64` and `lib/x86_64-linux-gnu`, and runs the loader. An incomplete prefix is
    /// [`crate::error::Error::Usage`] with what is missing. The system's own glibc is at `/`.
    pub fn open(folder: &Path) -> Result<Self> {
        let real = |path: &Path| {
            std::fs::canonicalize(path)
                .map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
        };
        let folder = real(folder)?;
        let shown = folder.display();
        let loader = Self::file(&folder, LOADER)?;
        let libc = Self::file(&folder, LIBC)?;
        let lib = real(libc.parent().unwrap_or(&folder))?;
        for path in [&loader, &lib] {
            let bytes = path.as_os_str().as_bytes();
            if let Some(&byte) = bytes.iter().find(|byte| b":$".contains(byte)) {
                return Err(Error::Usage(format!(
                    "{}: a run path cannot have `{}` in it; move the prefix or name it otherwise",
                    path.display(),
                    byte as char
                )));
            }
        }
        let object = Object::read(&libc)?;
        let banner = std::fs::read(&libc)
            .map_err(|error| Error::Io(format!("{}: {error}", libc.display())))?;
        let version = version(&banner).ok_or_else(|| {
            Error::Usage(format!(
                "{}: is not glibc's: it names no release version",
                object.path.display()
            ))
        })?;
        let search = Loader::open(&loader)?;
        // Loaders before glibc 2.33 do not know this option.
        let said = trace::run(&loader, &[OsStr::new("--version")], &[])
            .map_err(|error| Error::Usage(format!("{}: {error}", loader.display())))?;
        if let Some(other) = self::version(&said.out)
            && other != version
        {
            return Err(Error::Usage(format!(
                "{shown}: loader and libc do not belong together: {} is {other}, {} is {version}",
                loader.display(),
                libc.display()
            )));
        }
        let trace = trace::list(&loader, &libc)?;
        if let Some(complaint) = trace.errors().next() {
            return Err(Error::Usage(format!(
                "{}: does not load the libc beside it: {complaint}",
                loader.display()
            )));
        }
        // A libc needs its loader, which is what does not go without saying.
        if trace.loaded.is_empty() {
            return Err(Error::Usage(format!(
                "{}: this dynamic loader does not run: it does not say what it would load",
                loader.display()
            )));
        }
        Ok(Self {
            folder,
            loader,
            lib,
            version,
            search,
        })
    }

    /// Whether a file is one of the prefix's libraries, by whatever path.
    pub fn holds(&self, path: &Path) -> bool {
        if path == self.loader {
            return true;
        }
        let folder = path
            .parent()
            .and_then(|parent| std::fs::canonicalize(parent).ok());
        folder.is_some_and(|folder| folder.starts_with(&self.lib))
    }

    /// Whether the prefix has a library of the same file name.
    pub fn provides(&self, path: &Path) -> bool {
        path.file_name()
            .is_some_and(|name| self.lib.join(name).is_file())
    }

    /// Where a file is. The tree of another system may have absolute links in it, which lead out of it to this system's files: one that stays inside is preferred.
    fn file(folder: &Path, name: &str) -> Result<PathBuf> {
        let places = PLACES.iter().map(|place| folder.join(place).join(name));
        let found: Vec<PathBuf> = places.filter(|path| path.is_file()).collect();
        let inside = |path: &&PathBuf| {
            std::fs::canonicalize(path).is_ok_and(|real| real.starts_with(folder))
        };
        let best = found.iter().find(inside).or(found.first());
        best.cloned().ok_or_else(|| {
            Error::Usage(format!(
                "{}: no complete glibc: no {name} in {}; was it installed to the end?",
                folder.display(),
                PLACES.join(", ")
            ))
        })
    }
}

/// `2.36` of `... release version 2.36.`, which loader and libc both have in them.
fn version(text: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b" release version ";
    let at = text.windows(BEFORE.len()).position(|part| part == BEFORE)?;
    let rest = &text[at + BEFORE.len()..];
    let end = rest
        .iter()
        .position(|byte| !(byte.is_ascii_digit() || *byte == b'.'))?;
    let digits = String::from_utf8_lossy(&rest[..end]);
    let version = digits.trim_end_matches('.');
    (!version.is_empty()).then(|| version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_ends_before_the_sentence() {
        let banner =
            b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright";
        assert_eq!(version(banner).as_deref(), Some("2.36"));
        assert_eq!(
            version(b"development release version 2.40.9000.\n").as_deref(),
            Some("2.40.9000")
        );
        assert_eq!(version(b" release version .\n"), None);
    }
}
