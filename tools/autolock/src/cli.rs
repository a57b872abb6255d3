//! The command line: its commands, what they print, how they fail.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::doctor::DoctorArgs;
use crate::launch::{ProfileArgs, RunArgs};
use crate::report::ReportArgs;

const EXIT_CODES: &str =
    "Exit status: 0 done, 1 a check failed or a file is damaged beyond use, 2 wrong usage.";

/// Runs programs under the preloads, and reads what the profiler recorded.
#[derive(Debug, Parser)]
#[command(name = "autolock", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(RunArgs),
    Profile(ProfileArgs),
    #[command(after_help = EXIT_CODES)]
    Report(ReportArgs),
    Doctor(DoctorArgs),
}

/// Prints on stdout. Whoever reads may have had enough (`| head`): that ends the program quietly.
///
/// # Errors
/// Any other.
pub fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.context("cannot write to stdout"),
    }
}
