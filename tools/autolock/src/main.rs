//! `autolock`: runs programs under the preloads, reads what the profiler recorded, and says what a machine has for them.
//!
//! - [`cli`]: the command line.
//! - [`launch`]: `autolock run`, `autolock profile`.
//! - [`report`]: `autolock report`.
//! - [`doctor`]: `autolock doctor`.

mod cli;
mod doctor;
mod launch;
mod report;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};

/// Wrong usage.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            // Printed without style, so that it is the same everywhere.
            return outcome(cli::say(&error.to_string()));
        }
        Err(error) => {
            let text = error.to_string();
            // What is wrong stands above the first blank line, sometimes on several.
            let said = text
                .lines()
                .map(str::trim)
                .take_while(|line| !line.is_empty());
            let line = said.collect::<Vec<_>>().join(" ");
            return fail(line.trim_start_matches("error: "), USAGE);
        }
    };
    match command {
        Command::Run(args) => launch::run(&args),
        Command::Profile(args) => launch::profile(&args),
        Command::Report(args) => outcome(report::main(&args)),
        Command::Doctor(args) => doctor::main(&args),
    }
}

fn outcome(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn fail(why: &str, code: u8) -> ExitCode {
    eprintln!("autolock: {why}");
    ExitCode::from(code)
}
