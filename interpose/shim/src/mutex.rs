//! The `pthread_mutex_*` functions: kinds, ownership checks, error numbers, delegation.
//!
//! Kinds and checks are the same over any `Engine`: the default algorithm, or a chosen one ([`crate::slots`]). The choice costs the default nothing: the
//! fast path compares the kind with a variable in place of a constant, `FAST_KINDS`, and what it does not serve it jumps to through a
//! pointer in place of an address, `Other`.
//!
//! Each function has the contract of its POSIX name; where POSIX leaves behaviour undefined it does what glibc 2.36 does. None sets `errno`.

use core::ffi::c_int;
use core::sync::atomic::{AtomicPtr, AtomicU8};

use autolock_abi::{
    Mutex,
    kind::{self, Dispatch},
    sync::Ordering::Relaxed,
    word,
};
use autolock_lock::platform::{Deadline, Platform};
use libc::{
    EAGAIN, EBUSY, EDEADLK, EINVAL, EPERM, ETIMEDOUT, clockid_t, pthread_mutex_t, timespec,
};

use crate::{
    engine::{Chosen, Default, Engine},
    linux::Linux,
    real::delegate,
    slots,
};

/// Kinds (their low byte) below this take the fast path: 1 for private NORMAL mutexes, 0 for none. Written once, by the preload's constructor.
static FAST_KINDS: AtomicU8 = AtomicU8::new(1);

/// Whether the fast path serves a mutex of this kind.
#[inline]
fn is_fast(kind: u32) -> bool {
    (kind as u8) < FAST_KINDS.load(Relaxed)
}

/// A function for what the fast path does not serve: every other kind, or, with an algorithm chosen, every kind.
struct Other(AtomicPtr<()>);

type KindFn = fn(&Mutex, u32) -> c_int;

impl Other {
    const fn new(function: KindFn) -> Self {
        Self(AtomicPtr::new(function as *mut ()))
    }

    fn set(&self, function: KindFn) {
        self.0.store(function as *mut (), Relaxed);
    }

    #[inline]
    fn call(&self, mirror: &Mutex, kind: u32) -> c_int {
        // SAFETY: only `new` and `set` store into it.
        let function = unsafe { core::mem::transmute::<*mut (), KindFn>(self.0.load(Relaxed)) };
        function(mirror, kind)
    }
}

static OTHER_LOCK: Other = Other::new(lock_kind::<Default>);
static OTHER_TRYLOCK: Other = Other::new(trylock_kind::<Default>);
static OTHER_UNLOCK: Other = Other::new(unlock_kind::<Default>);

/// From here on private mutexes run on the chosen algorithm. One that is held now is released by its word all the same.
pub fn interpose() {
    OTHER_LOCK.set(lock_kind::<Chosen>);
    OTHER_TRYLOCK.set(trylock_kind::<Chosen>);
    OTHER_UNLOCK.set(unlock_kind::<Chosen>);
    FAST_KINDS.store(0, Relaxed);
}

/// The way back from [`mirror`], for glibc.
fn mirrored(mutex: &Mutex) -> *mut pthread_mutex_t {
    core::ptr::from_ref(mutex).cast_mut().cast()
}

/// # Safety
/// - `mutex` points to a `pthread_mutex_t` that stays mapped while the reference is used.
#[inline]
pub(crate) unsafe fn mirror<'a>(mutex: *mut pthread_mutex_t) -> &'a Mutex {
    // SAFETY: same size and layout (asserted in `autolock_abi`), and all fields are atomics, so sharing is sound.
    unsafe { &*mutex.cast::<Mutex>() }
}

/// `pthread_mutex_lock`: 0, `EDEADLK`, `EAGAIN`, or what glibc says of a delegated kind.
///
/// # Safety
/// - As `pthread_mutex_lock`: `mutex` points to an initialised mutex that outlives the call.
#[inline]
pub unsafe fn lock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    let mirror = unsafe { mirror(mutex) };
    let kind = mirror.kind.load(Relaxed);
    if is_fast(kind) {
        Default::lock(mirror, kind::NORMAL);
        return 0;
    }
    OTHER_LOCK.call(mirror, kind)
}

// Below, what is not on the most frequent path is out of line, and nothing on it calls anything else than in tail position: the paths need no stack frame.

#[inline(never)]
fn lock_kind<E: Engine>(mirror: &Mutex, kind: u32) -> c_int {
    if !kind::checks_owner(kind) {
        if kind::dispatch(kind) == Dispatch::Delegate {
            return lock_delegated(mirror);
        }
        if !E::try_lock(mirror, kind) {
            return lock_plain_contended::<E>(mirror, kind);
        }
        return 0;
    }
    let me = Linux::tid_or_zero();
    if me <= 0 {
        return learn_tid(mirror, kind, lock_kind::<E>);
    }
    if mirror.owner.load(Relaxed) == me {
        return lock_again(mirror, kind);
    }
    if !E::try_lock(mirror, kind) {
        return lock_owned_contended::<E>(mirror, kind);
    }
    mirror.count.store(kind::first_count(kind), Relaxed);
    0
}

#[cold]
#[inline(never)]
fn lock_plain_contended<E: Engine>(mirror: &Mutex, kind: u32) -> c_int {
    E::lock(mirror, kind);
    zero()
}

#[cold]
#[inline(never)]
fn lock_owned_contended<E: Engine>(mirror: &Mutex, kind: u32) -> c_int {
    E::lock(mirror, kind);
    mirror.count.store(kind::first_count(kind), Relaxed);
    zero()
}

/// 0, without the compiler's knowledge: it would turn the jumps to those functions into calls that a stack frame on the fast path pays for.
fn zero() -> c_int {
    core::hint::black_box(0)
}

/// The owner's second acquisition.
fn lock_again(mirror: &Mutex, kind: u32) -> c_int {
    if kind::dispatch(kind) == Dispatch::ErrorCheck {
        return EDEADLK;
    }
    relock(mirror)
}

fn relock(mirror: &Mutex) -> c_int {
    let Some(depth) = mirror.count.load(Relaxed).checked_add(1) else {
        return EAGAIN;
    };
    mirror.count.store(depth, Relaxed);
    0
}

/// Where glibc's place of the thread id is unknown, a thread's first call asks the kernel.
#[cold]
#[inline(never)]
fn learn_tid(mirror: &Mutex, kind: u32, again: fn(&Mutex, u32) -> c_int) -> c_int {
    let _ = Linux::tid();
    again(mirror, kind)
}

#[cold]
#[inline(never)]
fn lock_delegated(mirror: &Mutex) -> c_int {
    delegate!(LOCK, fn(*mut pthread_mutex_t), mirrored(mirror))
}

/// `pthread_mutex_trylock`: 0, `EBUSY`, `EAGAIN`, or what glibc says of a delegated kind.
///
/// # Safety
/// - As `pthread_mutex_trylock`.
#[inline]
pub unsafe fn trylock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    let mirror = unsafe { mirror(mutex) };
    let kind = mirror.kind.load(Relaxed);
    if is_fast(kind) {
        return if Default::try_lock(mirror, kind::NORMAL) {
            0
        } else {
            EBUSY
        };
    }
    OTHER_TRYLOCK.call(mirror, kind)
}

#[inline(never)]
fn trylock_kind<E: Engine>(mirror: &Mutex, kind: u32) -> c_int {
    if kind::dispatch(kind) == Dispatch::Recursive {
        let me = Linux::tid_or_zero();
        if me <= 0 {
            return learn_tid(mirror, kind, trylock_kind::<E>);
        }
        if mirror.owner.load(Relaxed) == me {
            return relock(mirror);
        }
    } else if kind::dispatch(kind) == Dispatch::Delegate {
        return trylock_delegated(mirror);
    }
    if !E::try_lock(mirror, kind) {
        return EBUSY;
    }
    if kind::dispatch(kind) == Dispatch::Recursive {
        mirror.count.store(1, Relaxed);
    }
    0
}

#[cold]
#[inline(never)]
fn trylock_delegated(mirror: &Mutex) -> c_int {
    delegate!(TRYLOCK, fn(*mut pthread_mutex_t), mirrored(mirror))
}

/// `pthread_mutex_timedlock`: like [`clocklock`] on `CLOCK_REALTIME`.
///
/// # Safety
/// - As `pthread_mutex_timedlock`.
#[inline]
pub unsafe fn timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int {
    // SAFETY: the caller's contract.
    let mirror = unsafe { mirror(mutex) };
    let kind = mirror.kind.load(Relaxed);
    if kind::dispatch(kind) == Dispatch::Delegate {
        return delegate!(
            TIMEDLOCK,
            fn(*mut pthread_mutex_t, *const timespec),
            mutex,
            until
        );
    }
    // SAFETY: the caller's contract.
    unsafe { lock_until(mirror, kind, true, until) }
}

/// `pthread_mutex_clocklock`: 0, `ETIMEDOUT`, `EINVAL` (the clock is neither `CLOCK_REALTIME` nor `CLOCK_MONOTONIC`, or the mutex is held and
/// `tv_nsec` is out of range), `EDEADLK`, `EAGAIN`. Like glibc it reads the time only if the mutex is held.
///
/// # Safety
/// - As `pthread_mutex_clocklock`.
#[inline]
pub unsafe fn clocklock(
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's contract.
    let mirror = unsafe { mirror(mutex) };
    let kind = mirror.kind.load(Relaxed);
    if kind::dispatch(kind) == Dispatch::Delegate {
        return delegate!(
            CLOCKLOCK,
            fn(*mut pthread_mutex_t, clockid_t, *const timespec),
            mutex,
            clock,
            until
        );
    }
    if clock != libc::CLOCK_REALTIME && clock != libc::CLOCK_MONOTONIC {
        return EINVAL;
    }
    // SAFETY: the caller's contract.
    unsafe { lock_until(mirror, kind, clock == libc::CLOCK_REALTIME, until) }
}

/// # Safety
/// - `until` is valid if the mutex is held.
unsafe fn lock_until(mirror: &Mutex, kind: u32, realtime: bool, until: *const timespec) -> c_int {
    if slots::chosen() {
        // SAFETY: the caller's contract.
        unsafe { engine_lock_until::<Chosen>(mirror, kind, realtime, until) }
    } else {
        // SAFETY: the caller's contract.
        unsafe { engine_lock_until::<Default>(mirror, kind, realtime, until) }
    }
}

/// # Safety
/// - As [`lock_until`].
unsafe fn engine_lock_until<E: Engine>(
    mirror: &Mutex,
    kind: u32,
    realtime: bool,
    until: *const timespec,
) -> c_int {
    let dispatch = kind::dispatch(kind);
    match dispatch {
        Dispatch::Recursive | Dispatch::ErrorCheck
            if mirror.owner.load(Relaxed) == Linux::tid() =>
        {
            return lock_again(mirror, kind);
        }
        _ => {}
    }
    if !E::try_lock(mirror, kind) {
        // SAFETY: the caller's contract.
        let timespec { tv_sec, tv_nsec } = unsafe { until.read() };
        if !(0..1_000_000_000).contains(&tv_nsec) {
            return EINVAL;
        }
        let deadline = Deadline {
            realtime,
            sec: tv_sec,
            nsec: tv_nsec,
        };
        if !E::lock_until(mirror, kind, &deadline) {
            return ETIMEDOUT;
        }
    }
    if dispatch == Dispatch::Recursive {
        mirror.count.store(1, Relaxed);
    }
    0
}

/// `pthread_mutex_unlock`: 0, `EPERM`, or what glibc says of a delegated kind.
///
/// # Safety
/// - As `pthread_mutex_unlock`.
#[inline]
pub unsafe fn unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's contract.
    let mirror = unsafe { mirror(mutex) };
    let kind = mirror.kind.load(Relaxed);
    if is_fast(kind) {
        Default::unlock(mirror, kind::NORMAL);
        return 0;
    }
    OTHER_UNLOCK.call(mirror, kind)
}

#[inline(never)]
fn unlock_kind<E: Engine>(mirror: &Mutex, kind: u32) -> c_int {
    if kind::checks_owner(kind) {
        let me = Linux::tid_or_zero();
        if me <= 0 {
            return learn_tid(mirror, kind, unlock_kind::<E>);
        }
        if mirror.owner.load(Relaxed) != me {
            return EPERM;
        }
        if kind::dispatch(kind) == Dispatch::Recursive {
            let depth = mirror.count.load(Relaxed).wrapping_sub(1);
            mirror.count.store(depth, Relaxed);
            if depth != 0 {
                return 0;
            }
        } else if !word::is_held(mirror.word.load(Relaxed)) {
            return EPERM;
        }
    } else if kind::dispatch(kind) == Dispatch::Delegate {
        return unlock_delegated(mirror);
    }
    E::unlock(mirror, kind);
    0
}

#[cold]
#[inline(never)]
fn unlock_delegated(mirror: &Mutex) -> c_int {
    delegate!(UNLOCK, fn(*mut pthread_mutex_t), mirrored(mirror))
}
