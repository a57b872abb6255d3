//! One run of mksquashfs or unsquashfs, from its start to its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use example_common::lock::Lock;
use example_common::process::{
    Guarded, describe, end_with_this_program, last_line, need, wait_until,
};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

const PACKAGE: &str = "squashfs-tools";

/// The same bytes at every run: one time, one owner. Blocks of the smallest size, and the fastest compressor, so that queues and
/// their locks count.
const PACK: &[&str] = &[
    "-noappend",
    "-no-progress",
    "-quiet",
    "-no-xattrs",
    "-all-root",
    "-mkfs-time",
    "0",
    "-all-time",
    "0",
    "-b",
    "4096",
    "-comp",
    "lz4",
];
const UNPACK: &[&str] = &["-quiet", "-no-progress", "-no-xattrs"];

/// What a run took.
#[derive(Serialize, Clone, Debug)]
pub struct Took {
    pub seconds: f64,
    /// CPU time, user and system.
    pub cpu_seconds: f64,
    pub context_switches: i64,
}

/// How it ended.
pub struct Ended {
    /// What it took, or why it failed.
    pub outcome: Result<Took>,
    pub stderr: String,
}

/// The two programs, and on what they run.
pub struct Programs {
    mksquashfs: PathBuf,
    unsquashfs: PathBuf,
    library: Option<PathBuf>,
    limit: Duration,
}

impl Programs {
    pub fn find(library: Option<&Path>, limit: Duration) -> Result<Self> {
        Ok(Self {
            mksquashfs: need("mksquashfs", PACKAGE)?,
            unsquashfs: need("unsquashfs", PACKAGE)?,
            library: library.map(Path::to_path_buf),
            limit,
        })
    }

    /// Their first line, without the date.
    pub fn version(&self) -> String {
        let output = Command::new(&self.mksquashfs).arg("-version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_default();
        let line = text.lines().next().unwrap_or("mksquashfs");
        line.split(" (").next().unwrap_or(line).to_string()
    }

    /// Packs `tree` into `image`.
    pub fn pack(&self, lock: &Lock, processors: u16, tree: &Path, image: &Path) -> Result<Ended> {
        let mut command = Command::new(&self.mksquashfs);
        command.arg(tree).arg(image).args(PACK);
        command.args(["-processors", &processors.to_string()]);
        self.run("mksquashfs", command, lock)
    }

    /// Unpacks `image` into `tree`, which it makes.
    pub fn unpack(&self, lock: &Lock, processors: u16, image: &Path, tree: &Path) -> Result<Ended> {
        let mut command = Command::new(&self.unsquashfs);
        command.args(UNPACK).arg("-dest").arg(tree);
        command.args(["-processors", &processors.to_string()]);
        command.arg(image);
        self.run("unsquashfs", command, lock)
    }

    fn run(&self, name: &str, mut command: Command, lock: &Lock) -> Result<Ended> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let stderr = folder.path().join("stderr");
        lock.apply(&mut command, self.library.as_deref());
        // It would contradict -mkfs-time.
        command.env_remove("SOURCE_DATE_EPOCH");
        command.env("AUTOLOCK_STATS", "1");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr)?);
        end_with_this_program(&mut command);

        // Nobody else waits for children meanwhile: what the counts grow by is this child's.
        let before = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let start = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut child = Guarded(child);
        let status = wait_until(&mut child.0, start + self.limit)?;
        let seconds = start.elapsed().as_secs_f64();
        drop(child);
        let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;

        let stderr = String::from_utf8_lossy(&fs::read(&stderr).unwrap_or_default()).into_owned();
        let difference =
            |figure: fn(&nix::sys::resource::Usage) -> f64| figure(&after) - figure(&before);
        let outcome = match status {
            Some(status) if status.success() => Ok(Took {
                seconds,
                cpu_seconds: difference(|usage| {
                    let (user, system) = (usage.user_time(), usage.system_time());
                    (user.tv_sec() + system.tv_sec()) as f64
                        + (user.tv_usec() + system.tv_usec()) as f64 / 1e6
                }),
                context_switches: difference(|usage| {
                    (usage.voluntary_context_switches() + usage.involuntary_context_switches())
                        as f64
                }) as i64,
            }),
            Some(status) => Err(anyhow!(
                "{name}: {}: {}",
                describe(status),
                last_line(&stderr).unwrap_or("no message")
            )),
            None => Err(anyhow!(
                "{name} was still running after {} s: it hangs, or is that slow on this lock",
                self.limit.as_secs()
            )),
        };
        Ok(Ended { outcome, stderr })
    }
}
