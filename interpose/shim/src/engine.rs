//! What runs under the kinds and checks of [`crate::mutex`]: the default algorithm, or a chosen one. Two types rather than a choice at
//! each call: the code for kinds is compiled once for each, and which of the two a process runs is decided once, at start.

use autolock_abi::{Mutex, kind};
use autolock_lock::{mutex, outer, platform::Deadline};

use crate::{linux::Linux, slots::Slots};

/// A mutex algorithm on glibc's word, without kinds and checks.
pub(crate) trait Engine {
    fn lock(mutex: &Mutex, kind: u32);
    fn lock_until(mutex: &Mutex, kind: u32, deadline: &Deadline) -> bool;
    fn try_lock(mutex: &Mutex, kind: u32) -> bool;
    fn unlock(mutex: &Mutex, kind: u32);
}

/// The default algorithm.
pub(crate) struct Default;

impl Engine for Default {
    #[inline]
    fn lock(mutex: &Mutex, kind: u32) {
        mutex::lock::<Linux>(mutex, kind);
    }

    #[inline]
    fn lock_until(mutex: &Mutex, kind: u32, deadline: &Deadline) -> bool {
        mutex::lock_until::<Linux>(mutex, kind, deadline)
    }

    #[inline]
    fn try_lock(mutex: &Mutex, kind: u32) -> bool {
        mutex::try_lock::<Linux>(mutex, kind)
    }

    #[inline]
    fn unlock(mutex: &Mutex, kind: u32) {
        mutex::unlock::<Linux>(mutex, kind);
    }
}

/// The chosen algorithm; for process-shared mutexes the default, since a slot is one process's own.
pub(crate) struct Chosen;

impl Engine for Chosen {
    fn lock(mutex: &Mutex, kind: u32) {
        if kind::is_shared(kind) {
            Default::lock(mutex, kind);
        } else {
            outer::lock::<Linux, Slots>(mutex);
        }
    }

    fn lock_until(mutex: &Mutex, kind: u32, deadline: &Deadline) -> bool {
        if kind::is_shared(kind) {
            Default::lock_until(mutex, kind, deadline)
        } else {
            outer::lock_until::<Linux>(mutex, deadline)
        }
    }

    fn try_lock(mutex: &Mutex, kind: u32) -> bool {
        if kind::is_shared(kind) {
            Default::try_lock(mutex, kind)
        } else {
            outer::try_lock::<Linux, Slots>(mutex)
        }
    }

    fn unlock(mutex: &Mutex, kind: u32) {
        if kind::is_shared(kind) {
            Default::unlock(mutex, kind);
        } else {
            outer::unlock::<Linux, Slots>(mutex);
        }
    }
}
