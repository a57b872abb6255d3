//! The profiler under pthread's locks: what is interposed, what is recorded, when it is shown.
//!
//! May touch: libc, files and the environment at start and at dumps. May not: allocate, log or panic on a lock path.
#![cfg_attr(not(test), no_std)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!("the layouts of locks and stacks are those of glibc on x86-64 Linux");

pub mod ending;
pub mod interval;
pub mod next;
pub mod options;
pub mod process;
pub mod signals;
pub mod system;
pub mod table;
pub mod text;
