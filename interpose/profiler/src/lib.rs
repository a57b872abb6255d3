//! The profiler under pthread's locks: what is interposed, what is recorded, when it is shown.
//!
//! - [`recording`]: what is recorded at an acquisition and a release, for every kind of lock; [`mutex`], [`c11`], [`rwlock`], [`spin`], [`cond`]: the kinds.
//! - [`record`]: the life of the process's capture; [`file`](mod@file): where it is; [`tls`]: the thread's place in it; [`cost`]: what it costs.
//! - [`unwind`], [`modules`], [`cache`]: call stacks.
//! - [`signals`], [`ending`], [`interval`]: when the table is shown; [`table`]: the table on stderr; [`text`]: its text; [`process`]: whether it is ours to print.
//! - [`clock`]: time. [`real`]: the next symbol in the chain; [`system`]: system calls made directly. [`options`]: `AUTOLOCK_PROFILE*`, parsed once.
//!
//! May touch: libc, files and the environment at start and at dumps. May not: allocate, log or panic on a lock path.
//! Nothing here is exported: `#[no_mangle]` stands in the leaf cdylib alone.
#![cfg_attr(not(test), no_std)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!("the layouts of locks and stacks are those of glibc on x86-64 Linux");

pub mod c11;
pub mod cache;
pub mod clock;
pub mod cond;
pub mod cost;
pub mod ending;
pub mod file;
pub mod interval;
pub mod modules;
pub mod mutex;
pub mod options;
pub mod process;
pub mod real;
pub mod record;
pub mod recording;
pub mod rwlock;
pub mod signals;
pub mod spin;
pub mod system;
pub mod table;
pub mod text;
pub mod tls;
pub mod unwind;

/// What the preload's constructor does: everything that could allocate, lock or print, before `main`.
pub fn start() {
    autolock_shim::tcb::start();
    real::start();
    process::start();
    options::start();
    real::try_first(!is_algorithm_chosen());
    clock::start();
    modules::start();
    cond::start();
    unwind::start();
    record::start();
    ending::start(&RECORDER);
    let options = options::get();
    signals::start(options.signal);
    if let Some(interval) = options.interval_ns {
        interval::start(interval);
    }
}

/// What endings and tables need to know of the recording.
static RECORDER: ending::Recorder = ending::Recorder {
    capture: record::capture,
    now_ns: clock::now_ns,
    file: file::path,
};

/// Whether libautolock.so, if it follows in the chain, was told to use another lock than its default.
fn is_algorithm_chosen() -> bool {
    // SAFETY: a NUL-terminated name; no thread changes the environment before `main`.
    let value = unsafe { libc::getenv(c"AUTOLOCK_ALGORITHM".as_ptr()) };
    if value.is_null() {
        return false;
    }
    // SAFETY: a NUL-terminated string.
    let value = unsafe { core::ffi::CStr::from_ptr(value) };
    !matches!(value.to_bytes(), b"" | b"autolock")
}
