//! The table in this process's memory, to read: nobody can map it to write.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use autolock_oncpu::table::{self, Table};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of the whole table; unmapped when it is dropped.
#[derive(Debug)]
pub struct Mapping(NonNull<Table>);

impl Mapping {
    /// Maps the table.
    ///
    /// # Errors
    /// `mmap`'s: the descriptor is no map of this size, or may not be mapped.
    pub fn new(map: impl AsFd) -> nix::Result<Self> {
        let size = NonZeroUsize::new(table::SIZE).expect("the table is not empty");
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let memory = unsafe {
            mmap(
                None,
                size,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED,
                map,
                0,
            )
        }?;
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
