//! One dynamic loader: where it searches by itself.
//!
//! A loader of glibc 2.33 or later says so (`--help`), and expands `$LIB` and `$PLATFORM` for us. Of an older one the same is read from
//! its bytes: default directories are strings there that begin and end with a slash; hwcaps folders and `$PLATFORM` are then unknown.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cache::Cache;
use crate::error::{Error, Result};
use crate::trace;

/// Marks what `$LIB` and `$PLATFORM` become in the loader's own words.
const LIB: &str = "/lib-is/";
const PLATFORM: &str = "/platform-is/";

/// What a loader brings along.
#[derive(Debug, Clone)]
pub struct Loader {
    pub path: PathBuf,
    /// What `$LIB` stands for.
    pub lib: String,
    /// What `$PLATFORM` stands for; without it, directories that name it are left out.
    pub platform: Option<String>,
    /// Searched last, in this order.
    pub default_folders: Vec<PathBuf>,
    /// Folders below each directory that are searched before the directory itself, best first: `glibc-hwcaps/x86-64-v3` ...
    pub subfolders: Vec<PathBuf>,
    /// The names among them that stand below `glibc-hwcaps`.
    pub hwcaps: Vec<String>,
    /// Where `ld.so.cache` and `ld.so.conf` are: `/etc`, for the system's loader.
    pub configuration: Option<PathBuf>,
    pub cache: Cache,
}

impl Loader {
    /// Asks the loader. [`Error::Usage`] if it does not run.
    pub fn open(path: &Path) -> Result<Self> {
        let does_not_run = |why: &dyn std::fmt::Display| {
            Error::Usage(format!(
                "{}: this dynamic loader does not run: {why}",
                path.display()
            ))
        };
        let folders = format!("{LIB}$LIB:{PLATFORM}$PLATFORM");
        let said = trace::run(
            path,
            &[OsStr::new("--help")],
            &[("LD_LIBRARY_PATH", &folders)],
        )
        .map_err(|error| does_not_run(&error))?;
        if said.status.code().is_none() {
            return Err(does_not_run(&said.status));
        }
        if let Some(loader) = Self::from_help(path, &String::from_utf8_lossy(&said.out)) {
            return Ok(loader);
        }
        let bytes = std::fs::read(path)
            .map_err(|error| Error::Io(format!("{}: {error}", path.display())))?;
        Ok(Self::from_bytes(path, &bytes))
    }

    /// None: this is not the text of a loader that knows `--help`.
    fn from_help(path: &Path, text: &str) -> Option<Self> {
        let mut loader = Self::empty(path);
        let mut hwcaps = Vec::new();
        let mut legacy = Vec::new();
        let mut section = "";
        for line in text.lines() {
            let Some(entry) = line.strip_prefix("  ") else {
                section = line;
                continue;
            };
            if section.starts_with("Shared library search path") {
                if let Some(rest) = entry.strip_prefix("(libraries located via ") {
                    loader.cached_at(Path::new(rest.strip_suffix(')')?));
                } else if let Some(folder) = entry.strip_suffix(" (system search path)") {
                    loader.default_folders.push(folder.into());
                } else if let Some(folder) = entry.strip_suffix(" (LD_LIBRARY_PATH)") {
                    if let Some(lib) = folder.strip_prefix(LIB) {
                        loader.lib = lib.into();
                    } else if let Some(platform) = folder.strip_prefix(PLATFORM) {
                        loader.platform = Some(platform.into());
                    }
                }
            } else if let Some((name, remark)) = entry.split_once(" (") {
                if !remark.contains("searched") {
                    continue;
                }
                if section.starts_with("Subdirectories of glibc-hwcaps") {
                    hwcaps.push(name.to_string());
                } else if section.starts_with("Legacy HWCAP") {
                    // Where they nest, `tls` is the outermost, then the platform.
                    legacy.insert(if name == "tls" { 0 } else { legacy.len() }, name);
                }
            }
        }
        if loader.default_folders.is_empty() {
            return None;
        }
        let below = |name: &String| Path::new("glibc-hwcaps").join(name);
        loader.subfolders = hwcaps.iter().map(below).collect();
        loader.subfolders.extend(powerset(&legacy));
        loader.hwcaps = hwcaps;
        Some(loader)
    }

    /// What can be read of a loader that cannot be asked.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Self {
        let mut loader = Self::empty(path);
        for text in bytes.split(|&byte| byte == 0) {
            let plain = text
                .iter()
                .all(|byte| byte.is_ascii_graphic() || *byte == b' ');
            if !plain || text.len() < 2 || text[0] != b'/' {
                continue;
            }
            let here = Path::new(OsStr::from_bytes(text));
            if text.ends_with(b"/ld.so.cache") {
                loader.cached_at(here);
            } else if text.ends_with(b"/") && text.windows(3).any(|part| part == b"lib") {
                // Without the slash: the components are the path.
                let folder: PathBuf = here.components().collect();
                if !loader.default_folders.contains(&folder) {
                    loader.default_folders.push(folder);
                }
            }
        }
        loader
    }

    fn cached_at(&mut self, cache: &Path) {
        self.cache = Cache::open(cache);
        self.configuration = cache.parent().map(Path::to_path_buf);
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            lib: "lib64".into(),
            platform: None,
            default_folders: Vec::new(),
            subfolders: Vec::new(),
            hwcaps: Vec::new(),
            configuration: None,
            cache: Cache::default(),
        }
    }

    /// Directories that this loader searches by itself or by its cache, as ldconfig(8) is configured: those of `ld.so.conf`,
    /// then the default ones. Only those that exist, each once, whatever links lead there.
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        if let Some(configuration) = &self.configuration {
            read_configuration(&configuration.join("ld.so.conf"), &mut folders, 0);
        }
        folders.extend(self.default_folders.iter().cloned());
        let mut seen = HashSet::new();
        folders.retain(|folder| {
            let real = std::fs::canonicalize(folder);
            real.is_ok_and(|real| real.is_dir() && seen.insert(real))
        });
        folders
    }
}

/// One folder a line, comments after `#`, `include PATTERN...`; glibc reads no other separators, and has ignored `hwcap` since 2.33.
fn read_configuration(path: &Path, folders: &mut Vec<PathBuf>, depth: usize) {
    // A file that includes itself would make ldconfig go on until it has no files left.
    let Ok(text) = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    else {
        return;
    };
    if depth > 16 {
        return;
    }
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(patterns) = line.strip_prefix("include").filter(|rest| blank(rest)) {
            for pattern in patterns.split_whitespace() {
                let pattern = path.parent().unwrap_or(Path::new("/")).join(pattern);
                let Ok(files) = glob::glob(&pattern.to_string_lossy()) else {
                    continue;
                };
                for file in files.flatten() {
                    read_configuration(&file, folders, depth + 1);
                }
            }
        } else if line.starts_with('/') {
            // `=libc6` and the like once said of what kind the folder's libraries are.
            let folder = line.split('=').next().unwrap_or(line);
            folders.push(folder.trim_end().into());
        }
    }
}

fn blank(rest: &str) -> bool {
    rest.starts_with([' ', '\t'])
}

/// `[a, b]`: `a/b`, `a`, `b`.
fn powerset(names: &[&str]) -> Vec<PathBuf> {
    // A loader has four at most; more would be no loader's text.
    let count = names.len().min(8);
    (1..1_usize << count)
        .rev()
        .map(|set| {
            (0..count)
                .filter(|at| set & (1 << (count - 1 - at)) != 0)
                .map(|at| names[at])
                .collect()
        })
        .collect()
}
