//! From Debian's source archive to a folder of compiled tests, kept between runs.
//!
//! The kept folder is named after everything that went into it (archive, our glue, compiler,
//! this code), lives under the user's cache folder and is only ever put there whole. Where the
//! cache cannot be written the tests are built anew in the target folder each time.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::build;
use crate::project::{Project, cache_folder, make_folder};
use crate::shell;

/// Where the package glibc-source puts its archive.
const ARCHIVE_FOLDER: &str = "/usr/src/glibc";
/// The parts of glibc's tree that the tests and their support library are made of.
const PARTS: &[&str] = &[
    "argp",
    "elf",
    "include",
    "locale",
    "malloc",
    "nptl",
    "posix",
    "support",
    "sysdeps/generic",
    "sysdeps/nptl",
    "sysdeps/pthread",
    "sysdeps/unix/sysv/linux",
    "sysdeps/x86",
    "test-skeleton.c",
];
/// Everything whose text decides what the compiled tests are.
const RECIPE: &[&str] = &[
    include_str!("build.rs"),
    include_str!("catalogue.rs"),
    include_str!("source.rs"),
];

/// The compiled tests.
pub struct Suite {
    /// Test programs and their modules.
    pub bin: PathBuf,
    /// Our glue: headers, the broken preload.
    pub glue: PathBuf,
    _scratch: Option<TempDir>,
}

impl Suite {
    pub fn prepare(project: &Project) -> Result<Self> {
        let glue = project.root.join("interpose/tests/glibc-suite");
        let archive = archive()?;
        let key = key(&archive, &glue)?;
        let home = cache_folder();
        if let Some(home) = &home {
            let kept = home.join(format!("glibc-suite-{key:016x}"));
            if kept.join("bin").is_dir() {
                return Ok(Self {
                    bin: kept.join("bin"),
                    glue,
                    _scratch: None,
                });
            }
        }
        let scratch = match home.as_deref().map(scratch_in) {
            Some(Ok(scratch)) => scratch,
            _ => scratch_in(&project.work_folder("glibc-suite")?)?,
        };
        println!("   unpacking and compiling {}", archive.display());
        let tree = unpack(&archive, scratch.path())?;
        let bin = scratch.path().join("bin");
        build::all(&tree, &glue, &bin)?;
        std::fs::remove_dir_all(&tree)
            .with_context(|| format!("cannot remove {}", tree.display()))?;
        let Some(home) = home.filter(|home| scratch.path().starts_with(home)) else {
            return Ok(Self {
                bin,
                glue,
                _scratch: Some(scratch),
            });
        };
        let kept = home.join(format!("glibc-suite-{key:016x}"));
        let built = scratch.keep();
        if let Err(error) = std::fs::rename(&built, &kept) {
            // Another run was faster: its folder holds the same.
            std::fs::remove_dir_all(&built).ok();
            if !kept.join("bin").is_dir() {
                return Err(error).with_context(|| format!("cannot keep {}", kept.display()));
            }
        }
        Ok(Self {
            bin: kept.join("bin"),
            glue,
            _scratch: None,
        })
    }

    /// Names of the tests that compiled.
    pub fn tests(&self) -> Result<Vec<String>> {
        let list = self.bin.join(build::BUILT);
        let text = std::fs::read_to_string(&list)
            .with_context(|| format!("cannot read {}", list.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Names of the tests that did not, on one line.
    pub fn unbuilt(&self) -> String {
        let text = std::fs::read_to_string(self.bin.join(build::UNBUILT)).unwrap_or_default();
        let names: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        names.join(" ")
    }
}

/// The archive of the glibc that is installed here.
fn archive() -> Result<PathBuf> {
    let banner = shell::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let version = banner.split_whitespace().last().unwrap_or_default();
    let archive = Path::new(ARCHIVE_FOLDER).join(format!("glibc-{version}.tar.xz"));
    if !archive.is_file() {
        bail!(
            "no {}: install the glibc-source of the installed glibc {version}",
            archive.display()
        );
    }
    Ok(archive)
}

fn key(archive: &Path, glue: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    let read = |file: &Path| {
        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
    };
    read(archive)?.hash(&mut hasher);
    for folder in [glue.to_path_buf(), glue.join("stub")] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        for file in files {
            file.file_name().hash(&mut hasher);
            read(&file)?.hash(&mut hasher);
        }
    }
    RECIPE.hash(&mut hasher);
    shell::output(Command::new("cc").arg("--version"))?.hash(&mut hasher);
    Ok(hasher.finish())
}

fn scratch_in(folder: &Path) -> Result<TempDir> {
    make_folder(folder)?;
    tempfile::Builder::new()
        .prefix("building-")
        .tempdir_in(folder)
        .with_context(|| format!("cannot make a folder in {}", folder.display()))
}

/// Unpacks the parts we need; returns the tree's root.
fn unpack(archive: &Path, into: &Path) -> Result<PathBuf> {
    let stem = archive
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let top = stem.trim_end_matches(".tar.xz");
    let mut tar = Command::new("tar");
    tar.arg("-xJf").arg(archive).arg("-C").arg(into);
    tar.args(PARTS.iter().map(|part| format!("{top}/{part}")));
    shell::output(&mut tar)?;
    Ok(into.join(top))
}
