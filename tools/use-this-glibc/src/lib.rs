//! Makes a program run on another glibc: its interpreter and run path are rewritten, and nothing else.
//!
//! - [`elf`]: bytes to bytes. Reads what the dynamic loader reads, makes the change, takes it back. No files.
//! - [`loader`]: how the dynamic loader finds libraries and which symbol versions it asks of them. Reads files, writes none.
//! - [`prefix`]: the glibc below a folder.
//! - [`environment`]: variables by which programs find the system's locales and time zones.
//! - [`plan`]: program and prefix to the change, and what speaks against it.
//! - [`trace`]: asks the new loader what it would load.
//! - [`place`]: where the result goes: another file, or the same in one rename, with a backup; and back again.
//! - [`error`]: what can go wrong, one line each, with its exit status.
//!
//! The command line is in `main.rs` and `cli.rs`.

pub mod elf;
pub mod environment;
pub mod error;
pub mod loader;
pub mod place;
pub mod plan;
pub mod prefix;
pub mod trace;
