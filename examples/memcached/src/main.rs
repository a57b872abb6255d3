//! `memcached-example`: Debian's unmodified memcached under `LD_PRELOAD=libautolock.so`, loaded over
//! loopback, beside the same run on glibc.
//!
//! This file owns the command line and the exit status; the modules below each own one thing:
//!
//! - [`cli`]: options and their checks.
//! - [`server`]: one memcached process, from its start to its exit status.
//! - [`client`]: the few requests of memcached's text protocol that we speak.
//! - [`verify`]: the client that knows what every answer must be.
//! - [`generator`]: memaslap or memcslap, and the figures they print.
//! - [`memaslap`]: how memaslap is fetched, built and cached.
//! - [`proof`]: evidence that memcached's mutex calls reach our library.
//! - [`bench`]: the interleaved rounds.
//! - [`report`]: the table and the JSON file.
//! - [`machine`]: what the figures were measured on.
//! - [`process`]: bounded waits and bounded commands.
//! - [`failure`]: the exit status that an error stands for.

mod bench;
mod cli;
mod client;
mod failure;
mod generator;
mod machine;
mod memaslap;
mod process;
mod proof;
mod report;
mod server;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match cli::Options::parse().checked() {
        Ok(options) => options,
        Err(error) => return failure::exit(&error),
    };
    match bench::run(&options) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in problems {
                eprintln!("memcached-example: FAILED: {problem}");
            }
            ExitCode::from(failure::CHECK_FAILED)
        }
        Err(error) => failure::exit(&error),
    }
}
