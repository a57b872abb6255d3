//! `autolock doctor`: which sources of on-CPU knowledge this machine and user can have, which one a program gets, and why not a better one.
//!
//! - [`places`]: where it looks: below a root that tests make up.
//! - [`status`]: a process's rights. [`machine`]: what the daemon needs to start. [`daemon`]: is it there, and does it keep the table?
//! - [`program`], [`process`]: what a program would get, what a process has. [`glibc`]: do its condition waits take part?
//! - [`finding`]: what was found, as it is printed.
//!
//! May touch: the daemon's socket. Changes nothing, needs no rights; what it may not see it says.

mod daemon;
mod finding;
mod glibc;
mod machine;
mod places;
mod process;
mod program;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli;
use daemon::Daemon;
use finding::{Name, Obstacle, Report, Source};
use places::Places;
use status::Status;

/// A better source could be had.
const BETTER: u8 = 1;

const EXIT_CODES: &str = "Exit status: 0 the program gets the best source that this kernel can have, 1 a better one could be had,
2 wrong usage, or no such program or process, or not permitted to look into it.";

/// Says where programs under libautolock.so learn which threads run, and what would enable a better source.
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct DoctorArgs {
    /// A program that would be run; any, if it is left out
    program: Option<OsString>,
    /// A process that runs
    #[arg(long, conflicts_with = "program")]
    pid: Option<u32>,
    /// libautolock.so [default: in AUTOLOCK_LIB_DIR, ../lib beside this program, or its folder]
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    lib: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Look for /proc, /sys, /run and /etc in another folder, which tests make up
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

/// `autolock doctor`.
pub fn main(args: &DoctorArgs) -> ExitCode {
    match examine(args) {
        Err(error) => crate::fail(&format!("{error:#}"), crate::USAGE),
        Ok(report) => match print(&report, args.json) {
            Err(error) => crate::fail(&format!("{error:#}"), BETTER),
            Ok(()) if report.best => ExitCode::SUCCESS,
            Ok(()) => ExitCode::from(BETTER),
        },
    }
}

fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        cli::say(&(serde_json::to_string_pretty(report)? + "\n"))
    } else {
        cli::say(&report.text())
    }
}

fn examine(args: &DoctorArgs) -> Result<Report> {
    let places = Places::below(&args.root);
    let me = Status::parse(&places.text("/proc/self/status").unwrap_or_default());
    let daemon = daemon::look(&places, &me);
    let ebpf = ebpf(&places, &me, &daemon);
    let sources = vec![kernel(&places), ebpf, user()];
    let available = |source: &&Source| source.available;
    let available: Vec<Name> = sources.iter().filter(available).map(|s| s.name).collect();
    let subject = match args.pid {
        Some(pid) => process::look(&places, pid, &daemon)?,
        None => program::look(
            args.program.as_deref(),
            args.lib.as_deref(),
            &me,
            &available,
        )?,
    };
    Ok(Report::new(
        machine::kernel(&places),
        me.user,
        sources,
        subject,
    ))
}

fn kernel(places: &Places) -> Source {
    let sysctl = places.text("/proc/sys/kernel/auto_lock");
    let obstacle = match sysctl.as_deref() {
        None => Some(Obstacle::new(
            "kernel",
            "this kernel has no autolocks (linux-patches)",
        )),
        Some("0") => Some(
            Obstacle::new("sysctl", "the sysctl kernel.auto_lock is 0")
                .fix("sysctl -w kernel.auto_lock=1"),
        ),
        Some(_) => None,
    };
    Source {
        name: Name::Kernel,
        possible: sysctl.is_some(),
        available: obstacle.is_none(),
        from: "a slot per thread, mapped by the kernel",
        obstacles: Vec::from_iter(obstacle),
    }
}

fn ebpf(places: &Places, me: &Status, daemon: &Daemon) -> Source {
    let impossible = match daemon {
        Daemon::Gone(_) => machine::impossible(places),
        // It runs: then this kernel can have it.
        _ => Vec::new(),
    };
    let possible = impossible.is_empty();
    let obstacles = match daemon {
        Daemon::Keeps => Vec::new(),
        Daemon::NotForUs(obstacle) | Daemon::Broken(obstacle) => vec![obstacle.clone()],
        Daemon::Gone(_) if !possible => impossible,
        Daemon::Gone(obstacle) => {
            let mut all = Vec::from_iter(machine::own_pid_namespace(places));
            all.extend(machine::before_start(places, me));
            all.push(obstacle.clone());
            all
        }
    };
    Source {
        name: Name::Ebpf,
        possible,
        available: obstacles.is_empty(),
        from: "autolockd keeps the table",
        obstacles,
    }
}

fn user() -> Source {
    Source {
        name: Name::User,
        possible: true,
        available: true,
        from: "needs nothing",
        obstacles: Vec::new(),
    }
}
