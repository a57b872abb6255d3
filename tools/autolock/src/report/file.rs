//! A capture file, read: its header and the chunks of its tables.
//!
//! Believes nothing: the file may be hostile, cut off, or written to right now. The header is read first, so its tables cover only what was
//! complete by then; hash chains are for the recorder and are not followed. Needs at most the memory that the file's own tables take.

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, bail, ensure};
use autolock_capture::layout::{CHUNK, CHUNKS, Header, MAGIC, TABLES, Table, VERSION};
use autolock_capture::view;

use super::bytes::{Item, get, parts};

/// A capture file in memory.
pub struct File {
    header: Vec<u8>,
    tables: Vec<Chunks>,
    /// Chunks that the tables name but that are not in the file, or belong to another table already.
    pub missing_chunks: u64,
}

/// The bytes of one table.
struct Chunks {
    len: u64,
    chunks: Vec<Option<Vec<u8>>>,
}

/// A table of `T`.
pub struct Items<'a, T>(&'a Chunks, PhantomData<T>);

impl File {
    /// Reads a capture.
    ///
    /// # Errors
    /// What it is not a capture for, or why it cannot be read.
    pub fn read(mut from: impl Read + Seek) -> Result<Self> {
        let header = up_to(&mut from, 0, size_of::<Header>())?;
        ensure!(!header.is_empty(), "it is empty");
        let magic = header.get(..MAGIC.len());
        if magic == Some(&[0; MAGIC.len()]) {
            bail!("no capture was begun in it: the process ended before its first lock operation");
        }
        ensure!(magic == Some(&MAGIC), "it is not a capture");
        let item = Item::<Header>::new(&header).with_context(|| {
            format!(
                "it is cut off inside its header: {} of {} bytes",
                header.len(),
                size_of::<Header>()
            )
        })?;
        let version = get!(item, Header, version);
        ensure!(
            version == VERSION,
            "its layout is version {version}, this autolock reads version {VERSION}: use the autolock that belongs to the library that recorded it"
        );
        let size = get!(item, Header, header_size) as usize;
        ensure!(
            size == size_of::<Header>(),
            "its header says to be {size} bytes long, {} are right: it is damaged",
            size_of::<Header>()
        );

        let mut missing_chunks = 0;
        let mut taken = HashSet::new();
        let first = size_of::<Header>().div_ceil(CHUNK) as u32;
        let mut tables = Vec::with_capacity(TABLES);
        for (table, item_size) in
            parts!(item, Header, tables).zip(autolock_capture::layout::ITEM_SIZES)
        {
            let per_chunk = CHUNK / item_size;
            let len = get!(table, Table, len) as usize;
            let wanted = len.div_ceil(per_chunk);
            missing_chunks += wanted.saturating_sub(CHUNKS) as u64;
            let numbers = get!(table, Table, chunks);
            let mut chunks = Vec::new();
            for &number in numbers.iter().take(wanted) {
                let chunk = if number >= first && taken.insert(number) {
                    let bytes = up_to(&mut from, u64::from(number) * CHUNK as u64, CHUNK)?;
                    Some(bytes).filter(|bytes| !bytes.is_empty())
                } else {
                    None
                };
                missing_chunks += u64::from(chunk.is_none());
                chunks.push(chunk);
            }
            tables.push(Chunks {
                len: len as u64,
                chunks,
            });
        }
        Ok(Self {
            header,
            tables,
            missing_chunks,
        })
    }

    /// The header.
    pub fn header(&self) -> Item<'_, Header> {
        Item::new(&self.header).unwrap_or_else(|| unreachable!("checked when read"))
    }

    /// A table.
    pub fn items<T: view::Item>(&self) -> Items<'_, T> {
        Items(&self.tables[T::TABLE], PhantomData)
    }

    /// A table's number `index`, of frames.
    pub fn frame(&self, index: u64) -> Option<u64> {
        let item = self.items::<AtomicU64>().get(index)?;
        Some(item.field(0, |frame: &AtomicU64| frame))
    }
}

impl<'a, T> Items<'a, T> {
    const PER_CHUNK: usize = CHUNK / size_of::<T>();

    /// Items by the table's own word, item 0 included.
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Item `index`; none for 0 and for what is not there.
    pub fn get(&self, index: u64) -> Option<Item<'a, T>> {
        if index == 0 || index >= self.0.len {
            return None;
        }
        let index = usize::try_from(index).ok()?;
        let chunk = self.0.chunks.get(index / Self::PER_CHUNK)?.as_ref()?;
        Item::new(chunk.get(index % Self::PER_CHUNK * size_of::<T>()..)?)
    }

    /// The items that are there, with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Item<'a, T>)> + use<'a, T> {
        let table = self.0;
        table
            .chunks
            .iter()
            .enumerate()
            .flat_map(move |(number, chunk)| {
                let bytes: &[u8] = chunk.as_deref().unwrap_or_default();
                let items = bytes.chunks_exact(size_of::<T>()).take(Self::PER_CHUNK);
                items.enumerate().filter_map(move |(i, bytes)| {
                    let index = number * Self::PER_CHUNK + i;
                    let inside = index > 0 && (index as u64) < table.len;
                    Some((
                        u32::try_from(index).ok()?,
                        Item::new(bytes).filter(|_| inside)?,
                    ))
                })
            })
    }
}

/// At most `size` bytes at `offset`: fewer at the end of the file.
fn up_to(from: &mut (impl Read + Seek), offset: u64, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size);
    from.seek(SeekFrom::Start(offset))
        .and_then(|_| from.take(size as u64).read_to_end(&mut bytes))
        .context("it cannot be read")?;
    Ok(bytes)
}
