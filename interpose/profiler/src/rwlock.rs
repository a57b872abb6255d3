//! `pthread_rwlock_*`: readers and writers are two locks in the record.
//!
//! Each has the contract and the result of its namesake.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use autolock_capture::layout::kind;
use libc::{clockid_t, timespec};

use crate::{
    mutex::{acquire, attempt, is_known, release, renew},
    recording::Primitive,
};

/// The start of glibc's `struct __pthread_rwlock_arch_t` (`struct_rwlock.h`, x86-64, since 2.26).
#[repr(C)]
struct Mirror {
    /// `__readers`: bit 0 set while a writer has or had it last; the number of readers from bit 3 on.
    readers: AtomicU32,
    writers: AtomicU32,
    writers_phase_futex: AtomicU32,
    writers_futex: AtomicU32,
    pad3: AtomicU32,
    pad4: AtomicU32,
    /// `__cur_writer`: thread id of the writer.
    writer: AtomicU32,
}

const _: () = assert!(offset_of!(Mirror, writer) == 24);

/// Readers in `readers`.
const READER_SHIFT: u32 = 3;

/// # Safety
/// - `object` is the address of a `pthread_rwlock_t`.
unsafe fn mirror<'a>(object: usize) -> &'a Mirror {
    // SAFETY: at least as large, and all fields are atomics.
    unsafe { &*core::ptr::with_exposed_provenance::<Mirror>(object) }
}

/// A read-write lock, acquired for reading.
#[derive(Debug)]
pub struct Readers;

/// The same, for writing.
#[derive(Debug)]
pub struct Writers;

impl Primitive for Readers {
    const TAG: u64 = 1;
    const EXCLUSIVE: bool = false;

    unsafe fn is_busy(object: usize) -> bool {
        // SAFETY: the caller's contract.
        unsafe { mirror(object) }.writer.load(Relaxed) != 0
    }

    unsafe fn kind(_: usize) -> u32 {
        kind::READERS
    }

    unsafe fn holder(object: usize) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { mirror(object) }.writer.load(Relaxed)
    }
}

impl Primitive for Writers {
    const HAS_READERS: bool = true;

    unsafe fn is_busy(object: usize) -> bool {
        // SAFETY: the caller's contract.
        let lock = unsafe { mirror(object) };
        lock.writer.load(Relaxed) != 0 || lock.readers.load(Relaxed) >> READER_SHIFT != 0
    }

    unsafe fn kind(_: usize) -> u32 {
        kind::WRITERS
    }

    unsafe fn holder(object: usize) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { mirror(object) }.writer.load(Relaxed)
    }
}

acquire!(
    /// `pthread_rwlock_rdlock`.
    rdlock(Readers) = RWLOCK_RDLOCK() or RWLOCK_TRYRDLOCK
);
acquire!(
    /// `pthread_rwlock_timedrdlock`.
    timedrdlock(Readers) = RWLOCK_TIMEDRDLOCK(until: *const timespec) or RWLOCK_TRYRDLOCK if is_valid(until)
);
acquire!(
    /// `pthread_rwlock_clockrdlock`.
    clockrdlock(Readers) = RWLOCK_CLOCKRDLOCK(clock: clockid_t, until: *const timespec) or RWLOCK_TRYRDLOCK if is_known(clock) && is_valid(until)
);
attempt!(
    /// `pthread_rwlock_tryrdlock`.
    tryrdlock(Readers) = RWLOCK_TRYRDLOCK
);
acquire!(
    /// `pthread_rwlock_wrlock`.
    wrlock(Writers) = RWLOCK_WRLOCK() or RWLOCK_TRYWRLOCK
);
acquire!(
    /// `pthread_rwlock_timedwrlock`.
    timedwrlock(Writers) = RWLOCK_TIMEDWRLOCK(until: *const timespec) or RWLOCK_TRYWRLOCK if is_valid(until)
);
acquire!(
    /// `pthread_rwlock_clockwrlock`.
    clockwrlock(Writers) = RWLOCK_CLOCKWRLOCK(clock: clockid_t, until: *const timespec) or RWLOCK_TRYWRLOCK if is_known(clock) && is_valid(until)
);
attempt!(
    /// `pthread_rwlock_trywrlock`.
    trywrlock(Writers) = RWLOCK_TRYWRLOCK
);
release!(
    /// `pthread_rwlock_unlock`.
    unlock(Writers) = RWLOCK_UNLOCK
);
renew!(
    /// `pthread_rwlock_init`.
    init(0, 1) = RWLOCK_INIT(attributes: *const libc::pthread_rwlockattr_t)
);
renew!(
    /// `pthread_rwlock_destroy`.
    destroy(0, 1) = RWLOCK_DESTROY()
);

/// Timed read-write locks complain of a bad time even if they are free.
fn is_valid(until: *const timespec) -> bool {
    // SAFETY: the caller's contract: a valid pointer.
    let ns = unsafe { (*until).tv_nsec };
    (0..1_000_000_000).contains(&ns)
}
