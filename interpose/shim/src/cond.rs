//! Condition variables: glibc's own, told to wait after the inner lock of `AUTOLOCK_ALGORITHM` has been given up.
//!
//! glibc's wait releases the mutex's word, sleeps, and takes the word again, past the preload. The inner lock must not stay behind in the
//! hands of a sleeper ([`autolock_lock::outer`], invariant 4). After the wait the caller holds the mutex without its inner lock, as
//! it does after cancellation or an error, and nothing is left to do: so each function ends in a call of glibc's, a jump in fact, and cancellation
//! unwinds no frame of ours.
//!
//! May touch: the mutex that is given. By default, without an algorithm chosen, these only call on.

use core::ffi::{c_int, c_void};

use autolock_abi::{
    Mutex,
    kind::{self, Dispatch},
    sync::Ordering::Relaxed,
};
use autolock_lock::{outer, platform::Platform};
use libc::{clockid_t, pthread_cond_t, pthread_mutex_t, timespec};

use crate::{
    linux::Linux,
    real,
    slots::{self, Slots},
};

/// Gives the inner lock up if the calling thread holds it.
///
/// # Safety
/// - `mutex` points to an initialised mutex.
#[cold]
#[inline(never)]
unsafe fn release_inner(mutex: *mut pthread_mutex_t) {
    // SAFETY: the caller's contract; same size and layout, all fields atomics.
    let mutex = unsafe { &*mutex.cast::<Mutex>() };
    let kind = mutex.kind.load(Relaxed);
    if kind::dispatch(kind) == Dispatch::Delegate || kind::is_shared(kind) {
        return; // No inner lock, and a delegated mutex's `__list` is glibc's.
    }
    // A caller that does not hold the mutex gets its error from glibc.
    if mutex.owner.load(Relaxed) == Linux::tid() {
        outer::release_inner::<Slots>(mutex);
    }
}

/// A wait function: gives the inner lock up and calls the next of its name.
macro_rules! wait {
    ($(#[$doc:meta])* $name:ident = $next:ident($($argument:ident: $type:ty),*)) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// - As its namesake.
        #[inline]
        pub unsafe fn $name(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t $(, $argument: $type)*) -> c_int {
            if slots::chosen() {
                // SAFETY: the caller's contract.
                unsafe { release_inner(mutex) };
            }
            let address = real::$next.get();
            if address.is_null() {
                return libc::EINVAL;
            }
            type Function = unsafe extern "C" fn(*mut pthread_cond_t, *mut pthread_mutex_t $(, $type)*) -> c_int;
            // SAFETY: the next object's function of this name, which has this signature.
            let function = unsafe { core::mem::transmute::<*mut c_void, Function>(address) };
            // SAFETY: the caller's own arguments.
            unsafe { function(cond, mutex $(, $argument)*) }
        }
    };
}

wait!(
    /// `pthread_cond_wait`.
    wait = COND_WAIT()
);
wait!(
    /// `pthread_cond_timedwait`.
    timedwait = COND_TIMEDWAIT(until: *const timespec)
);
wait!(
    /// `pthread_cond_clockwait`.
    clockwait = COND_CLOCKWAIT(clock: clockid_t, until: *const timespec)
);
wait!(
    /// `cnd_wait`; a `cnd_t` is as opaque as a `pthread_cond_t` here.
    cnd_wait = CND_WAIT()
);
wait!(
    /// `cnd_timedwait`.
    cnd_timedwait = CND_TIMEDWAIT(until: *const timespec)
);
