//! `autolock report`: a capture in tables, files and a page.
//!
//! - [`bytes`], [`file`]: the capture file; believes nothing.
//! - [`build`]: from its items to the model, with [`symbols`] (names of code and of static locks) and [`identity`] (names and ids of locks).
//! - [`model`]: what a capture says, in names: all outputs are made from it.
//! - [`rows`]: locks grouped and sorted, and totals; [`units`]: numbers for people.
//! - [`table`], [`places`]: as text; [`json`]: for programs; [`diff`]: two captures side by side.
//! - [`outputs`]: files for other tools, and a page.

mod build;
mod bytes;
mod diff;
mod file;
mod identity;
mod json;
pub mod model;
mod outputs;
mod places;
mod rows;
mod symbols;
#[cfg(test)]
#[path = "../../tests/support/synthetic.rs"]
mod synthetic;
mod table;
mod units;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};

use crate::cli::say;
use model::Report;
use rows::Sort;
use table::View;

/// Columns where there is no terminal.
const WIDTH: u16 = 100;
/// Locks in a table.
const TOP: usize = 20;

/// Reports what was recorded: which locks, who waited, where, because of whom, how long.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).args(["captures", "diff"])))]
pub struct ReportArgs {
    /// Capture files, as libpthread-mutex-profile.so writes them; also of a process that still runs
    #[arg(value_name = "CAPTURE")]
    captures: Vec<PathBuf>,
    /// Compares two captures lock by lock and percentile by percentile
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    diff: Vec<PathBuf>,
    /// What the locks are sorted by, the most first
    #[arg(long, value_name = "KEY", value_enum, default_value_t)]
    sort: Sort,
    /// How many locks are shown
    #[arg(long, value_name = "N", default_value_t = TOP)]
    top: usize,
    /// Shows every lock by itself, also those that were first used at the same place
    #[arg(long, conflicts_with = "diff")]
    each: bool,
    /// Shows the table of the locks and nothing else
    #[arg(long, conflicts_with_all = ["diff", "json"])]
    list: bool,
    /// Prints everything as JSON; of several captures an array
    #[arg(long)]
    json: bool,
    /// Writes it all as files too: pprof, HdrHistogram, folded stacks, flame graphs, a page; of several captures each into a folder of its
    /// name there
    #[arg(short, long, value_name = "DIR", conflicts_with = "diff")]
    output: Option<PathBuf>,
}

impl ReportArgs {
    /// `autolock report CAPTURE...`.
    #[must_use]
    pub fn of(captures: Vec<PathBuf>) -> Self {
        Self {
            captures,
            diff: Vec::new(),
            sort: Sort::default(),
            top: TOP,
            each: false,
            list: false,
            json: false,
            output: None,
        }
    }
}

/// `autolock report`.
///
/// # Errors
/// A capture that cannot be read, after all the others were reported.
pub fn main(args: &ReportArgs) -> Result<()> {
    if let [a, b] = args.diff.as_slice() {
        let pair = diff::Pair {
            a: (a, &read(a)?),
            b: (b, &read(b)?),
        };
        return match args.json {
            true => say(&json_text(&pair.document())?),
            false => say(&pair.text(args.sort, args.top)),
        };
    }
    let view = View {
        sort: args.sort,
        top: args.top,
        each: args.each,
        list: args.list,
        width: comfy_table::Table::new().width().unwrap_or(WIDTH).into(),
    };
    let mut failures = Vec::new();
    let mut reports = Vec::new();
    for (number, path) in args.captures.iter().enumerate() {
        let report = match read(path) {
            Ok(report) => report,
            Err(error) => {
                failures.push(format!("{error:#}"));
                continue;
            }
        };
        if let Some(folder) = &args.output {
            let folder = match args.captures.as_slice() {
                [_] => folder.clone(),
                all => folder.join(folder_name(all, number)),
            };
            let files = outputs::write_all(&report, &folder)?;
            eprintln!("autolock: {} files in {}", files.len(), folder.display());
        }
        if args.json {
            reports.push((path, report));
            continue;
        }
        if args.captures.len() > 1 {
            let gap = if number == 0 { "" } else { "\n" };
            say(&format!("{gap}==> {} <==\n", path.display()))?;
        }
        say(&table::text(&report, view))?;
    }
    if args.json {
        let documents = reports
            .iter()
            .map(|(path, report)| json::document(path, report));
        let mut documents: Vec<_> = documents.collect();
        match args.captures.len() {
            1 => documents
                .pop()
                .map_or(Ok(()), |one| say(&json_text(&one)?))?,
            _ => say(&json_text(&documents)?)?,
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    Ok(())
}

/// The name of capture `number`, made unique by that number if an earlier one has the same.
fn folder_name(captures: &[PathBuf], number: usize) -> OsString {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_owned();
    let mut unique = name(&captures[number]);
    if captures[..number].iter().any(|path| name(path) == unique) {
        unique.push(format!(".{number}"));
    }
    unique
}

fn read(path: &Path) -> Result<Report> {
    let read = || {
        // Opening anything else may wait for ever.
        if !path.metadata()?.is_file() {
            bail!("it is not a file");
        }
        build::read(File::open(path)?)
    };
    read().with_context(|| format!("{}: not readable as a capture", path.display()))
}

fn json_text(document: &impl serde::Serialize) -> Result<String> {
    let mut text = serde_json::to_string_pretty(document).context("JSON")?;
    text.push('\n');
    Ok(text)
}
