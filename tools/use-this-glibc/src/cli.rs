//! The command line: what may be asked for, and together with what.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Parser;

use use_this_glibc::elf::RunPath;
use use_this_glibc::error::{Error, Result};
use use_this_glibc::plan::Wishes;

const USAGE: &str =
    "use-this-glibc [OPTIONS] <--output FILE | --in-place | --dry-run | --check> PREFIX EXE...
       use-this-glibc [OPTIONS] --restore EXE...
       use-this-glibc --print-env PREFIX";

const EXIT_CODES: &str = "Exit status: 0 done, 1 a check failed (or --check found a difference) and nothing was written, 2 wrong usage,
3 a file of a kind that is not rewritten, 4 a file could not be read or written. Of several programs each is
handled, and the greatest number counts.

Strip a program before it is changed, not after: GNU strip destroys it.";

/// Makes programs run on the glibc in PREFIX: rewrites their interpreter and run path, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "use-this-glibc", version, override_usage = USAGE, after_help = EXIT_CODES)]
pub struct Cli {
    /// The folder where the glibc is installed, then the programs; with --restore programs only
    #[arg(value_name = "PREFIX EXE")]
    paths: Vec<PathBuf>,

    /// Write the result to FILE, which must not be there
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["in_place", "check", "print_env"])]
    output: Option<PathBuf>,

    /// Replace each program, in one rename; the original is kept as EXE.orig
    #[arg(short, long, conflicts_with_all = ["check", "print_env"])]
    in_place: bool,

    /// Write nothing, say what would be done; the new loader is not asked about it
    #[arg(short = 'n', long, conflicts_with_all = ["check", "print_env"])]
    dry_run: bool,

    /// Write nothing; exit status 0 if each program is already as it would be made
    #[arg(long, conflicts_with = "print_env")]
    check: bool,

    /// Take the change back, to the byte: in place, or with --output
    #[arg(long, conflicts_with_all = ["check", "print_env", "add_needed", "runpath", "no_backup", "backup_suffix"])]
    restore: bool,

    /// Print what to set in the environment for locales, character sets and time zones that PREFIX lacks
    #[arg(long)]
    print_env: bool,

    /// Add a needed library, after those that are there; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with = "print_env")]
    add_needed: Vec<OsString>,

    /// Set DT_RUNPATH, which does not count for the libraries of the libraries, instead of DT_RPATH
    #[arg(long, conflicts_with = "print_env")]
    runpath: bool,

    /// With --in-place: keep no backup (--restore works without)
    #[arg(long, conflicts_with = "backup_suffix")]
    no_backup: bool,

    /// With --in-place: name of the backup, after the program's
    #[arg(long, value_name = "SUFFIX", default_value = ".orig")]
    backup_suffix: OsString,

    /// With --in-place: the program may have other names (hard links), which stay as they are
    #[arg(long)]
    break_hard_links: bool,

    /// One JSON object a program on stdout
    #[arg(long)]
    pub json: bool,

    /// Print errors only
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug)]
pub enum Order {
    PrintEnv {
        prefix: PathBuf,
    },
    Programs {
        deed: Deed,
        programs: Vec<PathBuf>,
        to: To,
    },
}

/// What to do to each program.
#[derive(Debug)]
pub enum Deed {
    Change { prefix: PathBuf, wishes: Wishes },
    Check { prefix: PathBuf, wishes: Wishes },
    Restore,
}

/// Where the result goes.
#[derive(Debug)]
pub struct To {
    pub place: Place,
    /// Look at everything, write nothing.
    pub dry_run: bool,
}

#[derive(Debug)]
pub enum Place {
    Nowhere,
    File(PathBuf),
    Over {
        /// The backup's suffix.
        backup: Option<OsString>,
        break_hard_links: bool,
    },
}

impl Cli {
    /// What clap cannot check.
    pub fn order(self) -> Result<Order> {
        let usage = |line: &str| Err(Error::Usage(line.into()));
        let mut paths = self.paths.into_iter();
        if self.print_env {
            return match (paths.next(), paths.next()) {
                (Some(prefix), None) => Ok(Order::PrintEnv { prefix }),
                _ => usage("--print-env takes one PREFIX and no program"),
            };
        }
        let prefix = if self.restore { None } else { paths.next() };
        let programs: Vec<PathBuf> = paths.collect();
        if programs.is_empty() {
            return usage(match (self.restore, prefix) {
                (true, _) => "--restore which program? use-this-glibc --restore EXE...",
                (_, None) => {
                    "give a PREFIX and a program: use-this-glibc --in-place PREFIX EXE... (--help says more)"
                }
                (_, Some(_)) => "name at least one program after the PREFIX",
            });
        }
        let suffix = self.backup_suffix.as_bytes();
        if suffix.is_empty() || suffix.contains(&b'/') {
            return usage(
                "--backup-suffix comes after the program's name: give some text without /, such as .orig",
            );
        }
        if self.add_needed.iter().any(|name| name.is_empty()) {
            return usage("--add-needed is empty: name a library, such as libm.so.6");
        }
        if self.output.is_some() && programs.len() > 1 {
            return usage("--output is for one program: use --in-place for several");
        }
        let place = match self.output {
            Some(file) => Place::File(file),
            None if self.in_place || (self.restore && !self.dry_run) => Place::Over {
                backup: (!self.no_backup && !self.restore).then_some(self.backup_suffix),
                break_hard_links: self.break_hard_links,
            },
            None => Place::Nowhere,
        };
        if matches!(place, Place::Nowhere) && !self.dry_run && !self.check {
            return usage(
                "say where the result goes: --output FILE or --in-place; or only look: --dry-run or --check",
            );
        }
        let wishes = Wishes {
            run_path: if self.runpath {
                RunPath::Runpath
            } else {
                RunPath::Rpath
            },
            add_needed: self
                .add_needed
                .iter()
                .map(|name| name.as_bytes().to_vec())
                .collect(),
        };
        let deed = match prefix {
            None => Deed::Restore,
            Some(prefix) if self.check => Deed::Check { prefix, wishes },
            Some(prefix) => Deed::Change { prefix, wishes },
        };
        let dry_run = self.dry_run;
        Ok(Order::Programs {
            deed,
            programs,
            to: To { place, dry_run },
        })
    }
}
