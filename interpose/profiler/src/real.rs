//! The next symbol in the chain: glibc's, or that of another preload behind this one.
//!
//! All are looked up in the constructor; a call that comes earlier looks its symbol up itself.

autolock_shim::next! {
    MUTEX_INIT = c"pthread_mutex_init";
    MUTEX_DESTROY = c"pthread_mutex_destroy";
    MUTEX_LOCK = c"pthread_mutex_lock";
    MUTEX_TRYLOCK = c"pthread_mutex_trylock";
    // What a lock call does first with a mutex that looks free, see `try_first`.
    MUTEX_FIRST = c"pthread_mutex_trylock";
    MUTEX_TIMEDLOCK = c"pthread_mutex_timedlock";
    MUTEX_CLOCKLOCK = c"pthread_mutex_clocklock";
    MUTEX_UNLOCK = c"pthread_mutex_unlock";
    // Since glibc 2.3.2 a condition variable is the object itself; x86-64 programs older than that do not exist.
    COND_WAIT = c"pthread_cond_wait" @ c"GLIBC_2.3.2";
    COND_TIMEDWAIT = c"pthread_cond_timedwait" @ c"GLIBC_2.3.2";
    COND_CLOCKWAIT = c"pthread_cond_clockwait";
    RWLOCK_INIT = c"pthread_rwlock_init";
    RWLOCK_DESTROY = c"pthread_rwlock_destroy";
    RWLOCK_RDLOCK = c"pthread_rwlock_rdlock";
    RWLOCK_TRYRDLOCK = c"pthread_rwlock_tryrdlock";
    RWLOCK_TIMEDRDLOCK = c"pthread_rwlock_timedrdlock";
    RWLOCK_CLOCKRDLOCK = c"pthread_rwlock_clockrdlock";
    RWLOCK_WRLOCK = c"pthread_rwlock_wrlock";
    RWLOCK_TRYWRLOCK = c"pthread_rwlock_trywrlock";
    RWLOCK_TIMEDWRLOCK = c"pthread_rwlock_timedwrlock";
    RWLOCK_CLOCKWRLOCK = c"pthread_rwlock_clockwrlock";
    RWLOCK_UNLOCK = c"pthread_rwlock_unlock";
    SPIN_INIT = c"pthread_spin_init";
    SPIN_DESTROY = c"pthread_spin_destroy";
    SPIN_LOCK = c"pthread_spin_lock";
    SPIN_TRYLOCK = c"pthread_spin_trylock";
    SPIN_UNLOCK = c"pthread_spin_unlock";
    MTX_INIT = c"mtx_init";
    MTX_DESTROY = c"mtx_destroy";
    MTX_LOCK = c"mtx_lock";
    MTX_TRYLOCK = c"mtx_trylock";
    MTX_TIMEDLOCK = c"mtx_timedlock";
    MTX_UNLOCK = c"mtx_unlock";
    CND_WAIT = c"cnd_wait";
    CND_TIMEDWAIT = c"cnd_timedwait";
    FORK_ALONE = c"_Fork";
}

/// A lock call tries first, so that it knows whether it waited. Not where libautolock.so follows with `AUTOLOCK_ALGORITHM`: its tries go past the chosen lock. There a mutex that looks free
/// is locked outright, and a wait that begins between look and lock is missed. Called once, after `start`.
pub fn try_first(is_fair: bool) {
    if !is_fair {
        MUTEX_FIRST.set(MUTEX_LOCK.get());
    }
}

/// Calls a function of the next object; `$missing` where none has it.
macro_rules! call_next {
    ($next:expr, fn($($type:ty),*) -> $result:ty, $missing:expr $(, $argument:expr)*) => {{
        let address = $next.get();
        if address.is_null() {
            $missing
        } else {
            // SAFETY: the next object's function of this name, which has this signature.
            let function = unsafe { core::mem::transmute::<*mut core::ffi::c_void, unsafe extern "C" fn($($type),*) -> $result>(address) };
            // SAFETY: the caller's own arguments.
            unsafe { function($($argument),*) }
        }
    }};
}
pub(crate) use call_next;

/// The same, of a function of the list above that returns an error number.
macro_rules! call {
    ($next:ident, fn($($type:ty),*) $(, $argument:expr)*) => {
        $crate::real::call_next!($crate::real::$next, fn($($type),*) -> core::ffi::c_int, libc::EINVAL $(, $argument)*)
    };
}
pub(crate) use call;
