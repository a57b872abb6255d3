//! One test in a process of its own, so that a lock that hangs or crashes fails and the run goes on.
//!
//! The child is forked, not executed anew: the driver has one thread, so everything in it is usable, and a lock's library is
//! loaded already. It says what is wrong in one line on a pipe. The parent watches a page that both share: as long as
//! somebody acquires something, nothing hangs.

use super::ground::Phase;
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With a remark, or empty.
    Pass(String),
    /// What was wrong, in one line.
    Fail(String),
}

/// No acquisition for so long is a hang, however slow the machine.
const HUNG: Duration = Duration::from_secs(30);
/// The same while no thread of the process wanted a CPU whenever one looked: nobody is left to wake anybody.
const HUNG_ASLEEP: Duration = Duration::from_secs(3);
/// No test is meant to take so long, beyond a hundred times the time it was given.
const ENDLESS: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// The child's exit codes.
const PASSED: i32 = 0;
const FAILED: i32 = 1;
const TROUBLE: i32 = 2;

/// Where the child says what is wrong.
static SINK: AtomicI32 = AtomicI32::new(-1);

/// What the child tells while it runs. In shared memory.
pub struct Progress {
    phase: AtomicU32,
    beats: AtomicU64,
}

impl Progress {
    /// All zero, shared with children, there until the process ends.
    pub fn shared() -> Result<&'static Progress> {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Progress>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("cannot map a shared page");
        }
        // SAFETY: mapped, page-aligned, zero is valid for atomics, and it is never unmapped.
        Ok(unsafe { &*page.cast::<Progress>() })
    }

    pub fn phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Relaxed);
        self.beat();
    }

    /// Somebody got something done. Loses counts where there is no lock, which does no harm.
    pub fn beat(&self) {
        self.beats.store(self.beats.load(Relaxed) + 1, Relaxed);
    }

    fn name(&self) -> &'static str {
        let phase = Phase::ALL.get(self.phase.load(Relaxed) as usize);
        phase.map_or("?", |phase| phase.name())
    }
}

/// Runs `test` in a child and judges how it ended. The calling process has one thread.
pub fn run(
    progress: &Progress,
    duration: Duration,
    test: impl FnOnce() -> Option<String>,
) -> Result<Verdict> {
    progress.phase.store(0, Relaxed);
    progress.beats.store(0, Relaxed);
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    // SAFETY: one thread, so the child can go on as if nothing had happened.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("cannot fork"),
        0 => {
            drop(reader);
            SINK.store(writer.into_raw_fd(), Relaxed);
            // SAFETY: takes numbers only: the child is not to outlive the driver.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let remark = test();
            end(PASSED, &remark.unwrap_or_default());
        }
        child => {
            drop(writer);
            let mut watch = Watch::new(child, progress, duration);
            let hung = watch.until_end(&reader);
            if hung.is_err() || matches!(hung, Ok(Some(_))) {
                // SAFETY: our own child, not waited for yet.
                unsafe { libc::kill(child, libc::SIGKILL) };
            }
            let status = wait(child)?;
            match hung? {
                Some(hung) => Ok(Verdict::Fail(hung)),
                None => judge(status, reader, progress),
            }
        }
    }
}

/// The fault that this test looks for: ends the process.
#[cold]
pub fn fail(fault: &str) -> ! {
    end(FAILED, fault)
}

/// Something that is not the lock's fault: ends the process.
#[cold]
pub fn trouble(what: &str) -> ! {
    end(TROUBLE, what)
}

fn end(code: i32, text: &str) -> ! {
    // The first to have something to say says it; others wait for the end here.
    let sink = SINK.swap(-1, Relaxed);
    if sink < 0 {
        loop {
            std::thread::park();
        }
    }
    let mut sink = std::mem::ManuallyDrop::new(
        // SAFETY: the pipe's end, which nobody else owns; never closed twice since it is not closed here.
        unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(sink) },
    );
    // Shorter than PIPE_BUF: one write. A parent that is gone needs no news.
    let _ = sink.write_all(text.as_bytes());
    // SAFETY: ends the process without destructors, which threads that still run might trip over.
    unsafe { libc::_exit(code) }
}

fn wait(child: libc::pid_t) -> Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: our own child, a valid pointer.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Ok(status);
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("cannot wait for a test");
        }
    }
}

fn judge(status: i32, mut reader: PipeReader, progress: &Progress) -> Result<Verdict> {
    let mut text = String::new();
    reader
        .read_to_string(&mut text)
        .context("cannot read what a test says")?;
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        let name = match signal {
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGBUS => "SIGBUS",
            libc::SIGABRT => "SIGABRT",
            libc::SIGILL => "SIGILL",
            libc::SIGTRAP => "SIGTRAP",
            _ => "a signal",
        };
        let phase = progress.name();
        return Ok(Verdict::Fail(format!(
            "died of {name} ({signal}) while: {phase}"
        )));
    }
    match libc::WEXITSTATUS(status) {
        PASSED => Ok(Verdict::Pass(text)),
        FAILED => Ok(Verdict::Fail(format!("{text} ({})", progress.name()))),
        TROUBLE => Err(anyhow!("{text}")),
        code => bail!("a test ended with exit code {code}"),
    }
}

/// Sees whether the child still gets on.
struct Watch<'a> {
    child: libc::pid_t,
    progress: &'a Progress,
    started: Instant,
    endless: Duration,
    beats: u64,
    since: Instant,
    asleep: bool,
}

impl Watch<'_> {
    fn new(child: libc::pid_t, progress: &Progress, duration: Duration) -> Watch<'_> {
        let now = Instant::now();
        Watch {
            child,
            progress,
            started: now,
            endless: ENDLESS + duration * 100,
            beats: 0,
            since: now,
            asleep: true,
        }
    }

    /// Returns when the pipe has something or its other end is closed, or how the child hangs.
    fn until_end(&mut self, reader: &PipeReader) -> Result<Option<String>> {
        loop {
            let mut poll = libc::pollfd {
                fd: reader.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid pollfd.
            let ready = unsafe { libc::poll(&raw mut poll, 1, LOOK.as_millis() as i32) };
            if ready > 0 {
                return Ok(None);
            }
            if let Some(hung) = self.look() {
                return Ok(Some(hung));
            }
        }
    }

    fn look(&mut self) -> Option<String> {
        let now = Instant::now();
        let beats = self.progress.beats.load(Relaxed);
        let phase = self.progress.name();
        if now - self.started > self.endless {
            return Some(format!(
                "no end after {:?}, {beats} acquisitions ({phase})",
                self.endless
            ));
        }
        if beats != self.beats {
            (self.beats, self.since, self.asleep) = (beats, now, true);
            return None;
        }
        self.asleep &= all_asleep(self.child);
        let (limit, how) = if self.asleep {
            (HUNG_ASLEEP, ", all threads asleep")
        } else {
            (HUNG, "")
        };
        (now - self.since > limit)
            .then(|| format!("hung: no acquisition in {limit:?}{how}, {beats} before ({phase})"))
    }
}

/// Whether no thread of the process runs or wants to.
fn all_asleep(process: libc::pid_t) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        sleeps(&stat)
    })
}

/// From a thread's `stat` in proc(5): state S is an interruptible sleep.
pub fn sleeps(stat: &str) -> bool {
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('S'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_is_told_from_a_thread_that_runs_whatever_its_name() {
        assert!(sleeps("12 (driver) S 1 12"));
        assert!(sleeps("12 (a) R b) S 1 12"));
        assert!(!sleeps("12 (a) S b) R 1 12"));
        assert!(!sleeps(""));
    }

    #[test]
    fn every_phase_has_its_own_place_in_the_list() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, index);
        }
    }
}
