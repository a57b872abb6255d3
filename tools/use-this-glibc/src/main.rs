//! `use-this-glibc PREFIX EXE...`.
//!
//! - [`cli`]: the command line.
//! - [`job`]: one program, from reading to writing.
//! - [`script`]: scripts, which are refused.
//! - [`report`]: what is said.
//!
//! Exit status: 0 done, 1 a check failed and nothing was written, 2 wrong usage, 3 unsupported input, 4 a file could not be
//! read or written. Of several programs each is handled, and the greatest counts.

mod cli;
mod job;
mod report;
mod script;

use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use serde_json::Value;

use cli::{Cli, Deed, Order};
use job::Task;
use report::Report;
use use_this_glibc::error::{Error, Result};
use use_this_glibc::prefix::Prefix;
use use_this_glibc::{environment, place};

/// Who prints what.
#[derive(Debug, Clone, Copy)]
struct Voice {
    json: bool,
    quiet: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            // Printed without style, so that it is the same everywhere.
            return status(say(&error.to_string()).map(|()| 0));
        }
        Err(error) => {
            let text = error.to_string();
            // What is wrong stands above the first blank line, sometimes on several.
            let said = text
                .lines()
                .map(str::trim)
                .take_while(|line| !line.is_empty());
            let line = said.collect::<Vec<_>>().join(" ");
            let line = line.trim_start_matches("error: ");
            return status(Err(Error::Usage(line.into())));
        }
    };
    let voice = Voice {
        json: cli.json,
        quiet: cli.quiet,
    };
    status(cli.order().and_then(|order| run(order, voice)))
}

fn run(order: Order, voice: Voice) -> Result<u8> {
    let (deed, programs, to) = match order {
        Order::PrintEnv { prefix } => return print_env(&prefix, voice),
        Order::Programs { deed, programs, to } => (deed, programs, to),
    };
    place::remove_on_signals()
        .map_err(|error| Error::Io(format!("cannot catch signals: {error}")))?;
    let prefix = match &deed {
        Deed::Change { prefix, .. } | Deed::Check { prefix, .. } => Some(Prefix::open(prefix)?),
        Deed::Restore => None,
    };
    let task = match (&deed, &prefix) {
        (Deed::Change { wishes, .. }, Some(prefix)) => Task::Change(prefix, wishes),
        (Deed::Check { wishes, .. }, Some(prefix)) => Task::Check(prefix, wishes),
        _ => Task::Restore,
    };
    let mut worst = 0;
    for program in &programs {
        let report = job::run(&task, program, &to);
        tell(&report, voice)?;
        worst = worst.max(report.status);
    }
    Ok(worst)
}

fn tell(report: &Report, voice: Voice) -> Result<()> {
    if !voice.quiet {
        for warning in &report.warnings {
            complain(&format!("{}: warning: {warning}", report.program));
        }
    }
    if let Some(error) = &report.error {
        complain(error);
    }
    if voice.json {
        let line = serde_json::to_string(report)
            .map_err(|error| Error::Io(format!("cannot write JSON: {error}")))?;
        return say(&(line + "\n"));
    }
    if voice.quiet {
        Ok(())
    } else {
        say(&report.text())
    }
}

/// Assignments on stdout, as env(1) takes them, and why on stderr.
fn print_env(prefix: &Path, voice: Voice) -> Result<u8> {
    let prefix = Prefix::open(prefix)?;
    let system = Prefix::open(Path::new("/"))?;
    let environment = environment::of(&prefix, &system)?;
    let settings = environment.settings.iter();
    let values = settings.clone().map(|setting| {
        let value = setting.value.to_string_lossy();
        (setting.name, value)
    });
    if !voice.quiet {
        for warning in &environment.warnings {
            complain(&format!("warning: {warning}"));
        }
        for setting in settings {
            complain(&format!("{}: {}", setting.name, setting.reason));
        }
    }
    let text = if voice.json {
        let object = values.map(|(name, value)| (name.to_string(), value.into()));
        format!("{}\n", Value::Object(object.collect()))
    } else {
        values
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect()
    };
    say(&text).map(|()| 0)
}

/// Prints on stdout. Whoever reads may have had enough (`| head`): that ends the program quietly only when nothing more is to be
/// done, so it is no error here.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != IoErrorKind::BrokenPipe => {
            Err(Error::Io(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

fn complain(lines: &str) {
    for line in lines.lines() {
        // Nobody to tell if stderr is closed.
        let _ = writeln!(std::io::stderr(), "use-this-glibc: {line}");
    }
}

fn status(result: Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.status())
        }
    }
}
