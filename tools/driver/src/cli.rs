//! The command line: its grammar and its help. Decides nothing and measures nothing.

use crate::lock::{AUTOLOCK, GLIBC, Source};
use crate::parse::{self, Counts, Cpus, Extra};
use crate::plot::Plot;
use crate::select::Choice;
use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  driver --list 'mcs*'                           what the locks are, and where they come from
  driver --bench                                 glibc and autolock at 1, 2, 4, 8 and 16 threads
  driver --bench mcs 'futex_*'                   some locks, and the baseline (glibc)
  driver --bench --all --threads 1..16 --json run.json
                                                 every lock at 1, 2, 4, 8 and 16 threads
  driver --bench '*_autolock' --threads 4,16 --extra 0,1us --cs 10ns,1us --csv
  driver --bench mcs ticket --iter 100k          fixed work: each thread does 100 000 operations
  driver --bench mcs ticket --total 1M           fixed work: the threads share a million operations
  driver --bench --single-threaded --extra 0 --no-latency
                                                 the uncontended path, no second thread ever
  driver --bench --threads 1 --extra 0 --no-latency
                                                 the same in a multi-threaded process
  driver --bench --lock old=/tmp/libautolock.so  one more lock beside the two
  driver --summary run.json --champion autolock  the table again, the cells that lose, and who beats autolock
  driver plot run.json                           a page and SVG files in run-plots/
  driver plot run.json --against old.json        two runs on one page

Lists: 1,2,4; 1-8 all of them; 2-16:2 every second; 1..16 doubling (1,2,4,8,16).
Fixed work with locks that spin in a queue takes very long once there are more threads than CPUs: prefer --duration.

Exit codes: 0 measured; 1 a lock is broken or hung, or a file failed; 2 wrong usage.";

/// Compares locks with glibc's mutex, side by side in one process.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(group = ArgGroup::new("work").multiple(false))]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Locks by name, matched like file names: mcs, 'futex_*', '{tas,ticket}' [--bench: glibc and autolock if none]
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,

    /// Measure: every lock in turn in every round, pair by pair with the baseline
    #[arg(long, help_heading = "What to do")]
    pub bench: bool,
    /// Say what the locks are: a table on a terminal, else tab-separated
    #[arg(long, help_heading = "What to do")]
    pub list: bool,
    /// Print a run's table again, and the cells in which a lock loses to the baseline
    #[arg(long, value_name = "RUN.json", help_heading = "What to do")]
    pub summary: Option<PathBuf>,
    /// With --summary: which locks that are as fair beat this one, cell by cell
    #[arg(
        long,
        value_name = "NAME",
        requires = "summary",
        conflicts_with = "csv",
        help_heading = "What to do"
    )]
    pub champion: Option<String>,

    #[command(flatten)]
    pub torture: crate::torture::Options,

    /// Every lock
    #[arg(long, help_heading = "Which locks")]
    pub all: bool,
    /// libautolock.so [default: ../lib/ beside the executable, else beside it]
    #[arg(long, value_name = "PATH", help_heading = "Which locks")]
    pub lib: Option<PathBuf>,
    /// A further lock: any library that exports the pthread_mutex functions; repeatable
    #[arg(long = "lock", value_name = "NAME=PATH", value_parser = named_library, help_heading = "Which locks")]
    pub extra_locks: Vec<Source>,
    /// The lock that the others are compared with; always measured
    #[arg(long, value_name = "NAME", default_value = GLIBC, help_heading = "Which locks")]
    pub baseline: String,

    /// Thread counts [default: 1,2,4,8,16]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse::threads, help_heading = "The cells")]
    pub threads: Vec<Counts>,
    /// How many locks the threads spread over: with more than one, each operation takes a random one
    #[arg(long, visible_alias = "contention", value_name = "LIST", value_delimiter = ',', default_value = "1", value_parser = parse::locks, help_heading = "The cells")]
    pub locks: Vec<Counts>,
    /// Work outside the critical section, between unlock and the next lock: TSC cycles, or a time such as 1us
    #[arg(long, visible_alias = "gap", value_name = "LIST", value_delimiter = ',', default_value = "100", value_parser = parse::extra, help_heading = "The cells")]
    pub extra: Vec<Extra>,
    /// Time inside the critical section; up to 10ns means its cache lines alone
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "10ns", value_parser = parse::duration, help_heading = "The cells")]
    pub cs: Vec<Duration>,
    /// Cache lines that the critical section touches
    #[arg(long, value_name = "N", default_value = "2", value_parser = parse::count, help_heading = "The cells")]
    pub lines: usize,

    /// Length of a round [default: 1.5s]
    #[arg(long, value_name = "TIME", value_parser = parse::positive_duration, group = "work", help_heading = "The rounds")]
    pub duration: Option<Duration>,
    /// Fixed work instead: each thread does N operations; the round lasts until the last is done
    #[arg(long, value_name = "N", value_parser = parse::operations, group = "work", help_heading = "The rounds")]
    pub iter: Option<u64>,
    /// Fixed work instead: the threads share N operations
    #[arg(long, value_name = "N", value_parser = parse::operations, group = "work", help_heading = "The rounds")]
    pub total: Option<u64>,
    /// Rounds per cell and lock
    #[arg(long, visible_alias = "trials", value_name = "N", default_value = "9", value_parser = parse::count, help_heading = "The rounds")]
    pub rounds: usize,
    /// Length of the unrecorded round of each lock before a cell
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse::positive_duration, help_heading = "The rounds")]
    pub warm_up: Duration,
    /// Do not time acquisitions: reading the clock would swamp an uncontended lock
    #[arg(long, help_heading = "The rounds")]
    pub no_latency: bool,
    /// Run the loop in the main thread and never start another
    #[arg(long, help_heading = "The rounds")]
    pub single_threaded: bool,
    /// How futex(2) calls are counted
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value = "auto",
        help_heading = "The rounds"
    )]
    pub futex_calls: FutexCalls,

    /// Run on these CPUs alone, such as 0-3,8
    #[arg(long, value_name = "CPUS", value_parser = parse::cpus, help_heading = "The CPUs")]
    pub cpus: Option<Cpus>,
    /// Run on the first N of the CPUs alone
    #[arg(long, value_name = "N", value_parser = parse::count, help_heading = "The CPUs")]
    pub num_cpus: Option<usize>,
    /// Keep each thread on one CPU: thread i on the i-th, and round again
    #[arg(long, help_heading = "The CPUs")]
    pub pin: bool,

    /// Write everything, raw, to a file, anew after each cell
    #[arg(long, value_name = "FILE", help_heading = "The output")]
    pub json: Option<PathBuf>,
    /// CSV on stdout in place of tables: a row for each round
    #[arg(long, help_heading = "The output")]
    pub csv: bool,
    /// Show progress even if stderr is no terminal: a line for each cell
    #[arg(long, help_heading = "The output")]
    pub progress: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Plot(Plot),
}

/// How futex(2) calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FutexCalls {
    /// By the tracepoint if that is permitted, else in our own locks
    Auto,
    /// By the kernel's tracepoint, for every lock; makes each system call somewhat slower
    Tracepoint,
    /// In our own locks alone, at no cost
    Own,
    /// Not at all
    Off,
}

impl Cli {
    /// Which locks are asked for.
    pub fn choice(&self) -> Choice<'_> {
        Choice {
            patterns: &self.patterns,
            all: self.all,
        }
    }
}

fn named_library(text: &str) -> Result<Source, String> {
    match text.split_once('=') {
        Some((GLIBC | AUTOLOCK, _)) => Err("the name is taken".into()),
        Some((name, path)) if is_name(name) && !path.is_empty() => {
            Ok(Source::library_named(name, path))
        }
        _ => Err("not NAME=PATH, with a name of letters, digits, '_', '-' and '.'".into()),
    }
}

/// No characters that patterns or tables would trip over.
fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    !text.is_empty() && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["driver"], args].concat())
    }

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_and_defaults() {
        let cli = parse(&["--bench", "--gap", "0,100", "--cs", "10ns,1us"]).expect("valid");
        assert_eq!(cli.extra, [Extra::Cycles(0), Extra::Cycles(100)]);
        assert_eq!(cli.cs, [Duration::from_nanos(10), Duration::from_micros(1)]);
        assert_eq!(
            (parse::flatten(&cli.locks), cli.lines, cli.rounds),
            (vec![1], 2, 9)
        );
        assert!(cli.threads.is_empty() && cli.patterns.is_empty());
    }

    #[test]
    fn the_old_and_the_new_names_of_a_knob_are_the_same() {
        let cli = parse(&["--extra", "1us", "--contention", "1..4", "--trials", "3"]);
        let cli = cli.expect("valid");
        assert_eq!(cli.extra, [Extra::Time(Duration::from_micros(1))]);
        assert_eq!((parse::flatten(&cli.locks), cli.rounds), (vec![1, 2, 4], 3));
    }

    #[test]
    fn patterns_stand_anywhere() {
        let cli = parse(&["mcs", "--bench", "futex_*", "--threads", "1-2"]).expect("valid");
        assert_eq!(cli.patterns, ["mcs", "futex_*"]);
    }

    #[test]
    fn one_kind_of_work_at_a_time() {
        assert_eq!(parse(&["--iter", "10k"]).expect("valid").iter, Some(10_000));
        assert_eq!(
            parse(&["--total", "1M"]).expect("valid").total,
            Some(1_000_000)
        );
        for args in [
            ["--iter", "1", "--total", "1"],
            ["--iter", "1", "--duration", "1s"],
            ["--total", "1", "--duration", "1s"],
        ] {
            assert!(parse(&args).is_err(), "{args:?} was taken");
        }
    }

    #[test]
    fn bad_numbers_are_refused() {
        for args in [
            ["--threads", "0"],
            ["--threads", "2,x"],
            ["--threads", "8-4"],
            ["--locks", "0"],
            ["--lines", "0"],
            ["--rounds", "-1"],
            ["--gap", "1.5"],
            ["--duration", "0s"],
            ["--iter", "0"],
            ["--total", "many"],
            ["--cpus", "x"],
            ["--num-cpus", "0"],
            ["--futex-calls", "maybe"],
            ["--lock", "nameless"],
            ["--lock", "glibc=/x.so"],
            ["--lock", "a*=/x.so"],
        ] {
            assert!(parse(&args).is_err(), "{args:?} was taken");
        }
    }

    #[test]
    fn a_further_lock_has_a_name_and_a_path() {
        let cli = parse(&["--lock", "old=/tmp/a=b.so"]).expect("valid");
        let expected = Source::library_named("old", "/tmp/a=b.so");
        assert_eq!(cli.extra_locks, [expected]);
    }
}
