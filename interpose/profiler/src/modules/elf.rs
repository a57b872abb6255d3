//! The parts of a loaded ELF file that its program headers say are there: where it may be read, and its build id.
//!
//! The executable's headers are where the kernel says. A library's are looked for where they are when the file's first page is the mapping's, and must lie in
//! it; of one that hides them nothing is known.

use core::sync::atomic::Ordering::Relaxed;

use super::{EXTENT, Found};

/// Bytes of the mapping's start that are certainly there.
pub(super) const PAGE: usize = 4096;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const READABLE: u32 = 4;
pub(super) const PROGRAM_HEADER: usize = 56;
const NT_GNU_BUILD_ID: u32 = 3;
/// Longest build id that is kept.
const BUILD_ID: usize = 32;

/// A loaded ELF file.
#[derive(Debug)]
pub struct Image<'a> {
    found: &'a Found,
    headers: &'a [u8],
}

/// What is needed of an `Elf64_Phdr`.
pub(super) struct Segment {
    kind: u32,
    flags: u32,
    pub(super) start: usize,
    pub(super) end: usize,
    align: usize,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn word_at(bytes: &[u8], at: usize) -> Option<usize> {
    number(bytes, at).map(usize::from_le_bytes)
}

/// The bytes from `start` to `end`.
///
/// # Safety
/// - They are mapped, readable, and stay so for `'a`.
unsafe fn bytes<'a>(start: usize, end: usize) -> &'a [u8] {
    let pointer = core::ptr::with_exposed_provenance::<u8>(start);
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(pointer, end.saturating_sub(start)) }
}

impl<'a> Image<'a> {
    /// The file that a module was loaded from, if its headers are where they usually are.
    #[must_use]
    pub fn of(found: &'a Found) -> Option<Self> {
        if super::is_executable(found) {
            return Self::of_executable(found);
        }
        if found.start == 0 || found.end.checked_sub(found.start)? < PAGE {
            return None;
        }
        // SAFETY: the first page of a loaded module.
        let page = unsafe { bytes::<'a>(found.start, found.start + PAGE) };
        Self::parse(found, page)
    }

    /// The executable's file, of which `found` is at least a part.
    pub(super) fn of_executable(found: &'a Found) -> Option<Self> {
        let start = EXTENT.headers.load(Relaxed);
        let end = start.checked_add(EXTENT.headers_length.load(Relaxed))?;
        // SAFETY: the kernel, or the loader in its place, says that they are there, and the executable is never unmapped.
        let headers = unsafe { bytes::<'a>(start, end) };
        Some(Self { found, headers })
    }

    /// What is mapped of it.
    pub(super) fn loaded(&self) -> impl Iterator<Item = Segment> + '_ {
        self.segments().filter(|segment| segment.kind == PT_LOAD)
    }

    fn parse(found: &'a Found, page: &'a [u8]) -> Option<Self> {
        // 64 bits, little-endian.
        if page.get(..6)? != b"\x7fELF\x02\x01" || usize::from(u16_at(page, 54)?) != PROGRAM_HEADER
        {
            return None;
        }
        let at = word_at(page, 32)?;
        let length = usize::from(u16_at(page, 56)?) * PROGRAM_HEADER;
        let headers = page.get(at..at.checked_add(length)?)?;
        Some(Self { found, headers })
    }

    fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.headers
            .chunks_exact(PROGRAM_HEADER)
            .filter_map(|header| {
                let start = self.found.base.wrapping_add(word_at(header, 16)?);
                Some(Segment {
                    kind: u32_at(header, 0)?,
                    flags: u32_at(header, 4)?,
                    start,
                    end: start.checked_add(word_at(header, 40)?)?,
                    align: word_at(header, 48)?,
                })
            })
    }

    /// What can be read from `address` to the end of its segment.
    #[must_use]
    pub fn from(&self, address: usize) -> Option<&'a [u8]> {
        let segment = self.segments().find(|segment| {
            segment.kind == PT_LOAD
                && segment.flags & READABLE != 0
                && (segment.start..segment.end).contains(&address)
                && segment.start >= self.found.start
                && segment.end <= self.found.end
        })?;
        // SAFETY: within a readable segment of a loaded module.
        Some(unsafe { bytes(address, segment.end) })
    }

    /// The GNU build id; empty if there is none.
    #[must_use]
    pub fn build_id(&self) -> &'a [u8] {
        self.segments()
            .filter(|segment| segment.kind == PT_NOTE)
            .find_map(|segment| {
                let notes = self.from(segment.start)?;
                let notes = notes.get(..segment.end.checked_sub(segment.start)?)?;
                build_id(notes, if segment.align == 8 { 8 } else { 4 })
            })
            .unwrap_or(&[])
    }
}

/// The build id in the notes of a segment, if it is there.
fn build_id(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    loop {
        let name = u32_at(notes, 0)? as usize;
        let length = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let start = 12usize.checked_add(name)?.checked_next_multiple_of(align)?;
        let end = start.checked_add(length)?;
        let is_gnu = notes.get(12..12usize.checked_add(name)?)? == b"GNU\0";
        if is_gnu && kind == NT_GNU_BUILD_ID {
            return notes.get(start..end).filter(|id| id.len() <= BUILD_ID);
        }
        notes = notes.get(end.checked_next_multiple_of(align)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [name.len() as u32, content.len() as u32, kind] {
            bytes.extend(number.to_le_bytes());
        }
        for part in [name, content] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let id = [7; 20];
        let notes = [
            note(b"stapsdt\0", 3, b"123"),
            note(b"GNU\0", 1, &[0; 16]),
            note(b"GNU\0", NT_GNU_BUILD_ID, &id),
        ]
        .concat();
        assert_eq!(build_id(&notes, 4), Some(&id[..]));
        // Cut anywhere, it is not found, and nothing else happens.
        for length in 0..notes.len() {
            assert_eq!(build_id(&notes[..length], 4), None, "{length}");
        }
        assert_eq!(
            build_id(&note(b"GNU\0", NT_GNU_BUILD_ID, &[1; 33]), 4),
            None
        );
        assert_eq!(build_id(&[0xff; 64], 4), None);
    }
}
