//! What the preload does to a capture.
//!
//! Looking things up takes no lock. Adding an item does: [`Header::writer`], a spin lock with a limit on patience, taken by a thread that adds; whoever does
//! not get it drops what it wanted to add and says so in [`Header::dropped`]. So no thread ever waits for another for longer than
//! [`System::relax`] allows, and a signal handler that interrupted the holder does not wait at all.
//!
//! Memory orderings: an item's fields are stored relaxed, then it is published with Release, by its table's length, the head of its chain or the place that refers to it;
//! [`Capture`]'s reads of those are Acquire. Counters are relaxed: nobody concludes anything from two of them.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::layout::{
    self, CHUNK, DEPTH, Entry, Header, Histogram, LOCK_BUCKETS, Lock, MAGIC, Module, PLACES, Row,
    SITE_BUCKETS, STACK_BUCKETS, Site, Stack, Thread, VERSION, control,
};
use crate::view::{Capture, Item};

/// What a recorder needs of the operating system.
pub trait System {
    /// Makes sure that storing into these bytes of the mapping cannot fail (a full disk would be SIGBUS); false if they are not to be had.
    fn back(start: NonNull<u8>, bytes: usize) -> bool;

    /// Lets time pass in the `round`th round of waiting for another thread; false when patience ends.
    fn relax(round: u32) -> bool;
}

/// A capture that is written to.
#[derive(Debug)]
pub struct Recorder<S> {
    capture: Capture,
    system: PhantomData<fn() -> S>,
}

impl<S> Clone for Recorder<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Recorder<S> {}

/// What becomes of a module in a capture.
#[derive(Clone, Copy, Debug)]
pub struct NewModule<'a> {
    /// What is added to the addresses in its file.
    pub base: u64,
    /// First address of its mapping.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
    /// Its path; cut if it is too long.
    pub path: &'a [u8],
    /// GNU build id.
    pub build_id: &'a [u8],
}

/// A share of the capture's memory, in sixteenths, up to which something may be added: the less can be done without it, the more.
#[derive(Clone, Copy)]
enum Room {
    /// A lock's own histograms, where its first use's would do.
    Histograms = 6,
    /// Locks of their own, where another one of the same first use would do; rows of histograms.
    Locks = 12,
    /// What is lost otherwise: stacks, sites, modules, the first lock of a first use.
    Rest = 15,
    /// Threads: without its place nothing that a thread does is seen.
    Threads = 16,
}

/// Chunks of the header.
const HEADER_CHUNKS: u32 = size_of::<Header>().div_ceil(CHUNK) as u32;

/// Steps along a chain after which it is taken for damaged.
const LONGEST_CHAIN: usize = 1 << 16;

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value ^ (value >> 29)
}

fn store_bytes(to: &[core::sync::atomic::AtomicU8], from: &[u8]) -> u32 {
    for (to, from) in to.iter().zip(from) {
        to.store(*from, Relaxed);
    }
    from.len().min(to.len()) as u32
}

impl<S: System> Recorder<S> {
    /// Begins a capture in an all-zero mapping of `bytes` bytes; none if not even the header finds room.
    ///
    /// # Safety
    /// - As [`Capture::new`]; and nobody else uses the mapping yet.
    #[must_use]
    pub unsafe fn begin(base: NonNull<u8>, bytes: usize) -> Option<Self> {
        const BUCKETS: [usize; 3] = [LOCK_BUCKETS, SITE_BUCKETS, STACK_BUCKETS];
        let chunks = |buckets: usize| (buckets * 4).div_ceil(CHUNK) as u32;
        let first = HEADER_CHUNKS + BUCKETS.map(chunks).iter().sum::<u32>();
        if (bytes / CHUNK) < first as usize || !S::back(base, first as usize * CHUNK) {
            return None;
        }
        // SAFETY: the caller's contract, and room for the header.
        let capture = unsafe { Capture::new(base, bytes) };
        let header = capture.header();
        let sizes = layout::ITEM_SIZES;
        for (table, size) in header.tables.iter().zip(sizes) {
            table.len.store(1, Relaxed);
            table.per_chunk.store((CHUNK / size) as u32, Relaxed);
        }
        header.version.store(VERSION, Relaxed);
        header
            .header_size
            .store(size_of::<Header>() as u32, Relaxed);
        header.capacity.store(bytes as u64, Relaxed);
        header.lock_buckets.store(HEADER_CHUNKS, Relaxed);
        let sites = HEADER_CHUNKS + chunks(LOCK_BUCKETS);
        header.site_buckets.store(sites, Relaxed);
        let stacks = sites + chunks(SITE_BUCKETS);
        header.stack_buckets.store(stacks, Relaxed);
        header.chunks_used.store(first, Relaxed);
        Some(Self {
            capture,
            system: PhantomData,
        })
    }

    /// The capture that was begun in this mapping.
    ///
    /// # Safety
    /// - [`Self::begin`] succeeded there, with as many bytes.
    #[inline]
    #[must_use]
    pub const unsafe fn of(base: NonNull<u8>, bytes: usize) -> Self {
        Self {
            // SAFETY: the caller's contract.
            capture: unsafe { Capture::new(base, bytes) },
            system: PhantomData,
        }
    }

    /// From here on a reader accepts it. Call when the header's facts about the process are filled in.
    pub fn publish(&self) {
        self.capture
            .header()
            .magic
            .store(u64::from_le_bytes(MAGIC), Release);
    }

    /// The view.
    #[must_use]
    pub const fn capture(&self) -> Capture {
        self.capture
    }

    fn header(&self) -> &'static Header {
        self.capture.header()
    }

    /// Runs `add` as the only thread that adds; none if that is not to be had.
    fn adding<R>(&self, tid: u32, add: impl FnOnce() -> Option<R>) -> Option<R> {
        let writer = &self.header().writer;
        let mut round = 0;
        // Acquire: pairs with the release below; the items that the previous holder added are complete.
        while let Err(holder) = writer.compare_exchange_weak(0, tid, Acquire, Relaxed) {
            if holder == tid || !S::relax(round) {
                return None;
            }
            round += 1;
        }
        let added = add();
        // Release: pairs with the exchange above.
        writer.store(0, Release);
        added
    }

    /// Whether chunks can be taken up to this share. By the thread that adds.
    fn has_room(&self, room: Room) -> bool {
        let used = u64::from(self.header().chunks_used.load(Relaxed));
        used * 16 < u64::from(self.capture.capacity()) * room as u64
    }

    /// A new chunk. By the thread that adds.
    fn new_chunk(&self) -> Option<u32> {
        let used = &self.header().chunks_used;
        let number = used.load(Relaxed);
        let start = self.capture.chunk(number)?;
        if !S::back(start, CHUNK) {
            return None;
        }
        used.store(number + 1, Relaxed);
        Some(number)
    }

    /// The place of `count` items that follow each other in one chunk, not yet published, and the index of the first. By the thread that adds.
    fn reserve<T: Item>(&self, count: u32, room: Room) -> Option<u32> {
        let table = self.capture.table::<T>();
        let per_chunk = (CHUNK / size_of::<T>()) as u32;
        let mut index = table.len.load(Relaxed);
        let left = per_chunk - index % per_chunk;
        if left < count {
            index += left;
        }
        let chunk = table.chunks.get((index / per_chunk) as usize)?;
        if chunk.load(Relaxed) == 0 {
            if !self.has_room(room) {
                return None;
            }
            chunk.store(self.new_chunk()?, Release);
        }
        Some(index)
    }

    /// Publishes items up to `index`. By the thread that adds, after it filled them in.
    fn publish_item<T: Item>(&self, index: u32) {
        self.capture.table::<T>().len.store(index + 1, Release);
    }

    fn bucket(
        &self,
        first_chunk: &AtomicU32,
        count: usize,
        hash: u64,
    ) -> Option<&'static AtomicU32> {
        let buckets = self.capture.buckets(first_chunk.load(Relaxed), count)?;
        buckets.get((hash >> 32) as usize & (count - 1))
    }

    // Modules and stacks.

    /// The index of a module, added if it is new; 0 if there is no room.
    pub fn module(&self, tid: u32, new: &NewModule<'_>) -> u32 {
        let find = || {
            self.capture
                .all::<Module>()
                .find(|(_, module)| is_module(module, new))
                .map(|(index, _)| index)
        };
        find()
            .or_else(|| {
                self.adding(tid, || {
                    if let Some(index) = find() {
                        return Some(index);
                    }
                    let index = self.reserve::<Module>(1, Room::Rest)?;
                    let module = self.capture.place::<Module>(index)?;
                    module.base.store(new.base, Relaxed);
                    module.start.store(new.start, Relaxed);
                    module.end.store(new.end, Relaxed);
                    let length = store_bytes(&module.path, new.path);
                    module.path_length.store(length, Relaxed);
                    let length = store_bytes(&module.build_id, new.build_id);
                    module.build_id_length.store(length, Relaxed);
                    self.publish_item::<Module>(index);
                    Some(index)
                })
            })
            .unwrap_or(0)
    }

    /// The index of a stack, added if it is new; 0 if it is empty or there is no room (which is counted).
    pub fn stack(&self, tid: u32, frames: &[u64]) -> u32 {
        let frames = frames.get(..DEPTH).unwrap_or(frames);
        if frames.is_empty() {
            return 0;
        }
        let hash = frames
            .iter()
            .fold(frames.len() as u64, |hash, frame| mix(hash ^ frame));
        let Some(bucket) = self.bucket(&self.header().stack_buckets, STACK_BUCKETS, hash) else {
            return 0;
        };
        self.find_stack(bucket, hash, frames)
            .or_else(|| {
                self.adding(tid, || {
                    if let Some(found) = self.find_stack(bucket, hash, frames) {
                        return Some(found);
                    }
                    let index = self.reserve::<Stack>(1, Room::Rest)?;
                    let first = self.reserve::<AtomicU64>(frames.len() as u32, Room::Rest)?;
                    for (at, frame) in (first..).zip(frames) {
                        self.capture.place::<AtomicU64>(at)?.store(*frame, Relaxed);
                    }
                    self.publish_item::<AtomicU64>(first + frames.len() as u32 - 1);
                    let stack = self.capture.place::<Stack>(index)?;
                    stack.hash.store(hash, Relaxed);
                    stack.first.store(first, Relaxed);
                    stack.len.store(frames.len() as u32, Relaxed);
                    stack.next.store(bucket.load(Relaxed), Relaxed);
                    self.publish_item::<Stack>(index);
                    bucket.store(index, Release);
                    Some(index)
                })
            })
            .unwrap_or_else(|| {
                self.header().dropped.stacks.fetch_add(1, Relaxed);
                0
            })
    }

    fn find_stack(&self, bucket: &AtomicU32, hash: u64, frames: &[u64]) -> Option<u32> {
        let mut index = bucket.load(Acquire);
        for _ in 0..LONGEST_CHAIN {
            let stack = self.capture.get::<Stack>(index)?;
            let first = stack.first.load(Relaxed);
            if stack.hash.load(Relaxed) == hash
                && stack.len.load(Relaxed) as usize == frames.len()
                && (first..).zip(frames).all(|(at, frame)| {
                    self.capture
                        .get::<AtomicU64>(at)
                        .is_some_and(|kept| kept.load(Relaxed) == *frame)
                })
            {
                return Some(index);
            }
            index = stack.next.load(Relaxed);
        }
        None
    }

    // Locks.

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

    /// Adds `weight` times `ns` to a site.
    pub fn add(&self, tid: u32, [lock, kind, stack, holder]: [u32; 4], ns: u64, weight: u64) {
        let hash = mix(u64::from(lock) << 32 | u64::from(stack))
            ^ mix(u64::from(holder) << 8 | u64::from(kind));
        let site = self
            .bucket(&self.header().site_buckets, SITE_BUCKETS, mix(hash))
            .and_then(|bucket| {
                let same = |site: &Site| {
                    site.lock.load(Relaxed) == lock
                        && site.kind.load(Relaxed) == kind
                        && site.stack.load(Relaxed) == stack
                        && site.holder.load(Relaxed) == holder
                };
                self.find_site(bucket, same).or_else(|| {
                    self.adding(tid, || {
                        self.find_site(bucket, same).or_else(|| {
                            let index = self.reserve::<Site>(1, Room::Rest)?;
                            let site = self.capture.place::<Site>(index)?;
                            site.lock.store(lock, Relaxed);
                            site.kind.store(kind, Relaxed);
                            site.stack.store(stack, Relaxed);
                            site.holder.store(holder, Relaxed);
                            site.next.store(bucket.load(Relaxed), Relaxed);
                            self.publish_item::<Site>(index);
                            bucket.store(index, Release);
                            Some(site)
                        })
                    })
                })
            });
        match site {
            Some(site) => {
                site.count.fetch_add(weight, Relaxed);
                site.total_ns.fetch_add(ns.saturating_mul(weight), Relaxed);
                site.samples.fetch_add(1, Relaxed);
                if site.max_ns.load(Relaxed) < ns {
                    site.max_ns.fetch_max(ns, Relaxed);
                }
            }
            None if stack != 0 || holder != 0 => {
                // Without room for a place of its own it is at an unknown one, if that has room.
                self.add(tid, [lock, kind, 0, 0], ns, weight);
            }
            None => _ = self.header().dropped.sites.fetch_add(1, Relaxed),
        }
    }

    fn find_site(&self, bucket: &AtomicU32, same: impl Fn(&Site) -> bool) -> Option<&'static Site> {
        let mut index = bucket.load(Acquire);
        for _ in 0..LONGEST_CHAIN {
            let site = self.capture.get::<Site>(index)?;
            if same(site) {
                return Some(site);
            }
            index = site.next.load(Relaxed);
        }
        None
    }

    /// Adds `weight` times `ns` to a lock's histogram, of [`layout::histogram`].
    pub fn count(&self, tid: u32, lock: u32, which: usize, ns: u64, weight: u64) {
        if self.try_count(tid, lock, which, ns, weight).is_none() {
            self.header().dropped.values.fetch_add(1, Relaxed);
        }
    }

    fn try_count(&self, tid: u32, lock: u32, which: usize, ns: u64, weight: u64) -> Option<()> {
        let lock = self.capture.get::<Lock>(lock)?;
        let own = lock.histograms.get(which)?;
        let mut histogram = own.load(Acquire);
        if histogram == 0 {
            let stack = self.capture.get::<Stack>(lock.first_use.load(Relaxed));
            // A static lock's is not mixed with others': those of the same first use have names of their own.
            let shared = stack
                .filter(|_| lock.place.load(Relaxed) == 0)
                .and_then(|stack| stack.histograms.get(which));
            histogram = shared.map_or(0, |shared| shared.load(Acquire));
            if histogram == 0 {
                histogram = self.adding(tid, || {
                    let to = match shared {
                        Some(shared) if !self.has_room(Room::Histograms) => shared,
                        _ => own,
                    };
                    if to.load(Relaxed) == 0 {
                        let index = self.reserve::<Histogram>(1, Room::Locks)?;
                        self.publish_item::<Histogram>(index);
                        to.store(index, Release);
                    }
                    Some(to.load(Relaxed))
                })?;
            }
        }
        let (row, counter) = layout::slot(ns);
        let link = self.capture.get::<Histogram>(histogram)?.rows.get(row)?;
        let mut index = link.load(Acquire);
        if index == 0 {
            index = self.adding(tid, || {
                if link.load(Relaxed) == 0 {
                    let index = self.reserve::<Row>(1, Room::Locks)?;
                    self.publish_item::<Row>(index);
                    link.store(index, Release);
                }
                Some(link.load(Relaxed))
            })?;
        }
        let counter = self.capture.get::<Row>(index)?.counts.get(counter)?;
        counter.fetch_add(weight, Relaxed);
        Some(())
    }

    // Threads.

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

/// Asks for the cache line at an address, to write to it.
#[inline]
pub fn prefetch(address: usize) {
    use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    // SAFETY: a hint, which faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(core::ptr::without_provenance(address)) };
}

fn is_module(module: &Module, new: &NewModule<'_>) -> bool {
    let path = new.path.get(..layout::PATH).unwrap_or(new.path);
    module.base.load(Relaxed) == new.base
        && module.start.load(Relaxed) == new.start
        && module.end.load(Relaxed) == new.end
        && module.path_length.load(Relaxed) as usize == path.len()
        && module
            .path
            .iter()
            .zip(path)
            .all(|(kept, new)| kept.load(Relaxed) == *new)
}

/// The two places of a key's entry.
#[inline]
fn places(key: u64) -> [usize; 2] {
    let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize & (PLACES - 1);
    [hash, hash ^ 1]
}
