//! A capture made up for tests.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use autolock_capture::{
    Capture,
    layout::{CHUNK, Header, Histogram, ITEM_SIZES, Row, slot},
    view::Item,
};

/// Chunks of its mapping.
const CHUNKS: usize = 256;

/// An empty capture of this process that stays for good.
pub fn capture() -> Capture {
    crate::process::started();
    // SAFETY: a new mapping.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            CHUNKS * CHUNK,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(base, libc::MAP_FAILED);
    let base = NonNull::new(base.cast()).expect("a mapping");
    // SAFETY: aligned to a page, of this size, never unmapped.
    let capture = unsafe { Capture::new(base, CHUNKS * CHUNK) };
    let header = capture.header();
    let used = size_of::<Header>().div_ceil(CHUNK) as u32;
    header.chunks_used.store(used, Relaxed);
    header.pid.store(std::process::id(), Relaxed);
    for (table, size) in header.tables.iter().zip(ITEM_SIZES) {
        table.len.store(1, Relaxed);
        table.per_chunk.store((CHUNK / size) as u32, Relaxed);
    }
    capture
}

/// One more item.
pub fn add<T: Item + 'static>(capture: Capture) -> (u32, &'static T) {
    let table = capture.table::<T>();
    let index = table.len.load(Relaxed);
    let slot = index as usize / (CHUNK / size_of::<T>());
    if table.chunks[slot].load(Relaxed) == 0 {
        let chunk = capture.header().chunks_used.fetch_add(1, Relaxed);
        assert!((chunk as usize) < CHUNKS);
        table.chunks[slot].store(chunk, Relaxed);
    }
    table.len.store(index + 1, Relaxed);
    (index, capture.get(index).expect("just added"))
}

/// A histogram of values.
pub fn histogram(capture: Capture, values: &[u64]) -> u32 {
    let (index, histogram) = add::<Histogram>(capture);
    for value in values {
        let (row, counter) = slot(*value);
        if histogram.rows[row].load(Relaxed) == 0 {
            histogram.rows[row].store(add::<Row>(capture).0, Relaxed);
        }
        let row = capture.get::<Row>(histogram.rows[row].load(Relaxed));
        row.expect("just added").counts[counter].fetch_add(1, Relaxed);
    }
    index
}

/// Stores a text.
pub fn text(to: &[AtomicU8], from: &[u8]) {
    for (to, from) in to.iter().zip(from.iter().chain(&[0])) {
        to.store(*from, Relaxed);
    }
}

/// A frame.
pub fn frame(capture: Capture, frame: u64) -> u32 {
    let (index, item) = add::<AtomicU64>(capture);
    item.store(frame, Relaxed);
    index
}
