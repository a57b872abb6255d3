//! The folder of a build in progress: what is done, one log, one lock; commands run with their progress shown.
//!
//! A stage is done when its mark is there, so an interrupted build goes on where it was. The lock is held by the running
//! commands too (it is their standard input): a make that outlives us keeps others out.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::fcntl::{Flock, FlockArg};
use wait_timeout::ChildExt;

use crate::Usage;
use crate::glibc::recipe::FOREIGN_ENV;
use crate::project::make_folder;
use crate::shell;

/// How often a line comes where there is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Lines of the log that are shown when a command fails.
const TAIL: usize = 12;

pub struct Work {
    pub folder: PathBuf,
    pub log: PathBuf,
    lock: Flock<File>,
}

impl Work {
    /// Waits while another build is at work in `folder`.
    pub fn open(folder: PathBuf) -> Result<Self> {
        make_folder(&folder.join("done"))?;
        // Beside the folder, which goes away.
        let path = folder.with_extension("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, _)) => {
                eprintln!("   another build of the same is at work, waiting for it");
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, error)| error)
                    .with_context(|| format!("cannot lock {}", path.display()))?
            }
        };
        // Whoever had the lock may have removed it at its end.
        make_folder(&folder.join("done"))?;
        Ok(Self {
            log: folder.join("log.txt"),
            folder,
            lock,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn is_done(&self, stage: &str) -> bool {
        self.mark(stage).is_file()
    }

    /// Does `stage` unless an earlier run did.
    pub fn stage(&self, stage: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_done(stage) {
            return Ok(());
        }
        work()?;
        let mark = self.mark(stage);
        File::create(&mark)
            .map(drop)
            .with_context(|| format!("cannot write {}", mark.display()))
    }

    fn mark(&self, stage: &str) -> PathBuf {
        self.folder.join("done").join(stage)
    }

    /// Runs with its output in the log; an error shows the log's end.
    pub fn run(&self, what: &str, lines: Option<u64>, command: &mut Command) -> Result<()> {
        let log = self.append(command)?;
        let begin = log.metadata().map_or(0, |it| it.len());
        for name in FOREIGN_ENV {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .stdin(self.lock.try_clone().context("cannot share the lock")?)
            .stderr(log.try_clone().context("cannot share the log")?)
            .stdout(log);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run `{}`", shell::line(command)))?;
        let progress = Progress::new(what, lines);
        let mut seen = Lines::new(&self.log, begin);
        let status = loop {
            let ended = child
                .wait_timeout(Duration::from_millis(500))
                .with_context(|| format!("cannot wait for {what}"))?;
            progress.show(seen.count());
            if let Some(status) = ended {
                break status;
            }
        };
        progress.bar.finish_and_clear();
        if status.success() {
            return Ok(());
        }
        if let Some(signal) = status.signal() {
            bail!("{what} was ended by signal {signal}; run it again to go on");
        }
        bail!(
            "{what} failed; the log is {}, and ends\n{}",
            self.log.display(),
            tail(&self.log, begin)
        );
    }

    fn append(&self, command: &Command) -> Result<File> {
        let open = || {
            let mut log = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.log)?;
            writeln!(log, "\n$ {}", shell::line(command))?;
            Ok::<_, std::io::Error>(log)
        };
        open().with_context(|| format!("cannot write {}", self.log.display()))
    }

    /// Begins again.
    pub fn clear(&self) -> Result<()> {
        crate::sources::remove(&self.folder)?;
        make_folder(&self.folder.join("done"))
    }

    /// Removes the folder.
    pub fn remove(self) -> Result<()> {
        crate::sources::remove(&self.folder)
    }
}

/// The makefiles and scripts of what is built here quote nothing.
pub fn fit_for_make(folder: &Path) -> Result<()> {
    let plain = |c: char| c.is_alphanumeric() || "/-_.+,@~".contains(c);
    if !folder.to_string_lossy().chars().all(plain) {
        let text = format!(
            "nothing can be built by make in a folder of this name: {}",
            folder.display()
        );
        return Err(Usage(text).into());
    }
    Ok(())
}

pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Counts the lines that are added to a file.
struct Lines {
    file: Option<File>,
    count: u64,
}

impl Lines {
    fn new(path: &Path, begin: u64) -> Self {
        let open = || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(begin))?;
            Ok::<_, std::io::Error>(file)
        };
        Self {
            file: open().ok(),
            count: 0,
        }
    }

    fn count(&mut self) -> u64 {
        let mut buffer = [0; 1 << 16];
        while let Some(file) = &mut self.file
            && let Ok(read) = file.read(&mut buffer)
            && read > 0
        {
            let lines = buffer[..read].iter().filter(|byte| **byte == b'\n').count();
            self.count += lines as u64;
        }
        self.count
    }
}

/// What went wrong, as far as the log says: complaints first, since other jobs of make may have gone on after them.
fn tail(log: &Path, begin: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = usize::try_from(begin).unwrap_or(0).min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[from..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let complaint = |line: &&&str| {
        [" error: ", "*** ", "undefined reference", "rror: "]
            .iter()
            .any(|word| line.contains(word))
    };
    let end = lines.len().saturating_sub(TAIL);
    let earlier = lines[..end].iter().filter(complaint).take(TAIL);
    let shown = earlier.chain(&lines[end..]);
    let cut = |line: &&str| format!("      {}\n", line.chars().take(300).collect::<String>());
    shown.map(cut).collect()
}

/// A bar on a terminal, a line every half minute elsewhere.
struct Progress {
    bar: ProgressBar,
    what: String,
    total: Option<u64>,
    started: Instant,
    reported: std::cell::Cell<Instant>,
}

impl Progress {
    fn new(what: &str, total: Option<u64>) -> Self {
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let form = if total.is_some() {
            "   {msg} {wide_bar} {percent}% {elapsed}"
        } else {
            "   {msg} {spinner} {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        if bar.is_hidden() {
            eprintln!("   {what}");
        }
        let now = Instant::now();
        Self {
            bar,
            what: what.to_owned(),
            total,
            started: now,
            reported: std::cell::Cell::new(now),
        }
    }

    fn show(&self, lines: u64) {
        // The total is of another day's build.
        let most = self.total.unwrap_or(u64::MAX);
        self.bar.set_position(lines.min(most));
        if !self.bar.is_hidden() || self.reported.get().elapsed() < REPORT_EVERY {
            return;
        }
        self.reported.set(Instant::now());
        let seconds = self.started.elapsed().as_secs();
        match self.total {
            Some(total) => {
                let percent = lines.min(total) * 100 / total.max(1);
                eprintln!("   {}: about {percent} %, {seconds} s", self.what);
            }
            None => eprintln!("   {}: {seconds} s", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_done_once_and_a_failed_one_is_done_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let work = Work::open(folder.path().join("work")).expect("a work folder");
        assert!(work.stage("a", || bail!("no")).is_err());
        let mut times = 0;
        for _ in 0..2 {
            work.stage("a", || {
                times += 1;
                Ok(())
            })
            .expect("works");
        }
        assert_eq!(times, 1);
    }

    #[test]
    fn a_failing_command_shows_its_complaint_and_not_an_earlier_commands() {
        let folder = tempfile::tempdir().expect("a folder");
        let work = Work::open(folder.path().join("work")).expect("a work folder");
        let script = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        work.run("one", None, &mut script("echo fine"))
            .expect("runs");
        let noise =
            "echo x.c: error: bad; for i in 1 2 3 4 5 6 7 8 9 a b c d; do echo $i; done; exit 3";
        let error = work
            .run("two", None, &mut script(noise))
            .expect_err("fails");
        let text = format!("{error:#}");
        assert!(
            text.contains("x.c: error: bad") && text.contains("two failed"),
            "{text}"
        );
        assert!(!text.contains("fine"), "{text}");
    }
}
