//! Programs that know what they did, run under the profiler: the record must say the same.
//!
//! A program of `programs/` takes locks, times from both sides what it does, and prints the truth, a line for each process and lock
//! (`programs/truth.h`). Here it is run under the preload, its captures are read with `autolock report --json`, and [`check`] holds the one against the other:
//! counts exactly, times within 1 % of the program's own bounds. Every program checks itself, too, and passes without the profiler.
//!
//! | tests | what they are about |
//! |---|---|
//! | `counts` | how often and how long: mutexes, read-write locks, spin locks, C11, C++, condition variables |
//! | `waits` | who waited where for whom, how many at once, how often the owner changed; deadlocks |
//! | `names` | what locks are called, the same in every run |
//! | `processes` | fork, exec, spawn; how processes and threads end |
//! | `signals` | SIGINT and SIGTERM, with and without the program's own handlers; at any moment, many times; `kill -9` |
//! | `surroundings` | memory, full disks, closed descriptors, sandboxes, allocators; options |
//! | `others` | the programs of the mutex preload's tests say under the profiler what they say without it |
//! | `broken` | profilers and records with one thing wrong, each noticed |
//!
//! With `TEST_GLIBC=PREFIX`, a glibc with `glibc-patches/`, the programs run on that, and acquiring a mutex again after a wait on a condition variable is apart from idling.
//!
//! The library under test is `$AUTOLOCK_PROFILE_LIB`, the tool `$AUTOLOCK_TOOL`; otherwise the newest of those in the target directory.

mod check;
mod page;
mod profiled;
mod report;
mod truth;

pub use check::{Mode, check};
pub use page::Page;
pub use profiled::{Beneath, Finished, Profiled, Started, compile, library, profiler, tool};
pub use report::{Report, read};
pub use truth::{Process, Truth};
