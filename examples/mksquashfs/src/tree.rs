//! The folder that is packed. Names and bytes of its files follow from their numbers, so that what comes back is checked against the
//! rule, not against the original.
//!
//! Many small files of text-like words: each passes through the queues of mksquashfs' reader, compressors, fragment threads and writer,
//! and compressing it takes little time. Now and then a file has an earlier one's bytes, for the search for duplicates.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const FILES_PER_FOLDER: u32 = 200;
/// Up to four blocks of mksquashfs' smallest size.
const LONGEST: usize = 16 << 10;
/// Every so manieth file repeats one that stands as many before it.
const REPEATS: u32 = 10;
const WORDS: usize = 1000;

/// A tree of so many files.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    pub files: u32,
}

/// What was not as it had to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub count: u64,
    /// The first one, in words.
    pub first: Option<String>,
}

impl Faults {
    fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(text);
    }
}

impl Tree {
    /// Writes it below `root`, which exists.
    pub fn write(self, root: &Path) -> Result<()> {
        let words = words();
        for number in 0..self.files {
            let path = root.join(name(number));
            if number % FILES_PER_FOLDER == 0 {
                let folder = path.parent().context("a file of the tree has no folder")?;
                fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
            }
            fs::write(&path, content(number, &words))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// What below `root` differs from it: files that are missing, have other bytes, or should not be there.
    pub fn check(self, root: &Path) -> Faults {
        let words = words();
        let mut faults = Faults::default();
        let mut found = HashSet::new();
        if let Err(error) = list(root, root, &mut found) {
            faults.add(|| format!("cannot read what came back: {error}"));
        }
        for number in 0..self.files {
            let name = name(number);
            if !found.remove(&name) {
                faults.add(|| format!("{} is missing", name.display()));
                continue;
            }
            match fs::read(root.join(&name)) {
                Ok(bytes) if bytes == content(number, &words) => {}
                Ok(_) => faults.add(|| format!("{} has other bytes", name.display())),
                Err(error) => faults.add(|| format!("cannot read {}: {error}", name.display())),
            }
        }
        for name in found {
            faults.add(|| format!("{} was never packed", name.display()));
        }
        faults
    }
}

/// The names of all that is no folder below `folder`, seen from `root`.
fn list(root: &Path, folder: &Path, found: &mut HashSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            found.insert(name.to_path_buf());
        }
    }
    Ok(())
}

fn name(number: u32) -> PathBuf {
    PathBuf::from(format!("folder-{}", number / FILES_PER_FOLDER)).join(format!("file-{number}"))
}

fn content(number: u32, words: &[String]) -> Vec<u8> {
    let repeats = number % REPEATS == REPEATS - 1;
    let seed = if repeats {
        number - REPEATS / 2
    } else {
        number
    };
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    let length = random.usize(..LONGEST);
    let mut bytes = Vec::with_capacity(LONGEST);
    while bytes.len() < length {
        bytes.extend_from_slice(words[random.usize(..words.len())].as_bytes());
        bytes.push(b' ');
    }
    bytes.truncate(length);
    bytes
}

fn words() -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(0);
    let word = |_| {
        let length = random.usize(2..10);
        (0..length).map(|_| random.lowercase()).collect()
    };
    (0..WORDS).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Tree = Tree { files: 250 };

    fn written() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        TREE.write(folder.path()).expect("written");
        folder
    }

    #[test]
    fn what_was_written_is_what_is_expected() {
        let folder = written();
        assert_eq!(TREE.check(folder.path()), Faults::default());
    }

    #[test]
    fn one_wrong_byte_a_missing_and_a_strange_file_are_noticed() {
        let folder = written();
        let (changed, missing) = (folder.path().join(name(3)), folder.path().join(name(201)));
        let mut bytes = fs::read(&changed).expect("read");
        *bytes.last_mut().expect("not empty") ^= 1;
        fs::write(&changed, bytes).expect("written");
        let faults = TREE.check(folder.path());
        assert_eq!(faults.count, 1);
        assert_eq!(
            faults.first.as_deref(),
            Some("folder-0/file-3 has other bytes")
        );

        fs::remove_file(missing).expect("removed");
        fs::write(folder.path().join("folder-1/more"), "").expect("written");
        assert_eq!(TREE.check(folder.path()).count, 3);
    }

    #[test]
    fn files_differ_but_for_the_repeated_ones() {
        let words = words();
        let (first, second, repeated) =
            (content(4, &words), content(5, &words), content(9, &words));
        assert_ne!(first, second);
        assert_eq!(first, repeated);
    }
}
