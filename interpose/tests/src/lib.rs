//! Runs the C programs of `programs/` with and without a preload.
//!
//! A program checks one property, exits with 0 when it holds and prints one line and exits with 1
//! when it does not. Every program is right on glibc alone: each test runs it there too, either
//! to see it pass or to compare what it prints. A run that outlives its deadline is a hang; the
//! deadlines are generous and never a measure of speed.
//!
//! | tests | what they are about |
//! |---|---|
//! | `state` | results, errors and raw fields, line by line as on glibc |
//! | `beside_glibc` | condition variables, C11, C++, RTLD_DEEPBIND, processes without the preload |
//! | `by_symbol` | whether waits on condition variables call the mutex functions, and what that makes possible |
//! | `life_of_a_process` | fork, dlopen, other preloads, signals, cancellation, thread and process end |
//! | `progress` | no waiter left asleep or passed over; no touch after the release |
//! | `torture` | everything at once, counted |
//! | `surroundings` | options, statistics, sandboxes, allocators, secure-execution mode |
//! | `on_cpu` | autolockd's table: found, refused, stale, a lie; what becomes of it with the process |
//! | `slots` | the kernel's slots, on a stand-in for a patched kernel: who gets one, fork, refusals, parks |
//! | `kernel` | the same on a real one, in a virtual machine, and on one without slots |
//! | `autolockd` | the same as `on_cpu` with the real one, where eBPF is permitted |
//! | `symbols` | what the shared object exports and needs |
//! | `commands` | ordinary programs print what they always print |
//! | `broken` | preloads with one thing wrong, each caught by the program that is there for it |
//!
//! With `TEST_GLIBC=PREFIX`, a glibc with `glibc-patches/`, the programs run on that. `broken` means stock glibc.
//!
//! The library under test is `$AUTOLOCK_LIB`, or the newer of `dist/lib/libautolock.so` and
//! `release/libautolock.so` in the target directory.
//!
//! This crate compiles, runs, kills and compares. It knows nothing of mutexes.

mod compile;
mod expect;
pub mod fake_autolockd;
pub mod glibc;
mod preload;
mod run;
mod skip;

pub use compile::{Compile, cxx_compiler, target_dir};
pub use expect::{both_pass, must_break, same_transcript};
pub use preload::{autolock, newest, system_library};
pub use run::{Ended, Outcome, Run, Running};
pub use skip::{Installable, skipped};

/// The program `programs/NAME.c`, compiled as most are.
pub fn program(name: &str) -> std::path::PathBuf {
    Compile::program(name).build()
}
