//! Condition variables: glibc's own, told to wait after the inner lock of `AUTOLOCK_ALGORITHM` has been given up.
//!
//! Stock glibc's wait releases the mutex's word, sleeps, and takes the word again, past the preload. The inner lock must not stay behind in the
//! hands of a sleeper ([`autolock_lock::outer`], invariant 4). After the wait the caller holds the mutex without its inner lock, as
//! it does after cancellation or an error, and nothing is left to do: so each function ends in a call of glibc's, a jump in fact, and cancellation
//! unwinds no frame of ours.
//!
//! A glibc with `glibc-patches/` calls our `unlock` and `lock` instead ([`reach`]), which release and acquire both locks. There is nothing to do before, either.
//!
//! May touch: the mutex that is given. By default, without an algorithm chosen, these only call on.

use core::ffi::{c_int, c_void};
use core::sync::atomic::AtomicBool;

use autolock_abi::{
    Mutex,
    kind::{self, Dispatch},
    sync::Ordering::Relaxed,
};
use autolock_lock::{outer, platform::Platform};
use libc::{clockid_t, pthread_cond_t, pthread_mutex_t, timespec};

use crate::{
    linux::Linux,
    reach, real,
    slots::{self, Slots},
};

/// Whether libc's waits call our functions.
#[derive(Debug)]
struct Reach {
    posix: AtomicBool,
    c11: AtomicBool,
}

static REACH: Reach = Reach {
    posix: AtomicBool::new(false),
    c11: AtomicBool::new(false),
};

/// Finds out how libc waits. Called once, from the preload's constructor, when an algorithm was chosen: by default it makes no difference.
pub fn start() {
    let posix = reach::is_called_by(&real::COND_TIMEDWAIT, &real::UNLOCK);
    REACH.posix.store(posix, Relaxed);
    // Our `mtx_unlock` ends where `pthread_mutex_unlock` does.
    let c11 = reach::is_called_by(&real::CND_TIMEDWAIT, &real::UNLOCK);
    REACH.c11.store(c11, Relaxed);
}

/// For the statistics: whether libc's waits, `pthread_cond_*` and `cnd_*`, come back to us.
#[must_use]
pub fn comes_back() -> bool {
    REACH.posix.load(Relaxed) && REACH.c11.load(Relaxed)
}

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

/// A wait function: gives the inner lock up, where that is left to us, and calls the next of its name.
macro_rules! wait {
    ($(#[$doc:meta])* $name:ident($family:ident) = $next:ident($($argument:ident: $type:ty),*)) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// - As its namesake.
        #[inline]
        pub unsafe fn $name(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t $(, $argument: $type)*) -> c_int {
            if slots::chosen() && !REACH.$family.load(Relaxed) {
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
    wait(posix) = COND_WAIT()
);
wait!(
    /// `pthread_cond_timedwait`.
    timedwait(posix) = COND_TIMEDWAIT(until: *const timespec)
);
wait!(
    /// `pthread_cond_clockwait`.
    clockwait(posix) = COND_CLOCKWAIT(clock: clockid_t, until: *const timespec)
);
wait!(
    /// `cnd_wait`; a `cnd_t` is as opaque as a `pthread_cond_t` here.
    cnd_wait(c11) = CND_WAIT()
);
wait!(
    /// `cnd_timedwait`.
    cnd_timedwait(c11) = CND_TIMEDWAIT(until: *const timespec)
);
