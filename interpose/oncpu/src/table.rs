//! The table: a header and a byte per thread id, in one `BPF_MAP_TYPE_ARRAY` value with `BPF_F_MMAPABLE`.
//!
//! Who writes: eBPF programs alone, at each context switch (bytes) and for the daemon (header). Clients map it read-only, and what they read is
//! a hint: a byte may be old by the time it is acted on, and a thread id may have been given to another thread.
//!
//! A table whose heartbeat is older than [`STALE_NS`] is not believed: the daemon was stopped, killed or starved, and nobody writes the bytes. The map
//! is pinned and taken over by the next daemon, so that a client's mapping comes to life again without a system call.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// "autolock" in little-endian ASCII.
pub const MAGIC: u64 = u64::from_le_bytes(*b"autolock");
/// Of this layout; another version has another pin.
pub const VERSION: u32 = 1;
/// The size of the table, and of a client's mapping: the greatest value that an array map of older kernels may have (`KMALLOC_MAX_SIZE`).
pub const SIZE: usize = 4 << 20;
/// The size of the header; the bytes follow.
pub const HEADER_SIZE: usize = 4096;
/// `PID_MAX_LIMIT` of 64-bit Linux (include/linux/threads.h, 4 Mi) less the header: nothing is known of the last 4096 thread ids.
pub const THREADS: usize = SIZE - HEADER_SIZE;
/// The name of the pinned map below the BPF file system, for this version.
pub const PIN: &str = "autolock/oncpu-v1";

/// How often the daemon writes the time.
pub const HEARTBEAT_NS: u64 = 100_000_000;
/// From which age on the table is not believed.
pub const STALE_NS: u64 = 600_000_000;

/// A byte: nothing known of this thread (it has not been switched to or from since the program was loaded).
pub const UNKNOWN: u8 = 0;
/// A byte: on a CPU.
pub const RUNNING: u8 = 1;
/// A byte: not on a CPU.
pub const NOT_RUNNING: u8 = 2;

/// What a client maps.
#[derive(Debug)]
#[repr(C)]
pub struct Table {
    pub magic: AtomicU64,
    pub version: AtomicU32,
    _padding: u32,
    /// When the daemon was last alive: `CLOCK_MONOTONIC`, nanoseconds. 0: it has stopped.
    pub heartbeat: AtomicU64,
    /// Since when this daemon has kept the table: `CLOCK_MONOTONIC`, nanoseconds.
    pub started: AtomicU64,
    /// The kernel's number of the eBPF program.
    pub program: AtomicU32,
    _reserved: [u8; HEADER_SIZE - 36],
    /// By [`place`] of the thread id, in the initial PID namespace.
    pub threads: [AtomicU8; THREADS],
}

const _: () = assert!(size_of::<Table>() == SIZE);

/// Where a thread's byte is. Neighbours' are [`NEIGHBOUR`] bytes apart, on the same page: a program's threads have ids next to each other and run on different CPUs, which would
/// write one cache line at each of their switches. 64-byte lines come in pairs (Intel's spatial prefetcher), so 32 neighbours have lines of their own. Only 0 has place 0.
#[inline]
#[must_use]
pub const fn place(tid: usize) -> usize {
    let in_page = tid % PAGE;
    tid - in_page + in_page % (PAGE / NEIGHBOUR) * NEIGHBOUR + in_page / (PAGE / NEIGHBOUR)
}

const PAGE: usize = 4096;
const _: () = assert!(THREADS.is_multiple_of(PAGE));
/// The distance of neighbours' bytes.
pub const NEIGHBOUR: usize = 128;

impl Table {
    /// Whether the bytes are being written, at `now_ns` (`CLOCK_MONOTONIC`).
    #[inline]
    #[must_use]
    pub fn is_fresh(&self, now_ns: u64) -> bool {
        // Relaxed: hints, ordered with nothing. A heartbeat may be a little later than `now_ns`; one that is much later is another time namespace's.
        let heartbeat = self.heartbeat.load(Relaxed);
        heartbeat != 0 && now_ns.abs_diff(heartbeat) < STALE_NS
    }

    /// The byte of a thread; [`UNKNOWN`] for ids that no thread can have.
    #[inline]
    #[must_use]
    pub fn thread(&self, tid: i32) -> u8 {
        match usize::try_from(tid)
            .ok()
            .and_then(|tid| self.threads.get(place(tid)))
        {
            // Relaxed: a hint.
            Some(byte) => byte.load(Relaxed),
            None => UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_a_place_of_its_own_on_its_page_and_neighbours_share_no_line() {
        for page in [0, 7, THREADS / PAGE - 1] {
            let first = page * PAGE;
            let mut places: Vec<usize> = (first..first + PAGE).map(place).collect();
            for near in places.windows(PAGE / NEIGHBOUR) {
                let lines: std::collections::BTreeSet<usize> =
                    near.iter().map(|place| place / NEIGHBOUR).collect();
                assert_eq!(lines.len(), near.len());
            }
            places.sort_unstable();
            assert!(places.into_iter().eq(first..first + PAGE));
        }
        assert_eq!(place(0), 0);
    }
}
