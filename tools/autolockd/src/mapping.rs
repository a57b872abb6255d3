//! The table in this process's memory: by a writable descriptor for the daemon, by a read-only one for clients.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use autolock_oncpu::table::{self, Table};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of the whole table; unmapped when it is dropped.
#[derive(Debug)]
pub struct Mapping(NonNull<Table>);

impl Mapping {
    /// Maps a map's memory to read.
    ///
    /// # Errors
    /// `mmap`'s: the descriptor is no map of this size, or may not be mapped.
    pub fn read_only(map: impl AsFd) -> nix::Result<Self> {
        Self::new(map, ProtFlags::PROT_READ)
    }

    fn new(map: impl AsFd, protection: ProtFlags) -> nix::Result<Self> {
        let size = NonZeroUsize::new(table::SIZE).expect("the table is not empty");
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let memory = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self(memory.cast()))
    }
}

impl Deref for Mapping {
    type Target = Table;

    fn deref(&self) -> &Table {
        // SAFETY: mapped, page-aligned and of this size until `drop`; every field that anybody writes is atomic. A map's memory does not shrink.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and no reference outlives `self`.
        let _ = unsafe { munmap(self.0.cast(), table::SIZE) };
    }
}

/// The daemon's mapping. Relaxed throughout: the table is made of hints, ordered with nothing.
#[derive(Debug)]
pub struct Writer(Mapping);

impl Writer {
    /// Maps the table to write, and empties it: what a daemon before us left is old. Its clients' mappings stay.
    ///
    /// # Errors
    /// `mmap`'s.
    pub fn new(map: impl AsFd) -> nix::Result<Self> {
        let mapping = Mapping::new(map, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        mapping.heartbeat.store(0, Relaxed);
        mapping.program.store(0, Relaxed);
        for byte in &mapping.threads {
            byte.store(table::UNKNOWN, Relaxed);
        }
        mapping.magic.store(table::MAGIC, Relaxed);
        mapping.version.store(table::VERSION, Relaxed);
        Ok(Self(mapping))
    }

    /// From now on the bytes are written, by this program.
    pub fn start(&self, program: u32) {
        self.0.program.store(program, Relaxed);
        self.0.started.store(crate::now_ns(), Relaxed);
        self.beat();
    }

    /// Says that the daemon is alive.
    pub fn beat(&self) {
        self.0.heartbeat.store(crate::now_ns(), Relaxed);
    }
}

/// Nobody writes the bytes any more: clients need not wait until the heartbeat is old.
impl Drop for Writer {
    fn drop(&mut self) {
        self.0.heartbeat.store(0, Relaxed);
    }
}
