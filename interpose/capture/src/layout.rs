//! Bytes that outlive the process: the layout of a capture.
//!
//! A capture is one file, mapped shared by the process that it is about: what is stored is in the file at once, `kill -9` or not. It starts
//! with a [`Header`] and grows by chunks of [`CHUNK`] bytes. Items of one type stand in a [`Table`], which names its chunks; items refer to
//! each other by index in their table, and index 0 of each table is never used, so 0 means "none". All numbers are little-endian, all times
//! nanoseconds.
//!
//! A reader may look at any moment, and must believe nothing: the process may have been killed between two stores. Counters only grow.
//! An item is filled before its table's `len` covers it.
//!
//! | table | item | |
//! |---|---|---|
//! | [`MODULES`] | [`Module`] | a program or library with code or locks in it |
//! | [`FRAMES`] | `u64` | a code address, see [`frame`] |
//! | [`STACKS`] | [`Stack`] | a call stack: frames that follow each other, leaf first; each stack once |
//! | [`LOCKS`] | [`Lock`] | a lock, or many that were made one after the other at the same place |
//! | [`SITES`] | [`Site`] | what was waited or held at a place, with its counts |
//! | [`HISTOGRAMS`] | [`Histogram`] | rows of an HdrHistogram of 2 digits |
//! | [`ROWS`] | [`Row`] | 128 of its counters |
//! | [`THREADS`] | [`Thread`] | a thread's own counters: what is not yet, or never will be, in its locks' |
//!
//! To know a lock's acquisitions add its own and those of every thread's entry for it.

use core::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64};

/// What a capture starts with.
pub const MAGIC: [u8; 8] = *b"autolkpf";
/// Changes with every change of the layout.
pub const VERSION: u32 = 2;
/// Bytes by which tables grow.
pub const CHUNK: usize = 64 * 1024;
/// Chunks that one table can name: 256 MiB.
pub const CHUNKS: usize = 4096;

/// Indices of the tables in [`Header::tables`].
pub const MODULES: usize = 0;
/// See [`MODULES`].
pub const FRAMES: usize = 1;
/// See [`MODULES`].
pub const STACKS: usize = 2;
/// See [`MODULES`].
pub const LOCKS: usize = 3;
/// See [`MODULES`].
pub const SITES: usize = 4;
/// See [`MODULES`].
pub const HISTOGRAMS: usize = 5;
/// See [`MODULES`].
pub const ROWS: usize = 6;
/// See [`MODULES`].
pub const THREADS: usize = 7;
/// How many tables there are.
pub const TABLES: usize = 8;

/// Size of an item of each table, in bytes.
pub const ITEM_SIZES: [usize; TABLES] = [
    size_of::<Module>(),
    size_of::<u64>(),
    size_of::<Stack>(),
    size_of::<Lock>(),
    size_of::<Site>(),
    size_of::<Histogram>(),
    size_of::<Row>(),
    size_of::<Thread>(),
];

/// A table: item `i` stands in chunk `chunks[i / per_chunk]` of the file, at `(i % per_chunk) * item size`.
#[repr(C)]
#[derive(Debug)]
pub struct Table {
    /// Items that may be read, the unused item 0 included.
    pub len: AtomicU32,
    /// Items in a chunk: [`CHUNK`] over the item's size.
    pub per_chunk: AtomicU32,
    /// Numbers of the chunks; chunk `n` starts at byte `n * CHUNK`. 0 is none.
    pub chunks: [AtomicU32; CHUNKS],
}

/// Buckets of the hash chains in the file: an array of `u32`, each the first item of its chain.
pub const LOCK_BUCKETS: usize = 1 << 15;
/// See [`LOCK_BUCKETS`].
pub const SITE_BUCKETS: usize = 1 << 14;
/// See [`LOCK_BUCKETS`].
pub const STACK_BUCKETS: usize = 1 << 13;

/// The start of a capture.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// [`MAGIC`], stored last: a file without it was never begun.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// Size of this header, in bytes.
    pub header_size: AtomicU32,
    /// Bytes that the capture may grow to.
    pub capacity: AtomicU64,
    /// Chunks in use, from the start of the file.
    pub chunks_used: AtomicU32,
    /// [`mode`].
    pub mode: AtomicU32,
    /// Process id, in its own namespace.
    pub pid: AtomicU32,
    /// Its parent's.
    pub parent: AtomicU32,
    /// When the capture began, nanoseconds since the epoch.
    pub started_realtime_ns: AtomicI64,
    /// The same instant on the capture's own clock, which all other times are of.
    pub started_ns: AtomicU64,
    /// When it ended; 0 if it did not: the process runs, was killed, or became another program.
    pub ended_ns: AtomicU64,
    /// How it ended, see [`ending`].
    pub ending: AtomicU32,
    /// The signal or exit status that belongs to it.
    pub ending_detail: AtomicU32,
    /// The thread that adds items now; 0 if none does. Readers ignore it.
    pub writer: AtomicU32,
    /// 1 if times are the time-stamp counter's, 0 if `clock_gettime(CLOCK_MONOTONIC)`'s.
    pub tsc: AtomicU32,
    /// Operations that are missing because memory, or the patience with another thread, ran out.
    pub dropped: Dropped,
    /// What one operation costs more than without the profiler.
    pub cost: Cost,
    /// The next implementation in the chain, [`Module`] index of `pthread_mutex_lock`.
    pub next_module: AtomicU32,
    /// Length of `command`.
    pub command_length: AtomicU32,
    /// Path of the executable, NUL-terminated.
    pub executable: [AtomicU8; 512],
    /// The command line, arguments separated by NUL.
    pub command: [AtomicU8; 1024],
    /// First chunk of the chains of locks, by key.
    pub lock_buckets: AtomicU32,
    /// First chunk of the chains of sites.
    pub site_buckets: AtomicU32,
    /// First chunk of the chains of stacks.
    pub stack_buckets: AtomicU32,
    /// First free [`Thread`]: one whose thread has ended.
    pub free_threads: AtomicU32,
    /// The tables.
    pub tables: [Table; TABLES],
}

/// What is missing from a capture.
#[repr(C)]
#[derive(Debug)]
pub struct Dropped {
    /// Operations on locks for which there was no room, or in a signal handler inside the profiler.
    pub operations: AtomicU64,
    /// Threads for which there was no room; their operations are not counted.
    pub threads: AtomicU64,
    /// Stacks that could not be kept: their sites have stack 0.
    pub stacks: AtomicU64,
    /// Waits and holds whose site could not be kept.
    pub sites: AtomicU64,
    /// Waits and holds that are in no histogram.
    pub values: AtomicU64,
    /// Holds that were not seen to end: more at once than a thread remembers, or released by another thread.
    pub holds: AtomicU64,
}

/// The profiler's own cost, measured in the process when the capture begins; picoseconds for a lock and an unlock together, above what they cost without.
#[repr(C)]
#[derive(Debug)]
pub struct Cost {
    /// An uncontended pair that is counted only.
    pub counted_ps: AtomicU64,
    /// One that is timed.
    pub timed_ps: AtomicU64,
    /// The pair itself, without the profiler.
    pub native_ps: AtomicU64,
}

/// Values of [`Header::mode`].
pub mod mode {
    /// Every contended wait, holds sampled.
    pub const SAMPLED: u32 = 1;
    /// Every hold.
    pub const FULL: u32 = 2;
}

/// Values of [`Header::ending`].
pub mod ending {
    /// None yet.
    pub const NONE: u32 = 0;
    /// `exit` or return from `main`.
    pub const EXIT: u32 = 1;
    /// `_exit` or `_Exit`; the detail is the status.
    pub const UNDERSCORE_EXIT: u32 = 2;
    /// `quick_exit`.
    pub const QUICK_EXIT: u32 = 3;
    /// Died by the signal in the detail, which the program does not handle.
    pub const SIGNAL: u32 = 4;
    /// Became another program (`exec`). Not noted when it works; a capture without an end may mean it.
    pub const EXEC: u32 = 5;
}

/// Frames: where code, or a static lock, is.
pub mod frame {
    /// Bits of the offset.
    pub const OFFSET_BITS: u32 = 48;

    /// Of module `module` (its index, 0 if none is known) at `offset`: from the module's load address (what its file calls 0), or an absolute address without a module.
    #[must_use]
    pub const fn new(module: u32, offset: u64) -> u64 {
        (module as u64) << OFFSET_BITS | offset & ((1 << OFFSET_BITS) - 1)
    }

    /// The module's index; 0 if none.
    #[must_use]
    pub const fn module(frame: u64) -> u32 {
        (frame >> OFFSET_BITS) as u32
    }

    /// The offset. In a stack it is a return address: the call stands before it.
    #[must_use]
    pub const fn offset(frame: u64) -> u64 {
        frame & ((1 << OFFSET_BITS) - 1)
    }
}

/// Longest path that is kept of a module.
pub const PATH: usize = 400;

/// A program or library that was loaded.
#[repr(C)]
#[derive(Debug)]
pub struct Module {
    /// What is added to the addresses in its file.
    pub base: AtomicU64,
    /// First address of its mapping.
    pub start: AtomicU64,
    /// The address behind its last.
    pub end: AtomicU64,
    /// Bytes of `build_id`.
    pub build_id_length: AtomicU32,
    /// Bytes of `path`.
    pub path_length: AtomicU32,
    /// GNU build id.
    pub build_id: [AtomicU8; 32],
    /// Path, as the loader knows it; the executable's is absolute.
    pub path: [AtomicU8; PATH],
    /// For later.
    pub reserved: [AtomicU64; 6],
}

/// A call stack.
#[repr(C)]
#[derive(Debug)]
pub struct Stack {
    /// Hash of the frames.
    pub hash: AtomicU64,
    /// Next stack of the same chain.
    pub next: AtomicU32,
    /// Index of its first frame, the innermost.
    pub first: AtomicU32,
    /// Number of frames, which follow each other.
    pub len: AtomicU32,
    /// The first destroyed [`Lock`] that was first used here, to be taken over by the next such lock.
    pub free_lock: AtomicU32,
    /// A lock that was first used here, which stands for all others when there is no more room.
    pub shared_lock: AtomicU32,
    /// Histograms for all locks first used here that have none of their own, in the order of [`Lock::histograms`].
    pub histograms: [AtomicU32; 3],
    /// For later.
    pub reserved: [AtomicU32; 6],
}

/// Values of [`Lock::kind`].
pub mod kind {
    /// A mutex of one of the usual kinds.
    pub const MUTEX: u32 = 1;
    /// A read-write lock's readers.
    pub const READERS: u32 = 2;
    /// Its writers.
    pub const WRITERS: u32 = 3;
    /// A spin lock.
    pub const SPIN: u32 = 4;
    /// A recursive mutex.
    pub const RECURSIVE: u32 = 5;
    /// An error-checking mutex.
    pub const ERRORCHECK: u32 = 6;
    /// An adaptive mutex.
    pub const ADAPTIVE: u32 = 7;
    /// A robust, priority-inheriting or priority-protecting mutex.
    pub const OTHER: u32 = 8;
}

/// Indices of [`Lock::histograms`] and [`Stack::histograms`].
pub mod histogram {
    /// Time of contended acquisitions, from the first try.
    pub const WAIT: usize = 0;
    /// Time from acquisition to release.
    pub const HOLD: usize = 1;
    /// Time in waits on condition variables.
    pub const COND: usize = 2;
}

/// Bits of [`Lock::control`]; the rest is the generation, which changes when the lock is destroyed.
pub mod control {
    /// Somebody has waited for it: acquirers remember where they are.
    pub const HOT: u32 = 1;
    /// A sampled acquirer asks the next one whether it is another thread.
    pub const PROBE: u32 = 2;
    /// Destroyed: whoever uses it, finds it again by its address.
    pub const DEAD: u32 = 4;
    /// The profiler's own, not shown.
    pub const HIDDEN: u32 = 8;
    /// What is added for the next generation.
    pub const GENERATION: u32 = 16;
}

/// A lock. Readers and writers of a read-write lock are two.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Lock {
    // The first cache line is read at every acquisition and rarely written.
    /// Address of the lock, and in its two lowest bits 1 for readers, 0 otherwise.
    pub key: AtomicU64,
    /// See [`control`].
    pub control: AtomicU32,
    /// Next lock of the same chain.
    pub next: AtomicU32,
    /// [`kind`].
    pub kind: AtomicU32,
    /// The [`Stack`] of its first use.
    pub first_use: AtomicU32,
    /// Where it is, if in a module: a static lock's [`frame`]. 0 otherwise.
    pub place: AtomicU64,
    /// Its histograms, by [`histogram`]; 0 until needed, or where `first_use`'s serve.
    pub histograms: [AtomicU32; 3],
    /// Next destroyed lock of the same first use.
    pub next_free: AtomicU32,
    /// How many locks this has been, one after the other. Not those for which it stands where there was no more room.
    pub incarnations: AtomicU32,
    /// Who holds it, as far as the lock itself does not say (readers, spin locks): a [`Thread`]'s index. A hint, kept while it is hot.
    pub holder: AtomicU32,

    /// Acquisitions, apart from those in threads' entries. In the first line: threads that use many locks by turns have just read that, and those that use
    /// this one often keep their own count.
    pub acquisitions: AtomicU64,

    // The second is written by waiters and by sampled acquisitions.
    /// `EBUSY` from tries, apart from those in threads' entries.
    pub failed: AtomicU64,
    /// Acquisitions by the holder of a recursive mutex (not in `acquisitions`).
    pub recursions: AtomicU64,
    /// Threads that wait now.
    pub waiters: AtomicU32,
    /// The most at once.
    pub most_waiters: AtomicU32,
    /// Pairs of successive acquisitions that were compared.
    pub compared: AtomicU64,
    /// Those of them by two different threads.
    pub changed: AtomicU64,
    /// The thread that asked ([`control::PROBE`]) or, in full mode, acquired last.
    pub last_owner: AtomicU32,
    /// 1 while it is in its first use's list of destroyed locks.
    pub listed: AtomicU32,
    /// For later.
    pub reserved: AtomicU64,
    /// Scratch of the table that the preload prints: total wait, total hold, contended acquisitions, weighted holds, time-outs.
    pub scratch: [AtomicU64; 8],
}

/// Values of [`Site::kind`].
pub mod site {
    /// Contended acquisitions: `stack` is the waiter's, `holder` that of the acquisition that it waited for.
    pub const WAIT: u32 = 1;
    /// Holds: `stack` is that of the acquisition.
    pub const HOLD: u32 = 2;
    /// Waits on condition variables with this mutex: idle, and acquiring it again.
    pub const COND: u32 = 3;
    /// Of these, acquiring it again, where that can be seen (a libc that calls through its PLT): `holder` as of a wait. Time 0 where it was free.
    pub const REACQUIRE: u32 = 4;
    /// Timed acquisitions that timed out: the time until then.
    pub const TIMEOUT: u32 = 5;
}

/// What was waited or held at a place.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Site {
    /// The lock.
    pub lock: AtomicU32,
    /// [`site`].
    pub kind: AtomicU32,
    /// The stack; 0 if unknown.
    pub stack: AtomicU32,
    /// The holder's; 0 if unknown or not applicable.
    pub holder: AtomicU32,
    /// Next site of the same chain.
    pub next: AtomicU32,
    /// For later.
    pub reserved: AtomicU32,
    /// How often; for sampled holds an estimate: each sample counts for those that were not timed.
    pub count: AtomicU64,
    /// Their time, likewise.
    pub total_ns: AtomicU64,
    /// The longest.
    pub max_ns: AtomicU64,
    /// How many were really timed.
    pub samples: AtomicU64,
}

/// Counters of a [`Row`].
pub const ROW: usize = 128;
/// Rows of a histogram: values up to 2^42 ns, 73 minutes; larger ones count as the last.
pub const ROWS_EACH: usize = 36;

/// An HdrHistogram of 2 significant digits, lowest value 1 ns: 256 sub-buckets. Row 0 has values 0 to 127; row `r` above 0 those from `128 << (r - 1)` on, `1 << (r - 1)` apart.
#[repr(C)]
#[derive(Debug)]
pub struct Histogram {
    /// Indices of its [`Row`]s; 0 until needed.
    pub rows: [AtomicU32; ROWS_EACH],
    /// For later.
    pub reserved: [AtomicU64; 2],
}

/// Counters of values that follow each other.
#[repr(C)]
#[derive(Debug)]
pub struct Row {
    /// How often each value, in the histogram's resolution, occurred.
    pub counts: [AtomicU64; ROW],
}

/// The row and the counter of a value in nanoseconds.
#[must_use]
pub const fn slot(ns: u64) -> (usize, usize) {
    let bits = u64::BITS - ns.leading_zeros();
    if bits <= 7 {
        return (0, ns as usize & (ROW - 1));
    }
    let row = bits as usize - 7;
    if row >= ROWS_EACH {
        return (ROWS_EACH - 1, ROW - 1);
    }
    (row, (ns >> (row - 1)) as usize - ROW)
}

/// The lowest value of a row's counter, in nanoseconds.
#[must_use]
pub const fn lowest(row: usize, counter: usize) -> u64 {
    if row == 0 {
        counter as u64
    } else {
        ((ROW + counter) as u64) << (row - 1)
    }
}

/// Places for entries by key.
pub const PLACES: usize = 256;
/// Locks that a thread's own counters are kept for: one at each place, and at last the one that found both its places taken.
pub const ENTRIES: usize = PLACES + 1;
/// Holds that a thread remembers at once.
pub const HELD: usize = 32;
/// Stacks that a thread remembers.
pub const CACHED: usize = 32;
/// Frames of a stack that are looked at to know it again.
pub const CACHED_FRAMES: usize = 24;
/// Frames of a stack that are kept.
pub const DEPTH: usize = 64;

/// A thread: what only it writes, and others may read.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Thread {
    /// Thread id; 0 if the place is free.
    pub tid: AtomicU32,
    /// Its index in the table.
    pub index: AtomicU32,
    /// Valid items of `held`: 0 sends unlock straight on.
    pub held_count: AtomicU32,
    /// 1 while the thread is inside the profiler: what it does then is not recorded.
    pub inside: AtomicU32,
    /// The lock it waits for; 0 if none.
    pub waiting_for: AtomicU32,
    /// Where.
    pub waiting_stack: AtomicU32,
    /// Where the holder took it.
    pub waiting_holder: AtomicU32,
    /// The holder's thread id; 0 if unknown.
    pub waiting_holder_tid: AtomicU32,
    /// Since when.
    pub waiting_since_ns: AtomicU64,
    /// State of the thread's random numbers.
    pub random: AtomicU64,
    /// Next free thread.
    pub next_free: AtomicU32,
    /// The lock whose wait on a condition variable is going on, where libc's waits acquire it again through the profiler; 0 if none.
    pub in_cond: AtomicU32,
    /// Of the acquisitions that are due to be timed, by their entries, how many to let pass before the next is.
    pub skip: AtomicU32,
    /// One in so many of them is timed.
    pub interval: AtomicU32,
    /// When one was timed last.
    pub sampled_ns: AtomicU64,
    /// Acquisitions that were not timed, nor will be counted for by a later one of the same lock: of locks of which none was timed, and by entries that gave way.
    pub passed: AtomicU32,
    /// How many it may time before it has to let some pass.
    pub credit: AtomicU32,
    /// The lock that it waited for last, and `waiting_stack` and `waiting_holder` are of.
    pub waited_for: AtomicU32,
    /// Waits for it since somebody looked who holds it.
    pub waits: AtomicU32,
    /// Where that wait was called: the return address.
    pub cond_caller: AtomicU64,
    /// Its stack pointer, behind the return address.
    pub cond_stack_pointer: AtomicU64,
    /// How long acquiring it again took; 0 where it was free.
    pub reacquire_ns: AtomicU64,
    /// Where the holder that this waited for had acquired it.
    pub reacquire_holder: AtomicU32,
    /// For later.
    pub reserved: [AtomicU32; 3],
    /// Counters by lock: the entry of a key is at one of two neighbouring places, or at the end.
    pub entries: [Entry; ENTRIES],
    /// What it holds that will be recorded at its release.
    pub held: [Held; HELD],
    /// Stacks by where they were taken.
    pub stacks: [CachedStack; CACHED],
}

/// A thread's counters for one lock.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Entry {
    /// The lock's key; 0 if free.
    pub key: AtomicU64,
    /// The lock.
    pub lock: AtomicU32,
    /// Its control word as it was seen last.
    pub control: AtomicU32,
    /// Acquisitions that are not yet in the lock's.
    pub acquisitions: AtomicU64,
    /// Failed tries likewise.
    pub failed: AtomicU32,
    /// Acquisitions until the next that is due.
    pub skip: AtomicU32,
    /// Low 16 bits: one in so many is due to be timed now. High 16 bits: how many the next one that is due stands for, those up to it since the last one that was timed.
    pub interval: AtomicU32,
    /// Where the lock stands in the capture, in units of 64 bytes.
    pub place: AtomicU32,
    /// The last acquisition's return address.
    pub caller: AtomicU64,
    /// Its stack pointer, behind the return address.
    pub stack_pointer: AtomicU64,
    /// When one was timed last; 0 if none was.
    pub sampled_ns: AtomicU64,
}

/// A hold that will be recorded at its release.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Held {
    /// The lock's key; 0 if free.
    pub key: AtomicU64,
    /// The lock.
    pub lock: AtomicU32,
    /// How many holds this one stands for; 0 if it is not timed.
    pub weight: AtomicU32,
    /// When it was acquired; 0 if that was not looked at.
    pub since_ns: AtomicU64,
    /// How long that took, if it was contended.
    pub wait_ns: AtomicU64,
    /// Where it was acquired.
    pub stack: AtomicU32,
    /// Where its holder had acquired it.
    pub holder: AtomicU32,
    /// 1 if the wait was contended and is to be recorded.
    pub contended: AtomicU32,
    /// For later.
    pub reserved: [AtomicU32; 3],
}

/// A stack that a thread has been at: known again by looking whether the same return addresses stand in the same places.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct CachedStack {
    /// The return address of the lock call; 0 if free.
    pub caller: AtomicU64,
    /// The stack pointer behind it.
    pub stack_pointer: AtomicU64,
    /// The [`Stack`].
    pub stack: AtomicU32,
    /// Return addresses to look at.
    pub len: AtomicU32,
    /// Distances of the return addresses from the stack pointer, in bytes.
    pub offsets: [AtomicU32; CACHED_FRAMES],
    /// The return addresses.
    pub addresses: [AtomicU64; CACHED_FRAMES],
}

const _: () = {
    assert!(size_of::<Header>().is_multiple_of(8));
    assert!(size_of::<Module>() == 512);
    assert!(size_of::<Stack>() == 64);
    assert!(size_of::<Lock>() == 192);
    assert!(size_of::<Site>() == 64);
    assert!(size_of::<Histogram>() == 160);
    assert!(size_of::<Row>() == 1024);
    assert!(size_of::<Entry>() == 64);
    assert!(size_of::<Held>() == 64);
    assert!(size_of::<CachedStack>() == 320);
    assert!(size_of::<Thread>() <= CHUNK / 2);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_an_hdr_histogram_of_two_digits() {
        for ns in [
            0,
            1,
            127,
            128,
            255,
            256,
            257,
            511,
            512,
            1_000,
            123_456,
            100_000_000,
            (1 << 42) - 1,
        ] {
            let (row, counter) = slot(ns);
            let low = lowest(row, counter);
            let step = if row < 1 { 1 } else { 1 << (row - 1) };
            assert!(
                low <= ns && ns < low + step,
                "{ns}: row {row}, counter {counter}"
            );
        }
        assert_eq!(slot(u64::MAX), (ROWS_EACH - 1, ROW - 1));
    }
}
