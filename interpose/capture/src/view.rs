//! A mapped capture: items by index.
//!
//! Sound whatever the file says: an index is checked against the table's length, a chunk's number against the mapping. Items are atomics throughout.

use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed},
};

use crate::layout::{
    self, CHUNK, Header, Histogram, Lock, Module, ROWS_EACH, Row, Site, Stack, Table, Thread,
};

/// A type of item, and its table.
///
/// # Safety
/// - All its fields are atomics, valid with any content; its size is `ITEM_SIZES[TABLE]`.
pub unsafe trait Item: Sized {
    /// Index in [`Header::tables`].
    const TABLE: usize;
}

macro_rules! items {
    ($($type:ty = $table:ident),*) => {
        $(
            // SAFETY: a `repr(C)` structure of atomics, listed in `ITEM_SIZES` at this index.
            unsafe impl Item for $type {
                const TABLE: usize = layout::$table;
            }
        )*
    };
}

items! {
    Module = MODULES, AtomicU64 = FRAMES, Stack = STACKS, Lock = LOCKS, Site = SITES, Histogram = HISTOGRAMS, Row = ROWS, Thread = THREADS
}

/// A capture in memory.
#[derive(Clone, Copy, Debug)]
pub struct Capture {
    base: NonNull<u8>,
    chunks: u32,
}

// SAFETY: everything behind `base` is atomics.
unsafe impl Send for Capture {}
// SAFETY: as above.
unsafe impl Sync for Capture {}

impl Capture {
    /// A view of the mapping of `bytes` bytes at `base`.
    ///
    /// # Safety
    /// - `base` is aligned to 4096, the mapping is readable and writable, at least as large as a [`Header`], and stays until the last use of the view.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, bytes: usize) -> Self {
        Self {
            base,
            chunks: (bytes / CHUNK) as u32,
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &'static Header {
        // SAFETY: `new`'s contract.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    /// Chunks that the mapping has room for.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.chunks
    }

    /// The address of a chunk; none for chunk 0 (the header) and beyond the mapping.
    #[must_use]
    pub fn chunk(&self, number: u32) -> Option<NonNull<u8>> {
        if number == 0 || number >= self.chunks {
            return None;
        }
        // SAFETY: within the mapping.
        Some(unsafe { self.base.add(number as usize * CHUNK) })
    }

    /// A table.
    #[must_use]
    pub fn table<T: Item>(&self) -> &'static Table {
        &self.header().tables[T::TABLE]
    }

    /// One more than the largest index in use; indices start at 1.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "index 0 is always there and never used"
    )]
    pub fn len<T: Item>(&self) -> u32 {
        // Acquire: pairs with the recorder's release when it adds an item.
        self.table::<T>().len.load(Acquire)
    }

    /// An item; none for 0 and for what is not there.
    #[must_use]
    pub fn get<T: Item>(&self, index: u32) -> Option<&'static T> {
        if index == 0 || index >= self.len::<T>() {
            return None;
        }
        self.place(index)
    }

    /// The place of an item, whether it is in use or not; none where no chunk is.
    #[must_use]
    pub fn place<T: Item>(&self, index: u32) -> Option<&'static T> {
        let per_chunk = (CHUNK / size_of::<T>()) as u32;
        let number = self
            .table::<T>()
            .chunks
            .get((index / per_chunk) as usize)?
            .load(Acquire);
        let chunk = self.chunk(number)?.cast::<T>();
        // SAFETY: `index % per_chunk` items fit into the chunk in front of this one.
        let item = unsafe { chunk.add((index % per_chunk) as usize) };
        // SAFETY: within the mapping, aligned (chunks are, and sizes are multiples of alignments), and atomics are valid with any content.
        Some(unsafe { item.as_ref() })
    }

    /// All items in use, with their indices.
    pub fn all<T: Item + 'static>(self) -> impl Iterator<Item = (u32, &'static T)> {
        (1..self.len::<T>()).filter_map(move |index| Some((index, self.get(index)?)))
    }

    /// The heads of hash chains: `count` words from the start of a chunk, which needs the chunks behind it too.
    #[must_use]
    pub fn buckets(&self, first_chunk: u32, count: usize) -> Option<&'static [AtomicU32]> {
        let last = first_chunk.checked_add((count * 4).div_ceil(CHUNK) as u32 - 1)?;
        self.chunk(last)?;
        let first = self.chunk(first_chunk)?;
        // SAFETY: all chunks up to `last` are within the mapping and follow each other.
        Some(unsafe { NonNull::slice_from_raw_parts(first.cast(), count).as_ref() })
    }

    /// The value in a histogram below which a share `quantile` (0 to 1) of `count` values lies, as the highest that counts as the same; 0 if it is empty.
    #[must_use]
    pub fn quantile(&self, histogram: u32, quantile: f64) -> u64 {
        let Some(histogram) = self.get::<Histogram>(histogram) else {
            return 0;
        };
        let rows = || {
            (0..ROWS_EACH).filter_map(|row| {
                let index = histogram.rows[row].load(Acquire);
                Some((row, self.get::<Row>(index)?))
            })
        };
        let count = |row: &Row| row.counts.iter().map(|c| c.load(Relaxed)).sum::<u64>();
        let total: u64 = rows().map(|(_, row)| count(row)).sum();
        let exact = total as f64 * quantile;
        // Rounded up, as HdrHistogram's readers do.
        let wanted = (exact as u64 + u64::from(exact > exact as u64 as f64)).clamp(1, total.max(1));
        let mut seen = 0;
        for (number, row) in rows() {
            for (counter, occurrences) in row.counts.iter().enumerate() {
                seen += occurrences.load(Relaxed);
                if seen >= wanted {
                    return layout::lowest(number, counter + 1) - 1;
                }
            }
        }
        0
    }
}
