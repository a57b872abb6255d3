//! `autolock`: runs programs under the preloads, and reads what the profiler recorded.
//!
//! - [`report`]: `autolock report`.

mod report;

fn main() {}
