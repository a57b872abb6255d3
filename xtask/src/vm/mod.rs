//! `vm`: a command in a virtual machine, on the kernel with our patches or on another.
//!
//! The guest's root is this machine's, read-only, with a layer in memory over it: programs, libraries and data are there
//! under their names, what the command writes is gone with the guest. It runs as root, in the same folder, with an
//! environment of its own (PATH, HOME, TERM); standard input is empty. Output and errors come out as they are, byte for byte, by
//! serial ports of their own, and the exit status is the command's. The console's log is looked through for reports of the kernel.
//!
//! With `--icount` QEMU counts instructions instead of looking at the clock, one virtual CPU after the other, and a run is the same
//! bit for bit each time. Then this machine's files are not there, since they would come at this machine's times: the
//! command and its libraries are packed into the initramfs, and with them what `--with` names.
//!
//! | module | what it is for |
//! |---|---|
//! | `guest` | the initramfs, the job, modules |
//! | `library` | the library's tests on our kernel and on Debian's |
//! | `machine` | QEMU |
//! | `report` | the kernel's complaints |
//! | `selftests` | the series' own tests in the machine |
//! | `step` | the step of `cargo xtask test` |

mod guest;
mod library;
mod machine;
mod report;
pub mod selftests;
pub mod step;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use self::guest::Job;
use self::machine::{Accelerator, Machine, Outcome};
use crate::kernel::{self, Config};
use crate::project::Project;
use crate::virtual_time::guest as archive;
use crate::{Usage, packages};

/// Exit codes besides the command's; in the help, too.
const REPORTED: u8 = 123;
const TIMED_OUT: u8 = 124;
const FAILED: u8 = 125;

#[derive(clap::Args)]
#[command(after_help = "\
Exit status: the command's, 128 + N if signal N ended it; 123 if the kernel reported an error (oops, WARN, lockdep, KASAN,
KCSAN ...), whatever the command's was; 124 if the time was over; 125 if no machine could be had or it ended without a
word; 126 if the command cannot be executed, 127 if there is none of that name; 2 wrong use.
In a shell: `exit` or Ctrl-A x ends the machine.")]
pub struct Options {
    /// Debian's kernel in place of ours
    #[arg(long, conflicts_with_all = ["config", "kernel"])]
    stock: bool,
    /// Our kernel's configuration
    #[arg(long, value_enum, default_value_t, conflicts_with = "kernel")]
    config: Config,
    /// A kernel's image
    #[arg(long, value_name = "BZIMAGE")]
    kernel: Option<PathBuf>,
    /// Virtual time: repeatable bit for bit, with the command, its libraries and what --with names for files
    #[arg(long)]
    icount: bool,
    /// A file or folder that the command needs (with --icount; may be repeated)
    #[arg(long, value_name = "PATH", requires = "icount")]
    with: Vec<PathBuf>,
    /// Emulate even where the hardware can virtualize
    #[arg(long)]
    tcg: bool,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    cpus: u16,
    /// Memory, which holds what is written, too
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = memory)]
    memory: String,
    /// Real time from boot to end, in seconds; 0: no limit, as in a shell
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Words for the kernel's command line (may be repeated)
    #[arg(long, value_name = "WORDS")]
    append: Vec<String>,
    /// The folder that the command begins in; the current one if left out
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where to write the console's log
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The command; a shell on the console if left out
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Without --timeout.
const LIMIT: u64 = 600;
/// So often a machine is started that the emulator spoils before the command has written anything.
const BOOTS: u32 = 3;

/// The exit code.
pub fn run(project: &Project, options: &Options) -> Result<u8> {
    match boot(project, options) {
        Ok(code) => Ok(code),
        Err(error) if error.is::<Usage>() => Err(error),
        Err(error) => {
            eprintln!("vm: {error:#}");
            Ok(FAILED)
        }
    }
}

fn boot(project: &Project, options: &Options) -> Result<u8> {
    packages::require("vm")?;
    let interactive = options.command.is_empty();
    if interactive && options.icount {
        return Err(Usage("--icount takes a command".into()).into());
    }
    let folder = options.folder.clone().unwrap_or_else(|| ".".into());
    let folder = match folder.canonicalize() {
        Ok(folder) if folder.is_dir() => folder,
        _ => return Err(Usage(format!("no folder {}", folder.display())).into()),
    };
    let job = Job {
        folder: &folder,
        words: &options.command,
        terminal: &std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()),
    };
    let mut files = guest::files(project, &job)?;
    let kernel = if options.stock {
        let stock = archive::kernel(project, archive::KERNEL)?;
        if !options.icount {
            files.extend(guest::modules(&stock.modules(project)?)?);
        }
        stock.image
    } else if let Some(kernel) = &options.kernel {
        if !kernel.is_file() {
            return Err(Usage(format!("no kernel at {}", kernel.display())).into());
        }
        kernel.clone()
    } else {
        let options = kernel::Options {
            config: options.config,
            ..Default::default()
        };
        kernel::image(project, &options)?
    };
    if options.icount {
        files.extend(guest::sealed(&job, &options.with)?);
    }
    let scratch = tempfile::tempdir().context("cannot make a scratch folder")?;
    let initramfs = scratch.path().join("initramfs");
    archive::write(&files, &["dev", "proc", "sys", "run", "tmp"], &initramfs)?;
    let machine = Machine {
        kernel,
        accelerator: match options {
            Options { icount: true, .. } => Accelerator::Counted,
            Options { tcg: true, .. } => Accelerator::Tcg,
            _ => Accelerator::best(),
        },
        cpus: options.cpus,
        memory: options.memory.clone(),
        shares: !options.icount,
        interactive,
        append: options.append.clone(),
    };
    let limit = options
        .timeout
        .unwrap_or(if interactive { 0 } else { LIMIT });
    let limit = (limit > 0).then(|| Duration::from_secs(limit));
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut boots = 1;
    let (outcome, reports) = loop {
        let outcome = machine.run(&initramfs, limit, &mut out, &mut err)?;
        let reports = report::find(&outcome.console);
        if boots < BOOTS && is_spoilt(&machine, &outcome, &reports) {
            boots += 1;
            eprintln!("vm: the emulator spoilt the boot (int3), again");
            continue;
        }
        break (outcome, reports);
    };
    if let Some(log) = &options.log {
        std::fs::write(log, &outcome.console)
            .with_context(|| format!("cannot write {}", log.display()))?;
    }
    for report in &reports {
        eprintln!("vm: the kernel reports:");
        for line in &report.lines {
            eprintln!("    {line}");
        }
    }
    let (code, words) = verdict(&outcome, reports.len());
    if let Some(words) = words {
        eprintln!("vm: {words} ({})", machine.accelerator.name());
    }
    Ok(code)
}

/// Nothing has happened yet that cannot be done again.
fn is_spoilt(machine: &Machine, outcome: &Outcome, reports: &[report::Report]) -> bool {
    machine.accelerator == Accelerator::Tcg
        && !machine.interactive
        && !outcome.wrote
        && outcome.status.trim().is_empty()
        && reports.iter().any(report::is_emulators)
}

/// The exit code, and why if it is not the command's.
fn verdict(outcome: &Outcome, reports: usize) -> (u8, Option<String>) {
    let status = outcome.status.trim();
    let code = status.strip_prefix("exit ").and_then(|it| it.parse().ok());
    let says = || format!("; the console's last line: {}", last_line(&outcome.console));
    match (&outcome.ended, code, reports) {
        (None, _, _) => (TIMED_OUT, Some(format!("the time is over{}", says()))),
        (_, code, 1..) => {
            let its: String =
                code.map_or("has no status".into(), |it: u8| format!("ended with {it}"));
            let words = format!("{reports} reports of the kernel; the command {its}");
            (REPORTED, Some(words))
        }
        (_, Some(code), 0) => (code, None),
        (Some(ended), None, 0) => {
            let why = match status.strip_prefix("broken ") {
                Some(why) => format!("the guest cannot begin: {why}"),
                None if !ended.success() => {
                    format!("QEMU ended with {ended}: {}", outcome.complaints.trim())
                }
                None => format!("the guest ended without a status{}", says()),
            };
            (FAILED, Some(why))
        }
    }
}

fn last_line(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let mut lines = text.lines().rev().map(str::trim);
    let line = lines.find(|line| !line.is_empty()).unwrap_or("(none)");
    line.escape_debug().to_string()
}

/// `512M`, `2G`.
fn memory(text: &str) -> Result<String, String> {
    let number = text.strip_suffix(['M', 'G']);
    let plain = number.is_some_and(|it| it.parse::<u32>().is_ok_and(|it| it > 0));
    if plain {
        Ok(text.to_owned())
    } else {
        Err("a number and M or G".into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        let words = std::iter::once("vm").chain(words.iter().copied());
        Line::try_parse_from(words).map(|line| line.options)
    }

    fn outcome(ended: Option<i32>, status: &str) -> Outcome {
        Outcome {
            ended: ended.map(ExitStatus::from_raw),
            console: b"one\r\ntwo\r\n\r\n".to_vec(),
            wrote: false,
            status: status.to_owned(),
            complaints: "no such file\n".to_owned(),
        }
    }

    #[test]
    fn words_after_the_dashes_are_the_commands() {
        let options = parse(&["--cpus", "4", "--", "ls", "--stock", "-l"]).expect("options");
        assert_eq!(options.command, ["ls", "--stock", "-l"]);
        assert!(!options.stock && options.cpus == 4);
        assert!(parse(&[]).expect("options").command.is_empty());
    }

    #[test]
    fn what_does_not_go_together_or_is_out_of_range_is_refused() {
        for words in [
            &["--stock", "--config", "off"][..],
            &["--kernel", "x", "--stock"],
            &["--cpus", "65"],
            &["--memory", "2"],
            &["--memory", "0G"],
            &["--with", "x", "--", "ls"],
            &["--config", "none"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_status_is_the_commands_unless_the_kernel_reports_or_the_time_is_over() {
        assert_eq!(verdict(&outcome(Some(0), "exit 7\n"), 0), (7, None));
        assert_eq!(verdict(&outcome(Some(0), "exit 0\n"), 1).0, REPORTED);
        assert_eq!(verdict(&outcome(Some(0), ""), 1).0, REPORTED);
        assert_eq!(verdict(&outcome(None, ""), 0).0, TIMED_OUT);
        assert_eq!(verdict(&outcome(None, "exit 0\n"), 1).0, TIMED_OUT);
    }

    #[test]
    fn only_a_boot_that_the_emulator_spoils_is_tried_again() {
        let mut machine = Machine {
            kernel: "bzImage".into(),
            accelerator: Accelerator::Tcg,
            cpus: 1,
            memory: "1G".into(),
            shares: true,
            interactive: false,
            append: Vec::new(),
        };
        let its = report::find(b"Oops: int3: 0000 [#1] SMP\n");
        let other = report::find(b"Oops: general protection fault\n");
        let mut ended = outcome(Some(0), "");
        assert!(is_spoilt(&machine, &ended, &its));
        assert!(!is_spoilt(&machine, &ended, &other));
        assert!(!is_spoilt(&machine, &outcome(Some(0), "exit 1\n"), &its));
        ended.wrote = true;
        assert!(!is_spoilt(&machine, &ended, &its));
        ended.wrote = false;
        machine.accelerator = Accelerator::Kvm;
        assert!(!is_spoilt(&machine, &ended, &its));
    }

    #[test]
    fn a_machine_without_a_word_says_what_is_known() {
        let words = |ended, status: &str| {
            let (code, words) = verdict(&outcome(Some(ended), status), 0);
            assert_eq!(code, FAILED);
            words.expect("a reason")
        };
        assert!(words(0, "").contains("two"));
        assert!(words(256, "").contains("no such file"));
        assert!(words(0, "broken no overlay\n").contains("no overlay"));
        // A status that was cut off is none.
        assert!(words(0, "exit \n").contains("without a status"));
    }
}
