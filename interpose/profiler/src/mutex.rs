//! `pthread_mutex_*` and C11 `mtx_*`: the next function in the chain, with a record of it.
//!
//! Each has the contract and the result of its namesake. `caller` and `stack_pointer` come from the exported function.

use autolock_abi::{Mutex as Mirror, kind as abi, sync::Ordering::Relaxed};
use autolock_capture::layout::kind;
use libc::{clockid_t, pthread_mutexattr_t, timespec};

use crate::recording::Primitive;

/// A mutex of any kind.
#[derive(Debug)]
pub struct Mutex;

/// # Safety
/// - `object` is the address of a `pthread_mutex_t`.
#[inline(always)]
unsafe fn mirror<'a>(object: usize) -> &'a Mirror {
    // SAFETY: same size and layout (asserted in `autolock_abi`); all fields are atomics.
    unsafe { &*core::ptr::with_exposed_provenance::<Mirror>(object) }
}

/// Whether the process has one thread only, as far as glibc knows.
#[inline(always)]
fn is_single_threaded() -> bool {
    unsafe extern "C" {
        /// `<sys/single_threaded.h>`, glibc 2.32.
        static __libc_single_threaded: core::sync::atomic::AtomicU8;
    }
    // SAFETY: glibc's variable; it changes only in this thread while it is true.
    unsafe { __libc_single_threaded.load(Relaxed) != 0 }
}

impl Primitive for Mutex {
    #[inline(always)]
    unsafe fn is_busy(object: usize) -> bool {
        const OWNER_DIED: u32 = 0x4000_0000; // <linux/futex.h>: of a robust mutex, which is free for the taking then.
        // SAFETY: the caller's contract. Every kind's word is 0 when it is free.
        let word = unsafe { mirror(object) }.word.load(Relaxed);
        word != 0 && word & OWNER_DIED == 0
    }

    /// Not a robust one: glibc's try leaves the word of one that is not recoverable locked (seen in 2.36), where its lock frees it again.
    #[inline(always)]
    unsafe fn may_try(object: usize) -> bool {
        const ROBUST: u32 = 0x10; // PTHREAD_MUTEX_ROBUST_NORMAL_NP
        // SAFETY: the caller's contract.
        let kind = unsafe { mirror(object) }.kind.load(Relaxed);
        // A single thread waits for nobody in its own process, and glibc's lock then does without atomic instructions, its try does not.
        kind & ROBUST == 0 && !is_single_threaded()
    }

    unsafe fn kind(object: usize) -> u32 {
        // SAFETY: the caller's contract.
        let bits = unsafe { mirror(object) }.kind.load(Relaxed);
        if abi::dispatch(bits) == abi::Dispatch::Delegate {
            return kind::OTHER;
        }
        // The kinds' numbers in <pthread.h>.
        match bits & 3 {
            0 => kind::MUTEX,
            1 => kind::RECURSIVE,
            2 => kind::ERRORCHECK,
            _ => kind::ADAPTIVE,
        }
    }

    unsafe fn holder(object: usize) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { mirror(object) }
            .owner
            .load(Relaxed)
            .cast_unsigned()
    }

    #[inline(always)]
    unsafe fn is_nested(object: usize) -> bool {
        // SAFETY: the caller's contract.
        let mutex = unsafe { mirror(object) };
        // The lowest two bits of every kind say whether it counts.
        mutex.kind.load(Relaxed) & 3 == 1 && mutex.count.load(Relaxed) > 1
    }
}

/// An acquisition, by the next function of this name and the try that belongs to it.
macro_rules! acquire {
    ($(#[$doc:meta])* $name:ident($kind:ty) = $next:ident($($argument:ident: $type:ty),*) or $try:ident $(if $condition:expr)?) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// - As its namesake; the last two arguments are those of a call.
        pub unsafe extern "C" fn $name(object: *mut $crate::mutex::Object $(, $argument: $type)*, caller: usize, stack_pointer: usize) -> core::ffi::c_int {
            type Object = *mut $crate::mutex::Object;
            let real = || $crate::real::call!($next, fn(Object $(, $type)*), object $(, $argument)*);
            $(
                if !$condition {
                    return real();
                }
            )?
            let try_real = || $crate::real::call!($try, fn(Object), object);
            let caller = $crate::recording::Caller { address: caller, stack_pointer };
            // SAFETY: the caller's contract.
            unsafe { $crate::recording::lock::<$kind>(object.expose_provenance(), caller, try_real, real) }
        }
    };
}
pub(crate) use acquire;

/// A try.
macro_rules! attempt {
    ($(#[$doc:meta])* $name:ident($kind:ty) = $next:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// - As its namesake; the last two arguments are those of a call.
        pub unsafe extern "C" fn $name(object: *mut $crate::mutex::Object, caller: usize, stack_pointer: usize) -> core::ffi::c_int {
            let real = || $crate::real::call!($next, fn(*mut $crate::mutex::Object), object);
            let caller = $crate::recording::Caller { address: caller, stack_pointer };
            // SAFETY: the caller's contract.
            unsafe { $crate::recording::trylock::<$kind>(object.expose_provenance(), caller, real) }
        }
    };
}
pub(crate) use attempt;

/// A release.
macro_rules! release {
    ($(#[$doc:meta])* $name:ident($kind:ty) = $next:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// - As its namesake.
        #[inline]
        pub unsafe fn $name(object: *mut $crate::mutex::Object) -> core::ffi::c_int {
            let real = || $crate::real::call!($next, fn(*mut $crate::mutex::Object), object);
            // SAFETY: the caller's contract.
            unsafe { $crate::recording::unlock::<$kind>(object.expose_provenance(), real) }
        }
    };
}
pub(crate) use release;

/// Making or destroying a lock: whatever was recorded at this address is another lock from now on.
macro_rules! renew {
    ($(#[$doc:meta])* $name:ident($($tag:literal),*) = $next:ident($($argument:ident: $type:ty),*)) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// - As its namesake.
        pub unsafe fn $name(object: *mut $crate::mutex::Object $(, $argument: $type)*) -> core::ffi::c_int {
            let result = $crate::real::call!($next, fn(*mut $crate::mutex::Object $(, $type)*), object $(, $argument)*);
            if result == 0 {
                $($crate::record::renewed(object.addr() as u64 | $tag);)*
            }
            result
        }
    };
}
pub(crate) use renew;

/// A lock of any type, which the next function knows.
pub type Object = core::ffi::c_void;

acquire!(
    /// `pthread_mutex_lock`.
    lock(Mutex) = MUTEX_LOCK() or MUTEX_FIRST
);
acquire!(
    /// `pthread_mutex_timedlock`.
    timedlock(Mutex) = MUTEX_TIMEDLOCK(until: *const timespec) or MUTEX_TRYLOCK
);
acquire!(
    /// `pthread_mutex_clocklock`. Of a clock that it does not know it must complain even if the mutex is free.
    clocklock(Mutex) = MUTEX_CLOCKLOCK(clock: clockid_t, until: *const timespec) or MUTEX_TRYLOCK if is_known(clock)
);
attempt!(
    /// `pthread_mutex_trylock`.
    trylock(Mutex) = MUTEX_TRYLOCK
);
release!(
    /// `pthread_mutex_unlock`.
    unlock(Mutex) = MUTEX_UNLOCK
);
renew!(
    /// `pthread_mutex_init`.
    init(0) = MUTEX_INIT(attributes: *const pthread_mutexattr_t)
);
renew!(
    /// `pthread_mutex_destroy`.
    destroy(0) = MUTEX_DESTROY()
);

/// Whether timed lock functions know this clock.
pub(crate) fn is_known(clock: clockid_t) -> bool {
    clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_MONOTONIC
}
