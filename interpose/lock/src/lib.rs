//! The autolock algorithm: a mutex on glibc's own lock word that spins while spinning is cheaper than sleeping.
//!
//! - [`mutex`]: the fast paths, inlined into the exported functions.
//! - [`contended`]: the slow path: one waiter attends to the word, the others sleep, no wake is lost.
//! - [`seat`]: who may be the attendant.
//! - [`policy`]: how long a waiter spins; `watch`: how the attendant waits; `memory`: what they remember of a mutex.
//! - [`oncpu`]: the seam for knowledge about the holder's CPU; `armed`: a waiter that sleeps when it loses its own.
//! - [`platform`]: the operating system, one small trait with a fake for tests.
//!
//! Beside it the collection of other lock algorithms, to compare with and to run programs on:
//!
//! - [`algorithm`]: the one trait that all of them implement, and their table of C functions.
//! - [`locks`]: a file each, and the list of them all; [`node`]: the queue nodes that they share.
//! - [`outer`]: any of them under glibc's word, so that condition variables go on working.
//!
//! May touch: the lock that it is given, and the operating system through [`platform::Platform`].
//! May not: allocate, log, panic, or keep global state.
#![cfg_attr(not(any(loom, test)), no_std)]

pub mod algorithm;
mod armed;
pub mod contended;
pub mod locks;
mod memory;
pub mod mutex;
pub mod node;
pub mod oncpu;
pub mod outer;
pub mod platform;
pub mod policy;
pub mod seat;
mod watch;

pub use autolock_abi::Mutex;
