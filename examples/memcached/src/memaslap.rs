//! How memaslap is had: Debian packages libmemcached without it, so it is built from Debian's source
//! archive, once, and kept under `${XDG_CACHE_HOME:-~/.cache}/autolock`.
//!
//! Archive and program are cached under names made of their content and recipe. Where no cache can
//! be written, the program is built anew into a temporary folder.

mod apt;

use crate::failure::missing;
use crate::process::{bounded, need, output};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const ARCHIVE: &str = "libmemcached_1.1.4.orig.tar.gz";

/// The archive that this recipe was written for; Debian 12 and 13 have the same.
const ARCHIVE_SHA256: &str = "285b21a138fc693ea44b0ea5d050e2d796ca8ee78023724a2bd385f25fbd1da1";

/// Static, so that the program does not need the folder it was built in.
const CMAKE_OPTIONS: [&str; 4] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DENABLE_MEMASLAP=ON",
    "-DBUILD_TESTING=OFF",
    "-DBUILD_SHARED_LIBS=OFF",
];

/// The CMake target, and the program below the build folder.
const TARGET: &str = "aslap";
const BUILT: &str = "contrib/bin/memaslap/memaslap";

/// The build takes ten seconds of two processors.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// What the build needs, by command and Debian package.
const TOOLS: [(&str, &str); 6] = [
    ("cmake", "cmake"),
    ("make", "make"),
    ("g++", "g++"),
    ("bison", "bison"),
    ("flex", "flex"),
    ("tar", "tar"),
];
const HEADER: (&str, &str) = ("/usr/include/event.h", "libevent-dev");

/// A memaslap that runs. Without a cache it lies in a folder that goes with this value.
#[derive(Debug)]
pub struct Memaslap {
    pub path: PathBuf,
    _folder: Option<TempDir>,
}

/// The cached memaslap, or one built now. `progress` is told of each step.
pub fn obtain(progress: &dyn Fn(&str)) -> Result<Memaslap> {
    let cache = cache_folder();
    let place = cache.as_ref().map(|cache| {
        cache
            .join(format!("memaslap-{}", recipe()))
            .join("memaslap")
    });
    if let Some(path) = place.as_ref().filter(|path| runs(path)) {
        return Ok(Memaslap {
            path: path.clone(),
            _folder: None,
        });
    }

    check_tools()?;
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let archive = archive(cache.as_deref(), work.path(), progress)?;
    let built = build(&archive, work.path(), progress)?;
    match place.map(|place| install(&built, &place).map(|()| place)) {
        Some(Ok(path)) => Ok(Memaslap {
            path,
            _folder: None,
        }),
        // No cache is no reason to go without.
        Some(Err(_)) | None => Ok(Memaslap {
            path: built,
            _folder: Some(work),
        }),
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/autolock`, if it exists or can be made.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    let folder = base.join("autolock");
    fs::create_dir_all(&folder).ok()?;
    Some(folder)
}

/// A name for everything that decides what the built program is: the archive, the options, and the
/// system whose compiler and libraries it is built with.
fn recipe() -> String {
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [
        ARCHIVE_SHA256,
        &CMAKE_OPTIONS.join(" "),
        std::env::consts::ARCH,
        &system,
    ] {
        hash.update(part);
        hash.update([0]);
    }
    hex(&hash.finalize())[..16].to_string()
}

/// Whether `path` is a memaslap that starts here: a cache can come from another machine.
fn runs(path: &Path) -> bool {
    let version = output(
        bounded(Duration::from_secs(10), path).arg("--version"),
        "memaslap",
    );
    version.is_ok_and(|text| text.starts_with("memaslap"))
}

fn check_tools() -> Result<()> {
    for (tool, package) in TOOLS {
        need(tool, package)?;
    }
    let (header, package) = HEADER;
    if !Path::new(header).exists() {
        return Err(missing(format!(
            "{header} is missing: apt-get install {package}"
        )));
    }
    Ok(())
}

/// The source archive with the content that it must have: cached, or fetched and then cached.
fn archive(cache: Option<&Path>, work: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let cached = cache.map(|cache| cache.join(format!("{ARCHIVE_SHA256}-{ARCHIVE}")));
    if let Some(path) = cached.as_ref().filter(|path| is_archive(path)) {
        return Ok(path.clone());
    }
    let fetched = work.join(ARCHIVE);
    apt::fetch_source(
        "libmemcached",
        ARCHIVE,
        ARCHIVE_SHA256,
        &fetched,
        work,
        progress,
    )?;
    if !is_archive(&fetched) {
        bail!("apt brought a {ARCHIVE} of other content than expected");
    }
    if let Some(path) = cached {
        // A cache that cannot be written costs a download next time, no more.
        let _ = install(&fetched, &path);
    }
    Ok(fetched)
}

fn is_archive(path: &Path) -> bool {
    fs::read(path).is_ok_and(|content| hex(&Sha256::digest(&content)) == ARCHIVE_SHA256)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a copy of `from` at `to` in one step, so that nobody ever sees half of it.
fn install(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file in no folder")?;
    fs::create_dir_all(folder)?;
    let unfinished = tempfile::NamedTempFile::new_in(folder)?;
    fs::copy(from, unfinished.path())?;
    unfinished.persist(to)?;
    Ok(())
}

/// Unpacks `archive` below `work`, builds memaslap alone, and gives its path.
fn build(archive: &Path, work: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let (source, build) = (work.join("source"), work.join("build"));
    fs::create_dir(&source)?;
    progress("memaslap: unpacking");
    output(
        bounded(BUILD_LIMIT, "tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(&source)
            .arg("--strip-components=1"),
        "unpacking memaslap's source",
    )?;
    progress("memaslap: configuring");
    output(
        bounded(BUILD_LIMIT, "cmake")
            .arg("-S")
            .arg(&source)
            .arg("-B")
            .arg(&build)
            .args(CMAKE_OPTIONS),
        "configuring memaslap",
    )?;

    let log = work.join("build.log");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = bounded(BUILD_LIMIT, "cmake");
    command
        .arg("--build")
        .arg(&build)
        .args(["--target", TARGET, "--parallel", &jobs.to_string()]);
    run_with_percentages(&mut command, &log, progress).context("building memaslap")?;

    let built = build.join(BUILT);
    if !runs(&built) {
        bail!("the memaslap just built does not start");
    }
    Ok(built)
}

/// Runs a CMake build and reports the percentage at which it stands: `[ 86%] Building ...`.
fn run_with_percentages(command: &mut Command, log: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(fs::File::create(log)?)
        .spawn()
        .context("cannot run cmake")?;
    let stdout = child.stdout.take().context("cmake without an output")?;
    for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
        if let Some(percent) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            progress(&format!("memaslap: building {}", percent.0.trim()));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let said = fs::read_to_string(log).unwrap_or_default();
        let error = said
            .lines()
            .find(|line| line.contains("error"))
            .unwrap_or("no message");
        bail!("cmake failed ({status}): {error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_of_other_content_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(ARCHIVE);
        assert!(!is_archive(&path));
        fs::write(&path, "something else").expect("a file");
        assert!(!is_archive(&path));
    }

    #[test]
    fn installing_replaces_the_whole_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("cache/to"));
        for content in ["a longer first content", "second"] {
            fs::write(&from, content).expect("a file");
            install(&from, &to).expect("installed");
            assert_eq!(fs::read_to_string(&to).expect("a file"), content);
        }
        assert_eq!(
            fs::read_dir(folder.path().join("cache"))
                .expect("a folder")
                .count(),
            1
        );
    }

    #[test]
    fn a_program_that_is_not_memaslap_is_not_run_for_it() {
        assert!(!runs(Path::new("/bin/true")));
        assert!(!runs(Path::new("/nonexistent")));
    }
}
