//! The step of `cargo xtask test`: the kernel builds, a machine on it does what `vm` promises, and the library uses what it has.
//!
//! Each check runs this program again, as a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};

use super::{REPORTED, TIMED_OUT, library};
use crate::kernel;
use crate::project::Project;

/// More than the ports' buffers hold, with every byte that a terminal would touch.
const SIZE: usize = 300_000;
/// Seconds: of a machine that is to hang, and of one that is not.
const HANG: &str = "40";
const LIMIT: &str = "150";

/// What came of each check, in words, and whether it is well.
pub fn check(project: &Project) -> Result<Vec<(String, bool)>> {
    let image = kernel::image(project, &kernel::Options::default())?;
    let folder = tempfile::tempdir().context("cannot make a scratch folder")?;
    let checks = Checks {
        program: std::env::current_exe().context("cannot find this program")?,
        root: project.root.clone(),
        image,
        folder: folder.path().to_owned(),
    };
    let ours = ["--kernel", checks.image.to_str().unwrap_or_default()];
    let stock = ["--stock"];
    let mut done = Vec::new();
    let mut note = |what: &str, outcome: Result<()>| {
        let well = outcome.is_ok();
        let text = match outcome {
            Ok(()) => what.to_owned(),
            Err(error) => format!("{what}: {error:#}"),
        };
        done.push((text, well));
    };
    note(
        "output, errors, status and folder come through, and processes left behind end",
        checks.comes_through(&ours),
    );
    note("the same on Debian's kernel", checks.comes_through(&stock));
    note(
        "bytes come through, and what the guest writes stays there",
        checks.whole_and_read_only(&ours),
    );
    note("a signal's number is in the status", {
        let output = checks.vm(&ours, LIMIT, &["sh", "-c", "kill -KILL $$"]);
        output.and_then(|it| is(&it, 128 + 9))
    });
    note("a command that is not there is 127", {
        let output = checks.vm(&ours, LIMIT, &["no-such-command"]);
        output.and_then(|it| is(&it, 127))
    });
    note("a command that hangs is ended", {
        let output = checks.vm(&ours, HANG, &["sh", "-c", "echo begun; sleep 1000000"]);
        output.and_then(|it| {
            is(&it, TIMED_OUT)?;
            says(&it.stdout, "begun")
        })
    });
    note("a kernel that crashes fails the run", {
        let crash = ["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000000"];
        let output = checks.vm(&ours, LIMIT, &crash);
        output.and_then(|it| {
            is(&it, REPORTED)?;
            says(&it.stderr, "Kernel panic")
        })
    });
    note(
        "a kernel that warns fails the run of a command that succeeds",
        {
            let warn = "echo WARNING >/sys/kernel/debug/provoke-crash/DIRECT; echo alive";
            let output = checks.vm(&ours, LIMIT, &["sh", "-c", warn]);
            output.and_then(|it| {
                is(&it, REPORTED)?;
                says(&it.stdout, "alive")?;
                says(&it.stderr, "WARNING: ")
            })
        },
    );
    note(
        "on virtual time two runs are the same, and on the host's they are not",
        checks.repeatable(&ours),
    );
    done.extend(library::check(project, &checks.image)?);
    Ok(done)
}

struct Checks {
    program: PathBuf,
    image: PathBuf,
    root: PathBuf,
    /// With what is to be read and not to be written.
    folder: PathBuf,
}

impl Checks {
    fn vm(&self, kernel: &[&str], limit: &str, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(["vm", "--timeout", limit]).args(kernel);
        command.arg("--").args(words);
        command.current_dir(&self.root).stdin(Stdio::null());
        command.output().context("cannot run this program")
    }

    /// Begins in the scratch folder.
    fn there<'a>(&'a self, kernel: &[&'a str]) -> Result<Vec<&'a str>> {
        let folder = self.folder.to_str().context("a folder that is not UTF-8")?;
        Ok([kernel, &["--folder", folder]].concat())
    }

    fn comes_through(&self, kernel: &[&str]) -> Result<()> {
        let script = "pwd; id -u; sleep 1000000 & echo \"an error\" >&2; exit 7";
        let output = self.vm(kernel, LIMIT, &["sh", "-c", script])?;
        is(&output, 7)?;
        let folder = self.root.display();
        same(&output.stdout, format!("{folder}\n0\n").as_bytes())?;
        same(&output.stderr, b"an error\n")
    }

    fn whole_and_read_only(&self, kernel: &[&str]) -> Result<()> {
        let (here, new) = (self.folder.join("here"), self.folder.join("new"));
        let bytes = bytes();
        std::fs::write(&here, &bytes).context("cannot write a file")?;
        let script = "cat here; echo changed >here && echo made >new && cat here new >&2";
        let output = self.vm(&self.there(kernel)?, LIMIT, &["sh", "-c", script])?;
        is(&output, 0)?;
        same(&output.stdout, &bytes)?;
        same(&output.stderr, b"changed\nmade\n")?;
        anyhow::ensure!(!new.exists(), "a file of the guest is on the host");
        same(&std::fs::read(&here).context("cannot read a file")?, &bytes)
    }

    /// The list of timers has nanoseconds.
    fn repeatable(&self, kernel: &[&str]) -> Result<()> {
        let script = "ls with; cat /proc/timer_list /proc/stat /proc/interrupts";
        let run = |way: &[&str], log: &Path| {
            let log = log.to_string_lossy();
            let with = [&self.there(kernel)?, way, &["--log", &log]].concat();
            let output = self.vm(&with, LIMIT, &["sh", "-c", script])?;
            is(&output, 0)?;
            Ok::<_, anyhow::Error>(output.stdout)
        };
        let logs = ["one", "two", "three", "four"].map(|it| self.folder.join(it));
        std::fs::write(self.folder.join("with"), "").context("cannot write a file")?;
        let counted = ["--icount", "--with", "with"];
        let (first, second) = (run(&counted, &logs[0])?, run(&counted, &logs[1])?);
        same(&first, &second)?;
        let read = |log: &Path| std::fs::read(log).context("no log");
        same(&read(&logs[0])?, &read(&logs[1])?)?;
        anyhow::ensure!(
            run(&[], &logs[2])? != run(&[], &logs[3])?,
            "two runs on the host's time are the same: nothing was compared"
        );
        Ok(())
    }
}

/// All values, in an order that repeats late.
fn bytes() -> Vec<u8> {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    };
    let mut state = 1;
    std::iter::from_fn(|| next(&mut state)).take(SIZE).collect()
}

fn is(output: &Output, code: u8) -> Result<()> {
    anyhow::ensure!(
        output.status.code() == Some(code.into()),
        "ended with {}, and not with {code}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn says(bytes: &[u8], words: &str) -> Result<()> {
    let text = String::from_utf8_lossy(bytes);
    anyhow::ensure!(text.contains(words), "`{words}` is not in: {}", text.trim());
    Ok(())
}

fn same(bytes: &[u8], expected: &[u8]) -> Result<()> {
    let at = bytes.iter().zip(expected).take_while(|(a, b)| a == b);
    let at = at.count();
    let excerpt = |bytes: &[u8]| {
        let end = bytes.len().min(at + 60);
        String::from_utf8_lossy(&bytes[at.min(end)..end])
            .escape_debug()
            .to_string()
    };
    anyhow::ensure!(
        bytes == expected,
        "{} bytes where {} are expected, at {at} '{}' and not '{}'",
        bytes.len(),
        expected.len(),
        excerpt(bytes),
        excerpt(expected)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_missing_and_a_further_byte_are_noticed() {
        assert!(same(b"abc", b"abc").is_ok());
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(same(other, b"abc").is_err());
        }
    }

    #[test]
    fn the_bytes_have_all_values() {
        let bytes = bytes();
        assert!((0..=255).all(|value| bytes.contains(&value)));
    }
}
