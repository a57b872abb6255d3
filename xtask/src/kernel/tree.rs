//! The patched source tree. It is kept from build to build, and only files whose content differs are written, so that make
//! builds again what a changed patch concerns and nothing else.
//!
//! `originals/present` has the files that some series ever changed, as the archive has them; `originals/absent` an empty file
//! for each one that the archive does not have.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::project::make_folder;
use crate::sources::{Patch, copy, remove};

pub struct Tree {
    pub source: PathBuf,
    pub originals: PathBuf,
    pub scratch: PathBuf,
}

impl Tree {
    /// Makes the tree the archive's with exactly these patches. One that does not apply leaves the tree as it is.
    pub fn set(&self, patches: &[Patch]) -> Result<()> {
        let (present, absent) = (
            self.originals.join("present"),
            self.originals.join("absent"),
        );
        let files: BTreeSet<&PathBuf> = patches.iter().flat_map(|it| &it.files).collect();
        remove(&self.scratch)?;
        let patched = self.scratch.join("patched");
        make_folder(&patched)?;
        for file in &files {
            self.keep_original(file)?;
            if present.join(file).is_file() {
                copy(&present.join(file), &patched.join(file))?;
            }
        }
        for patch in patches {
            patch.patch(&patched, false)?;
        }
        let mut touched = BTreeSet::new();
        for folder in [&present, &absent] {
            files_below(folder, Path::new(""), &mut touched)?;
        }
        for file in &touched {
            let from = if files.contains(file) {
                &patched
            } else {
                &present
            };
            make_same(&from.join(file), &self.source.join(file))?;
        }
        remove(&self.scratch)
    }

    /// Before the file is changed for the first time.
    fn keep_original(&self, file: &Path) -> Result<()> {
        let kept = |kind: &str| self.originals.join(kind).join(file);
        if kept("present").is_file() || kept("absent").is_file() {
            return Ok(());
        }
        let there = self.source.join(file);
        let (half, place) = (self.scratch.join("original"), kept("present"));
        if there.is_file() {
            copy(&there, &half)?;
            make_folder(place.parent().unwrap_or(&place))?;
            std::fs::rename(&half, &place)
                .with_context(|| format!("cannot write {}", place.display()))
        } else {
            let place = kept("absent");
            make_folder(place.parent().unwrap_or(&place))?;
            std::fs::write(&place, "").with_context(|| format!("cannot write {}", place.display()))
        }
    }
}

fn files_below(root: &Path, below: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let folder = root.join(below);
    if !folder.is_dir() {
        return Ok(());
    }
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            files_below(root, &path, files)?;
        } else {
            files.insert(path);
        }
    }
    Ok(())
}

/// `to` gets content and mode of `from`, or goes where there is no `from`; an equal one keeps its time.
fn make_same(from: &Path, to: &Path) -> Result<()> {
    let look = |path: &Path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        Some((mode, std::fs::read(path).ok()?))
    };
    let (wanted, there) = (look(from), look(to));
    if wanted == there {
        return Ok(());
    }
    if wanted.is_some() {
        return copy(from, to);
    }
    std::fs::remove_file(to).with_context(|| format!("cannot remove {}", to.display()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::sources;

    const CHANGE: &str = "--- a/k/one.c\n+++ b/k/one.c\n@@ -1 +1 @@\n-one\n+eins\n";
    const MORE: &str = "--- a/k/one.c\n+++ b/k/one.c\n@@ -1 +1,2 @@\n eins\n+zwei\n";
    const NEW: &str = "--- /dev/null\n+++ b/k/new/new.c\n@@ -0,0 +1 @@\n+new\n";
    const BAD: &str = "--- a/k/two.c\n+++ b/k/two.c\n@@ -1 +1 @@\n-drei\n+vier\n";

    struct Scene {
        folder: tempfile::TempDir,
        tree: Tree,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = |name: &str| folder.path().join(name);
            let tree = Tree {
                source: path("src"),
                originals: path("originals"),
                scratch: path("scratch"),
            };
            make_folder(&tree.source.join("k")).expect("a tree");
            for (name, text) in [("k/one.c", "one\n"), ("k/two.c", "two\n")] {
                std::fs::write(tree.source.join(name), text).expect("a file");
            }
            Self { folder, tree }
        }

        fn set(&self, patches: &[&str]) -> Result<()> {
            let names: Vec<String> = (0..patches.len()).map(|n| format!("{n}.patch")).collect();
            for (name, text) in names.iter().zip(patches) {
                std::fs::write(self.folder.path().join(name), text).expect("a patch");
            }
            std::fs::write(self.folder.path().join("series"), names.join("\n")).expect("a series");
            self.tree
                .set(&sources::series(self.folder.path()).expect("a series"))
        }

        fn read(&self, name: &str) -> Option<String> {
            std::fs::read_to_string(self.tree.source.join(name)).ok()
        }
    }

    #[test]
    fn the_tree_follows_the_series_to_and_fro() {
        let scene = Scene::new();
        let all = |scene: &Scene| ["k/one.c", "k/two.c", "k/new/new.c"].map(|it| scene.read(it));
        let some = |text: &str| Some(text.to_owned());
        scene.set(&[CHANGE, NEW, MORE]).expect("applies");
        assert_eq!(
            all(&scene),
            [some("eins\nzwei\n"), some("two\n"), some("new\n")]
        );
        scene.set(&[CHANGE]).expect("applies");
        assert_eq!(all(&scene), [some("eins\n"), some("two\n"), None]);
        scene.set(&[]).expect("applies");
        assert_eq!(all(&scene), [some("one\n"), some("two\n"), None]);
        scene.set(&[NEW]).expect("applies");
        assert_eq!(all(&scene), [some("one\n"), some("two\n"), some("new\n")]);
    }

    #[test]
    fn a_file_that_stays_as_it_is_keeps_its_time() {
        let scene = Scene::new();
        scene.set(&[CHANGE, NEW]).expect("applies");
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let one = scene.tree.source.join("k/one.c");
        let file = std::fs::File::options().write(true).open(&one);
        file.expect("a file")
            .set_modified(long_ago)
            .expect("a time");
        let time = || {
            let data = std::fs::metadata(&one).expect("a file");
            data.modified().expect("a time")
        };
        scene.set(&[CHANGE]).expect("applies");
        assert_eq!(time(), long_ago);
        scene.set(&[CHANGE, MORE]).expect("applies");
        assert_ne!(time(), long_ago);
    }

    #[test]
    fn a_patch_that_does_not_apply_leaves_the_tree_as_it_is() {
        let scene = Scene::new();
        scene.set(&[CHANGE]).expect("applies");
        assert!(scene.set(&[NEW, BAD]).is_err());
        assert_eq!(scene.read("k/one.c"), Some("eins\n".to_owned()));
        assert_eq!(scene.read("k/new/new.c"), None);
        scene.set(&[]).expect("applies");
        assert_eq!(scene.read("k/one.c"), Some("one\n".to_owned()));
    }
}
