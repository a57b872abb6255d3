//! `bench`: the documented benchmarks, each run kept under `bench/runs/DATE-MACHINE/`.
//!
//! A run's folder holds what is needed to judge and repeat it: `machine.json` (hardware,
//! versions, revision), `commands.txt` (every command line, with the load on the machine before
//! and after), and per benchmark the program's JSON and its table as text. Nothing is judged here.

pub mod machine;
mod profiler;
pub mod spread;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::project::{Project, make_folder};
use crate::{callgrind, dist, packages, shell};
use machine::Machine;

#[derive(clap::Args)]
pub struct Options {
    /// A few minutes' worth of each, to see that everything works; no figures to publish
    #[arg(long)]
    quick: bool,
    /// Only the uncontended pairs, in a single-threaded and in a multi-threaded process
    #[arg(long)]
    uncontended: bool,
    /// Only the contended headline: two cache lines, 100-cycle gap, 2 to 16 threads
    #[arg(long)]
    contended: bool,
    /// Only the grid of gaps, critical sections, locks and threads
    #[arg(long)]
    grid: bool,
    /// Only every lock that the driver knows, judged and plotted: 11 minutes, and never part of the rest
    #[arg(long)]
    collection: bool,
    /// Only what the profiler costs: bare locks and memcached, 10 minutes, and never part of the rest
    #[arg(long)]
    profiler: bool,
    /// With --profiler: mutrace's library, to compare with
    #[arg(long, value_name = "PATH", requires = "profiler")]
    mutrace: Option<PathBuf>,
    /// Only memcached under load
    #[arg(long)]
    memcached: bool,
    /// Only the instruction counts
    #[arg(long)]
    callgrind: bool,
    /// Duration of each measurement in place of the benchmark's own, for instance 500ms
    #[arg(long)]
    duration: Option<String>,
    /// Interleaved rounds in place of the benchmark's own
    #[arg(long)]
    rounds: Option<u32>,
    /// The preload to measure; the one in target/dist is built if this is left out
    #[arg(long)]
    lib: Option<PathBuf>,
    /// Where to write, in place of bench/runs/DATE-MACHINE
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One call of `driver`.
struct Bench {
    name: &'static str,
    args: &'static [&'static str],
    duration: &'static str,
    rounds: u32,
}

const UNCONTENDED: &[Bench] = &[
    Bench {
        name: "uncontended-single-threaded",
        args: &[
            "--single-threaded",
            "--threads",
            "1",
            "--gap",
            "0",
            "--cs",
            "0ns",
            "--locks",
            "1",
            "--no-latency",
        ],
        duration: "500ms",
        rounds: 15,
    },
    Bench {
        name: "uncontended-multi-threaded",
        args: &[
            "--threads",
            "1",
            "--gap",
            "0",
            "--cs",
            "0ns",
            "--locks",
            "1",
            "--no-latency",
        ],
        duration: "500ms",
        rounds: 15,
    },
];

const CONTENDED: &[Bench] = &[Bench {
    name: "contended",
    args: &[
        "--threads",
        "1,2,4,8,16",
        "--gap",
        "100",
        "--cs",
        "10ns",
        "--locks",
        "1",
    ],
    duration: "1500ms",
    rounds: 9,
}];

const GRID: &[Bench] = &[Bench {
    name: "grid",
    args: &[
        "--threads",
        "2,4,8,16",
        "--gap",
        "0,1000,5000,20000",
        "--cs",
        "10ns,1us,20us",
        "--locks",
        "1,16",
    ],
    duration: "300ms",
    rounds: 9,
}];

/// Seven rounds: the fewest from which the driver forms a confidence interval are six.
const COLLECTION: Bench = Bench {
    name: "collection",
    args: &[
        "--all",
        "--threads",
        "1..16",
        "--extra",
        "100",
        "--cs",
        "10ns",
    ],
    duration: "400ms",
    rounds: 7,
};

impl Options {
    /// Without a choice, all of them but the collection and the profiler.
    fn wants(&self, chosen: bool) -> bool {
        let any = self.uncontended
            || self.contended
            || self.grid
            || self.memcached
            || self.callgrind
            || self.profiler
            || self.collection;
        chosen || !any
    }
}

pub fn run(project: &Project, options: &Options) -> Result<bool> {
    let lib = match &options.lib {
        None => project.preload_or_build(None)?,
        Some(lib) => {
            dist::build(project)?;
            project.preload_or_build(Some(lib.clone()))?
        }
    };
    let machine = Machine::describe(project)?;
    let folder = options.out.clone().unwrap_or_else(|| {
        let quick = if options.quick { "quick-" } else { "" };
        project
            .root
            .join("bench/runs")
            .join(format!("{}-{quick}{}", machine.date, machine.name))
    });
    make_folder(&folder)?;
    let record = Record {
        folder,
        root: project.root.clone(),
    };
    record.save(
        "machine.json",
        &(serde_json::to_string_pretty(&machine)? + "\n"),
    )?;
    let mut good = true;
    if options.wants(options.callgrind) {
        packages::require("callgrind")?;
        record.note(&format!("cargo xtask callgrind --lib {}", lib.display()))?;
        let report = callgrind::measure(project, &lib)?;
        print!("{report}");
        record.save("callgrind.txt", &report.to_string())?;
        report.save(&record.folder.join("callgrind.json"))?;
        good &= report.holds();
    }
    let groups = [
        (options.wants(options.uncontended), UNCONTENDED),
        (options.wants(options.contended), CONTENDED),
        (options.wants(options.grid), GRID),
    ];
    for (_, benches) in groups.into_iter().filter(|(wanted, _)| *wanted) {
        for bench in benches {
            good &= drive(project, &record, bench, options, &lib)?;
        }
    }
    if options.collection {
        good &= collection(project, &record, options, &lib)?;
    }
    if options.profiler {
        good &= profiler::run(project, &record, options)?;
    }
    if options.wants(options.memcached) {
        good &= memcached(project, &record, options, &lib)?;
    }
    println!("written to {}", record.folder.display());
    Ok(good)
}

fn drive(
    project: &Project,
    record: &Record,
    bench: &Bench,
    options: &Options,
    lib: &Path,
) -> Result<bool> {
    let duration = if options.quick {
        "50ms"
    } else {
        bench.duration
    };
    let rounds = if options.quick { 3 } else { bench.rounds };
    let mut command = Command::new(project.program("driver"));
    command.arg("--bench").args(bench.args);
    // The tracepoint would slow the locks down that make system calls, wherever tracefs happens to be mounted.
    command.args(["--futex-calls", "own"]);
    command.args([
        "--duration",
        options.duration.as_deref().unwrap_or(duration),
    ]);
    command.args(["--rounds", &options.rounds.unwrap_or(rounds).to_string()]);
    let json = record.folder.join(format!("{}.json", bench.name));
    command.arg("--json").arg(&json);
    command.arg("--lib").arg(lib).arg("--progress");
    let good = record.run(bench.name, &mut command)?;
    record.without_root(&json)?;
    Ok(good)
}

/// Every lock, who beats autolock, and the page.
fn collection(project: &Project, record: &Record, options: &Options, lib: &Path) -> Result<bool> {
    let mut good = drive(project, record, &COLLECTION, options, lib)?;
    let json = record.folder.join("collection.json");
    let mut verdict = Command::new(project.program("driver"));
    verdict.arg("--summary").arg(&json);
    verdict.args(["--champion", "autolock"]);
    good &= record.run("collection-verdict", &mut verdict)?;
    let mut plot = Command::new(project.program("driver"));
    plot.arg("plot").arg(&json);
    shell::run(&mut plot)?;
    record.note(&shell::line(&plot))?;
    Ok(good)
}

fn memcached(project: &Project, record: &Record, options: &Options, lib: &Path) -> Result<bool> {
    packages::require("memcached")?;
    let mut command = Command::new(project.program("memcached-example"));
    if options.quick {
        command.arg("--quick");
    } else {
        command.args(["--threads", "4,16"]);
        command.args(["--duration", options.duration.as_deref().unwrap_or("10s")]);
        command.args(["--rounds", &options.rounds.unwrap_or(9).to_string()]);
    }
    let json = record.folder.join("memcached.json");
    command.arg("--json").arg(&json);
    command.arg("--lib").arg(lib);
    let good = record.run("memcached", &mut command)?;
    record.without_root(&json)?;
    Ok(good)
}

/// The folder of one run.
pub struct Record {
    pub folder: PathBuf,
    /// Taken off the paths in what is written down.
    pub root: PathBuf,
}

impl Record {
    pub fn save(&self, name: &str, text: &str) -> Result<()> {
        let file = self.folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Makes the paths in a file relative to the project's folder: where that is on this machine is nobody's business.
    pub fn without_root(&self, file: &Path) -> Result<()> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let text = text.replace(&format!("{}/", self.root.display()), "");
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Adds a line to the list of commands.
    pub fn note(&self, line: &str) -> Result<()> {
        let line = line.replace(&format!("{}/", self.root.display()), "");
        let file = self.folder.join("commands.txt");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut file| writeln!(file, "{line}"))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Runs, shows and keeps the text output and what else the machine was doing meanwhile.
    pub fn run(&self, name: &str, command: &mut Command) -> Result<bool> {
        println!("\n==> {}", shell::line(command));
        let before = machine::load();
        let ticks = machine::Ticks::now();
        let (status, text) = shell::tee(command)?;
        self.note(&shell::line(command))?;
        self.note(&format!(
            "  # load before {before}, after {}; {}",
            machine::load(),
            ticks.since()
        ))?;
        self.save(&format!("{name}.txt"), &text)?;
        if text.is_empty() {
            bail!("`{}` printed nothing", shell::line(command));
        }
        Ok(status.success())
    }
}
