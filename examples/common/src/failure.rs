//! The exit status that an error stands for, and the one line that reports it.
//!
//! 0: everything held. 1: a check failed (a wrong value, an unclean end, no proof that the program
//! ran on our symbols, no answer in time). 2: usage, or something that the run needs is missing.

use std::fmt;
use std::process::ExitCode;

pub const CHECK_FAILED: u8 = 1;
pub const USAGE_OR_MISSING: u8 = 2;

/// Something that the user can put right; its text says how.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// An error that ends the run with [`USAGE_OR_MISSING`].
pub fn missing(what_to_do: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Missing(what_to_do.into()))
}

/// The end of `program`: its problems or its error, a line each, and the exit status that they stand for.
pub fn exit(program: &str, outcome: anyhow::Result<Vec<String>>) -> ExitCode {
    match outcome {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in problems {
                eprintln!("{program}: FAILED: {problem}");
            }
            ExitCode::from(CHECK_FAILED)
        }
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::from(status(&error))
        }
    }
}

fn status(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Missing>()) {
        USAGE_OR_MISSING
    } else {
        CHECK_FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_told_from_a_failed_check() {
        let error = missing("memcached is missing").context("while starting");
        assert_eq!(status(&error), USAGE_OR_MISSING);
        assert_eq!(status(&anyhow::anyhow!("no answer")), CHECK_FAILED);
    }
}
