//! Running other programs: checked, with their output passed on, captured, or both.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// The command as a person would type it, for headlines and saved records.
pub fn line(command: &Command) -> String {
    let envs = command.get_envs().filter_map(|(name, value)| {
        let value = value?;
        Some(format!(
            "{}={}",
            name.to_string_lossy(),
            quote(&value.to_string_lossy())
        ))
    });
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quote(&word.to_string_lossy()));
    envs.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+%@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs with our standard streams.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| cannot_run(command))
}

/// Runs with our standard streams; anything but success is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs and returns what it wrote to standard output; its complaints are in the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| cannot_run(command))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` ended with {}: {}",
            line(command),
            output.status,
            complaint.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs, passes standard output on line by line as it comes, and returns it as well.
pub fn tee(command: &mut Command) -> Result<(ExitStatus, String)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| cannot_run(command))?;
    let stdout = child
        .stdout
        .take()
        .context("the child has no standard output")?;
    let mut text = String::new();
    let mut ours = std::io::stdout();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read the child's output")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(ours, "{line}").context("cannot write to standard output")?;
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().with_context(|| cannot_run(command))?;
    Ok((status, text))
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run `{}`", line(command))
}
