//! Bounded waits for children and bounded commands. Nothing here waits without a deadline.

use crate::failure::missing;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How often a child's end is looked for.
const POLL: Duration = Duration::from_millis(1);

/// The child's exit status, or `None` if it is still running at the deadline.
pub fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child
            .try_wait()
            .context("cannot wait for a child process")?
        {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// A child that is killed and reaped when it goes out of scope still running.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // Nothing can be done about an error here: the child is on its way out.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Where `tool` stands on the search path, with the places that an unprivileged PATH leaves out.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(tool))
        .find(|candidate| candidate.is_file())
}

/// Where `tool` stands, or an error that names the Debian package to install.
pub fn need(tool: &str, package: &str) -> Result<PathBuf> {
    find(tool).ok_or_else(|| missing(format!("{tool} is missing: apt-get install {package}")))
}

/// `program` as a command that ends by itself after `limit`, and on Ctrl-C.
pub fn bounded(limit: Duration, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg("--foreground")
        .arg("--kill-after=5")
        .arg(limit.as_secs().max(1).to_string())
        .arg(program);
    command
}

/// Runs `command` and gives what it wrote to stdout; a failure carries its reason.
pub fn output(command: &mut Command, what: &str) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {what}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{what} failed ({}): {}",
            output.status,
            reason(&stderr).or(reason(&stdout)).unwrap_or("no message")
        );
    }
    Ok(stdout)
}

/// The line that tells why a command failed: apt's first error, for it ends with a summary; of
/// anything else the last line.
fn reason(text: &str) -> Option<&str> {
    text.lines()
        .find(|line| line.starts_with("E: "))
        .or_else(|| last_line(text))
}

/// The last line with something on it.
pub fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

/// How a process ended, in words.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("died of signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or(-1)),
    }
}

/// Makes the child end when the thread that spawns it ends, however that comes about.
pub fn end_with_this_program(command: &mut Command) {
    let set_signal = || {
        // SAFETY: prctl(PR_SET_PDEATHSIG) takes an integer and touches no memory of ours.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: between fork and exec the closure makes one system call and reads errno: both are
    // async-signal-safe, nothing allocates or locks.
    unsafe { command.pre_exec(set_signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_outlives_its_deadline_is_seen_and_killed() {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let mut guarded = Guarded(child);
        let pid = guarded.0.id();
        assert!(
            wait_until(&mut guarded.0, Instant::now())
                .expect("wait")
                .is_none()
        );
        drop(guarded);
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    }

    #[test]
    fn the_reason_is_apts_first_error_or_the_last_line() {
        assert_eq!(
            reason("Err:1 x\nE: cannot reach x\nE: some failed\n"),
            Some("E: cannot reach x")
        );
        assert_eq!(reason("one\ntwo\n\n"), Some("two"));
        assert_eq!(reason("\n"), None);
    }

    #[test]
    fn a_failed_command_reports_its_last_line() {
        let mut command = bounded(Duration::from_secs(10), "sh");
        command.args(["-c", "echo first >&2; echo second >&2; exit 3"]);
        let error = output(&mut command, "the step").expect_err("exit 3");
        assert!(
            error.to_string().contains("the step failed") && error.to_string().ends_with("second"),
            "{error}"
        );
    }
}
