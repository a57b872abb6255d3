//! Debian's source archive, checked against the package's own list, and what the patches of it have compiled.
//!
//! May ask dpkg.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::recipe;
use crate::shell;
use crate::sources::Patch;

const PACKAGE: &str = "glibc-source";

pub struct Archive {
    pub path: PathBuf,
    /// Debian's version of the package.
    pub version: String,
}

impl Archive {
    /// The installed archive of the version that the patches are for, if its checksum is the package's.
    pub fn verified() -> Result<Self> {
        let version = dpkg(&["-W", "-f", "${Version}", PACKAGE])?;
        let path = PathBuf::from(format!("/usr/src/glibc/glibc-{}.tar.xz", recipe::VERSION));
        if !path.is_file() {
            bail!(
                "no {}: the patches are for glibc {}, and {PACKAGE} is {version} here (Debian 12 has the right one)",
                path.display(),
                recipe::VERSION
            );
        }
        let sums = dpkg(&["--control-show", PACKAGE, "md5sums"])?;
        let expected = sums.lines().find_map(|line| {
            let (sum, file) = line.split_once("  ")?;
            (Path::new("/").join(file) == path).then_some(sum)
        });
        let Some(expected) = expected else {
            bail!(
                "{PACKAGE} {version} lists no checksum of {}: install the package anew",
                path.display()
            );
        };
        let actual = shell::output(Command::new("md5sum").arg(&path))?;
        if actual.split_whitespace().next() != Some(expected) {
            bail!(
                "{} is not what {PACKAGE} {version} installed: apt-get install --reinstall {PACKAGE}",
                path.display()
            );
        }
        Ok(Self { path, version })
    }
}

fn dpkg(args: &[&str]) -> Result<String> {
    shell::output(Command::new("dpkg-query").args(args))
}

/// The subfolders of glibc with objects of its own that have to be compiled again. Everything of sysdeps that we change is threads.
pub fn subdirs(patch: &Patch, tree: &Path) -> Vec<String> {
    let owner = |file: &PathBuf| {
        let top = file.iter().next()?.to_string_lossy().into_owned();
        let own = top != "sysdeps" && tree.join(&top).join("Makefile").is_file();
        Some(if own { top } else { "nptl".to_owned() })
    };
    let mut subdirs: Vec<String> = patch.files.iter().filter_map(owner).collect();
    subdirs.sort();
    subdirs.dedup();
    subdirs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::make_folder;

    #[test]
    fn what_a_patch_changes_in_sysdeps_is_compiled_in_nptl() {
        let tree = tempfile::tempdir().expect("a folder");
        make_folder(&tree.path().join("stdio-common")).expect("a tree");
        std::fs::write(tree.path().join("stdio-common/Makefile"), "").expect("a file");
        let patch = Patch {
            name: "a.patch".to_owned(),
            text: Vec::new(),
            files: ["stdio-common/a.c", "sysdeps/pthread/b.c"]
                .map(PathBuf::from)
                .to_vec(),
        };
        assert_eq!(subdirs(&patch, tree.path()), ["nptl", "stdio-common"]);
    }
}
