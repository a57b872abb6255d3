//! Instructions per uncontended lock+unlock pair, glibc beside the preload, counted by valgrind.
//!
//! Two runs of different length are subtracted, so that start-up, linking and exit cancel, and
//! the loop alone is measured the same way and taken off. The counts do not depend on the
//! machine's load: a test may assert them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::project::Project;
use crate::shell;

const SHORT: u64 = 1_000;
const LONG: u64 = 11_000;
const OPERATIONS: &[&str] = &["lock", "trylock"];
const KINDS: &[&str] = &["normal", "recursive", "errorcheck", "adaptive"];
const PROCESSES: &[&str] = &["single", "multi"];

/// Instructions per pair in one setting.
#[derive(Debug, Serialize)]
pub struct Row {
    pub operation: &'static str,
    pub kind: &'static str,
    /// `single`: a process of one thread; `multi`: another thread exists.
    pub process: &'static str,
    pub glibc: f64,
    pub autolock: f64,
}

impl Row {
    /// Promised not to cost more: the default mutex's lock and unlock. The rest is for the record.
    pub fn promised(&self) -> bool {
        self.operation == "lock" && self.kind == "normal"
    }

    pub fn more(&self) -> bool {
        self.autolock > self.glibc
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub valgrind: String,
    pub rows: Vec<Row>,
}

impl Report {
    pub fn holds(&self) -> bool {
        !self.rows.iter().any(|row| row.promised() && row.more())
    }

    pub fn save(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot write JSON")?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["pair", "kind", "process", "glibc", "autolock", ""]);
        for row in &self.rows {
            let verdict = match (row.more(), row.promised()) {
                (true, true) => "FAILED: more",
                (true, false) => "more",
                (false, true) => "as promised",
                (false, false) => "",
            };
            table.add_row([
                format!("{} + unlock", row.operation),
                row.kind.to_owned(),
                row.process.to_owned(),
                format!("{:.1}", row.glibc),
                format!("{:.1}", row.autolock),
                verdict.to_owned(),
            ]);
        }
        writeln!(
            out,
            "instructions per pair ({}), the loop taken off",
            self.valgrind
        )?;
        writeln!(out, "{table}")
    }
}

pub fn measure(project: &Project, preload: &Path) -> Result<Report> {
    let bench = Bench::prepare(project)?;
    let mut rows = Vec::new();
    for process in PROCESSES {
        let empty = bench.per_pair(["none", "normal", process], None)?;
        for operation in OPERATIONS {
            for kind in KINDS {
                let setting = [*operation, *kind, *process];
                let glibc = bench.per_pair(setting, None)? - empty;
                let autolock = bench.per_pair(setting, Some(preload))? - empty;
                rows.push(Row {
                    operation,
                    kind,
                    process,
                    glibc,
                    autolock,
                });
            }
        }
    }
    let valgrind = shell::output(Command::new("valgrind").arg("--version"))?;
    Ok(Report {
        valgrind: valgrind.trim().to_owned(),
        rows,
    })
}

/// The compiled program and a place for callgrind's files.
struct Bench {
    program: PathBuf,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn prepare(project: &Project) -> Result<Self> {
        let scratch = tempfile::tempdir().context("cannot make a scratch folder")?;
        let program = scratch.path().join("pairs");
        let source = project.root.join("xtask/callgrind/pairs.c");
        shell::output(
            Command::new("cc")
                .args(["-O2", "-Wall", "-o"])
                .arg(&program)
                .arg(source),
        )?;
        Ok(Self { program, scratch })
    }

    fn per_pair(&self, setting: [&str; 3], preload: Option<&Path>) -> Result<f64> {
        let short = self.instructions(setting, SHORT, preload)?;
        let long = self.instructions(setting, LONG, preload)?;
        let more = long
            .checked_sub(short)
            .context("the longer run took fewer instructions")?;
        Ok(more as f64 / (LONG - SHORT) as f64)
    }

    fn instructions(&self, setting: [&str; 3], count: u64, preload: Option<&Path>) -> Result<u64> {
        let file = self.scratch.path().join("callgrind.out");
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--tool=callgrind"]);
        valgrind.arg(format!("--callgrind-out-file={}", file.display()));
        valgrind
            .arg(&self.program)
            .args(setting)
            .arg(count.to_string());
        valgrind.env_remove("LD_PRELOAD");
        if let Some(lib) = preload {
            valgrind.env("LD_PRELOAD", lib);
        }
        shell::output(&mut valgrind)?;
        let text = std::fs::read_to_string(&file).context("callgrind wrote no file")?;
        if let Some(lib) = preload.map(|lib| lib.display().to_string())
            && !text.contains(&lib)
        {
            bail!("{lib} was not loaded or never called under valgrind");
        }
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let totals = totals.context("callgrind's file has no totals")?;
        totals
            .trim()
            .parse()
            .with_context(|| format!("callgrind's totals are no number: {totals}"))
    }
}
