//! The autolock algorithm: a mutex on glibc's own lock word that spins while spinning is cheaper than sleeping.
//!
//! - [`mutex`]: the fast paths, inlined into the exported functions.
//! - [`contended`]: the slow path: one attendant spins, everybody else parks, no wake is lost.
//! - [`seat`]: who may be the attendant.
//! - [`policy`]: how long an attendant waits, and whether it lets the holder go on for a slice.
//! - [`oncpu`]: the seam for knowledge about the holder's CPU.
//! - [`platform`]: the operating system, one small trait with a fake for tests.
//!
//! May touch: the mutex that it is given, and the operating system through [`platform::Platform`].
//! May not: allocate, log, panic, or keep global state.
#![cfg_attr(not(loom), no_std)]

pub mod contended;
pub mod mutex;
pub mod oncpu;
pub mod platform;
pub mod policy;
pub mod seat;

pub use autolock_abi::Mutex;
