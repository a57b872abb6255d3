//! The new segment: what has to move, and what then points there.

use object::LittleEndian as Le;
use object::elf;
use object::endian::{I64, U32, U64};
use object::pod::{bytes_of, bytes_of_slice};

use super::edit::Change;
use super::image::{Entry, Image, PAGE, Segment, damaged};
use crate::error::{Error, Result};

/// Zeros between the old end of the file and the new segment, at most. They come from keeping address and offset as far
/// apart as in the first segment, past a large `.bss`; a file system that knows holes need not store them.
const MAX_HOLE: u64 = 64 << 20;
/// Nothing is mapped above (x86-64, 4-level page tables).
const MAX_ADDRESS: u64 = 1 << 47;

/// A part of the new segment: offset from its start, and size.
#[derive(Clone, Copy)]
struct Part {
    at: u64,
    size: u64,
}

/// The new segment: what has to move, the program headers last.
///
/// Not first: `llvm-strip` would take `PT_PHDR` for the outer of two segments that begin at one offset, and misplace both.
pub(super) struct NewSegment {
    /// In the file.
    offset: u64,
    address: u64,
    contents: Vec<u8>,
    entries: Vec<Entry>,
    strings: Option<Part>,
    interpreter: Option<Part>,
    /// The dynamic section, if it moves.
    dynamic: Option<Part>,
    headers: Part,
}

impl NewSegment {
    pub(super) fn lay_out(
        image: &Image<'_>,
        change: &Change,
        mut entries: Vec<Entry>,
        strings: Vec<u8>,
    ) -> Result<Self> {
        let mut contents = Vec::new();
        let mut push = |bytes: &[u8]| {
            contents.resize(contents.len().next_multiple_of(8), 0);
            let at = contents.len() as u64;
            contents.extend(bytes);
            let size = bytes.len() as u64;
            Part { at, size }
        };
        let strings = (strings.len() > image.strings().len()).then(|| push(&strings));
        let interpreter = change
            .interpreter
            .as_ref()
            .map(|name| push(&[name, &b"\0"[..]].concat()));
        let moves = entries.len() >= room(image);
        let dynamic = moves.then(|| push(&vec![0; (entries.len() + 1) * size_of::<Entry>()]));
        // Filled in when it is known where everything is.
        let size = size_of_val(image.segments()) + size_of::<Segment>();
        let headers = push(&vec![0; size]);

        let (offset, address) = place(image, contents.len() as u64)?;
        for entry in &mut entries {
            if let (elf::DT_STRTAB, Some(strings)) = (entry.d_tag.get(Le), strings) {
                entry.d_val.set(Le, address + strings.at);
            }
        }
        if let Some(dynamic) = dynamic {
            put(&mut contents, dynamic.at, bytes_of_slice(&entries))?;
        }
        Ok(Self {
            offset,
            address,
            contents,
            entries,
            strings,
            interpreter,
            dynamic,
            headers,
        })
    }

    pub(super) fn write(mut self, image: &Image<'_>, bytes: &mut Vec<u8>) -> Result<()> {
        let headers = self.headers(image);
        put(
            &mut self.contents,
            self.headers.at,
            bytes_of_slice(&headers),
        )?;

        let mut header = *image.header();
        header.e_phoff.set(Le, self.offset + self.headers.at);
        header.e_phnum.set(Le, headers.len() as u16);
        put(bytes, 0, bytes_of(&header))?;
        self.write_sections(image, bytes)?;
        if self.dynamic.is_none() {
            let Some(old) = image.only(elf::PT_DYNAMIC)? else {
                return Err(damaged("has no dynamic section"));
            };
            // Entries that became fewer leave DT_NULLs behind.
            let used = image.entries().len().min(image.dynamic().len());
            let used = used.max(self.entries.len());
            self.entries.resize(used, entry(elf::DT_NULL, 0));
            put(bytes, old.p_offset.get(Le), bytes_of_slice(&self.entries))?;
        }
        let start = usize::try_from(self.offset).map_err(|_| damaged("it is too large"))?;
        bytes.resize(start, 0);
        bytes.append(&mut self.contents);
        Ok(())
    }

    fn headers(&self, image: &Image<'_>) -> Vec<Segment> {
        let size = self.contents.len() as u64;
        let mut new = Segment {
            p_type: U32::new(Le, elf::PT_LOAD),
            p_flags: U32::new(Le, elf::PF_R),
            p_offset: U64::new(Le, 0),
            p_vaddr: U64::new(Le, 0),
            p_paddr: U64::new(Le, 0),
            p_filesz: U64::new(Le, 0),
            p_memsz: U64::new(Le, 0),
            p_align: U64::new(Le, PAGE),
        };
        if self.dynamic.is_some() {
            new.p_flags.set(Le, elf::PF_R | elf::PF_W);
        }
        self.point(&mut new, Part { at: 0, size });

        let mut headers = image.segments().to_vec();
        let last = headers
            .iter()
            .rposition(|segment| segment.p_type.get(Le) == elf::PT_LOAD);
        headers.insert(last.map_or(0, |last| last + 1), new);
        for segment in &mut headers {
            let part = match segment.p_type.get(Le) {
                elf::PT_PHDR => Some(self.headers),
                elf::PT_INTERP => self.interpreter,
                elf::PT_DYNAMIC => self.dynamic,
                _ => None,
            };
            if let Some(part) = part {
                self.point(segment, part);
            }
        }
        headers
    }

    fn point(&self, segment: &mut Segment, part: Part) {
        segment.p_offset.set(Le, self.offset + part.at);
        segment.p_vaddr.set(Le, self.address + part.at);
        segment.p_paddr.set(Le, self.address + part.at);
        segment.p_filesz.set(Le, part.size);
        segment.p_memsz.set(Le, part.size);
    }

    /// Points section headers at what moved, where they say what the program headers and the dynamic section say.
    fn write_sections(&self, image: &Image<'_>, bytes: &mut [u8]) -> Result<()> {
        let place = |segment: &Segment| (segment.p_vaddr.get(Le), segment.p_offset.get(Le));
        let strings = image
            .value(elf::DT_STRTAB)
            .and_then(|address| Some((address, image.offset_of(address, 0)?)));
        let moved = [
            (
                elf::SHT_DYNAMIC,
                image.only(elf::PT_DYNAMIC)?.map(place),
                self.dynamic,
            ),
            (elf::SHT_STRTAB, strings, self.strings),
            (
                elf::SHT_PROGBITS,
                image.only(elf::PT_INTERP)?.map(place),
                self.interpreter,
            ),
        ];
        let table = image.header().e_shoff.get(Le);
        for (index, section) in image.sections().iter().enumerate() {
            let is = (section.sh_addr.get(Le), section.sh_offset.get(Le));
            let part = moved.iter().find_map(|&(kind, old, part)| {
                let found = section.sh_type.get(Le) == kind
                    && section.sh_flags.get(Le).contains(elf::SHF_ALLOC)
                    && section.sh_size.get(Le) > 0
                    && old == Some(is);
                part.filter(|_| found)
            });
            if let Some(part) = part {
                let mut section = *section;
                section.sh_addr.set(Le, self.address + part.at);
                section.sh_offset.set(Le, self.offset + part.at);
                section.sh_size.set(Le, part.size);
                let at = table + (index * size_of_val(&section)) as u64;
                put(bytes, at, bytes_of(&section))?;
            }
        }
        Ok(())
    }
}

/// How many entries the dynamic section can have where it is, the `DT_NULL` at its end among them.
fn room(image: &Image<'_>) -> usize {
    let used = image.entries().len();
    let after = image.dynamic().get(used..).unwrap_or_default();
    let spare = after
        .iter()
        .take_while(|entry| entry.d_tag.get(Le) == elf::DT_NULL)
        .count();
    (used + spare).min(image.dynamic().len())
}

/// Offset and address of a new segment of this size: after everything, both at the start of a page.
fn place(image: &Image<'_>, size: u64) -> Result<(u64, u64)> {
    let no_room = || Error::Unsupported("has no room for one more segment".into());
    let page_up = |at: u64| at.checked_next_multiple_of(PAGE).ok_or_else(no_room);
    let mut loads = image.of_type(elf::PT_LOAD);
    let Some(first) = loads.next() else {
        return Err(damaged("nothing of it is mapped"));
    };
    let last = loads.next_back().unwrap_or(first);
    let lowest = page_up(last.p_vaddr.get(Le) + last.p_memsz.get(Le))?;
    let file_end = page_up(image.bytes().len() as u64)?;
    let fits = |address: u64| {
        address
            .checked_add(size)
            .is_some_and(|end| end <= MAX_ADDRESS)
    };

    // Kernels before 5.18 (see `Image::needs_linux_5_18`); they read no program headers of libraries.
    if image.interpreter().is_some() {
        let skew = first.p_vaddr.get(Le).wrapping_sub(first.p_offset.get(Le));
        // Offset and address rise together, so the lower bound of one decides.
        let least = lowest.wrapping_sub(skew);
        let offset = if least as i64 > file_end as i64 {
            least
        } else {
            file_end
        };
        let address = offset.wrapping_add(skew);
        if offset - file_end <= MAX_HOLE && address >= lowest && fits(address) {
            return Ok((offset, address));
        }
    }
    if !fits(lowest) {
        return Err(no_room());
    }
    Ok((file_end, lowest))
}

/// Overwrites bytes that are there.
fn put(bytes: &mut [u8], offset: u64, new: &[u8]) -> Result<()> {
    let place = usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get_mut(start..start.checked_add(new.len())?))
        .ok_or_else(|| damaged("its headers reach past its end"))?;
    place.copy_from_slice(new);
    Ok(())
}

pub(super) fn entry(tag: elf::DynamicTag, value: u64) -> Entry {
    Entry {
        d_tag: I64::new(Le, tag),
        d_val: U64::new(Le, value),
    }
}
