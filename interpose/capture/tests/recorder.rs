//! The recorder's promises, with many threads at once and without enough memory.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use autolock_capture::layout::{
    CHUNK, Lock, Module, Site, Stack, Thread, control, histogram, kind, site,
};
use autolock_capture::recorder::{NewModule, System};
use autolock_capture::{Capture, Recorder};

/// Memory without limit, and threads that yield.
struct Plenty;

impl System for Plenty {
    fn back(_: NonNull<u8>, _: usize) -> bool {
        true
    }

    fn relax(_: u32) -> bool {
        std::thread::yield_now();
        true
    }
}

/// No patience.
struct Impatient;

impl System for Impatient {
    fn back(_: NonNull<u8>, _: usize) -> bool {
        true
    }

    fn relax(_: u32) -> bool {
        false
    }
}

/// A mapping, freed at the end.
struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(chunks: usize) -> Self {
        let layout = Layout::from_size_align(chunks * CHUNK, 4096).expect("a layout");
        // SAFETY: not of size 0.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        Self { base, layout }
    }

    fn recorder<S: System>(&self) -> Recorder<S> {
        // SAFETY: fresh zeroed memory, which outlives the recorder: the tests keep `self` until they end.
        unsafe { Recorder::begin(self.base, self.layout.size()) }.expect("room for the header")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

const ME: u32 = 1;

fn sum_of(capture: Capture, of: impl Fn(&Site) -> u64) -> u64 {
    capture.all::<Site>().map(|(_, site)| of(site)).sum()
}

#[test]
fn what_is_added_twice_is_there_once() {
    let memory = Memory::new(64);
    let recorder = memory.recorder::<Plenty>();
    let module = NewModule {
        base: 0x1000,
        start: 0x1000,
        end: 0x9000,
        path: b"/usr/bin/program",
        build_id: &[1, 2, 3],
    };
    assert_eq!(recorder.module(ME, &module), recorder.module(ME, &module));
    let other = NewModule {
        path: b"/usr/bin/another",
        ..module
    };
    assert_ne!(recorder.module(ME, &module), recorder.module(ME, &other));
    let stack = recorder.stack(ME, &[1, 2, 3]);
    assert_ne!(stack, 0);
    assert_eq!(recorder.stack(ME, &[1, 2, 3]), stack);
    assert_ne!(recorder.stack(ME, &[1, 2]), stack);
    assert_ne!(recorder.stack(ME, &[3, 2, 1]), stack);
    assert_eq!(recorder.stack(ME, &[]), 0);
    let lock = recorder.lock(ME, 0x40, kind::MUTEX, 0, stack);
    assert_eq!(recorder.lock(ME, 0x40, kind::MUTEX, 0, stack), lock);
    assert_eq!(recorder.find_lock(0x40), Some(lock));
    assert_eq!(recorder.find_lock(0x41), None, "readers are another lock");
    assert_eq!(recorder.capture().all::<Module>().count(), 2);
}

#[test]
fn threads_that_add_the_same_things_at_once_add_them_once_and_lose_nothing() {
    const THREADS: u32 = 8;
    const ROUNDS: u64 = 2000;
    let memory = Memory::new(1024);
    let recorder = memory.recorder::<Plenty>();
    let capture = recorder.capture();
    let is_done = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    let together = Barrier::new(THREADS as usize);
    let together = &together;
    std::thread::scope(|scope| {
        // A reader: whatever is in a table is complete.
        scope.spawn(|| {
            while !is_done.load(Relaxed) {
                for (_, lock) in capture.all::<Lock>() {
                    assert_ne!(lock.key.load(Relaxed), 0, "a lock before it was filled in");
                    seen.fetch_add(1, Relaxed);
                }
                for (_, stack) in capture.all::<Stack>() {
                    assert_ne!(stack.len.load(Relaxed), 0);
                    let last = stack.first.load(Relaxed) + stack.len.load(Relaxed) - 1;
                    let frame = capture.get::<AtomicU64>(last).expect("a frame");
                    assert_ne!(frame.load(Relaxed), 0);
                }
            }
        });
        let workers: Vec<_> = (1..=THREADS)
            .map(|tid| {
                scope.spawn(move || {
                    let thread = recorder.thread(tid).expect("room");
                    for round in 0..ROUNDS {
                        together.wait();
                        let stack = recorder.stack(tid, &[round + 1, 7]);
                        let lock = recorder.lock(tid, (round + 1) << 3, kind::MUTEX, 0, stack);
                        assert_ne!(lock, 0);
                        recorder.add(tid, [lock, site::WAIT, stack, 0], 10, 1);
                        recorder.count(tid, lock, histogram::WAIT, round << 8, 1);
                        let key = (round + 1) << 3;
                        let entry = recorder
                            .new_entry(thread, key, lock, key as u32)
                            .expect("an entry");
                        entry.acquisitions.fetch_add(3, Relaxed);
                    }
                    recorder.thread_ended(thread);
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("a worker");
        }
        is_done.store(true, Relaxed);
    });
    let keys: HashSet<_> = capture
        .all::<Lock>()
        .map(|(_, lock)| lock.key.load(Relaxed))
        .collect();
    assert_eq!(keys.len(), ROUNDS as usize);
    assert_eq!(capture.all::<Lock>().count(), ROUNDS as usize, "no doubles");
    assert_eq!(capture.all::<Stack>().count(), ROUNDS as usize);
    assert_eq!(capture.all::<Site>().count(), ROUNDS as usize);
    let all = u64::from(THREADS) * ROUNDS;
    assert_eq!(sum_of(capture, |site| site.count.load(Relaxed)), all);
    assert_eq!(
        sum_of(capture, |site| site.total_ns.load(Relaxed)),
        10 * all
    );
    let acquisitions = capture
        .all::<Lock>()
        .map(|(_, lock)| lock.acquisitions.load(Relaxed));
    assert_eq!(acquisitions.sum::<u64>(), 3 * all);
    let dropped = &capture.header().dropped;
    assert_eq!(dropped.values.load(Relaxed), 0);
    assert!(capture.len::<Thread>() - 1 <= THREADS);
}

#[test]
fn a_destroyed_locks_record_serves_the_next_of_the_same_first_use() {
    let memory = Memory::new(64);
    let recorder = memory.recorder::<Plenty>();
    let stack = recorder.stack(ME, &[1]);
    let other = recorder.stack(ME, &[2]);
    let record = |lock| recorder.capture().get::<Lock>(lock).expect("a lock");
    let first = recorder.lock(ME, 0x100, kind::MUTEX, 0, stack);
    let before = record(first).control.load(Relaxed);
    recorder.destroyed(ME, 0x100);
    assert_eq!(recorder.find_lock(0x100), None);
    // Not another kind, nor another first use.
    let spin = recorder.lock(ME, 0x300, kind::SPIN, 0, other);
    assert_ne!(spin, first);
    let next = recorder.lock(ME, 0x200, kind::MUTEX, 0, stack);
    assert_eq!(next, first);
    assert_eq!(record(next).incarnations.load(Relaxed), 2);
    assert_eq!(recorder.find_lock(0x200), Some(next));
    assert_eq!(recorder.find_lock(0x100), None);
    let after = record(next).control.load(Relaxed);
    assert_ne!(
        after & !(control::GENERATION - 1),
        before & !(control::GENERATION - 1),
        "old entries must notice"
    );
    assert_eq!(after & control::DEAD, 0);
    // A static lock is found again by its place alone.
    let fixed = recorder.lock(ME, 0x400, kind::MUTEX, 77, stack);
    recorder.destroyed(ME, 0x400);
    assert_eq!(recorder.lock(ME, 0x400, kind::MUTEX, 77, other), fixed);
    // A lock of another first use at the address of a destroyed one is another lock, and the old one is still free for its own.
    recorder.destroyed(ME, 0x200);
    let another = recorder.lock(ME, 0x200, kind::MUTEX, 0, other);
    assert_ne!(another, first);
    assert_eq!(recorder.find_lock(0x200), Some(another));
    assert_eq!(recorder.lock(ME, 0x500, kind::MUTEX, 0, stack), first);
    assert_eq!(recorder.find_lock(0x200), Some(another));
}

#[test]
fn a_million_short_lived_locks_need_one_record() {
    let memory = Memory::new(64);
    let recorder = memory.recorder::<Plenty>();
    let stack = recorder.stack(ME, &[1]);
    for round in 0..1_000_000_u64 {
        let key = 0x1000 + 64 * (round % 5000);
        let lock = recorder.lock(ME, key, kind::MUTEX, 0, stack);
        assert_ne!(lock, 0);
        recorder.destroyed(ME, key);
    }
    assert_eq!(recorder.capture().all::<Lock>().count(), 1);
}

#[test]
fn without_memory_locks_share_and_what_is_lost_is_counted() {
    let memory = Memory::new(16);
    let recorder = memory.recorder::<Plenty>();
    let capture = recorder.capture();
    let stack = recorder.stack(ME, &[1]);
    let mut locks = HashSet::new();
    for key in 1..20_000_u64 {
        let lock = recorder.lock(ME, key << 3, kind::MUTEX, 0, stack);
        assert_ne!(lock, 0, "the last ones share");
        locks.insert(lock);
        recorder.add(ME, [lock, site::HOLD, stack, 0], 100, 1);
        recorder.count(ME, lock, histogram::HOLD, key, 1);
    }
    assert!(locks.len() < 19_000);
    assert!(capture.header().chunks_used.load(Relaxed) <= capture.capacity());
    let dropped = &capture.header().dropped;
    let sites = sum_of(capture, |site| site.count.load(Relaxed));
    assert_eq!(sites + dropped.sites.load(Relaxed), 19_999);
    // Threads find room all the same, until there is none at all.
    assert!(recorder.thread(2).is_some());
    for tid in 0..100 {
        let _ = recorder.thread(tid + 2);
    }
    assert_ne!(dropped.threads.load(Relaxed), 0);
}

#[test]
fn a_signal_handler_inside_an_addition_does_not_wait_for_itself() {
    let memory = Memory::new(64);
    let recorder = memory.recorder::<Impatient>();
    recorder.capture().header().writer.store(ME, Relaxed);
    assert_eq!(recorder.stack(ME, &[1]), 0);
    assert_eq!(recorder.lock(ME, 0x40, kind::MUTEX, 0, 0), 0);
    assert!(recorder.thread(ME).is_none());
    // Nor does another thread wait for ever.
    assert_eq!(recorder.stack(ME + 1, &[1]), 0);
    recorder.add(ME, [1, site::WAIT, 1, 1], 1, 1);
    recorder.count(ME, 1, histogram::WAIT, 1, 1);
    let dropped = &recorder.capture().header().dropped;
    let all = [
        &dropped.stacks,
        &dropped.threads,
        &dropped.sites,
        &dropped.values,
    ];
    assert_eq!(all.map(|counter| counter.load(Relaxed)), [2, 1, 1, 1]);
    recorder.capture().header().writer.store(0, Relaxed);
    assert_ne!(recorder.stack(ME, &[1]), 0);
}

#[test]
fn a_threads_place_serves_the_next_thread_with_nothing_left_in_it() {
    let memory = Memory::new(64);
    let recorder = memory.recorder::<Plenty>();
    let lock = recorder.lock(ME, 0x40, kind::MUTEX, 9, 0);
    let thread = recorder.thread(7).expect("room");
    let entry = recorder.new_entry(thread, 0x40, lock, 1).expect("an entry");
    entry.acquisitions.store(5, Relaxed);
    entry.failed.store(2, Relaxed);
    assert!(Recorder::<Plenty>::entry(thread, 0x40).is_some());
    recorder.thread_ended(thread);
    let again = recorder.thread(8).expect("room");
    assert_eq!(again.index.load(Relaxed), thread.index.load(Relaxed));
    assert_eq!(again.tid.load(Relaxed), 8);
    assert!(Recorder::<Plenty>::entry(again, 0x40).is_none());
    let record = recorder.capture().get::<Lock>(lock).expect("the lock");
    assert_eq!(record.acquisitions.load(Relaxed), 5);
    assert_eq!(record.failed.load(Relaxed), 2);
    let other = recorder.thread(9).expect("room");
    assert_ne!(other.index.load(Relaxed), again.index.load(Relaxed));
}

#[test]
fn entries_that_give_way_to_others_keep_every_count() {
    let memory = Memory::new(256);
    let recorder = memory.recorder::<Plenty>();
    let thread = recorder.thread(ME).expect("room");
    for round in 0..3_u64 {
        for key in 1..2000_u64 {
            let key = key * 40;
            let lock = recorder.lock(ME, key, kind::MUTEX, key, 0);
            let entry = Recorder::<Plenty>::any_entry(thread, key)
                .or_else(|| recorder.new_entry(thread, key, lock, key as u32))
                .expect("an entry");
            entry.acquisitions.fetch_add(1 + round, Relaxed);
        }
    }
    recorder.thread_ended(thread);
    for (_, lock) in recorder.capture().all::<Lock>() {
        assert_eq!(lock.acquisitions.load(Relaxed), 6);
    }
}

#[test]
fn not_even_a_header_without_memory() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    struct Nothing;
    impl System for Nothing {
        fn back(_: NonNull<u8>, _: usize) -> bool {
            CALLS.fetch_add(1, Relaxed);
            false
        }
        fn relax(_: u32) -> bool {
            false
        }
    }
    let memory = Memory::new(64);
    // SAFETY: fresh zeroed memory that stays.
    assert!(unsafe { Recorder::<Nothing>::begin(memory.base, 64 * CHUNK) }.is_none());
    // SAFETY: as above; too small.
    assert!(unsafe { Recorder::<Plenty>::begin(memory.base, 2 * CHUNK) }.is_none());
    assert_eq!(CALLS.load(Relaxed), 1);
}
