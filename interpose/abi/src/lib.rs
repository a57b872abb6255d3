//! Every byte that crosses a boundary, and nothing else.
//!
//! What other code than ours reads or writes is mirrored here: glibc's `pthread_mutex_t` with size and
//! offset asserts, the lock word's values and the pure predicates over them, the mutex kinds, the kernel's slots. No policy, no
//! system call, no allocation: the crate is `no_std` and depends on nothing.
//!
//! May touch: core. May not touch: the operating system, thread-local storage, any global state.
#![cfg_attr(not(loom), no_std)]

pub mod auto_lock;
pub mod kind;
pub mod mutex;
pub mod sync;
pub mod word;

pub use mutex::Mutex;
