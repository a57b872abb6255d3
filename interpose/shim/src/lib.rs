//! POSIX on top of the algorithm: what `pthread_mutex_*` and C11 `mtx_*` promise, and what glibc does where they are silent.
//!
//! - [`mutex`]: locking and unlocking; [`life`]: making and destroying; [`c11`]: the C11 names. `engine`: what they run on.
//! - [`linux`]: the operating system for `autolock_lock`.
//! - [`source`]: which source of on-CPU knowledge. `kernel`: slots of a patched kernel; [`ebpf`]: what `autolockd` says of the threads on a CPU; `autolockd`: how it is asked.
//! - [`tcb`]: thread id and CPU from the thread control block, one load each.
//! - [`slots`]: `AUTOLOCK_ALGORITHM`: another lock under each mutex; [`nodes`]: their queue nodes; [`stack`]: free ones of both.
//! - [`cond`]: condition variables, which must give up that other lock before they wait.
//! - [`reach`]: whether libc's condition waits come back to us, or go past us.
//! - [`real`]: the next symbol in the chain, for what we delegate.
//! - [`options`]: `AUTOLOCK_*`, parsed once; [`stats`]: what the library did.
//!
//! May touch: libc, the environment, autolockd's socket, /proc and stderr at start and at exit. May not: allocate, log or panic between.
//! Nothing here is exported: `#[no_mangle]` stands in the leaf cdylibs alone.
#![cfg_attr(not(test), no_std)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!("the mutex layout and the thread control block are those of glibc on x86-64 Linux");

mod autolockd;
pub mod c11;
pub mod cond;
pub mod ebpf;
mod engine;
mod kernel;
pub mod life;
pub mod linux;
pub mod mutex;
pub mod nodes;
pub mod options;
pub mod reach;
pub mod real;
pub mod slots;
pub mod source;
pub mod stack;
pub mod stats;
pub mod tcb;

/// What the preload's constructor does: everything that could allocate, lock or print, before `main`.
pub fn start() {
    tcb::start();
    real::start();
    let options = options::from_environment();
    if let Some(entry) = options.algorithm {
        cond::start();
        slots::start(entry);
    }
    source::start(options.backend, options.socket);
    stats::start(options.stats);
}
