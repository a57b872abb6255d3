//! `use-this-glibc`: the tool over real programs and over inputs that are as odd as we can make them, patchelf beside it.
//!
//! Each program is copied, run, rewritten in place to the prefix, and run again: status, output and complaints must be the same,
//! and the process must have no part of the system's glibc in it. Then: a second run changes nothing, and `--restore` gives the
//! original bytes. A refusal is one line, and leaves everything as it was.

mod judge;
mod made;
mod observe;
mod programs;
mod report;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use crate::Usage;
use crate::bench::machine::Machine;
use crate::project::Project;
use crate::shell;
use judge::{Row, Subject, Tools};
use made::Expect;
use observe::Bench;
use report::Entry;
pub use report::Report;

#[derive(clap::Args, Debug, Clone, Default)]
pub struct Options {
    /// The glibc to run on; the one that `cargo xtask glibc` built is taken if this is left out
    #[arg(long, value_name = "FOLDER")]
    pub prefix: Option<PathBuf>,
    /// The use-this-glibc to try; the one in target/dist is built if this is left out
    #[arg(long, value_name = "FILE")]
    pub tool: Option<PathBuf>,
    /// The patchelf to compare with; the system's if this is left out
    #[arg(long, value_name = "FILE")]
    pub patchelf: Option<PathBuf>,
    /// A few dozen programs only, as CI does
    #[arg(long)]
    pub short: bool,
    /// Only inputs whose name contains this (may be repeated)
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// Write the report as Markdown to this file too
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// Where an input comes from.
enum Source {
    Machine(programs::Program, PathBuf),
    Made(made::Input),
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Self::Machine(program, _) => program.name,
            Self::Made(input) => &input.name,
        }
    }
}

pub fn run(project: &Project, prefix: &Path, options: &Options) -> Result<Report> {
    let missing = |_| Usage(format!("no folder at {}", prefix.display()));
    let prefix = prefix.canonicalize().map_err(missing)?;
    let scratch = tempfile::Builder::new()
        .prefix("use-this-glibc-matrix-")
        .tempdir_in(project.work_folder("use-this-glibc")?)?;
    let tools = Tools {
        tool: match &options.tool {
            Some(tool) => tool
                .canonicalize()
                .map_err(|_| Usage(format!("no file at {}", tool.display())))?,
            None => project.program("use-this-glibc"),
        },
        patchelf: options
            .patchelf
            .clone()
            .unwrap_or_else(|| "/usr/bin/patchelf".into()),
        extra: judge::extra_library(scratch.path())?,
        libraries: libraries(&prefix.join("lib"))?,
        prefix,
    };
    let (sources, missing) = sources(options);
    println!(
        "   {} inputs, prefix {}",
        sources.len(),
        tools.prefix.display()
    );
    let entries = all(&sources, &tools, scratch.path())?;
    let report = Report { entries, missing };
    let heading = heading(project, &tools, options)?;
    if let Some(file) = &options.save {
        std::fs::write(file, report.markdown(&heading))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    for line in report.failures() {
        println!("FAILED: {line}");
    }
    println!(
        "   {} inputs: {} run on the prefix, {} refused, {} failed, {} say nothing",
        report.entries.len(),
        report.works(),
        report.refused(),
        report.failures().len(),
        report.silent(),
    );
    Ok(report)
}

fn sources(options: &Options) -> (Vec<Source>, Vec<String>) {
    let mut missing = Vec::new();
    let mut sources = Vec::new();
    for program in programs::all(options.short) {
        match stage::locate(&program) {
            Some(path) => sources.push(Source::Machine(program, path)),
            None => missing.push(program.name.to_owned()),
        }
    }
    sources.extend(made::all(options.short).into_iter().map(Source::Made));
    let wanted = |source: &Source| {
        options.only.is_empty()
            || options
                .only
                .iter()
                .any(|text| source.name().contains(text.as_str()))
    };
    sources.retain(wanted);
    (sources, missing)
}

/// As many at a time as there are processors; in the order of the list.
fn all(sources: &[Source], tools: &Tools, scratch: &Path) -> Result<Vec<Entry>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Entry)>> = Mutex::new(Vec::new());
    let bar = indicatif::ProgressBar::new(sources.len() as u64);
    let workers = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (next, done, bar) = (&next, &done, &bar);
            scope.spawn(move || {
                loop {
                    // Relaxed: only the numbers are shared.
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(source) = sources.get(at) else {
                        return;
                    };
                    let seen = one(source, at, tools, scratch, worker)
                        .unwrap_or_else(|error| Err(format!("{error:#}")));
                    if let Ok(mut done) = done.lock() {
                        done.push((at, entry(source, seen)));
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let Ok(mut done) = done.into_inner() else {
        bail!("a worker died")
    };
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, entry)| entry).collect())
}

fn entry(source: &Source, seen: Result<Row, String>) -> Entry {
    let (made, expect) = match source {
        Source::Machine(..) => (false, Expect::Either),
        Source::Made(input) => (true, input.expect),
    };
    Entry {
        name: source.name().to_owned(),
        made,
        expect,
        seen,
    }
}

fn one(
    source: &Source,
    at: usize,
    tools: &Tools,
    scratch: &Path,
    worker: usize,
) -> Result<Result<Row, String>> {
    let folder = scratch.join(format!("input-{at}"));
    std::fs::create_dir_all(&folder)?;
    let subject = match source {
        Source::Machine(program, original) => Subject {
            name: program.name.to_owned(),
            file: stage::copy(original, &folder)?,
            commands: program
                .commands
                .iter()
                .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
                .collect(),
            expect: Expect::Either,
            ends: None,
            debug: false,
        },
        Source::Made(input) => Subject {
            name: input.name.clone(),
            file: made::make(input, &folder)?,
            commands: vec![Vec::new()],
            expect: input.expect,
            ends: Some(made::ENDS),
            debug: input.debug,
        },
    };
    let bench = Bench::new(&scratch.join(format!("bench-{worker}")))?;
    let row = judge::judge(&subject, tools, &bench)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(row.ok_or_else(|| "no command of it gives the same twice".to_owned()))
}

fn libraries(folder: &Path) -> Result<std::collections::BTreeSet<String>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("no libraries in {}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.contains(".so")).collect())
}

fn heading(project: &Project, tools: &Tools, options: &Options) -> Result<String> {
    let machine = Machine::describe(project)?;
    let first = |program: &Path, word: &str| {
        let text = shell::output(std::process::Command::new(program).arg(word)).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    Ok(format!(
        "# use-this-glibc over the programs of a machine, {}\n\n`cargo xtask use-this-glibc{}`, revision {}. {}.\n\nPrefix: {}. {}. {}. {}.\n",
        machine.date,
        if options.short { " --short" } else { "" },
        machine.revision(),
        machine.summary(),
        first(&tools.prefix.join("lib/ld-linux-x86-64.so.2"), "--version"),
        first(&tools.patchelf, "--version"),
        first(Path::new("/usr/bin/readelf"), "--version"),
        first(Path::new("/usr/bin/eu-elflint"), "--version"),
    ))
}

/// Fewer than this that run, of all programs and inputs, show too little.
const ENOUGH: usize = 100;

impl Report {
    /// All went well, and the long list is long enough.
    pub fn holds(&self, options: &Options) -> bool {
        let enough = options.short || !options.only.is_empty() || self.works() >= ENOUGH;
        if !enough {
            println!(
                "FAILED: only {} inputs run on the prefix, fewer than {ENOUGH}",
                self.works()
            );
        }
        enough && self.failures().is_empty() && self.silent() == 0
    }
}
