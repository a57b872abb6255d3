//! Threads, and their counters for each lock.

use core::sync::atomic::Ordering::Relaxed;

use super::{Recorder, Room, System};
use crate::layout::{Entry, Lock, PLACES, Thread, control};

impl<S: System> Recorder<S> {
    /// A place for a thread, all zero but for its ids; none if there is no room (which is counted).
    #[must_use]
    pub fn thread(&self, tid: u32) -> Option<&'static Thread> {
        let thread = self.adding(tid, || {
            let free = &self.header().free_threads;
            let index = free.load(Relaxed);
            if let Some(thread) = self.capture.get::<Thread>(index) {
                free.store(thread.next_free.load(Relaxed), Relaxed);
                thread.tid.store(tid, Relaxed);
                return Some(thread);
            }
            let index = self.reserve::<Thread>(1, Room::Threads)?;
            let thread = self.capture.place::<Thread>(index)?;
            thread.index.store(index, Relaxed);
            thread.tid.store(tid, Relaxed);
            self.publish_item::<Thread>(index);
            Some(thread)
        });
        if thread.is_none() {
            self.header().dropped.threads.fetch_add(1, Relaxed);
        }
        thread
    }

    /// Adds an entry's counters to its lock's. By its thread.
    pub fn flush(&self, entry: &Entry) {
        if let Some(lock) = self.capture.get::<Lock>(entry.lock.load(Relaxed)) {
            let acquisitions = entry.acquisitions.load(Relaxed);
            if acquisitions != 0 {
                // To the reader's eye the sum is short for a moment, rather than too high.
                entry.acquisitions.store(0, Relaxed);
                lock.acquisitions.fetch_add(acquisitions, Relaxed);
            }
            let failed = entry.failed.load(Relaxed);
            if failed != 0 {
                entry.failed.store(0, Relaxed);
                lock.failed.fetch_add(u64::from(failed), Relaxed);
            }
        }
    }

    /// The thread has timed nothing yet.
    pub fn forget_timing(&self, thread: &Thread) {
        for number in [
            &thread.skip,
            &thread.interval,
            &thread.passed,
            &thread.credit,
        ] {
            number.store(0, Relaxed);
        }
        thread.sampled_ns.store(0, Relaxed);
    }

    /// A thread has ended: its counters go to the locks, its place to the next thread. By that thread.
    pub fn thread_ended(&self, thread: &'static Thread) {
        for entry in &thread.entries {
            self.flush(entry);
            entry.key.store(0, Relaxed);
        }
        let held = thread.held_count.swap(0, Relaxed);
        if held != 0 {
            let dropped = &self.header().dropped.holds;
            dropped.fetch_add(u64::from(held), Relaxed);
        }
        for stack in &thread.stacks {
            stack.caller.store(0, Relaxed);
        }
        thread.waiting_for.store(0, Relaxed);
        thread.in_cond.store(0, Relaxed);
        self.forget_timing(thread);
        let tid = thread.tid.swap(0, Relaxed);
        let _ = self.adding(tid, || {
            let free = &self.header().free_threads;
            thread.next_free.store(free.load(Relaxed), Relaxed);
            free.store(thread.index.load(Relaxed), Relaxed);
            Some(())
        });
    }

    /// The entry of a key in a thread, if it has one at the key's own places.
    #[inline]
    #[must_use]
    pub fn entry(thread: &Thread, key: u64) -> Option<&Entry> {
        let [first, second] = places(key);
        let entry = &thread.entries[first];
        if entry.key.load(Relaxed) == key {
            return Some(entry);
        }
        let entry = &thread.entries[second];
        (entry.key.load(Relaxed) == key).then_some(entry)
    }

    /// The same, wherever it is.
    #[must_use]
    pub fn any_entry(thread: &Thread, key: u64) -> Option<&Entry> {
        let last = &thread.entries[PLACES];
        Self::entry(thread, key).or_else(|| (last.key.load(Relaxed) == key).then_some(last))
    }

    /// An entry for a key that has none, in place of another one. By its thread.
    ///
    /// Where both places are taken it is the last entry, which the next such lock takes over: of many locks that are used by turns none pushes the others out.
    /// But for one in 16 (`chance` is a random number) and those that somebody has waited for, whose entries others look for.
    #[must_use]
    pub fn new_entry<'a>(
        &self,
        thread: &'a Thread,
        key: u64,
        lock: u32,
        chance: u32,
    ) -> Option<&'a Entry> {
        let record = self.capture.get::<Lock>(lock)?;
        let is_sought =
            record.control.load(Relaxed) & control::HOT != 0 || chance.is_multiple_of(16);
        let [first, second] = places(key);
        let at = if thread.entries[first].key.load(Relaxed) == 0 {
            first
        } else if thread.entries[second].key.load(Relaxed) == 0 {
            second
        } else if !is_sought {
            PLACES
        } else {
            let of_first = thread.entries[first].acquisitions.load(Relaxed);
            let of_second = thread.entries[second].acquisitions.load(Relaxed);
            if of_first <= of_second { first } else { second }
        };
        let entry = &thread.entries[at];
        self.flush(entry);
        if entry.key.swap(0, Relaxed) != 0 {
            let stands_for = entry.interval.load(Relaxed) >> 16;
            let untimed = stands_for.saturating_sub(entry.skip.load(Relaxed));
            let passed = thread.passed.load(Relaxed).saturating_add(untimed);
            thread.passed.store(passed, Relaxed);
        }
        self.point(entry, lock);
        entry.skip.store(1, Relaxed);
        entry.interval.store(1 << 16 | 1, Relaxed);
        entry.caller.store(0, Relaxed);
        entry.stack_pointer.store(0, Relaxed);
        entry.sampled_ns.store(0, Relaxed);
        entry.key.store(key, Relaxed);
        Some(entry)
    }

    /// Makes an entry, whose counters were flushed, one for another lock. By its thread.
    pub fn point(&self, entry: &Entry, lock: u32) {
        let Some(record) = self.capture.get::<Lock>(lock) else {
            return;
        };
        let place = core::ptr::from_ref(record).addr() - core::ptr::from_ref(self.header()).addr();
        entry.lock.store(lock, Relaxed);
        entry.place.store((place / 64) as u32, Relaxed);
        entry.control.store(record.control.load(Relaxed), Relaxed);
    }
}

/// The two places of a key's entry.
#[inline]
fn places(key: u64) -> [usize; 2] {
    let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize & (PLACES - 1);
    [hash, hash ^ 1]
}
