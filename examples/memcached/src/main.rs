//! `memcached-example`: Debian's unmodified memcached under `LD_PRELOAD=libautolock.so`, loaded over
//! loopback, beside the same run on glibc.
//!
//! This file owns the command line and the exit status; the modules below each own one thing, the crate `example-common` what the examples share:
//!
//! - [`cli`]: options and their checks.
//! - [`server`]: one memcached process, from its start to its exit status.
//! - [`client`]: the few requests of memcached's text protocol that we speak.
//! - [`verify`]: the client that knows what every answer must be.
//! - [`generator`]: memaslap or memcslap, and the figures they print.
//! - [`memaslap`]: how memaslap is fetched, built and cached.
//! - [`proof`]: evidence that memcached's mutex calls reach our library.
//! - [`profile`]: what the lock profiler recorded, against what is known.
//! - [`bench`]: the interleaved rounds.
//! - [`report`]: the table and the JSON file.

use example_common::{failure, machine, process};

mod bench;
mod cli;
mod client;
mod generator;
mod memaslap;
mod profile;
mod proof;
mod report;
mod server;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = cli::Options::parse()
        .checked()
        .and_then(|options| bench::run(&options));
    failure::exit(bench::PROGRAM, outcome)
}
