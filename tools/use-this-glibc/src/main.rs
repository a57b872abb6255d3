//! `use-this-glibc PREFIX EXE...`.
//!
//! Exit status: 0 done, 1 a check failed and nothing was written, 2 wrong usage, 3 unsupported input, 4 a file could not be read or written.

use std::process::ExitCode;

fn main() -> ExitCode {
    todo!()
}
