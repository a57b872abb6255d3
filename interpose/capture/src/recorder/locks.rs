//! Locks: found by key, made, destroyed, revived.

use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{LONGEST_CHAIN, Recorder, Room, System, mix};
use crate::layout::{LOCK_BUCKETS, Lock, Stack, control};

impl<S: System> Recorder<S> {
    fn lock_bucket(&self, key: u64) -> Option<&'static AtomicU32> {
        self.bucket(&self.header().lock_buckets, LOCK_BUCKETS, mix(key))
    }

    /// Asks for the cache line of the lock at this key, which will be written soon.
    #[inline]
    pub fn prefetch_lock(&self, key: u64) {
        let first = self.lock_bucket(key).map_or(0, |first| first.load(Acquire));
        if let Some(lock) = self.capture.get::<Lock>(first) {
            prefetch(core::ptr::from_ref(lock).addr());
        }
    }

    /// The lock at this key that is not destroyed.
    #[must_use]
    pub fn find_lock(&self, key: u64) -> Option<u32> {
        self.find_lock_that(key, |lock| lock.control.load(Relaxed) & control::DEAD == 0)
    }

    fn find_lock_that(&self, key: u64, wanted: impl Fn(&Lock) -> bool) -> Option<u32> {
        let mut index = self.lock_bucket(key)?.load(Acquire);
        for _ in 0..LONGEST_CHAIN {
            let lock = self.capture.get::<Lock>(index)?;
            if lock.key.load(Relaxed) == key && wanted(lock) {
                return Some(index);
            }
            // Acquire: another thread may have moved the lock into another chain; then the search ends somewhere, finds nothing, and is done again by the thread that adds.
            index = lock.next.load(Acquire);
        }
        None
    }

    /// The lock at this key: the one that is there, one that was destroyed here or, away from modules, after the same first use, or a new one. 0 if there is no room.
    ///
    /// `place` is its frame if it stands in a module, else 0.
    pub fn lock(&self, tid: u32, key: u64, kind: u32, place: u64, first_use: u32) -> u32 {
        self.adding(tid, || {
            if let Some(index) = self.find_lock(key) {
                return Some(index);
            }
            let same = |lock: &Lock| {
                lock.control.load(Relaxed) & control::DEAD != 0
                    && lock.kind.load(Relaxed) == kind
                    && (place != 0 || lock.first_use.load(Relaxed) == first_use)
            };
            if let Some(index) = self.find_lock_that(key, same) {
                return self.revive(index);
            }
            let stack = self.capture.get::<Stack>(first_use);
            if let Some(stack) = stack {
                if place == 0
                    && let Some(index) = self.take_destroyed(stack, kind)
                {
                    self.move_lock(index, key)?;
                    return self.revive(index);
                }
                if !self.has_room(Room::Locks)
                    && let Some(lock) = self.capture.get::<Lock>(stack.shared_lock.load(Relaxed))
                    && lock.kind.load(Relaxed) == kind
                {
                    return Some(stack.shared_lock.load(Relaxed));
                }
            }
            let index = self.reserve::<Lock>(1, Room::Rest)?;
            let lock = self.capture.place::<Lock>(index)?;
            let bucket = self.lock_bucket(key)?;
            lock.key.store(key, Relaxed);
            lock.kind.store(kind, Relaxed);
            lock.place.store(place, Relaxed);
            lock.first_use.store(first_use, Relaxed);
            lock.incarnations.store(1, Relaxed);
            // Not 0, so that an entry that was never filled in does not look right.
            lock.control.store(control::GENERATION, Relaxed);
            lock.next.store(bucket.load(Relaxed), Relaxed);
            self.publish_item::<Lock>(index);
            bucket.store(index, Release);
            if let Some(stack) = stack {
                stack.shared_lock.store(index, Relaxed);
            }
            Some(index)
        })
        .unwrap_or(0)
    }

    fn revive(&self, index: u32) -> Option<u32> {
        let lock = self.capture.get::<Lock>(index)?;
        lock.incarnations.fetch_add(1, Relaxed);
        lock.control.fetch_and(!control::DEAD, Relaxed);
        Some(index)
    }

    /// The first of a stack's destroyed locks that is still destroyed. By the thread that adds.
    fn take_destroyed(&self, stack: &Stack, kind: u32) -> Option<u32> {
        for _ in 0..LONGEST_CHAIN {
            let index = stack.free_lock.load(Relaxed);
            let lock = self.capture.get::<Lock>(index)?;
            stack.free_lock.store(lock.next_free.load(Relaxed), Relaxed);
            lock.listed.store(0, Relaxed);
            if lock.control.load(Relaxed) & control::DEAD != 0 && lock.kind.load(Relaxed) == kind {
                return Some(index);
            }
        }
        None
    }

    /// Puts a lock into another chain. By the thread that adds.
    fn move_lock(&self, index: u32, key: u64) -> Option<()> {
        let lock = self.capture.get::<Lock>(index)?;
        let mut link = self.lock_bucket(lock.key.load(Relaxed))?;
        for _ in 0..LONGEST_CHAIN {
            let at = link.load(Relaxed);
            if at == index {
                link.store(lock.next.load(Relaxed), Release);
                break;
            }
            link = &self.capture.get::<Lock>(at)?.next;
        }
        let bucket = self.lock_bucket(key)?;
        lock.key.store(key, Relaxed);
        lock.next.store(bucket.load(Relaxed), Release);
        bucket.store(index, Release);
        Some(())
    }

    /// The lock at this key is destroyed, if there is one: its record is for the next one here, or of the same first use.
    pub fn destroyed(&self, tid: u32, key: u64) {
        self.adding(tid, || {
            let index = self.find_lock(key)?;
            let lock = self.capture.get::<Lock>(index)?;
            if lock.key.load(Relaxed) != key {
                return None; // One that stands for many.
            }
            let next = (lock.control.load(Relaxed) & !(control::GENERATION - 1))
                .wrapping_add(control::GENERATION);
            let hidden = lock.control.load(Relaxed) & control::HIDDEN;
            lock.control.store(next | control::DEAD | hidden, Relaxed);
            let stack = self.capture.get::<Stack>(lock.first_use.load(Relaxed));
            if let Some(stack) = stack
                && lock.place.load(Relaxed) == 0
                && lock.listed.load(Relaxed) == 0
            {
                lock.listed.store(1, Relaxed);
                lock.next_free.store(stack.free_lock.load(Relaxed), Relaxed);
                stack.free_lock.store(index, Relaxed);
            }
            Some(())
        });
    }

    // Sites and histograms.
}

/// Asks for the cache line at an address, to write to it.
#[inline]
pub fn prefetch(address: usize) {
    use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    // SAFETY: a hint, which faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(core::ptr::without_provenance(address)) };
}
