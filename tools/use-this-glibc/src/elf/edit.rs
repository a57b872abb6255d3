//! The change: interpreter, run path, needed libraries.
//!
//! Nothing of the file moves. What has to grow (program headers, dynamic strings, the dynamic section if it has no spare
//! entries) is copied to the end of the file, into one more `PT_LOAD`, and pointed at from there. The old copies stay.
//!
//! The new segment is read-only, unless the dynamic section moves: the loader writes into that, and `PT_GNU_RELRO` does not
//! cover the new place. Where section headers tell of `.dynamic`, `.dynstr` and `.interp`, they follow, for debuggers.

use object::LittleEndian as Le;
use object::elf;
use object::endian::{I64, U32, U64};
use object::pod::{bytes_of, bytes_of_slice};

use super::image::{Entry, Image, Kind, PAGE, Segment, damaged};
use super::undo;
use crate::error::{Error, Result};

/// Which tag holds the run path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunPath {
    /// `DT_RPATH`: also for the libraries of the libraries.
    Rpath,
    /// `DT_RUNPATH`: for the program's own needed libraries alone.
    Runpath,
}

/// What to change; the rest stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The new `PT_INTERP`, without NUL.
    pub interpreter: Option<Vec<u8>>,
    /// The new run path; takes the place of `DT_RPATH` and `DT_RUNPATH` both.
    pub run_path: Option<(RunPath, Vec<u8>)>,
    /// Needed libraries that come after those that are there.
    pub add_needed: Vec<Vec<u8>>,
}

/// Zeros between the old end of the file and the new segment, at most. They come from keeping address and offset as far
/// apart as in the first segment, past a large `.bss`; a file system that knows holes need not store them.
const MAX_HOLE: u64 = 64 << 20;
/// The kernel opens no longer name (`PATH_MAX`, with the NUL).
const MAX_PATH: usize = 4096;
/// Linux refuses programs whose headers do not fit into one page (`load_elf_phdrs`).
const MAX_SEGMENTS: usize = PAGE as usize / size_of::<Segment>();
/// Nothing is mapped above (x86-64, 4-level page tables).
const MAX_ADDRESS: u64 = 1 << 47;

/// The changed file: the original's bytes, a few of them overwritten, the new segment, and the [`undo`](super::undo) record.
/// A [`Change`] that changes nothing gives the original.
///
/// `original` must not be a changed file itself: take the change back first ([`super::undo::original`]).
/// The same input gives the same output. Refusals are [`crate::error::Error::Unsupported`]; names that no file can have are
/// [`crate::error::Error::Usage`].
pub fn apply(original: &[u8], change: &Change) -> Result<Vec<u8>> {
    check_names(change)?;
    if *change == Change::default() {
        return Ok(original.to_vec());
    }
    let image = Image::parse(original)?;
    check_file(&image, change)?;

    let mut strings = image.strings().to_vec();
    let entries = change_entries(&image, change, &mut strings)?;
    let new = NewSegment::lay_out(&image, change, entries, strings)?;
    let mut bytes = original.to_vec();
    new.write(&image, &mut bytes)?;
    check_result(&bytes, &image, change)?;
    undo::append(&mut bytes, original);
    Ok(bytes)
}

fn check_names(change: &Change) -> Result<()> {
    let usage = |line: &str| Err(Error::Usage(line.into()));
    let paths = change.interpreter.iter().chain(&change.add_needed);
    for path in paths.clone() {
        if path.is_empty() || path.len() >= MAX_PATH {
            return usage("the name of an interpreter or a library is empty or too long");
        }
    }
    let run_path = change.run_path.iter().map(|(_, path)| path);
    if paths.chain(run_path).any(|name| name.contains(&0)) {
        return usage("a name contains a NUL byte");
    }
    Ok(())
}

fn check_file(image: &Image<'_>, change: &Change) -> Result<()> {
    let unsupported = |line: &str| Err(Error::Unsupported(line.into()));
    if undo::record_size(image.bytes()) > 0 {
        return unsupported("changed by use-this-glibc already: restore it first");
    }
    if image.kind() == Kind::Static {
        return unsupported("statically linked: it has its own glibc inside; link it dynamically");
    }
    if change.interpreter.is_some() && image.interpreter().is_none() {
        return unsupported("a library: it has no interpreter to change");
    }
    if image.dynamic().is_empty() {
        return unsupported("has no dynamic section to change");
    }
    if let Some(payload) = image.payload() {
        return Err(Error::Unsupported(format!(
            "{} bytes are appended behind the ELF file, as self-extracting programs do, and the program would not find them any more",
            payload.len()
        )));
    }
    let segments = image.segments().len();
    if segments >= MAX_SEGMENTS && image.interpreter().is_some() || segments >= 0xfffe {
        return unsupported("has no room for one more program header");
    }
    let mut end = 0;
    for segment in image.of_type(elf::PT_LOAD) {
        let (offset, address) = (segment.p_offset.get(Le), segment.p_vaddr.get(Le));
        if offset % PAGE != address % PAGE {
            return Err(damaged("a segment is not aligned to pages"));
        }
        if address < end {
            return unsupported("its segments overlap or are not in order of address");
        }
        end = address + segment.p_memsz.get(Le);
    }
    Ok(())
}

/// The dynamic section with the change in it, without the `DT_NULL` at its end. What is new goes to the end of `strings`.
fn change_entries(image: &Image<'_>, change: &Change, strings: &mut Vec<u8>) -> Result<Vec<Entry>> {
    let mut add_string = |string: &[u8]| {
        // The last string may lack its NUL.
        if strings.last().is_some_and(|&byte| byte != 0) {
            strings.push(0);
        }
        let offset = strings.len() as u64;
        strings.extend(string);
        strings.push(0);
        offset
    };
    let mut run_path = change.run_path.as_ref().map(|(kind, path)| {
        let tag = match kind {
            RunPath::Rpath => elf::DT_RPATH,
            RunPath::Runpath => elf::DT_RUNPATH,
        };
        entry(tag, add_string(path))
    });
    let mut entries = Vec::with_capacity(image.entries().len() + change.add_needed.len() + 1);
    for &old in image.entries() {
        match old.d_tag.get(Le) {
            // The new one takes the place of the first.
            elf::DT_RPATH | elf::DT_RUNPATH if change.run_path.is_some() => {
                entries.extend(run_path.take());
            }
            _ => entries.push(old),
        }
    }
    let added = change
        .add_needed
        .iter()
        .map(|name| entry(elf::DT_NEEDED, add_string(name)))
        .chain(run_path);
    let after_needed = entries
        .iter()
        .rposition(|entry| entry.d_tag.get(Le) == elf::DT_NEEDED)
        .map_or(0, |last| last + 1);
    let added: Vec<Entry> = added.collect();
    entries.splice(after_needed..after_needed, added);

    if change.run_path.is_some() || !change.add_needed.is_empty() {
        let size = strings.len() as u64;
        for tag in [elf::DT_STRTAB, elf::DT_STRSZ] {
            if image.value(tag).is_none() {
                return Err(damaged("has no dynamic strings"));
            }
        }
        for entry in &mut entries {
            if entry.d_tag.get(Le) == elf::DT_STRSZ {
                entry.d_val.set(Le, size);
            }
        }
    }
    Ok(entries)
}

fn entry(tag: elf::DynamicTag, value: u64) -> Entry {
    Entry {
        d_tag: I64::new(Le, tag),
        d_val: U64::new(Le, value),
    }
}

/// A part of the new segment: offset from its start, and size.
#[derive(Clone, Copy)]
struct Part {
    at: u64,
    size: u64,
}

/// The new segment: program headers first, then what else has to move.
struct NewSegment {
    /// In the file.
    offset: u64,
    address: u64,
    contents: Vec<u8>,
    entries: Vec<Entry>,
    /// The dynamic section, if it moves.
    dynamic: Option<Part>,
    strings: Option<Part>,
    interpreter: Option<Part>,
}

impl NewSegment {
    fn lay_out(
        image: &Image<'_>,
        change: &Change,
        mut entries: Vec<Entry>,
        strings: Vec<u8>,
    ) -> Result<Self> {
        // The headers are filled in when it is known where everything is.
        let headers = size_of_val(image.segments()) + size_of::<Segment>();
        let mut contents = vec![0; headers];
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
            dynamic,
            strings,
            interpreter,
        })
    }

    fn write(mut self, image: &Image<'_>, bytes: &mut Vec<u8>) -> Result<()> {
        let headers = self.headers(image);
        put(&mut self.contents, 0, bytes_of_slice(&headers))?;

        let mut header = *image.header();
        header.e_phoff.set(Le, self.offset);
        header.e_phnum.set(Le, headers.len() as u16);
        put(bytes, 0, bytes_of(&header))?;
        self.write_sections(image, bytes)?;
        if self.dynamic.is_none() {
            let Some(old) = image.only(elf::PT_DYNAMIC)? else {
                return Err(damaged("has no dynamic section"));
            };
            // Entries that became fewer leave DT_NULLs behind.
            self.entries.resize(
                self.entries.len().max(image.entries().len()),
                entry(elf::DT_NULL, 0),
            );
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
        let table = Part {
            at: 0,
            size: size_of_val(headers.as_slice()) as u64,
        };
        for segment in &mut headers {
            let part = match segment.p_type.get(Le) {
                elf::PT_PHDR => Some(table),
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
    used + spare
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

/// The result reads as what was asked for. Where headers and contents of a hostile file overlap it might not.
fn check_result(bytes: &[u8], image: &Image<'_>, change: &Change) -> Result<()> {
    let overlap = || damaged("its headers overlap what they name");
    let result = Image::parse(bytes).map_err(|_| overlap())?;
    let (rpath, runpath) = match &change.run_path {
        Some((RunPath::Rpath, path)) => (Some(path.as_slice()), None),
        Some((RunPath::Runpath, path)) => (None, Some(path.as_slice())),
        None => (image.rpath(), image.runpath()),
    };
    let interpreter = change.interpreter.as_deref().or(image.interpreter());
    let needed = image.needed().iter().copied();
    let needed = needed.chain(change.add_needed.iter().map(Vec::as_slice));
    let same = result.interpreter() == interpreter
        && (result.rpath(), result.runpath()) == (rpath, runpath)
        && result.soname() == image.soname()
        && result.kind() == image.kind()
        && result.needed().iter().copied().eq(needed);
    if same { Ok(()) } else { Err(overlap()) }
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
