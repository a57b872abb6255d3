//! Sources that others wrote, and our changes to them: archives are unpacked, the patches of a series read and applied.
//!
//! Applies one patch at a time so that an interrupted one can be taken back.

use std::io::{Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::project::make_folder;
use crate::shell;

/// The archive's tree, put at `to` whole.
pub fn unpack(archive: &Path, to: &Path) -> Result<()> {
    let half = to.with_extension("unpacking");
    remove(&half)?;
    remove(to)?;
    make_folder(&half)?;
    let mut tar = Command::new("tar");
    tar.arg("-xJf").arg(archive).arg("-C").arg(&half);
    tar.arg("--strip-components=1");
    shell::output(&mut tar)?;
    std::fs::rename(&half, to).with_context(|| format!("cannot make {}", to.display()))
}

/// One of the series.
pub struct Patch {
    pub name: String,
    pub text: Vec<u8>,
    /// Files that it changes, adds or removes, relative to the tree.
    pub files: Vec<PathBuf>,
}

/// The patches of `folder` in the order of its file `series`.
pub fn series(folder: &Path) -> Result<Vec<Patch>> {
    let list = folder.join("series");
    let text = std::fs::read_to_string(&list)
        .with_context(|| format!("cannot read {}", list.display()))?;
    names(&text).map(|name| Patch::read(folder, name)).collect()
}

/// quilt's form: a name a line, options after it, comments behind a hash.
fn names(series: &str) -> impl Iterator<Item = &str> {
    series
        .lines()
        .filter_map(|line| line.split('#').next()?.split_whitespace().next())
}

impl Patch {
    fn read(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let text = std::fs::read(&path)
            .with_context(|| format!("cannot read {}, which the series names", path.display()))?;
        let files = touched(&String::from_utf8_lossy(&text));
        let inside = |file: &PathBuf| {
            file.components()
                .all(|it| matches!(it, Component::Normal(_)))
        };
        if files.is_empty() || !files.iter().all(inside) {
            bail!("{} is no patch of a source tree", path.display());
        }
        Ok(Self {
            name: name.to_owned(),
            text,
            files,
        })
    }

    /// Applies to `tree` without fuzz. `undo` holds the files as they were until the caller is through and calls [`Self::settle`];
    /// if it is there already, the last try was interrupted and is taken back first.
    pub fn apply(&self, tree: &Path, undo: &Path) -> Result<()> {
        if undo.is_dir() {
            for file in &self.files {
                let (kept, there) = (undo.join(file), tree.join(file));
                if kept.is_file() {
                    copy(&kept, &there)?;
                } else if there.is_file() {
                    std::fs::remove_file(&there)
                        .with_context(|| format!("cannot remove {}", there.display()))?;
                }
            }
        } else {
            let half = undo.with_extension("half");
            remove(&half)?;
            make_folder(&half)?;
            for file in self.files.iter().filter(|file| tree.join(file).is_file()) {
                copy(&tree.join(file), &half.join(file))?;
            }
            std::fs::rename(&half, undo)
                .with_context(|| format!("cannot make {}", undo.display()))?;
        }
        // Nothing is touched unless all of it applies.
        self.patch(tree, true)?;
        self.patch(tree, false)
    }

    /// The patch stays.
    pub fn settle(&self, undo: &Path) -> Result<()> {
        remove(undo)
    }

    /// Applies to `tree`, or only tries to.
    pub fn patch(&self, tree: &Path, dry: bool) -> Result<()> {
        let mut command = Command::new("patch");
        command.args(["-p1", "--force", "--fuzz=0", "--no-backup-if-mismatch"]);
        if dry {
            command.arg("--dry-run");
        }
        // The text that the key was formed of, and not what the file may hold by now.
        let mut text = tempfile::tempfile().context("cannot make a scratch file")?;
        text.write_all(&self.text)
            .and_then(|()| text.rewind())
            .context("cannot write a scratch file")?;
        command.arg("-d").arg(tree).stdin(text);
        let output = command.output().context("cannot run patch")?;
        if !output.status.success() {
            bail!(
                "{} does not apply without fuzz: {}",
                self.name,
                String::from_utf8_lossy(&output.stdout).trim()
            );
        }
        Ok(())
    }
}

/// Files that a patch names, by its pairs of `---` and `+++` lines.
fn touched(patch: &str) -> Vec<PathBuf> {
    let lines: Vec<&str> = patch.lines().collect();
    let mut files: Vec<PathBuf> = lines
        .windows(2)
        .filter_map(|pair| {
            let old = pair[0].strip_prefix("--- ")?;
            let new = pair[1].strip_prefix("+++ ")?;
            let name = if new.starts_with("/dev/null") {
                old
            } else {
                new
            };
            let name = name.split('\t').next()?;
            Some(PathBuf::from(name.split_once('/')?.1))
        })
        .collect();
    files.sort();
    files.dedup();
    files
}

pub fn copy(from: &Path, to: &Path) -> Result<()> {
    make_folder(to.parent().unwrap_or(to))?;
    std::fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// A folder that may not be there.
pub fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "\
From: someone
--- a/nptl/old.c\t2020
+++ b/nptl/old.c
@@ -1,2 +1,2 @@
 one
-two
+zwei
--- /dev/null
+++ b/sysdeps/pthread/new.c
@@ -0,0 +1 @@
+new
";

    fn a_tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        make_folder(&folder.path().join("tree/nptl")).expect("a tree");
        std::fs::write(folder.path().join("tree/nptl/old.c"), "one\ntwo\n").expect("a file");
        folder
    }

    fn a_patch(folder: &Path, text: &str) -> Patch {
        std::fs::write(folder.join("a.patch"), text).expect("a patch");
        std::fs::write(folder.join("series"), "# ours\na.patch -p1\n\n").expect("a series");
        series(folder).expect("a series").remove(0)
    }

    #[test]
    fn a_patch_names_the_files_it_changes_and_adds() {
        assert_eq!(
            touched(PATCH),
            ["nptl/old.c", "sysdeps/pthread/new.c"].map(PathBuf::from)
        );
    }

    #[test]
    fn an_interrupted_patch_is_taken_back_and_applied_anew() {
        let folder = a_tree();
        let (tree, undo) = (folder.path().join("tree"), folder.path().join("undo"));
        let patch = a_patch(folder.path(), PATCH);
        for _interrupted in 0..2 {
            patch.apply(&tree, &undo).expect("applies");
            let read = |name: &str| std::fs::read_to_string(tree.join(name)).expect("a file");
            assert_eq!(read("nptl/old.c"), "one\nzwei\n");
            assert_eq!(read("sysdeps/pthread/new.c"), "new\n");
        }
        patch.settle(&undo).expect("settled");
    }

    #[test]
    fn a_patch_that_needs_fuzz_changes_nothing() {
        let folder = a_tree();
        let tree = folder.path().join("tree");
        let patch = a_patch(folder.path(), &PATCH.replace(" one\n", " eins\n"));
        assert!(patch.apply(&tree, &folder.path().join("undo")).is_err());
        assert!(!tree.join("sysdeps/pthread/new.c").exists());
    }

    #[test]
    fn a_patch_that_leaves_the_tree_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = PATCH.replace("b/nptl/old.c", "b/../old.c");
        std::fs::write(folder.path().join("a.patch"), text).expect("a patch");
        std::fs::write(folder.path().join("series"), "a.patch\n").expect("a series");
        assert!(series(folder.path()).is_err());
    }
}
