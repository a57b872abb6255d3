//! `bench-oncpu`: what autolockd's table of running threads costs every context switch, and what the locks gain by it.
//!
//! Starts its own `autolockd`, on a socket and a BPF file system of its own in a private mount namespace, so it needs root. All that it
//! starts dies with it, however it ends: each child asks the kernel for that (setpriv(1) `--pdeathsig`).
//!
//! - [`daemon`]: that autolockd; [`load`]: the outside load; [`strangers`]: what else ran.
//! - [`cost`]: perf's context-switch benchmarks with and without the program.
//! - [`gain`]: `driver` and memcached beside outside load: glibc, autolock with user-space knowledge, autolock with the table.
//!
//! Nothing is judged here; `Record` keeps the raw figures.

mod cost;
mod daemon;
mod gain;
mod load;
mod strangers;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::bench::Record;
use crate::bench::machine::Machine;
use crate::project::{Project, make_folder};
use crate::{dist, packages};
use load::Load;

#[derive(clap::Args)]
pub struct Options {
    /// Rounds in place of each benchmark's own (cost 15, driver 7, memcached 5)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// One short round of everything, to see that it works; no figures to publish
    #[arg(long)]
    quick: bool,
    /// Only what context switches cost
    #[arg(long)]
    cost: bool,
    /// Only the bare locks beside outside load
    #[arg(long)]
    driver: bool,
    /// Only memcached beside outside load
    #[arg(long)]
    memcached: bool,
    /// Outside load [default: hogs, neighbour and both]
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    load: Vec<Load>,
    /// Thread counts of the bare locks [default: 2,4,8,16]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    threads: Vec<u32>,
    /// Length of a measurement of bare locks [default: 600ms]
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,
    /// One more libautolock.so beside the bare locks, with both sources of knowledge
    #[arg(long, value_name = "PATH")]
    other: Option<PathBuf>,
    /// A lock of the collection in place of autolock (`driver --list`; those called *_autolock ask who runs)
    #[arg(long, value_name = "NAME", conflicts_with = "other")]
    lock: Option<String>,
    /// Where to write, in place of bench/runs/DATE-MACHINE-oncpu
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Options {
    /// Without a choice, all of them.
    fn wants(&self, chosen: bool) -> bool {
        chosen || !(self.cost || self.driver || self.memcached)
    }

    fn rounds(&self, usual: u32) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { usual })
    }

    fn lock(&self) -> &str {
        self.lock.as_deref().unwrap_or("autolock")
    }

    fn loads(&self) -> Vec<Load> {
        if self.load.is_empty() {
            vec![Load::Hogs, Load::Neighbour, Load::Both]
        } else {
            self.load.clone()
        }
    }
}

pub fn run(project: &Project, options: &Options) -> Result<bool> {
    packages::require("bench-oncpu")?;
    dist::build(project)?;
    let machine = Machine::describe(project)?;
    let folder = options.out.clone().unwrap_or_else(|| {
        let quick = if options.quick { "quick-" } else { "" };
        let name = format!("{}-{quick}{}-oncpu", machine.date, machine.name);
        project.root.join("bench/runs").join(name)
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
    let place = daemon::Place::new(project)?;
    let mut good = true;
    if options.wants(options.cost) {
        cost::run(&record, &place, options)?;
    }
    if options.wants(options.driver) || options.wants(options.memcached) {
        let _daemon = place.start()?;
        for load in options.loads() {
            if options.wants(options.driver) {
                gain::driver(project, &record, &place, load, options)?;
            }
            if options.wants(options.memcached) {
                good &= gain::memcached(project, &record, &place, load, options)?;
            }
        }
    }
    println!("written to {}", record.folder.display());
    Ok(good)
}

/// A program that dies with this one.
fn guarded(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The CPUs that we may use.
fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("cannot ask for our CPUs")?;
    Ok((0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect())
}
