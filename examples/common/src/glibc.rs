//! A program's copy that runs on another glibc, made by `use-this-glibc`. Writes into a temporary folder alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::failure::missing;
use crate::library;
use crate::process::{bounded, output};

/// It looks at every library of the program, and runs the new loader.
const LIMIT: Duration = Duration::from_secs(60);

/// The copy, which is removed with this.
#[derive(Debug)]
pub struct Rewritten {
    /// The folder of the glibc, without links.
    pub prefix: PathBuf,
    /// The copy, under the program's own name.
    pub program: PathBuf,
    _folder: TempDir,
}

impl Rewritten {
    /// Makes it. `library` is what will be preloaded: the tool lies beside it.
    pub fn new(program: &Path, prefix: &Path, library: Option<&Path>) -> Result<Self> {
        let prefix = prefix
            .canonicalize()
            .map_err(|error| missing(format!("no glibc in {}: {error}", prefix.display())))?;
        let tool = library::program("use-this-glibc", library)?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let name = program.file_name().context("the program has no name")?;
        let copy = folder.path().join(name);
        let mut command = bounded(LIMIT, tool);
        command.args(["--quiet", "--output"]).arg(&copy);
        command.args([&prefix, program]);
        output(&mut command, "use-this-glibc")?;
        Ok(Self {
            prefix,
            program: copy,
            _folder: folder,
        })
    }
}

/// Whether a process's `/proc/PID/maps` has a libc, and none but that of this glibc.
#[must_use]
pub fn maps_its_libc(maps: &str, prefix: &Path) -> bool {
    let mut libcs = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])))
        .filter(|path| path.ends_with("libc.so.6"))
        .peekable();
    libcs.peek().is_some() && libcs.all(|path| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libc_from_elsewhere_is_noticed() {
        let line = |path| format!("7f00-7f01 r-xp 00001000 fe:00 42    {path}\n");
        let (ours, systems) = (line("/opt/glibc/lib/libc.so.6"), line("/lib/libc.so.6"));
        let prefix = Path::new("/opt/glibc");
        assert!(maps_its_libc(&ours, prefix));
        assert!(!maps_its_libc(&systems, prefix));
        assert!(!maps_its_libc(&format!("{ours}{systems}"), prefix));
        assert!(!maps_its_libc(&line("/opt/glibc/lib/libm.so.6"), prefix));
    }
}
