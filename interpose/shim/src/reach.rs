//! Whether libc's condition waits release and re-acquire the mutex through the functions that we export, or past them, as stock glibc's do. `glibc-patches/` is
//! about that.
//!
//! Asked of the wait function itself, at start: it is called with a mutex whose kind does not exist, and with a deadline that has passed. Any libc gives up at once,
//! since the unlock fails; the question is whose unlock it called.
//!
//! May touch: nothing that outlives the call. Nobody else may wait meanwhile: it is for the preload's constructor.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};

use autolock_abi::Mutex;
use libc::{pthread_cond_t, pthread_mutex_t, timespec};

use crate::real::Next;

/// What `__kind` is after `pthread_mutex_destroy`. No libc locks such a mutex, and ours leave it to libc.
const NO_KIND: u32 = u32::MAX;

static ASKED: AtomicPtr<pthread_mutex_t> = AtomicPtr::new(core::ptr::null_mut());
static ANSWER: AtomicBool = AtomicBool::new(false);
static UNLOCK: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

type Unlock = unsafe extern "C" fn(*mut pthread_mutex_t) -> c_int;
type TimedWait =
    unsafe extern "C" fn(*mut pthread_cond_t, *mut pthread_mutex_t, *const timespec) -> c_int;

/// Stands in for the next unlock while the question is asked.
unsafe extern "C" fn notice(mutex: *mut pthread_mutex_t) -> c_int {
    if mutex == ASKED.load(Relaxed) {
        ANSWER.store(true, Relaxed);
    }
    // SAFETY: stored by `is_called_by`, which has looked that there is one.
    let unlock = unsafe { core::mem::transmute::<*mut c_void, Unlock>(UNLOCK.load(Relaxed)) };
    // SAFETY: the caller's own argument.
    unsafe { unlock(mutex) }
}

/// Whether the mutex functions that this preload exports are called by `wait`: `pthread_cond_timedwait` or `cnd_timedwait` of the next object. `unlock` is the next unlock, which
/// ours of that family calls for a mutex of no kind. False where either does not exist.
#[must_use]
pub fn is_called_by(wait: &Next, unlock: &Next) -> bool {
    let past = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let (wait, next) = (wait.get(), unlock.get());
    if wait.is_null() || next.is_null() {
        return false;
    }
    let mut cond = libc::PTHREAD_COND_INITIALIZER;
    let mut mutex = Mutex::new(NO_KIND);
    let mutex: *mut pthread_mutex_t = (&raw mut mutex).cast();
    ASKED.store(mutex, Relaxed);
    ANSWER.store(false, Relaxed);
    UNLOCK.store(next, Relaxed);
    unlock.set(notice as Unlock as *mut c_void);
    // SAFETY: a function of this name, which has this signature.
    let wait = unsafe { core::mem::transmute::<*mut c_void, TimedWait>(wait) };
    // SAFETY: objects of these types; what is wrong with the mutex is what libc checks for.
    unsafe { wait(&raw mut cond, mutex, &raw const past) };
    unlock.set(next);
    ASKED.store(core::ptr::null_mut(), Relaxed);
    ANSWER.load(Relaxed)
}
