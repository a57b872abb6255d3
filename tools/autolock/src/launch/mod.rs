//! `autolock run` and `autolock profile`: start any program under the preloads.
//!
//! Both become the program (execvp(3)): its process id, exit status and signals are its own. `profile --report` stays beside it, hands
//! signals on, ends as it ended, and reports what it recorded in between. Before the start a line on stderr for each thing about the
//! program that the preload cannot see.
//!
//! - [`library`]: where the preloads are, and what `LD_PRELOAD` becomes.
//! - [`program`]: what would be run: `PATH`, scripts.
//! - [`inspect`]: what the preload cannot see in it.
//! - [`start`]: from here to there: fork, exec, signals, exit status.
//! - [`captures`]: which files a run left behind.
//!
//! | exit status | |
//! |---|---|
//! | the program's own | also when it was killed: by the same signal |
//! | 2 | wrong usage |
//! | 125 | `autolock` failed: a library is missing, an option's value is refused, the report failed after a run that went well |
//! | 126 | the program cannot be executed |
//! | 127 | there is no such program |
//!
//! May touch: the environment of the program, its own signal handlers. Starts no thread.

mod captures;
pub(crate) mod inspect;
pub(crate) mod library;
pub(crate) mod program;
mod start;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::report::{self, ReportArgs};
use inspect::Seen;
use start::Start;

/// Our own failures, as env(1) and timeout(1) have it.
const OURS: u8 = 125;

const EXIT_CODES: &str = "Exit status: the program's own; 125 if autolock fails, 126 if the program cannot be executed, 127 if there is none.";

/// Runs a program on libautolock.so's mutexes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct RunArgs {
    /// The lock under every mutex; `driver --list` names them [default: autolock]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<OsString>,
    /// Say at exit what the library did
    #[arg(long)]
    stats: bool,
    /// libautolock.so [default: in AUTOLOCK_LIB_DIR, ../lib beside this program, or its folder]
    #[arg(long, value_name = "PATH")]
    lib: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs a program under the lock profiler: who waits for which lock, who holds it, how long.
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct ProfileArgs {
    /// Time every hold, not samples
    #[arg(long)]
    full: bool,
    /// Where each process's capture goes: %p is its id, %e its program's name; `none`: nowhere [default: %e.%p.lockprof]
    #[arg(long, value_name = "PATTERN")]
    output: Option<OsString>,
    /// Print the table when this signal comes: USR2, RTMIN+3, 12
    #[arg(long, value_name = "SIGNAL")]
    signal: Option<OsString>,
    /// Print the table every so often: 10s, 500ms
    #[arg(long, value_name = "TIME")]
    interval: Option<OsString>,
    /// How large a capture may grow: 64M [default: 64M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<OsString>,
    /// Rows of the table on stderr; 0 for none [default: 20]
    #[arg(long, value_name = "ROWS")]
    table: Option<u32>,
    /// Profile libautolock.so's mutexes in place of glibc's
    #[arg(long)]
    autolock: bool,
    /// Report what was recorded once the program has ended
    #[arg(long)]
    report: bool,
    /// libpthread-mutex-profile.so [default: in AUTOLOCK_LIB_DIR, ../lib beside this program, or its folder]
    #[arg(long, value_name = "PATH")]
    lib: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `autolock run`. Returns only if the program could not be started.
pub fn run(args: &RunArgs) -> ExitCode {
    try_run(args).unwrap_or_else(|error| failed(&error))
}

/// `autolock profile`. Without `--report` it returns only if the program could not be started.
pub fn profile(args: &ProfileArgs) -> ExitCode {
    try_profile(args).unwrap_or_else(|error| failed(&error))
}

fn try_run(args: &RunArgs) -> Result<ExitCode> {
    let library = library::find(library::AUTOLOCK, args.lib.as_deref())?;
    let mut plan = Plan::new(&args.command, vec![library], Seen::Mutexes);
    plan.set("AUTOLOCK_ALGORITHM", args.algorithm.as_deref());
    plan.check()?;
    // Not in the check: it prints.
    plan.set("AUTOLOCK_STATS", args.stats.then_some(OsStr::new("1")));
    plan.warn();
    plan.start().replace()
}

fn try_profile(args: &ProfileArgs) -> Result<ExitCode> {
    let mut libraries = vec![library::find(library::PROFILER, args.lib.as_deref())?];
    if args.autolock {
        // Beside the profiler, wherever that was found, before all other places.
        libraries.push(library::find_beside(library::AUTOLOCK, &libraries[0])?);
    }
    let mut plan = Plan::new(&args.command, libraries, Seen::AllLocks);
    plan.set("AUTOLOCK_PROFILE", args.full.then_some(OsStr::new("full")));
    plan.set("AUTOLOCK_PROFILE_SIGNAL", args.signal.as_deref());
    plan.set("AUTOLOCK_PROFILE_INTERVAL", args.interval.as_deref());
    plan.set("AUTOLOCK_PROFILE_MEMORY", args.memory.as_deref());
    // One table at the end is enough; one that is asked for meanwhile needs its rows.
    let meanwhile = args.signal.is_some() || args.interval.is_some();
    let none = (args.report && !meanwhile).then_some(0);
    let rows = args.table.or(none);
    let rows = rows.map(|rows| OsString::from(rows.to_string()));
    plan.set("AUTOLOCK_PROFILE_TABLE", rows.as_deref());
    plan.set("AUTOLOCK_PROFILE_FILE", args.output.as_deref());
    plan.check()?;
    if !args.report {
        plan.warn();
        return plan.start().replace();
    }
    let before = captures::Before::look(plan.value("AUTOLOCK_PROFILE_FILE").as_deref())?;
    plan.warn();
    let end = plan.start().beside()?;
    if end.not_started() {
        return Ok(end.pass_on());
    }
    let reported = before.made_since().and_then(|made| {
        if made.is_empty() {
            eprintln!("autolock: no capture: the program used no lock that the profiler sees");
            return Ok(());
        }
        report_hook(made)
    });
    Ok(match reported {
        Err(error) => {
            let code = failed(&error);
            if end.good() { code } else { end.pass_on() }
        }
        Ok(()) => end.pass_on(),
    })
}

/// Prints what `autolock report` would of these captures, but on stderr: stdout has been the program's.
fn report_hook(captures: Vec<PathBuf>) -> Result<()> {
    // SAFETY: two descriptors; if one is closed, the report is lost and nothing else.
    unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) };
    report::main(&ReportArgs::of(captures))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("autolock: {error:#}");
    ExitCode::from(OURS)
}

/// A program, its preloads and the options for them.
struct Plan {
    command: Vec<OsString>,
    libraries: Vec<PathBuf>,
    seen: Seen,
    /// What the command line says; the rest of the environment goes on as it is.
    options: Vec<(&'static str, OsString)>,
}

impl Plan {
    fn new(command: &[OsString], libraries: Vec<PathBuf>, seen: Seen) -> Self {
        Self {
            command: command.to_vec(),
            libraries,
            seen,
            options: Vec::new(),
        }
    }

    fn set(&mut self, name: &'static str, value: Option<&OsStr>) {
        self.options
            .extend(value.map(|value| (name, value.to_os_string())));
    }

    /// An option's value, from the command line or the environment.
    fn value(&self, name: &str) -> Option<OsString> {
        let given = self.options.iter().find(|(option, _)| *option == name);
        given
            .map(|(_, value)| value.clone())
            .or_else(|| std::env::var_os(name))
    }

    /// Lets the preloads themselves judge the options, in a start of `true`: what they would complain of in the program is refused here.
    fn check(&self) -> Result<()> {
        let mut probe = Command::new("true");
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"AUTOLOCK_") || name.as_bytes().starts_with(b"LD_") {
                probe.env_remove(name);
            }
        }
        probe.env("LD_PRELOAD", library::preload(&self.libraries, None));
        probe.envs(self.options.iter().map(|(name, value)| (name, value)));
        probe.stdin(Stdio::null()).stdout(Stdio::null());
        let Ok(output) = probe.output() else {
            // No `true` here: the program will show.
            return Ok(());
        };
        let said = String::from_utf8_lossy(&output.stderr);
        // The preloads name the variable, the loader LD_PRELOAD.
        let complaint = |line: &&str| line.contains("AUTOLOCK_") || line.contains("LD_PRELOAD");
        if let Some(line) = said.lines().find(complaint) {
            // They say their names first, and what they do instead, which is not done here.
            let text = line.split_once(": ").map_or(line, |(_, text)| text);
            let parts = text.split("; ").filter(|part| !part.starts_with("using "));
            bail!("{}", parts.collect::<Vec<_>>().join("; "));
        }
        if !output.status.success() {
            bail!("`true` under the preload ended with {}", output.status);
        }
        Ok(())
    }

    /// A line on stderr for each thing that the preload will not see.
    fn warn(&self) {
        let name = &self.command[0];
        for spot in inspect::blind_spots(name, self.seen) {
            eprintln!("autolock: warning: {}", spot.line);
        }
    }

    fn start(&self) -> Start {
        let preload = library::preload(&self.libraries, std::env::var_os("LD_PRELOAD").as_deref());
        let mut environment: Vec<(OsString, OsString)> = std::env::vars_os()
            .filter(|(name, _)| {
                let ours = self.options.iter().any(|(option, _)| name == option);
                // The preloads know nothing of the folder, and would say so.
                !ours && name != "LD_PRELOAD" && name != library::FOLDER
            })
            .collect();
        environment.push(("LD_PRELOAD".into(), preload));
        let options = self.options.iter();
        environment.extend(options.map(|(name, value)| (name.into(), value.clone())));
        Start::new(&self.command, &environment)
    }
}
