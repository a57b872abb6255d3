//! What the examples share. Each of them runs an unmodified program of Debian's on glibc's mutex, on libautolock.so and on any lock of
//! its collection, and checks every answer.
//!
//! - [`library`]: where libautolock.so is.
//! - [`lock`]: whose mutex a program is to run on, and the proof that it did.
//! - [`glibc`]: a program's copy that runs on another glibc.
//! - [`process`]: bounded waits and bounded commands.
//! - [`machine`]: what the figures were measured on.
//! - [`screen`]: progress on stderr.
//! - [`figures`]: the few sums over rounds.
//! - [`failure`]: the exit status that an error stands for.

pub mod failure;
pub mod figures;
pub mod glibc;
pub mod library;
pub mod lock;
pub mod machine;
pub mod process;
pub mod screen;
