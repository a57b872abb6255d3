//! Options, their defaults and their checks. Looks at the file system only to find the library.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use example_common::library;
use example_common::lock::Backend;
use std::path::PathBuf;
use std::time::Duration;

/// Runs an unmodified memcached on glibc's mutex, on libautolock.so and on other locks, under the
/// same load, and compares throughput, latency and every value read back.
///
/// Exit status: 0 everything held, 1 a check failed, 2 usage or something is missing.
#[derive(Parser, Debug)]
#[command(version)]
struct RawOptions {
    /// libautolock.so to preload, with --profile libpthread-mutex-profile.so [default: ../lib beside this program, then target/dist/lib]
    #[arg(long, value_name = "PATH")]
    lib: Option<PathBuf>,

    /// Further locks to run it on, by AUTOLOCK_ALGORITHM; `driver --list` names them
    #[arg(
        long,
        value_name = "NAME,..",
        value_delimiter = ',',
        conflicts_with = "glibc_only"
    )]
    algorithm: Vec<String>,

    /// Run autolock once with each of these sources of on-CPU knowledge: user (user space alone), ebpf (autolockd's table), kernel (a patched kernel's slots) [default: user,ebpf]
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 0..=1, require_equals = true, default_missing_value = "user,ebpf", value_parser = backend, conflicts_with_all = ["glibc_only", "profile", "algorithm"])]
    backends: Option<Vec<Backend>>,

    /// Run it on the glibc that is installed in PREFIX, whose condition variables must work through the library (`cargo xtask glibc`)
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["glibc_only", "profile"])]
    glibc: Option<PathBuf>,

    /// memcached worker threads to try, one comparison each [default: 4,16; with --quick: 4]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=128))]
    threads: Option<Vec<u16>>,

    /// Length of one measurement, up to 60s [default: 5s; with --quick: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Rounds; each runs all locks, in alternating order [default: 3; with --quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: Option<u16>,

    /// Connections that the load generator keeps busy
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    connections: u16,

    /// One short round: checks that everything works, says little about speed
    #[arg(long)]
    quick: bool,

    /// Load generator; auto is memaslap, or memcslap where memaslap cannot be had; pipelined is our own, which needs little but memcached and makes its threads contend
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    generator: Choice,

    /// Run the glibc side alone, to check the example itself
    #[arg(long, conflicts_with = "lib")]
    glibc_only: bool,

    /// Run it on glibc's mutex with and without the lock profiler, and check what that records
    #[arg(long, conflicts_with_all = ["glibc_only", "algorithm"])]
    profile: bool,

    /// With --profile: also with every hold timed
    #[arg(long, requires = "profile")]
    full: bool,

    /// With --profile: where captures and their reports are kept; thrown away otherwise
    #[arg(long, value_name = "DIR", requires = "profile")]
    keep: Option<PathBuf>,

    /// Write every measurement to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Which load generator the user asked for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Auto,
    Memaslap,
    Memcslap,
    Pipelined,
}

/// Options with the defaults filled in.
#[derive(Debug)]
pub struct Options {
    /// The library to preload; none with `--glibc-only`.
    pub lib: Option<PathBuf>,
    /// Further locks, beside glibc's and autolock.
    pub algorithms: Vec<String>,
    /// autolock with each of these sources of on-CPU knowledge, in place of autolock; none: with the best there is.
    pub backends: Vec<Backend>,
    /// Where a glibc is for memcached to run on, if not the system's.
    pub glibc: Option<PathBuf>,
    pub threads: Vec<u16>,
    pub duration: Duration,
    pub rounds: u16,
    pub connections: u16,
    pub generator: Choice,
    pub json: Option<PathBuf>,
    /// With `--profile`.
    pub profiling: Option<Profiling>,
}

/// How the lock profiler is tried out.
#[derive(Debug)]
pub struct Profiling {
    /// `autolock`, which reads captures.
    pub tool: PathBuf,
    /// Also with every hold timed.
    pub full: bool,
    /// Where captures are kept.
    pub keep: Option<PathBuf>,
}

/// What `clap` has accepted, before defaults and the library are looked up.
pub struct Parsed(RawOptions);

impl Options {
    /// Parses the command line; `clap` ends the program with status 2 on a bad one.
    pub fn parse() -> Parsed {
        Parsed(RawOptions::parse())
    }
}

impl Parsed {
    /// Fills in the defaults and finds the library.
    pub fn checked(self) -> Result<Options> {
        let raw = self.0;
        let lib = if raw.glibc_only {
            None
        } else {
            let name = if raw.profile {
                library::PROFILER
            } else {
                library::AUTOLOCK
            };
            Some(library::find(name, raw.lib.as_deref())?)
        };
        let profiling = match &lib {
            Some(library) if raw.profile => Some(Profiling {
                tool: library::program(library::TOOL, Some(library))?,
                full: raw.full,
                keep: raw.keep,
            }),
            _ => None,
        };
        let (threads, duration, rounds) = if raw.quick {
            (vec![4], Duration::from_secs(2), 1)
        } else {
            (vec![4, 16], Duration::from_secs(5), 3)
        };
        Ok(Options {
            lib,
            algorithms: raw.algorithm,
            backends: raw.backends.unwrap_or_default(),
            glibc: raw.glibc,
            threads: raw.threads.unwrap_or(threads),
            duration: raw.duration.unwrap_or(duration),
            rounds: raw.rounds.unwrap_or(rounds),
            connections: raw.connections,
            generator: raw.generator,
            json: raw.json,
            profiling,
        })
    }
}

fn backend(name: &str) -> Result<Backend, String> {
    Backend::by_name(name).ok_or_else(|| "one of user, ebpf, kernel".to_string())
}

/// `5s`, `500ms` or `1m`, from 200 ms to a minute: long enough to hold a load, short enough that
/// memaslap's growing data set stays within memcached's memory.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits
        .parse()
        .map_err(|_| "give a number and a unit, such as 5s".to_string())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => return Err("the unit is ms, s or m, as in 5s".to_string()),
    };
    match milliseconds {
        Some(ms @ 200..=60_000) => Ok(Duration::from_millis(ms)),
        _ => Err("between 200ms and 60s".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        RawOptions::command().debug_assert();
    }

    #[test]
    fn durations_are_bounded_and_carry_a_unit() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        for bad in [
            "",
            "5",
            "s",
            "2m",
            "100ms",
            "-1s",
            "5h",
            "99999999999999999999s",
            "99999999999999999m",
        ] {
            assert!(duration(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn sources_of_knowledge_are_named_or_the_usual_two() {
        let parsed = |word| {
            let raw = RawOptions::try_parse_from(["x", word]);
            raw.map(|raw| raw.backends.unwrap_or_default()).ok()
        };
        assert_eq!(parsed("--quick"), Some(Vec::new()));
        assert_eq!(
            parsed("--backends"),
            Some(vec![Backend::User, Backend::Ebpf])
        );
        assert_eq!(parsed("--backends=kernel"), Some(vec![Backend::Kernel]));
        assert_eq!(parsed("--backends=auto"), None);
    }

    #[test]
    fn quick_changes_defaults_and_explicit_options_win() {
        let raw = RawOptions::parse_from(["x", "--quick", "--glibc-only", "--threads", "2,8"]);
        let options = Parsed(raw).checked().expect("options");
        assert_eq!((options.threads, options.rounds), (vec![2, 8], 1));
        assert_eq!(options.duration, Duration::from_secs(2));
    }
}
