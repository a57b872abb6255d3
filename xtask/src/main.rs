//! The project's chores, run as `cargo xtask VERB`.
//!
//! Each verb lives in a module of its own; this file only reads the command line and turns the
//! outcome into an exit code: 0 all went well, 1 something failed, 2 wrong use.

mod bench;
mod callgrind;
mod demo;
mod dist;
mod glibc;
mod glibc_suite;
mod kernel;
mod oncpu_bench;
mod packages;
mod project;
mod shell;
mod sources;
mod steps;
mod use_this_glibc;
mod virtual_time;
mod vm;
mod work;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::signal::{self, SigHandler, Signal};

use crate::project::Project;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, shows, tests and measures this project"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build release and lay out target/dist/{lib,bin}
    Dist,
    /// Install what it needs, build, and run memcached on glibc's mutex and on ours
    Demo {
        /// Passed on to the memcached example
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Install what it needs and run everything that CI runs
    Test(steps::Options),
    /// Run the documented benchmarks and write them to bench/runs/DATE-MACHINE/
    Bench(bench::Options),
    /// What autolockd's table costs and gains: context switches with and without it, and locks beside outside load; as root
    BenchOncpu(oncpu_bench::Options),
    /// Run locks in QEMU on virtual time, twice, and require identical results
    BenchVirtual(virtual_time::Options),
    /// Count instructions per lock+unlock pair, glibc beside autolock
    Callgrind {
        /// The preload to measure; the one in target/dist is built if this is left out
        #[arg(long)]
        lib: Option<PathBuf>,
        /// Write the counts as JSON to this file too
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Run glibc's own thread tests with and without a preload
    GlibcSuite(glibc_suite::Options),
    /// Build glibc with our patches, and without, and print the patched one's prefix
    Glibc(glibc::Options),
    /// Build Linux with our patches and print where its image is
    Kernel(kernel::Options),
    /// Run a command in a virtual machine on that kernel, or a shell
    Vm(vm::Options),
    /// Run the kernel series' own tests in a virtual machine
    Selftests(vm::selftests::Options),
    /// Rewrite real programs and odd inputs to another glibc and run them, patchelf beside it
    UseThisGlibc(use_this_glibc::Options),
}

/// An error in what the user asked for: exit code 2.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Signals that a background job of a shell, or nohup, begins with ignored, and so would all programs that are tested here: what they do at a signal is what is tested.
fn take_signals_back() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        // SAFETY: the default action runs no code of ours.
        if let Err(error) = unsafe { signal::signal(signal, SigHandler::SigDfl) } {
            eprintln!("xtask: {signal} stays as it is: {error}");
        }
    }
}

fn main() -> ExitCode {
    take_signals_back();
    let cli = Cli::parse();
    match run(cli.verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// The exit code: 0 when everything that was asked for went well, or the virtual machine's.
fn run(verb: Verb) -> anyhow::Result<u8> {
    let project = Project::locate()?;
    let well = match verb {
        Verb::Dist => {
            let dist = dist::build(&project)?;
            println!("{}", dist.display());
            Ok(true)
        }
        Verb::Demo { args } => demo::run(&project, &args),
        Verb::Test(options) => steps::run(&project, &options),
        Verb::Bench(options) => bench::run(&project, &options),
        Verb::BenchOncpu(options) => oncpu_bench::run(&project, &options),
        Verb::BenchVirtual(options) => virtual_time::run(&project, &options),
        Verb::Callgrind { lib, json } => {
            packages::require("callgrind")?;
            let lib = project.preload_or_build(lib)?;
            let report = callgrind::measure(&project, &lib)?;
            print!("{report}");
            if let Some(file) = json {
                report.save(&file)?;
            }
            Ok(report.holds())
        }
        Verb::GlibcSuite(options) => {
            packages::require("glibc-suite")?;
            let lib = project.preload_or_build(options.lib.clone())?;
            let report = glibc_suite::run(&project, &lib, &options)?;
            Ok(report.holds())
        }
        Verb::Glibc(options) => {
            packages::require("glibc")?;
            glibc::run(&project, &options)
        }
        Verb::Kernel(options) => kernel::run(&project, &options),
        Verb::Vm(options) => return vm::run(&project, &options),
        Verb::Selftests(options) => vm::selftests::run(&project, &options),
        Verb::UseThisGlibc(options) => {
            packages::require("use-this-glibc")?;
            let prefix = match &options.prefix {
                Some(prefix) => prefix.clone(),
                None => {
                    packages::require("glibc")?;
                    glibc::prepare(&project, &glibc::Options::default())?.patched
                }
            };
            if options.tool.is_none() {
                dist::build(&project)?;
            }
            let report = use_this_glibc::run(&project, &prefix, &options)?;
            Ok(report.holds(&options))
        }
    };
    well.map(|well| u8::from(!well))
}
