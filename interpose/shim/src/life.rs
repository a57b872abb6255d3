//! The beginning and the end of a mutex, and the functions that only delegated kinds have.

use core::ffi::c_int;

use autolock_abi::{
    Mutex,
    kind::{self, Dispatch},
    sync::Ordering::Relaxed,
};
use libc::{EBUSY, pthread_mutex_t, pthread_mutexattr_t};

use crate::{mutex::mirror, real::delegate, slots};

/// `pthread_mutex_init`. The four handled kinds are made here, so that it works before any symbol can be looked up; the rest by glibc.
///
/// # Safety
/// - As `pthread_mutex_init`.
pub unsafe fn init(mutex: *mut pthread_mutex_t, attributes: *const pthread_mutexattr_t) -> c_int {
    // SAFETY: the caller's contract.
    let Some(kind) = (unsafe { handled_kind(attributes) }) else {
        return delegate!(
            INIT,
            fn(*mut pthread_mutex_t, *const pthread_mutexattr_t),
            mutex,
            attributes
        );
    };
    // SAFETY: the caller's contract.
    unsafe { make(mutex, kind) };
    0
}

/// A free mutex of a handled kind.
///
/// # Safety
/// - `mutex` is memory for a mutex, which nobody uses yet.
pub(crate) unsafe fn make(mutex: *mut pthread_mutex_t, kind: u32) {
    // SAFETY: the caller's contract. What stands there is whatever the memory was used for: any value is valid.
    slots::forget(unsafe { mirror(mutex) });
    // SAFETY: as above.
    unsafe { mutex.cast::<Mutex>().write(Mutex::new(kind)) };
}

/// The `__kind` of a mutex with these attributes, if it is ours to make.
///
/// # Safety
/// - `attributes` is null or points to initialised attributes.
unsafe fn handled_kind(attributes: *const pthread_mutexattr_t) -> Option<u32> {
    if attributes.is_null() {
        return Some(kind::NORMAL);
    }
    // Not through the accessors: they hide NO_ELISION.
    // SAFETY: initialised attributes begin with the integer that `kind::from_attributes` knows.
    kind::from_attributes(unsafe { attributes.cast::<u32>().read() })
}

/// `pthread_mutex_destroy`: 0, or `EBUSY` if the mutex is in use. glibc's function serves all kinds, since the state is its own.
///
/// # Safety
/// - As `pthread_mutex_destroy`.
pub unsafe fn destroy(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    let mirror = unsafe { mirror(mutex) };
    if kind::dispatch(mirror.kind.load(Relaxed)) == Dispatch::Delegate {
        return delegate!(DESTROY, fn(*mut pthread_mutex_t), mutex);
    }
    if mirror.nusers.load(Relaxed) != 0 {
        return EBUSY;
    }
    slots::forget(mirror);
    // As glibc: a destroyed mutex has an invalid kind.
    mirror.kind.store(u32::MAX, Relaxed);
    0
}

/// `pthread_mutex_consistent`: robust mutexes only, so glibc's.
///
/// # Safety
/// - As `pthread_mutex_consistent`.
pub unsafe fn consistent(mutex: *mut pthread_mutex_t) -> c_int {
    delegate!(CONSISTENT, fn(*mut pthread_mutex_t), mutex)
}

/// `pthread_mutex_getprioceiling`: priority-protecting mutexes only, so glibc's.
///
/// # Safety
/// - As `pthread_mutex_getprioceiling`.
pub unsafe fn getprioceiling(mutex: *const pthread_mutex_t, ceiling: *mut c_int) -> c_int {
    delegate!(
        GETPRIOCEILING,
        fn(*const pthread_mutex_t, *mut c_int),
        mutex,
        ceiling
    )
}

/// `pthread_mutex_setprioceiling`: priority-protecting mutexes only, so glibc's.
///
/// # Safety
/// - As `pthread_mutex_setprioceiling`.
pub unsafe fn setprioceiling(
    mutex: *mut pthread_mutex_t,
    ceiling: c_int,
    old: *mut c_int,
) -> c_int {
    delegate!(
        SETPRIOCEILING,
        fn(*mut pthread_mutex_t, c_int, *mut c_int),
        mutex,
        ceiling,
        old
    )
}
