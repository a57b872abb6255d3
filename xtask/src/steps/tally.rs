//! What a step comes to: how many tests, or checks, passed, failed and were skipped.

use std::process::Command;

use anyhow::{Result, bail};

use crate::packages::{self, Ready};
use crate::project::in_ci;
use crate::shell;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    pub const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    pub const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    pub const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    pub fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    pub fn closing_line(self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            line.push_str(&format!(", {} skipped", self.skipped));
        }
        line
    }
}

/// What to answer where packages are missing and cannot be installed: skipped aloud, and failed under CI.
pub(super) fn lacks(packages: &str) -> Option<Tally> {
    let Ready::No(what_to_do) = packages::prepare(packages) else {
        return None;
    };
    println!("SKIPPED: {what_to_do}");
    Some(if in_ci() {
        Tally::FAILED
    } else {
        Tally::SKIPPED
    })
}

/// A command that is one check.
pub(super) fn check(command: &mut Command) -> Result<Tally> {
    shell::run(command)?;
    Ok(Tally::PASSED)
}

/// `cargo test`, counted by its result lines.
pub(super) fn cargo_test(command: &mut Command) -> Result<Tally> {
    let (status, text) = shell::tee(command)?;
    let mut tally = text
        .lines()
        .filter_map(result_line)
        .fold(Tally::default(), Tally::add);
    if !status.success() && tally.failed == 0 {
        // It did not compile, or a test program died.
        tally.failed = 1;
    }
    if status.success() && tally.passed == 0 {
        bail!("`{}` ran no test", shell::line(command));
    }
    Ok(tally)
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
fn result_line(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let mut parts = counts.split(';').map(str::trim);
        parts.find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted_and_other_lines_are_not() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            result_line(line),
            Some(Tally {
                passed: 3,
                failed: 2,
                skipped: 1
            })
        );
        assert_eq!(result_line("test a ... ok"), None);
    }

    #[test]
    fn closing_line_is_the_plain_form() {
        assert_eq!(Tally::PASSED.closing_line(), "1 passed, 0 failed");
        assert_eq!(
            Tally::PASSED.add(Tally::SKIPPED).closing_line(),
            "1 passed, 0 failed, 1 skipped"
        );
    }
}
