//! `dist`: the release build under its public names, in `<target>/dist/{lib,bin}`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages;
use crate::project::{Project, cargo, make_folder};
use crate::shell;

/// Cargo package, file that cargo leaves in `release/`, place under `dist/`.
const ARTEFACTS: &[(&str, &str, &str)] = &[
    ("autolock", "libautolock.so", "lib/libautolock.so"),
    (
        "pthread-mutex-profile",
        "libpthread_mutex_profile.so",
        "lib/libpthread-mutex-profile.so",
    ),
    ("autolock-tool", "autolock", "bin/autolock"),
    ("autolockd", "autolockd", "bin/autolockd"),
    ("driver", "driver", "bin/driver"),
    ("use-this-glibc", "use-this-glibc", "bin/use-this-glibc"),
    (
        "memcached-example",
        "memcached-example",
        "bin/memcached-example",
    ),
    (
        "mksquashfs-example",
        "mksquashfs-example",
        "bin/mksquashfs-example",
    ),
];

/// Files that are laid out as they are: place in the repository, place under `dist/`.
const FILES: &[(&str, &str)] = &[(
    "tools/autolockd/systemd/autolockd.service",
    "lib/systemd/system/autolockd.service",
)];

/// Builds and lays out; returns the dist folder.
pub fn build(project: &Project) -> Result<PathBuf> {
    packages::require("build")?;
    let mut command = cargo();
    command
        .current_dir(&project.root)
        .args(["build", "--release"]);
    for (package, _, _) in ARTEFACTS {
        command.args(["--package", package]);
    }
    command.arg("--target-dir").arg(&project.target);
    shell::run(&mut command)?;
    for (_, built, public) in ARTEFACTS {
        place(
            &project.target.join("release").join(built),
            &project.dist().join(public),
        )?;
    }
    for (own, public) in FILES {
        place(&project.root.join(own), &project.dist().join(public))?;
    }
    Ok(project.dist())
}

/// Copies beside the target and renames: a process that has the old file mapped keeps it whole.
fn place(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a dist path has no folder")?;
    make_folder(folder)?;
    let fresh = to.with_extension("new");
    std::fs::copy(from, &fresh)
        .and_then(|_| std::fs::rename(&fresh, to))
        .with_context(|| format!("cannot place {} at {}", from.display(), to.display()))
}
