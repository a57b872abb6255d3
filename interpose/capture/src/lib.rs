//! The profiler's record of one process, in a file that survives it.
//!
//! - [`layout`]: what is where in the file. A reader of files (`tools/autolock`) needs only this.
//! - [`view`]: a capture in memory: items by index.
//! - [`recorder`]: what the preload does to one.
//!
//! May touch: the mapping that it is given. May not: allocate, log, panic or call the operating system.
#![cfg_attr(not(test), no_std)]

pub mod layout;
pub mod recorder;
pub mod view;

pub use recorder::Recorder;
pub use view::Capture;
