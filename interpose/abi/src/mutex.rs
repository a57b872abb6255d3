//! The mirror of glibc's `pthread_mutex_t` on x86-64 (glibc 2.36, `bits/struct_mutex.h`).
//!
//! glibc keeps the first five fields; ours mean exactly the same. `__spins` and `__elision` stay glibc's.
//! The last 16 bytes (`__list`) belong to robust and priority-inheriting mutexes, which we delegate whole; in
//! the kinds that we handle every static initialiser leaves them zero and glibc never touches them, so the
//! algorithm keeps its own state there. Zero is a valid state for all of it.
//!
//! Locking key, in the manner of FreeBSD's `struct` comments:
//! (w) the lock word's protocol, see [`crate::word`]; (h) written by the holder only;
//! (s) written by waiters with compare-exchange or exchange; (p) a hint, any value is legal.

use crate::sync::{AtomicU16, AtomicU32, hint};

/// glibc's mutex, with our state in `__list`.
#[repr(C)]
#[derive(Debug)]
pub struct Mutex {
    /// (w) `__lock`.
    pub word: AtomicU32,
    /// (h) `__count`: depth of a recursive mutex.
    pub count: hint::AtomicU32,
    /// (h) `__owner`: thread id of the holder; 0 when free. Others read it only to compare it with their own.
    pub owner: hint::AtomicI32,
    /// (h) `__nusers`: 1 while held; glibc's destroy looks at it.
    pub nusers: hint::AtomicU32,
    /// `__kind`: constant after initialisation.
    pub kind: hint::AtomicU32,
    /// `__spins` and `__elision`: glibc's, not ours.
    pub glibc_spins: hint::AtomicU32,
    /// (h) Acquisitions so far, modulo 2^32; waiters read it to see whether the lock moves. (p)
    pub seq: hint::AtomicU32,
    /// (h) Where the holder took the lock: what the on-CPU source needs beside its thread id, a CPU or a slot of the kernel's. (p)
    pub holder_place: hint::AtomicU16,
    /// (s) How many of our waiters sleep at the gate or are about to; see `autolock_lock::seat`.
    pub parked: AtomicU16,
    /// (s) The attendant's seat, and the gate on which the other waiters sleep; see `autolock_lock::seat`.
    pub seat: AtomicU32,
    /// (p) What the policy learned about this mutex.
    pub policy: hint::AtomicU32,
}

#[cfg(not(loom))]
const _: () = {
    use core::mem::{align_of, offset_of, size_of};
    assert!(
        size_of::<Mutex>() == 40,
        "pthread_mutex_t has 40 bytes on x86-64"
    );
    assert!(align_of::<Mutex>() <= 8);
    assert!(offset_of!(Mutex, word) == 0);
    assert!(offset_of!(Mutex, count) == 4);
    assert!(offset_of!(Mutex, owner) == 8);
    assert!(offset_of!(Mutex, nusers) == 12);
    assert!(offset_of!(Mutex, kind) == 16);
    assert!(offset_of!(Mutex, glibc_spins) == 20);
    assert!(offset_of!(Mutex, seq) == 24, "our state starts at __list");
};

impl Mutex {
    /// A free private mutex of this kind, as glibc's static initialisers make it.
    #[must_use]
    pub fn new(kind: u32) -> Self {
        Self {
            word: AtomicU32::new(crate::word::UNLOCKED),
            count: hint::AtomicU32::new(0),
            owner: hint::AtomicI32::new(0),
            nusers: hint::AtomicU32::new(0),
            kind: hint::AtomicU32::new(kind),
            glibc_spins: hint::AtomicU32::new(0),
            seq: hint::AtomicU32::new(0),
            holder_place: hint::AtomicU16::new(0),
            parked: AtomicU16::new(0),
            seat: AtomicU32::new(0),
            policy: hint::AtomicU32::new(0),
        }
    }
}
