//! Where things are: the workspace's root, cargo's target folder, the dist folder.
//!
//! May ask cargo; builds nothing by itself except through [`crate::dist`].

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Usage;

pub struct Project {
    pub root: PathBuf,
    pub target: PathBuf,
}

impl Project {
    /// Asks cargo, so that CARGO_TARGET_DIR and a user's cargo configuration count.
    pub fn locate() -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("cannot run `cargo metadata`: is cargo on the PATH?")?;
        if !output.status.success() {
            bail!(
                "`cargo metadata` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let folder = |key: &str| -> Result<PathBuf> {
            let text = metadata[key].as_str();
            Ok(PathBuf::from(
                text.with_context(|| format!("cargo metadata has no {key}"))?,
            ))
        };
        Ok(Self {
            root: folder("workspace_root")?,
            target: folder("target_directory")?,
        })
    }

    pub fn dist(&self) -> PathBuf {
        self.target.join("dist")
    }

    pub fn preload(&self) -> PathBuf {
        self.dist().join("lib/libautolock.so")
    }

    pub fn profiler(&self) -> PathBuf {
        self.dist().join("lib/libpthread-mutex-profile.so")
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.dist().join("bin").join(name)
    }

    /// The preload the user named, as an absolute path; the dist one, freshly built, otherwise.
    pub fn preload_or_build(&self, named: Option<PathBuf>) -> Result<PathBuf> {
        let Some(lib) = named else {
            crate::dist::build(self)?;
            return Ok(self.preload());
        };
        let missing = |_| Usage(format!("no library at {}", lib.display())).into();
        lib.canonicalize().map_err(missing)
    }

    /// A folder for a chore's own files under the target folder, made if it is missing.
    pub fn work_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.target.join(name);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// Where finished things are kept: the user's cache folder, or `otherwise` in the target folder where that cannot be written.
    pub fn cache(&self, otherwise: &str) -> Result<PathBuf> {
        if let Some(cache) = cache_folder()
            && make_folder(&cache).is_ok()
            && tempfile::tempfile_in(&cache).is_ok()
        {
            return Ok(cache);
        }
        self.work_folder(otherwise)
    }
}

pub fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// What is kept between runs and checkouts.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    base.is_absolute().then(|| base.join("autolock"))
}

/// The cargo that runs us, or the one on the PATH.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// True under continuous integration, where a missing tool is a failure and not a skip.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}
