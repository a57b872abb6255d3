//! `libautolock.so`: the exported symbols, in one table, and the start and end of the library's life.
//!
//! An unversioned symbol of a preload serves every version that a program asks for, so no linker version script is needed.
//!
//! `no_std`: what is not linked cannot allocate or unwind, and a program that preloads us loads no other library.
#![no_std]

use core::ffi::c_int;

use autolock_shim::{c11, cond, life, mutex};
use libc::{clockid_t, pthread_cond_t, pthread_mutex_t, pthread_mutexattr_t, timespec};

// Without std nothing else asks for libc when the libc crate has its `std` feature, which another crate of the same build may turn on.
#[link(name = "c")]
unsafe extern "C" {}

/// Exports C functions that do nothing but call ours.
macro_rules! export {
    ($($symbol:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $function:path;)*) => {
        $(
            #[doc = concat!("`", stringify!($symbol), "`, see `", stringify!($function), "`.")]
            ///
            /// # Safety
            #[doc = concat!("- As `", stringify!($symbol), "` in the C standard, POSIX or glibc.")]
            // SAFETY: this library is a preload: replacing libc's symbol of this name is its purpose.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $symbol($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller's contract is the function's.
                unsafe { $function($($argument),*) }
            }
        )*
    };
}

export! {
    pthread_mutex_init(mutex: *mut pthread_mutex_t, attributes: *const pthread_mutexattr_t) -> c_int = life::init;
    pthread_mutex_destroy(mutex: *mut pthread_mutex_t) -> c_int = life::destroy;
    pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int = mutex::lock;
    pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int = mutex::trylock;
    pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int = mutex::timedlock;
    pthread_mutex_clocklock(mutex: *mut pthread_mutex_t, clock: clockid_t, until: *const timespec) -> c_int = mutex::clocklock;
    pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int = mutex::unlock;
    pthread_mutex_consistent(mutex: *mut pthread_mutex_t) -> c_int = life::consistent;
    pthread_mutex_getprioceiling(mutex: *const pthread_mutex_t, ceiling: *mut c_int) -> c_int = life::getprioceiling;
    pthread_mutex_setprioceiling(mutex: *mut pthread_mutex_t, ceiling: c_int, old: *mut c_int) -> c_int = life::setprioceiling;

    pthread_cond_wait(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int = cond::wait;
    pthread_cond_timedwait(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int = cond::timedwait;
    pthread_cond_clockwait(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, clock: clockid_t, until: *const timespec) -> c_int = cond::clockwait;
    cnd_wait(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int = cond::cnd_wait;
    cnd_timedwait(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int = cond::cnd_timedwait;

    mtx_init(mutex: *mut pthread_mutex_t, kind: c_int) -> c_int = c11::init;
    mtx_destroy(mutex: *mut pthread_mutex_t) = c11::destroy;
    mtx_lock(mutex: *mut pthread_mutex_t) -> c_int = c11::lock;
    mtx_trylock(mutex: *mut pthread_mutex_t) -> c_int = c11::trylock;
    mtx_timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int = c11::timedlock;
    mtx_unlock(mutex: *mut pthread_mutex_t) -> c_int = c11::unlock;
}

/// The constructor and the destructor, in the arrays that the dynamic loader runs.
// SAFETY: both functions have the arrays' signature and run once each.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        autolock_shim::start();
    }
    start
};

// SAFETY: as above.
#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = {
    extern "C" fn finish() {
        autolock_shim::stats::finish();
    }
    finish
};

/// Nothing in this library panics on purpose; if something does, the program is beyond saving.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes nothing and does not return.
    unsafe { libc::abort() }
}
