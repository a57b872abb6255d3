//! The command line: its grammar, its help, and the small parsers for lists, durations
//! and named libraries. Decides nothing and measures nothing.

use crate::lock::{AUTOLOCK, GLIBC, Source};
use crate::plot::Plot;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  driver --bench                                 glibc and autolock at 1, 2, 4, 8 and 16 threads
  driver --bench --threads 4,16 --gap 0,1000 --cs 10ns,1us --json run.json
  driver --bench --single-threaded --gap 0 --no-latency
                                                 the uncontended path, no second thread ever
  driver --bench --threads 1 --gap 0 --no-latency
                                                 the same in a multi-threaded process
  driver --bench --lock old=/tmp/libautolock.so  a third lock beside the two
  driver --summary run.json                      the table again, and the cells that lose
  driver plot run.json                           a page and SVG files in run-plots/
  driver plot run.json --against old.json        two runs on one page

Exit codes: 0 measured; 1 a lock is broken or hung, or a file failed; 2 wrong usage.";

/// Compares mutexes with glibc's, side by side in one process.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Measure: every lock in turn in every round, pair by pair
    #[arg(long)]
    pub bench: bool,
    /// Print a run's table again, and the cells in which a lock loses to the baseline
    #[arg(long, value_name = "RUN.json")]
    pub summary: Option<PathBuf>,
    /// Print the names of the locks
    #[arg(long)]
    pub list: bool,

    /// libautolock.so [default: ../lib/ beside the executable, else beside it]
    #[arg(long, value_name = "PATH")]
    pub lib: Option<PathBuf>,
    /// A further lock: any library that exports the pthread_mutex functions; repeatable
    #[arg(long = "lock", value_name = "NAME=PATH", value_parser = named_library)]
    pub extra: Vec<Source>,
    /// The locks to measure, by name [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub compare: Vec<String>,
    /// The lock that the others are compared with
    #[arg(long, value_name = "NAME", default_value = GLIBC)]
    pub baseline: String,

    /// Thread counts [default: 1,2,4,8,16]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = threads)]
    pub threads: Vec<usize>,
    /// Numbers of mutexes; with more than one, each operation takes a random one
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1", value_parser = count)]
    pub locks: Vec<usize>,
    /// TSC cycles between unlock and the next lock
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "100"
    )]
    pub gap: Vec<u64>,
    /// Time inside the critical section; up to 10ns means its cache lines alone
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "10ns", value_parser = duration)]
    pub cs: Vec<Duration>,
    /// Cache lines that the critical section touches
    #[arg(long, value_name = "N", default_value = "2", value_parser = count)]
    pub lines: usize,

    /// Length of a round
    #[arg(long, value_name = "TIME", default_value = "1.5s", value_parser = positive_duration)]
    pub duration: Duration,
    /// Rounds per cell and lock
    #[arg(long, value_name = "N", default_value = "9", value_parser = count)]
    pub rounds: usize,
    /// Length of the unrecorded round of each lock before a cell
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = positive_duration)]
    pub warm_up: Duration,
    /// Do not time acquisitions: reading the clock would swamp an uncontended lock
    #[arg(long)]
    pub no_latency: bool,
    /// Run the loop in the main thread and never start another
    #[arg(long)]
    pub single_threaded: bool,
    /// Write everything, raw, to a file, anew after each cell
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show progress on a terminal
    #[arg(long)]
    pub progress: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Plot(Plot),
}

/// `10ns`, `1us`, `1.5s`; a bare `0` is fine, a bare other number is not.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let value: f64 = number.parse().map_err(|_| not_a_duration(text))?;
    let ns = match unit {
        "ns" => value,
        "us" | "µs" => value * 1e3,
        "ms" => value * 1e6,
        "s" => value * 1e9,
        "" if value == 0.0 => 0.0,
        _ => return Err(not_a_duration(text)),
    };
    if ns > 86_400e9 {
        return Err("longer than a day".into());
    }
    Ok(Duration::from_nanos(ns.round() as u64))
}

fn not_a_duration(text: &str) -> String {
    format!("'{text}' is not a time such as 10ns, 1us, 20ms or 1.5s")
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".into()),
        positive => Ok(positive),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err("not a number from 1 to 1000000".into()),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=10_000) => Ok(n),
        _ => Err("not a number from 1 to 10000".into()),
    }
}

fn named_library(text: &str) -> Result<Source, String> {
    match text.split_once('=') {
        Some((GLIBC | AUTOLOCK, _)) => Err("the name is taken".into()),
        Some((name, path)) if !name.is_empty() && !path.is_empty() && !name.contains(',') => {
            Ok(Source::library_named(name, path))
        }
        _ => Err("not NAME=PATH".into()),
    }
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
    fn durations_with_every_unit() {
        let ns = |text| duration(text).map(|d| d.as_nanos());
        assert_eq!(ns("10ns"), Ok(10));
        assert_eq!(ns("1us"), Ok(1000));
        assert_eq!(ns("1.5µs"), Ok(1500));
        assert_eq!(ns("20ms"), Ok(20_000_000));
        assert_eq!(ns("1.5s"), Ok(1_500_000_000));
        assert_eq!(ns("0"), Ok(0));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "ns",
            "-1us",
            "1.2.3s",
            "1h",
            "1 us",
            "NaNs",
            "99999999s",
        ] {
            assert!(duration(text).is_err(), "'{text}' was taken");
        }
    }

    #[test]
    fn lists_and_defaults() {
        let cli = parse(&["--bench", "--gap", "0,100", "--cs", "10ns,1us"]).expect("valid");
        assert_eq!(cli.gap, [0, 100]);
        assert_eq!(cli.cs, [Duration::from_nanos(10), Duration::from_micros(1)]);
        assert_eq!((cli.locks, cli.lines, cli.rounds), (vec![1], 2, 9));
        assert!(cli.threads.is_empty() && cli.compare.is_empty());
    }

    #[test]
    fn bad_numbers_are_refused() {
        for args in [
            ["--threads", "0"],
            ["--threads", "2,x"],
            ["--locks", "0"],
            ["--lines", "0"],
            ["--rounds", "-1"],
            ["--gap", "1.5"],
            ["--duration", "0s"],
            ["--lock", "nameless"],
            ["--lock", "glibc=/x.so"],
        ] {
            assert!(parse(&args).is_err(), "{args:?} was taken");
        }
    }

    #[test]
    fn a_further_lock_has_a_name_and_a_path() {
        let cli = parse(&["--lock", "old=/tmp/a=b.so"]).expect("valid");
        let expected = Source::library_named("old", "/tmp/a=b.so");
        assert_eq!(cli.extra, [expected]);
    }
}
