//! Which captures a run left behind: files that fit the pattern and were not there before. Lists one folder.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The preload's own pattern.
const DEFAULT: &str = "%e.%p.lockprof";

/// The folder of the captures, before the run.
#[derive(Debug)]
pub struct Before {
    folder: PathBuf,
    pattern: Vec<Part>,
    there: HashSet<OsString>,
}

/// A part of a file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    /// `%p`
    Digits,
    /// `%e`
    Anything,
}

impl Before {
    /// Remembers what is there already. `pattern` is that of `AUTOLOCK_PROFILE_FILE`; an empty one counts as none.
    pub fn look(pattern: Option<&OsStr>) -> Result<Self> {
        let pattern = pattern
            .filter(|pattern| !pattern.is_empty())
            .unwrap_or(OsStr::new(DEFAULT));
        if pattern == "none" {
            bail!("--report needs a capture, and AUTOLOCK_PROFILE_FILE is `none`");
        }
        let path = Path::new(pattern);
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if folder.as_os_str().as_bytes().contains(&b'%') {
            bail!(
                "--report cannot find captures in {}: use %p and %e in the file's name only",
                folder.display()
            );
        }
        let name = path
            .file_name()
            .with_context(|| format!("{} names no file", path.display()))?;
        let mut before = Self {
            // The program may change its folder; we do not.
            folder: std::path::absolute(folder)?,
            pattern: parts(name.as_bytes()),
            there: HashSet::new(),
        };
        before.there = before.names()?.into_iter().collect();
        Ok(before)
    }

    /// The captures that have come since, oldest first.
    pub fn made_since(&self) -> Result<Vec<PathBuf>> {
        let fresh = self
            .names()?
            .into_iter()
            .filter(|name| !self.there.contains(name));
        let mut made: Vec<(_, PathBuf)> = fresh
            .map(|name| self.folder.join(name))
            .map(|path| (path.metadata().and_then(|m| m.created()).ok(), path))
            .collect();
        made.sort();
        Ok(made.into_iter().map(|(_, path)| path).collect())
    }

    fn names(&self) -> Result<Vec<OsString>> {
        let unreadable = || format!("cannot list {}", self.folder.display());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder).with_context(unreadable)? {
            let name = entry.with_context(unreadable)?.file_name();
            if fits(&self.pattern, name.as_bytes()) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn parts(pattern: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut bytes = pattern.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let text = match (byte, bytes.peek()) {
            (b'%', Some(b'p')) => Err(Part::Digits),
            (b'%', Some(b'e')) => Err(Part::Anything),
            (b'%', Some(b'%')) => Ok(b'%'),
            _ => {
                push(&mut parts, byte);
                continue;
            }
        };
        bytes.next();
        match text {
            Ok(byte) => push(&mut parts, byte),
            Err(part) => parts.push(part),
        }
    }
    parts
}

fn push(parts: &mut Vec<Part>, byte: u8) {
    if let Some(Part::Text(text)) = parts.last_mut() {
        text.push(byte);
    } else {
        parts.push(Part::Text(vec![byte]));
    }
}

/// Whether the pattern, or it and the suffix `.2`, `.3` and so on of a name that was taken, makes the name.
fn fits(pattern: &[Part], name: &[u8]) -> bool {
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let Some((first, rest)) = pattern.split_first() else {
        return name.is_empty() || name.strip_prefix(b".").is_some_and(number);
    };
    match first {
        Part::Text(text) => name
            .strip_prefix(text.as_slice())
            .is_some_and(|name| fits(rest, name)),
        Part::Digits => (1..=name.len())
            .take_while(|&end| number(&name[..end]))
            .any(|end| fits(rest, &name[end..])),
        Part::Anything => (0..=name.len()).any(|end| fits(rest, &name[end..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_make_the_names_that_the_preload_gives() {
        let fits = |pattern: &str, name: &str| fits(&parts(pattern.as_bytes()), name.as_bytes());
        for (pattern, name) in [
            (DEFAULT, "memcached.123.lockprof"),
            (DEFAULT, "memcached.123.lockprof.2"),
            (DEFAULT, "a.b.1.lockprof"),
            ("x", "x"),
            ("100%%-%p", "100%-7"),
            ("%e", "anything at all"),
            ("%p%p", "12"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            (DEFAULT, "memcached.lockprof"),
            (DEFAULT, "memcached.12x.lockprof"),
            (DEFAULT, "memcached.123.lockprof.gz"),
            (DEFAULT, "memcached.123.lockprof."),
            ("x", "xy"),
            ("%p", ""),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn only_new_files_are_of_this_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| std::fs::write(folder.path().join(name), "").expect("written");
        file("old.1.lockprof");
        let pattern = folder.path().join(DEFAULT);
        let before = Before::look(Some(pattern.as_os_str())).expect("listed");
        file("new.2.lockprof");
        file("other.txt");
        let made = before.made_since().expect("listed");
        assert_eq!(made, [folder.path().join("new.2.lockprof")]);
        assert!(Before::look(Some(OsStr::new("none"))).is_err());
        assert!(Before::look(Some(OsStr::new("/tmp/%p/x"))).is_err());
    }
}
