//! Options and their defaults.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use example_common::library;

/// Packs and unpacks a folder with unmodified mksquashfs and unsquashfs, on glibc's mutex, on libautolock.so and on other locks, and
/// checks every byte.
///
/// Exit status: 0 everything held, 1 a check failed, 2 usage or something is missing.
#[derive(Parser, Debug)]
#[command(version)]
pub struct Raw {
    /// libautolock.so to preload [default: ../lib beside this program, then target/dist/lib]
    #[arg(long, value_name = "PATH")]
    lib: Option<PathBuf>,

    /// Further locks to run them on, by AUTOLOCK_ALGORITHM; `driver --list` names them
    #[arg(
        long,
        value_name = "NAME,..",
        value_delimiter = ',',
        conflicts_with = "glibc_only"
    )]
    algorithm: Vec<String>,

    /// Value of their -processors: mksquashfs starts three threads for each, and five more
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    processors: u16,

    /// Files to pack [default: 8000; with --quick: 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    files: Option<u32>,

    /// Rounds; each runs all locks, in alternating order [default: 5; with --quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: Option<u16>,

    /// Seconds after which a run counts as hung
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    limit: u64,

    /// One short round: checks that everything works, says little about speed
    #[arg(long)]
    quick: bool,

    /// Run on glibc alone, to check the example itself
    #[arg(long, conflicts_with = "lib")]
    glibc_only: bool,

    /// Write every measurement to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Options with the defaults filled in.
#[derive(Debug)]
pub struct Options {
    /// The library to preload; none with `--glibc-only`.
    pub lib: Option<PathBuf>,
    /// Further locks, beside glibc's and autolock.
    pub algorithms: Vec<String>,
    pub processors: u16,
    pub files: u32,
    pub rounds: u16,
    pub limit: Duration,
    pub json: Option<PathBuf>,
}

impl Options {
    /// Parses the command line; `clap` ends the program with status 2 on a bad one.
    pub fn parse() -> Raw {
        Raw::parse()
    }
}

impl Raw {
    /// Fills in the defaults and finds the library.
    pub fn checked(self) -> Result<Options> {
        let (files, rounds) = if self.quick { (2000, 1) } else { (8000, 5) };
        Ok(Options {
            lib: match self.glibc_only {
                true => None,
                false => Some(library::find(library::AUTOLOCK, self.lib.as_deref())?),
            },
            algorithms: self.algorithm,
            processors: self.processors,
            files: self.files.unwrap_or(files),
            rounds: self.rounds.unwrap_or(rounds),
            limit: Duration::from_secs(self.limit),
            json: self.json,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Raw::command().debug_assert();
    }

    #[test]
    fn quick_changes_defaults_and_explicit_options_win() {
        let raw = Raw::parse_from(["x", "--quick", "--glibc-only", "--rounds", "2"]);
        let options = raw.checked().expect("options");
        assert_eq!((options.files, options.rounds), (2000, 2));
    }
}
