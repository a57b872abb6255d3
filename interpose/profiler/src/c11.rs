//! C11 `mtx_*`: glibc's call its mutex functions past the preload, so they are recorded here. Their results are `thrd_*`.

use core::ffi::c_int;

use libc::{EBUSY, EINVAL, ETIMEDOUT, timespec};

use crate::{
    mutex::{Mutex, Object},
    real::call,
    record,
    recording::{self, Caller},
};

// <threads.h>.
const SUCCESS: c_int = 0;
const BUSY: c_int = 1;
const ERROR: c_int = 2;
const TIMED_OUT: c_int = 4;

/// The error number that stands for a `thrd_*` result on the way through the recording.
fn error_of(result: c_int) -> c_int {
    match result {
        SUCCESS => 0,
        BUSY => EBUSY,
        TIMED_OUT => ETIMEDOUT,
        _ => EINVAL,
    }
}

/// And back.
fn result_of(error: c_int) -> c_int {
    match error {
        0 => SUCCESS,
        EBUSY => BUSY,
        ETIMEDOUT => TIMED_OUT,
        _ => ERROR,
    }
}

fn try_real(object: *mut Object) -> c_int {
    error_of(call!(MTX_TRYLOCK, fn(*mut Object), object))
}

/// `mtx_lock`.
///
/// # Safety
/// - As its namesake; the last two arguments are those of a call.
pub unsafe extern "C" fn lock(object: *mut Object, address: usize, stack_pointer: usize) -> c_int {
    let caller = Caller {
        address,
        stack_pointer,
    };
    let real = || error_of(call!(MTX_LOCK, fn(*mut Object), object));
    // SAFETY: the caller's contract.
    result_of(unsafe {
        recording::lock::<Mutex>(
            object.expose_provenance(),
            caller,
            || try_real(object),
            real,
        )
    })
}

/// `mtx_timedlock`.
///
/// # Safety
/// - As its namesake; the last two arguments are those of a call.
pub unsafe extern "C" fn timedlock(
    object: *mut Object,
    until: *const timespec,
    address: usize,
    stack_pointer: usize,
) -> c_int {
    let caller = Caller {
        address,
        stack_pointer,
    };
    let real = || {
        error_of(call!(
            MTX_TIMEDLOCK,
            fn(*mut Object, *const timespec),
            object,
            until
        ))
    };
    // SAFETY: the caller's contract.
    result_of(unsafe {
        recording::lock::<Mutex>(
            object.expose_provenance(),
            caller,
            || try_real(object),
            real,
        )
    })
}

/// `mtx_trylock`.
///
/// # Safety
/// - As its namesake; the last two arguments are those of a call.
pub unsafe extern "C" fn trylock(
    object: *mut Object,
    address: usize,
    stack_pointer: usize,
) -> c_int {
    let caller = Caller {
        address,
        stack_pointer,
    };
    // SAFETY: the caller's contract.
    result_of(unsafe {
        recording::trylock::<Mutex>(object.expose_provenance(), caller, || try_real(object))
    })
}

/// `mtx_unlock`.
///
/// # Safety
/// - As its namesake.
pub unsafe fn unlock(object: *mut Object) -> c_int {
    let real = || call!(MTX_UNLOCK, fn(*mut Object), object);
    // SAFETY: the caller's contract.
    unsafe { recording::unlock::<Mutex>(object.expose_provenance(), real) }
}

/// `mtx_init`.
///
/// # Safety
/// - As its namesake.
pub unsafe fn init(object: *mut Object, kind: c_int) -> c_int {
    let result = call!(MTX_INIT, fn(*mut Object, c_int), object, kind);
    if result == SUCCESS {
        record::renewed(object.addr() as u64);
    }
    result
}

/// `mtx_destroy`.
///
/// # Safety
/// - As its namesake.
pub unsafe fn destroy(object: *mut Object) {
    let _ = call!(MTX_DESTROY, fn(*mut Object), object);
    record::renewed(object.addr() as u64);
}
