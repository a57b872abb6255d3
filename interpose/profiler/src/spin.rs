//! `pthread_spin_*`.
//!
//! Each has the contract and the result of its namesake.

use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

use autolock_capture::layout::kind;

use crate::{
    mutex::{acquire, attempt, release, renew},
    recording::Primitive,
};

/// A spin lock: one word, glibc's is 1 when it is free and at most 0 when it is held (x86-64).
#[derive(Debug)]
pub struct Spin;

impl Primitive for Spin {
    const KNOWS_HOLDER: bool = false;

    unsafe fn is_busy(object: usize) -> bool {
        let word = core::ptr::with_exposed_provenance::<AtomicI32>(object);
        // SAFETY: the caller's contract.
        unsafe { &*word }.load(Relaxed) <= 0
    }

    unsafe fn kind(_: usize) -> u32 {
        kind::SPIN
    }

    unsafe fn holder(_: usize) -> u32 {
        0
    }
}

acquire!(
    /// `pthread_spin_lock`.
    lock(Spin) = SPIN_LOCK() or SPIN_TRYLOCK
);
attempt!(
    /// `pthread_spin_trylock`.
    trylock(Spin) = SPIN_TRYLOCK
);
release!(
    /// `pthread_spin_unlock`.
    unlock(Spin) = SPIN_UNLOCK
);
renew!(
    /// `pthread_spin_init`.
    init(0) = SPIN_INIT(shared: c_int)
);
renew!(
    /// `pthread_spin_destroy`.
    destroy(0) = SPIN_DESTROY()
);
