//! C11 `mtx_*`. A glibc `mtx_t` is a `pthread_mutex_t` in its first 40 bytes (`sysdeps/nptl/bits/thread-shared-types.h`,
//! `nptl/mtx_*.c`, glibc 2.36), so each function is the pthread one with other names for the results.

use core::ffi::c_int;

use autolock_abi::kind;
use libc::{EBUSY, ENOMEM, ETIMEDOUT, pthread_mutex_t, timespec};

use crate::{life, mutex};

// <threads.h>
const THRD_SUCCESS: c_int = 0;
const THRD_BUSY: c_int = 1;
const THRD_ERROR: c_int = 2;
const THRD_NOMEM: c_int = 3;
const THRD_TIMEDOUT: c_int = 4;
const MTX_PLAIN: c_int = 0;
const MTX_RECURSIVE: c_int = 1;
const MTX_TIMED: c_int = 2;

const fn thrd(error: c_int) -> c_int {
    match error {
        0 => THRD_SUCCESS,
        ENOMEM => THRD_NOMEM,
        ETIMEDOUT => THRD_TIMEDOUT,
        EBUSY => THRD_BUSY,
        _ => THRD_ERROR,
    }
}

/// `mtx_init`: `thrd_success`, or `thrd_error` for an unknown type.
///
/// # Safety
/// - As `mtx_init`.
pub unsafe fn init(mutex: *mut pthread_mutex_t, kind: c_int) -> c_int {
    let kind = match kind {
        MTX_PLAIN | MTX_TIMED => kind::NORMAL | kind::NO_ELISION,
        _ if kind == MTX_RECURSIVE || kind == MTX_TIMED | MTX_RECURSIVE => kind::RECURSIVE,
        _ => return THRD_ERROR,
    };
    // SAFETY: the caller gives memory for a mutex, which nobody uses yet.
    unsafe { life::make(mutex, kind) };
    THRD_SUCCESS
}

/// `mtx_destroy`.
///
/// # Safety
/// - As `mtx_destroy`.
pub unsafe fn destroy(mutex: *mut pthread_mutex_t) {
    // SAFETY: the caller's contract.
    unsafe { life::destroy(mutex) };
}

/// `mtx_lock`.
///
/// # Safety
/// - As `mtx_lock`.
pub unsafe fn lock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    thrd(unsafe { mutex::lock(mutex) })
}

/// `mtx_trylock`.
///
/// # Safety
/// - As `mtx_trylock`.
pub unsafe fn trylock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    thrd(unsafe { mutex::trylock(mutex) })
}

/// `mtx_timedlock`, on `TIME_UTC`.
///
/// # Safety
/// - As `mtx_timedlock`.
pub unsafe fn timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int {
    // SAFETY: the caller's contract.
    thrd(unsafe { mutex::timedlock(mutex, until) })
}

/// `mtx_unlock`.
///
/// # Safety
/// - As `mtx_unlock`.
pub unsafe fn unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    thrd(unsafe { mutex::unlock(mutex) })
}
