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
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::layout::{
    self, CHUNK, Header, LOCK_BUCKETS, MAGIC, SITE_BUCKETS, STACK_BUCKETS, VERSION,
};
use crate::view::{Capture, Item};

mod interned;
mod locks;
mod sites;
mod threads;

pub use locks::prefetch;

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
}
