//! The change: interpreter, run path, needed libraries.
//!
//! Nothing of the file moves. What has to grow (program headers, dynamic strings, the dynamic section if it has no spare
//! entries) is copied to the end of the file, into one more `PT_LOAD`, and pointed at from there. The old copies stay.
//!
//! The new segment is read-only, unless the dynamic section moves: the loader writes into that, and `PT_GNU_RELRO` does not
//! cover the new place. It is aligned to pages, whatever the others are aligned to: x86-64 has no larger base page. Where section
//! headers tell of `.dynamic`, `.dynstr` and `.interp`, they follow, for debuggers.
//!
//! GNU strip and objcopy lay out anew files whose program headers are not at the beginning, and get it wrong: strip first, then
//! change.

use object::LittleEndian as Le;
use object::elf;

use super::image::{Entry, Image, Kind, PAGE, Segment, damaged};
use super::segment::{NewSegment, entry};
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

/// The kernel opens no longer name (`PATH_MAX`, with the NUL).
const MAX_PATH: usize = 4096;
/// Linux refuses programs with more than 64 KiB of program headers (`load_elf_phdrs`).
const MAX_SEGMENTS: usize = (64 << 10) / size_of::<Segment>();

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
    if segments >= MAX_SEGMENTS {
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
        && result.strings().starts_with(image.strings())
        && result.needed().iter().copied().eq(needed);
    if same { Ok(()) } else { Err(overlap()) }
}
