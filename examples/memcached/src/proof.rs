//! Evidence that memcached's mutex calls reach our library: what the dynamic linker bound each
//! symbol to, what is mapped into the process, and what the library itself counted.

use crate::failure::missing;
use crate::generator::Generator;
use crate::process::last_line;
use crate::server::{Program, Server, Setup, Shutdown};
use crate::verify::{self, Pace};
use anyhow::{Context, Result, bail, ensure};
use example_common::lock::{Lock, statistics};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Symbols that our library stands in for.
const OUR_PREFIXES: [&str; 2] = ["pthread_mutex_", "mtx_"];

/// The load of the proving run: enough to use every symbol and to give the library something to count.
const LOAD: Duration = Duration::from_secs(1);

/// Verified requests that must have gone through beside it; far more do.
const VERIFIED: u64 = 1_000;
const VERIFIED_LIMIT: Duration = Duration::from_secs(20);

/// What one short start of memcached under the library has shown.
#[derive(Serialize, Debug)]
pub struct Proof {
    /// Mutex functions that memcached calls, all bound to our library.
    pub bound: Vec<String>,
    /// Mutex functions that libc itself calls, bound to our library: its condition variables do.
    pub bound_by_libc: Vec<String>,
    /// The library's own statistics, if it printed any.
    pub statistics: Vec<String>,
    /// Wrong values that the verifier saw meanwhile.
    pub wrong: u64,
    pub shutdown: Shutdown,
}

/// Starts memcached once with `library` preloaded and the dynamic linker told to report its
/// bindings, puts it under load, verified as fast as it goes, and checks that every mutex symbol is ours.
pub fn establish(
    program: &Program,
    library: &Path,
    threads: u16,
    connections: u16,
    generator: &Generator,
) -> Result<Proof> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let log = folder.path().join("bindings");
    let setup = Setup {
        program,
        threads,
        lock: &Lock::Autolock,
        library: Some(library),
        environment: vec![
            ("LD_DEBUG", "bindings".to_string()),
            // The linker appends `.PID`.
            ("LD_DEBUG_OUTPUT", log.display().to_string()),
            // Bind every symbol at the start, used or not.
            ("LD_BIND_NOW", "1".to_string()),
            ("AUTOLOCK_STATS", "1".to_string()),
        ],
    };
    let mut server =
        Server::start(&setup).context("memcached does not start with the library preloaded")?;
    ensure!(
        server.has_mapped(library)?,
        "the loader did not map {} into memcached",
        library.display()
    );
    let log = folder.path().join(format!("bindings.{}", server.pid()));
    let address = server.address();
    let verified = verify::run(address, Pace::Unpaced, |control| {
        generator.load(address, connections, LOAD)?;
        control.wait_for(VERIFIED, VERIFIED_LIMIT)
    })
    .and_then(|verified| server.check_workers().map(|()| verified))
    .map_err(|error| server.explain(error))?;
    let (shutdown, said) = server.stop(libc::SIGTERM)?;

    let text = std::fs::read(&log).map_err(|error| {
        missing(format!("the dynamic linker wrote no LD_DEBUG=bindings output ({error}): this check needs glibc's loader"))
    })?;
    let text = String::from_utf8_lossy(&text);
    let of_libc = Bindings::parse(&text, "libc.so.6", library);
    if let Some(prefix) = program.glibc() {
        for symbol in ["pthread_mutex_lock", "pthread_mutex_unlock"] {
            ensure!(
                of_libc.ours.iter().any(|bound| bound == symbol),
                "condition variables of the glibc in {} do not call {symbol}: `cargo xtask glibc` builds one whose do",
                prefix.display()
            );
        }
    }
    let bindings = Bindings::parse(&text, "memcached", library);
    if !bindings.elsewhere.is_empty() {
        bail!(
            "memcached's mutex calls go past the library: {}",
            bindings.elsewhere.join(", ")
        );
    }
    for symbol in ["pthread_mutex_lock", "pthread_mutex_unlock"] {
        ensure!(
            bindings.ours.iter().any(|bound| bound == symbol),
            "memcached's {symbol} is not bound to the library"
        );
    }
    let statistics = statistics(&said);
    if shutdown != Shutdown::Clean {
        bail!(
            "memcached's shutdown with the library preloaded was {shutdown}: {}",
            last_line(&said).unwrap_or("no message")
        );
    }
    Ok(Proof {
        bound: bindings.ours,
        bound_by_libc: of_libc.ours,
        statistics,
        wrong: verified.wrong(0),
        shutdown,
    })
}

/// Whether a line of `/proc/PID/maps` maps `library`.
pub fn maps_name(maps: &str, library: &Path) -> bool {
    // Five columns of numbers, then the path as it is.
    maps.lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]))
        .any(|path| Path::new(path) == library)
}

/// Where one program's mutex symbols were bound, from `LD_DEBUG=bindings` output.
#[derive(Debug, PartialEq, Eq)]
struct Bindings {
    /// Symbols bound to our library.
    ours: Vec<String>,
    /// `symbol in file` for those bound elsewhere.
    elsewhere: Vec<String>,
}

impl Bindings {
    fn parse(text: &str, program: &str, library: &Path) -> Self {
        let mut bindings = Self {
            ours: Vec::new(),
            elsewhere: Vec::new(),
        };
        for (from, to, symbol) in text.lines().filter_map(binding) {
            if Path::new(from)
                .file_name()
                .is_none_or(|name| name != program)
            {
                continue;
            }
            if !OUR_PREFIXES.iter().any(|prefix| symbol.starts_with(prefix)) {
                continue;
            }
            if Path::new(to) == library {
                bindings.ours.push(symbol.to_string());
            } else {
                bindings.elsewhere.push(format!("{symbol} in {to}"));
            }
        }
        bindings.ours.sort();
        bindings.ours.dedup();
        bindings
    }
}

/// `(from, to, symbol)` of a line such as
/// ``4476: binding file memcached [0] to /lib/libc.so.6 [0]: normal symbol `free' [GLIBC_2.2.5]``.
fn binding(line: &str) -> Option<(&str, &str, &str)> {
    let (_, rest) = line.split_once("binding file ")?;
    let (from, rest) = rest.split_once(" [")?;
    let (_, rest) = rest.split_once("] to ")?;
    let (to, rest) = rest.split_once(" [")?;
    let (_, rest) = rest.split_once('`')?;
    let (symbol, _) = rest.split_once('\'')?;
    Some((from, to, symbol))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRELOADED: &str = include_str!("../tests/data/bindings-preloaded.txt");
    const GLIBC: &str = include_str!("../tests/data/bindings-glibc.txt");

    #[test]
    fn every_mutex_symbol_of_a_preloaded_memcached_is_found() {
        let bindings = Bindings::parse(
            PRELOADED,
            "memcached",
            Path::new("/opt/autolock/lib/libautolock.so"),
        );
        let expected = ["destroy", "init", "lock", "trylock", "unlock"]
            .map(|name| format!("pthread_mutex_{name}"));
        assert_eq!(bindings.ours, expected);
        assert_eq!(bindings.elsewhere, Vec::<String>::new());
    }

    #[test]
    fn a_memcached_on_glibc_is_not_taken_for_ours() {
        let bindings = Bindings::parse(
            GLIBC,
            "memcached",
            Path::new("/opt/autolock/lib/libautolock.so"),
        );
        assert!(bindings.ours.is_empty());
        assert_eq!(bindings.elsewhere.len(), 5, "{:?}", bindings.elsewhere);
    }

    #[test]
    fn another_librarys_bindings_do_not_count() {
        let line = "  1:\tbinding file /lib/libssl.so.3 [0] to /opt/a.so [0]: normal symbol `pthread_mutex_lock' [GLIBC_2.2.5]";
        let bindings = Bindings::parse(line, "memcached", Path::new("/opt/a.so"));
        assert!(bindings.ours.is_empty() && bindings.elsewhere.is_empty());
    }

    #[test]
    fn maps_must_name_the_very_library() {
        let maps = "7f00-7f01 r-xp 00001000 fe:00 42    /opt/autolock/lib/libautolock.so\n7f02-7f03 rw-p 0 00:00 0\n";
        assert!(maps_name(
            maps,
            Path::new("/opt/autolock/lib/libautolock.so")
        ));
        assert!(!maps_name(
            maps,
            Path::new("/opt/autolock/lib/libautolock.so.1")
        ));
        assert!(!maps_name(maps, Path::new("/lib/libautolock.so")));
    }
}
