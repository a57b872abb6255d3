//! `mksquashfs-example`: Debian's unmodified mksquashfs and unsquashfs pack and unpack a folder on glibc's mutex, on libautolock.so
//! and on any lock of its collection, and every byte is checked.
//!
//! This file owns the command line's end; the modules below each own one thing, the crate `example-common` what the examples share:
//!
//! - [`cli`]: options and their defaults.
//! - [`tree`]: the folder that is packed, and what must come back of it.
//! - [`program`]: one run of mksquashfs or unsquashfs.
//! - [`bench`]: the interleaved rounds.
//! - [`report`]: the table and the JSON file.

mod bench;
mod cli;
mod program;
mod report;
mod tree;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = cli::Options::parse()
        .checked()
        .and_then(|options| bench::run(&options));
    example_common::failure::exit(bench::PROGRAM, outcome)
}
