//! Runs one program to its end or its deadline, and says what it did.
//!
//! `TEST_ALGORITHM=mcs_stp cargo test -p autolock-tests` runs every program that is run under a preload on that algorithm.
//!
//! The program gets a process group of its own. When it ends, and when it hangs, whatever is left
//! of that group is killed by its id, so that no test leaves a process behind.

use crate::glibc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One run of a program.
pub struct Run {
    command: Command,
    name: String,
    preload: Vec<PathBuf>,
    deadline: Duration,
    gives_up_on_sleepers: bool,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Outcome {
    Exited(i32),
    Killed(i32),
    /// It was still there at its deadline; what its threads were doing then.
    Hung(Vec<String>),
}

/// A run that goes on.
pub struct Running {
    child: Child,
    what: String,
    stdout: std::thread::JoinHandle<String>,
    stderr: std::thread::JoinHandle<String>,
    deadline: Duration,
    gives_up_on_sleepers: bool,
}

/// What a run left behind.
pub struct Ended {
    /// The command as a reader could type it.
    pub what: String,
    pub outcome: Outcome,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The program with no preload and none of our options in its environment.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AUTOLOCK_") || text.starts_with("LD_") || text == "GLIBC_TUNABLES"
            {
                command.env_remove(&name);
            }
        }
        if let Some(prefix) = glibc::prefix() {
            command.env("TEST_GLIBC", prefix);
        }
        let name = Path::new(program)
            .file_name()
            .unwrap_or(program)
            .to_string_lossy()
            .into_owned();
        Run {
            command,
            name,
            preload: Vec::new(),
            deadline: Duration::from_secs(90),
            gives_up_on_sleepers: false,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in this folder.
    pub fn directory(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// One more library in LD_PRELOAD, after those given before.
    pub fn preload(mut self, library: impl Into<PathBuf>) -> Self {
        self.preload.push(library.into());
        self
    }

    /// After this long the program counts as hung.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// For runs that are meant to fail: counts as hung, too, once every thread has slept for a
    /// second on end.
    pub fn give_up_on_sleepers(mut self) -> Self {
        self.gives_up_on_sleepers = true;
        self
    }

    /// Runs it. Panics only when the program cannot be started.
    pub fn end(self) -> Ended {
        self.start().end()
    }

    /// Starts it; [`Running::end`] must follow.
    pub fn start(mut self) -> Running {
        // The programs check this against what they find: an ignored preload is no test.
        let expected = if self.preload.is_empty() { "no" } else { "yes" };
        if !self.command.get_envs().any(|(n, _)| n == "TEST_PRELOAD") {
            self.command.env("TEST_PRELOAD", expected);
        }
        let mut what = String::new();
        let chosen = std::env::var_os("TEST_ALGORITHM");
        if !self.preload.is_empty()
            && let Some(chosen) = chosen
            && !self
                .command
                .get_envs()
                .any(|(n, _)| n == "AUTOLOCK_ALGORITHM")
        {
            self.command.env("AUTOLOCK_ALGORITHM", chosen);
        }
        for (name, value) in self.command.get_envs() {
            if let (Some("AUTOLOCK_ALGORITHM"), Some(value)) = (name.to_str(), value) {
                let _ = write!(what, "AUTOLOCK_ALGORITHM={} ", value.to_string_lossy());
            }
        }
        if !self.preload.is_empty() {
            let list = self.preload.join_with_colons();
            let _ = write!(what, "LD_PRELOAD={} ", list.to_string_lossy());
            self.command.env("LD_PRELOAD", list);
        }
        what.push_str(&self.name);
        for arg in self.command.get_args() {
            let _ = write!(what, " {}", arg.to_string_lossy());
        }
        self.command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {what}: {error}"),
        };
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        Running {
            child,
            what,
            stdout,
            stderr,
            deadline: self.deadline,
            gives_up_on_sleepers: self.gives_up_on_sleepers,
        }
    }
}

impl Running {
    /// Its process id, not reaped before [`Running::end`].
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it is over or its deadline, which starts now, has passed.
    pub fn end(mut self) -> Ended {
        let hung = wait_until_over(&self.child, self.deadline, self.gives_up_on_sleepers);
        // The leader, even dead, is not reaped yet: its group's id cannot be another's.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => panic!("cannot wait for {}: {error}", self.what),
        };
        let outcome = match (hung, status.code(), status.signal()) {
            (Some(threads), _, _) => Outcome::Hung(threads),
            (None, Some(code), _) => Outcome::Exited(code),
            (None, None, signal) => Outcome::Killed(signal.unwrap_or_default()),
        };
        Ended {
            what: self.what,
            outcome,
            stdout: self.stdout.join().unwrap_or_default(),
            stderr: self.stderr.join().unwrap_or_default(),
        }
    }
}

trait JoinWithColons {
    fn join_with_colons(&self) -> OsString;
}

impl JoinWithColons for Vec<PathBuf> {
    fn join_with_colons(&self) -> OsString {
        let parts: Vec<&OsStr> = self.iter().map(|p| p.as_os_str()).collect();
        parts.join(OsStr::new(":"))
    }
}

impl Ended {
    pub fn succeeded(&self) -> bool {
        self.outcome == Outcome::Exited(0)
    }

    /// Panics with the whole story unless the program exited with 0.
    #[track_caller]
    pub fn must_succeed(self) -> Self {
        assert!(self.succeeded(), "{}", self.story());
        self
    }

    /// The command, its end, what it said and, when it hung, where its threads were.
    pub fn story(&self) -> String {
        let mut text = format!("{}\n  ", self.what);
        match &self.outcome {
            Outcome::Exited(code) => {
                let _ = write!(text, "exited with {code}");
            }
            Outcome::Killed(signal) => {
                let _ = write!(text, "was killed by signal {signal}");
            }
            Outcome::Hung(threads) => {
                let _ = write!(text, "hung; {} threads:", threads.len());
                for line in threads.iter().take(24) {
                    let _ = write!(text, "\n    {line}");
                }
            }
        }
        let said = self.stderr.trim_end();
        if !said.is_empty() {
            let _ = write!(text, "\n  stderr: {}", last(said, 2000));
        }
        let last_line = self.stdout.lines().last().unwrap_or_default();
        if !last_line.is_empty() {
            let _ = write!(text, "\n  last line of stdout: {}", last(last_line, 300));
        }
        text
    }
}

fn last(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// None when the process ended, its group's threads when it did not in time.
fn wait_until_over(
    child: &Child,
    deadline: Duration,
    gives_up_on_sleepers: bool,
) -> Option<Vec<String>> {
    let pid = Pid::from_child(child);
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(error) => panic!("pidfd_open: {error} (Linux 5.3 or later is needed)"),
    };
    let end = Instant::now() + deadline;
    let mut sleepers = None;
    let mut looks = 0;
    loop {
        let mut left = end.saturating_duration_since(Instant::now());
        if gives_up_on_sleepers {
            left = left.min(Duration::from_millis(250));
            let now = sleepers_of_group(pid);
            looks = if now.is_some() && now == sleepers {
                looks + 1
            } else {
                0
            };
            sleepers = now;
            if looks == 4 {
                return Some(threads_of_group(pid));
            }
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut watched = [PollFd::new(&descriptor, PollFlags::IN)];
        match poll(&mut watched, Some(&timeout)) {
            Ok(0) if Instant::now() >= end => return Some(threads_of_group(pid)),
            Ok(0) => {}
            Ok(_) => return None,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// A line for each thread in the process group: ids, state, system call and its arguments.
fn threads_of_group(group: Pid) -> Vec<String> {
    let mut lines = Vec::new();
    each_thread(group, |process, thread, state, read| {
        let call = read("syscall").unwrap_or_default();
        lines.push(format!(
            "process {process} thread {thread} {state} syscall {}",
            call.trim_end()
        ));
    });
    lines
}

/// What each thread of the group has had of the CPU so far, or None when any is not asleep.
fn sleepers_of_group(group: Pid) -> Option<Vec<String>> {
    let mut times = Some(Vec::new());
    each_thread(group, |_, thread, state, read| {
        if !matches!(state, "S" | "t" | "T" | "Z") {
            times = None;
        } else if let (Some(times), Some(time)) = (&mut times, read("schedstat")) {
            times.push(format!("{thread} {time}"));
        }
    });
    times
}

/// Calls with process, thread, state and a way to read the thread's files in /proc.
fn each_thread(
    group: Pid,
    mut look: impl FnMut(&str, &str, &str, &dyn Fn(&str) -> Option<String>),
) {
    let group = group.as_raw_nonzero().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let Ok(tasks) = std::fs::read_dir(process.path().join("task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
            let Some(stat) = read("stat") else { continue };
            // After the name in parentheses: state, parent, group.
            let Some((_, rest)) = stat.rsplit_once(") ") else {
                continue;
            };
            let mut rest = rest.split(' ');
            let state = rest.next().unwrap_or("?");
            if rest.nth(1) == Some(&group) {
                let (process, task) = (process.file_name(), task.file_name());
                look(
                    &process.to_string_lossy(),
                    &task.to_string_lossy(),
                    state,
                    &read,
                );
            }
        }
    }
}
