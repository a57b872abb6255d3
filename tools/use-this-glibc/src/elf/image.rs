//! Reading: header, program headers and what the dynamic section names.
//!
//! Everything is checked when an [`Image`] is made or when it is asked for; offsets, sizes and counts of the file are never
//! trusted. Memory and time are bounded by a multiple of the file's size, whatever it says.
//!
//! Symbols and their versions are read in [`super::symbols`].

use std::ops::Range;

use object::LittleEndian as Le;
use object::elf;
use object::pod::slice_from_bytes;
use object::read::ReadRef;
use object::read::elf::FileHeader as _;

use super::undo;
use crate::error::{Error, Result};

pub(super) type Header = elf::FileHeader64<Le>;
pub(super) type Segment = elf::ProgramHeader64<Le>;
pub(super) type Section = elf::SectionHeader64<Le>;
pub(super) type Entry = elf::Dyn64<Le>;

/// x86-64 has no other base page size; kernel and dynamic loader map whole pages.
pub(super) const PAGE: u64 = 4096;

/// A 64-bit little-endian x86-64 ELF file.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    segments: &'a [Segment],
    interpreter: Option<&'a [u8]>,
    /// `PT_DYNAMIC` as a whole, what comes after the first `DT_NULL` too; empty if there is none.
    dynamic: &'a [Entry],
    /// To the first `DT_NULL`, wherever that is: linkers can be told to leave it to the zeros that follow.
    entries: &'a [Entry],
    strings: &'a [u8],
    soname: Option<&'a [u8]>,
    needed: Vec<&'a [u8]>,
    rpath: Option<&'a [u8]>,
    runpath: Option<&'a [u8]>,
}

/// What a file is to the kernel and the dynamic loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A dynamic program at a fixed address (`ET_EXEC` with an interpreter).
    Program,
    /// A dynamic program that goes anywhere (`ET_DYN` with an interpreter; `libc.so.6`, which can be run, is one too).
    PositionIndependent,
    /// A library (`ET_DYN` with a dynamic section and without an interpreter). Static PIEs count as [`Kind::Static`] (`DF_1_PIE`).
    Library,
    /// A program without an interpreter.
    Static,
}

/// The file is not what its headers say.
pub(super) fn damaged(what: &str) -> Error {
    Error::Unsupported(format!("damaged ELF file: {what}"))
}

impl<'a> Image<'a> {
    /// Refuses ([`crate::error::Error::Unsupported`]) what is no ELF file, damaged, or for another machine or byte order, each with a line of its own.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let header = read_header(bytes)?;
        let segments = header
            .program_headers(Le, bytes)
            .map_err(|_| damaged("its program headers reach past its end"))?;
        let mut image = Self {
            bytes,
            header,
            segments,
            interpreter: None,
            dynamic: &[],
            entries: &[],
            strings: &[],
            soname: None,
            needed: Vec::new(),
            rpath: None,
            runpath: None,
        };
        for segment in image.of_type(elf::PT_LOAD) {
            let (file, memory) = (segment.p_filesz.get(Le), segment.p_memsz.get(Le));
            if slice(bytes, segment.p_offset.get(Le), file).is_none() {
                return Err(damaged("a segment reaches past its end (truncated?)"));
            }
            if file > memory || segment.p_vaddr.get(Le).checked_add(memory).is_none() {
                return Err(damaged("a segment has an impossible size"));
            }
        }
        image.read_interpreter()?;
        image.read_dynamic()?;
        Ok(image)
    }

    fn read_interpreter(&mut self) -> Result<()> {
        let Some(segment) = self.only(elf::PT_INTERP)? else {
            return Ok(());
        };
        let (offset, size) = (segment.p_offset.get(Le), segment.p_filesz.get(Le));
        let name = slice(self.bytes, offset, size).and_then(|text| text.split_last());
        let Some((0, name)) = name else {
            return Err(damaged("the interpreter's name has no end"));
        };
        // As the kernel opens it: up to the first NUL.
        self.interpreter = name.split(|&byte| byte == 0).next();
        Ok(())
    }

    fn read_dynamic(&mut self) -> Result<()> {
        let Some(segment) = self.only(elf::PT_DYNAMIC)? else {
            return Ok(());
        };
        let (offset, size) = (segment.p_offset.get(Le), segment.p_filesz.get(Le));
        // The loader reads it by its address, other tools by its offset.
        if self.offset_of(segment.p_vaddr.get(Le), size) != Some(offset) {
            return Err(damaged("its dynamic section is not mapped"));
        }
        let (size, entry) = (size as usize, size_of::<Entry>());
        let mapped = self
            .mapped_from(segment.p_vaddr.get(Le))
            .unwrap_or_default();
        let (mapped, _) = slice_from_bytes::<Entry>(mapped, mapped.len() / entry)
            .map_err(|()| damaged("its dynamic section is not mapped"))?;
        self.dynamic = mapped.get(..size / entry).unwrap_or_default();
        self.entries = mapped
            .iter()
            .position(|entry| entry.d_tag.get(Le) == elf::DT_NULL)
            .map(|end| &mapped[..end])
            .ok_or_else(|| damaged("its dynamic section has no end"))?;
        if let Some(address) = self.value(elf::DT_STRTAB) {
            self.strings = self
                .value(elf::DT_STRSZ)
                .and_then(|size| self.offset_of(address, size).zip(Some(size)))
                .and_then(|(offset, size)| slice(self.bytes, offset, size))
                .ok_or_else(|| damaged("its dynamic strings are not mapped"))?;
        }
        let mut names = self.names();
        for entry in self.entries() {
            if entry.d_tag.get(Le) == elf::DT_NEEDED {
                self.needed.push(names.get(entry.d_val.get(Le))?);
            }
        }
        let mut name = |tag| self.value(tag).map(|offset| names.get(offset)).transpose();
        (self.soname, self.rpath, self.runpath) = (
            name(elf::DT_SONAME)?,
            name(elf::DT_RPATH)?,
            name(elf::DT_RUNPATH)?,
        );
        Ok(())
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn kind(&self) -> Kind {
        let dynamic = self.header.e_type.get(Le) == elf::ET_DYN;
        match (dynamic, self.interpreter) {
            (false, Some(_)) => Kind::Program,
            (true, Some(_)) => Kind::PositionIndependent,
            (true, None) if !self.dynamic.is_empty() && !self.flag_1(elf::DF_1_PIE) => {
                Kind::Library
            }
            (_, None) => Kind::Static,
        }
    }

    /// `PT_INTERP`, without its NUL.
    pub fn interpreter(&self) -> Option<&'a [u8]> {
        self.interpreter
    }

    /// `DT_SONAME`.
    pub fn soname(&self) -> Option<&'a [u8]> {
        self.soname
    }

    /// `DT_NEEDED`, in order.
    pub fn needed(&self) -> &[&'a [u8]] {
        &self.needed
    }

    /// `DT_RPATH`. The loader ignores it where there is a `DT_RUNPATH` too.
    pub fn rpath(&self) -> Option<&'a [u8]> {
        self.rpath
    }

    /// `DT_RUNPATH`.
    pub fn runpath(&self) -> Option<&'a [u8]> {
        self.runpath
    }

    /// `DF_1_NODEFLIB`: the system's directories are not searched.
    pub fn no_default_libraries(&self) -> bool {
        self.flag_1(elf::DF_1_NODEFLIB)
    }

    /// Whether kernels before Linux 5.18 give this program a wrong `AT_PHDR`, with which it does not start: they take the
    /// distance between address and offset of the first `PT_LOAD` for that of the program headers.
    pub fn needs_linux_5_18(&self) -> bool {
        let size = size_of_val(self.segments) as u64;
        let Some(first) = self.of_type(elf::PT_LOAD).next() else {
            return false;
        };
        let phoff = self.header.e_phoff.get(Le);
        let skew = first.p_vaddr.get(Le).wrapping_sub(first.p_offset.get(Le));
        self.offset_of(phoff.wrapping_add(skew), size) != Some(phoff)
    }

    /// Bytes after all that the headers account for (segments, section headers and their contents, our own
    /// [`undo`] record): something was appended, as self-extracting programs do. Zeros are no payload.
    ///
    /// Without section headers, whatever follows the last segment counts as payload.
    pub fn payload(&self) -> Option<Range<usize>> {
        let contents = self
            .segments
            .iter()
            .map(|segment| (segment.p_offset.get(Le), segment.p_filesz.get(Le)));
        let headers = (
            self.header.e_phoff.get(Le),
            size_of_val(self.segments) as u64,
        );
        let (sections, table) = self.sections_and_place();
        let sections = sections
            .iter()
            .filter(|section| section.sh_type.get(Le) != elf::SHT_NOBITS)
            .map(|section| (section.sh_offset.get(Le), section.sh_size.get(Le)));
        let start = contents
            .chain(sections)
            .chain([headers, table, (0, size_of::<Header>() as u64)])
            // One section with a wild size does not hide a payload.
            .filter_map(|(offset, size)| usize::try_from(offset.checked_add(size)?).ok())
            .filter(|&end| end <= self.bytes.len())
            .max()
            .unwrap_or(0);
        let end = self.bytes.len() - undo::record_size(self.bytes);
        let rest = self.bytes.get(start..end)?;
        rest.iter().any(|&byte| byte != 0).then_some(start..end)
    }

    pub(super) fn header(&self) -> &'a Header {
        self.header
    }

    pub(super) fn segments(&self) -> &'a [Segment] {
        self.segments
    }

    /// Segments of one type, in order.
    pub(super) fn of_type(
        &self,
        kind: elf::ProgramType,
    ) -> impl DoubleEndedIterator<Item = &'a Segment> {
        self.segments
            .iter()
            .filter(move |segment| segment.p_type.get(Le) == kind)
    }

    /// The segment of a type that there may be but one of.
    pub(super) fn only(&self, kind: elf::ProgramType) -> Result<Option<&'a Segment>> {
        let mut found = self.of_type(kind);
        let first = found.next();
        if found.next().is_some() {
            return Err(damaged("two segments of a type that is allowed once"));
        }
        Ok(first)
    }

    /// Section headers; none if they are missing or do not lie within the file.
    pub(super) fn sections(&self) -> &'a [Section] {
        self.sections_and_place().0
    }

    fn sections_and_place(&self) -> (&'a [Section], (u64, u64)) {
        let sections = self.header.section_headers(Le, self.bytes);
        let sections = sections.unwrap_or_default();
        let place = (self.header.e_shoff.get(Le), size_of_val(sections) as u64);
        match sections {
            [] => (sections, (0, 0)),
            _ => (sections, place),
        }
    }

    /// `PT_DYNAMIC` to its end.
    pub(super) fn dynamic(&self) -> &'a [Entry] {
        self.dynamic
    }

    /// The dynamic section to its first `DT_NULL`.
    pub(super) fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// Of several entries with one tag, the loader takes the last.
    pub(super) fn value(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.entries()
            .iter()
            .rfind(|entry| entry.d_tag.get(Le) == tag)
            .map(|entry| entry.d_val.get(Le))
    }

    fn flag_1(&self, flag: elf::DynamicFlags1) -> bool {
        self.value(elf::DT_FLAGS_1)
            .is_some_and(|flags| flags & flag.0 != 0)
    }

    /// `DT_STRTAB`, `DT_STRSZ` bytes of it.
    pub(super) fn strings(&self) -> &'a [u8] {
        self.strings
    }

    pub(super) fn names(&self) -> Names<'a> {
        Names {
            strings: self.strings,
            budget: self.bytes.len().saturating_mul(64).saturating_add(1 << 20),
        }
    }

    /// Where in the file the bytes are that a `PT_LOAD` maps to this address; all `size` of them in one segment.
    pub(super) fn offset_of(&self, address: u64, size: u64) -> Option<u64> {
        self.of_type(elf::PT_LOAD).find_map(|segment| {
            let into = address.checked_sub(segment.p_vaddr.get(Le))?;
            let left = segment.p_filesz.get(Le).checked_sub(into)?;
            (size <= left).then(|| segment.p_offset.get(Le) + into)
        })
    }

    /// The file's bytes from this address to the end of their segment.
    pub(super) fn mapped_from(&self, address: u64) -> Option<&'a [u8]> {
        self.of_type(elf::PT_LOAD).find_map(|segment| {
            let into = address.checked_sub(segment.p_vaddr.get(Le))?;
            let left = segment.p_filesz.get(Le).checked_sub(into)?;
            slice(self.bytes, segment.p_offset.get(Le) + into, left)
        })
    }
}

/// Looks dynamic strings up. The budget keeps the time within a multiple of the file's size where many names are the tails of
/// a long one.
pub(super) struct Names<'a> {
    strings: &'a [u8],
    budget: usize,
}

impl<'a> Names<'a> {
    pub(super) fn get(&mut self, offset: u64) -> Result<&'a [u8]> {
        let name = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.strings.get(offset..))
            .and_then(|rest| rest.read_bytes_at_until(0..rest.len() as u64, 0).ok())
            .ok_or_else(|| damaged("a name lies outside of its dynamic strings"))?;
        self.budget = self
            .budget
            .checked_sub(name.len())
            .ok_or_else(|| damaged("its names are impossibly long"))?;
        Ok(name)
    }
}

/// `size` bytes at `offset`.
pub(super) fn slice(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    bytes.get(start..end)
}

fn read_header(bytes: &[u8]) -> Result<&Header> {
    let unsupported = |line: String| Err(Error::Unsupported(line));
    if !bytes.starts_with(&elf::ELFMAG) {
        return unsupported("not an ELF file".into());
    }
    // Class and byte order say how the rest is read.
    if bytes.get(4) != Some(&elf::ELFCLASS64.0) {
        return unsupported("not a 64-bit ELF file: only those for x86-64 are supported".into());
    }
    if bytes.get(5) != Some(&elf::ELFDATA2LSB.0) {
        return unsupported("a big-endian ELF file: only those for x86-64 are supported".into());
    }
    let header = Header::parse(bytes).map_err(|_| damaged("its header is cut off or unknown"))?;
    let machine = header.e_machine.get(Le);
    if machine != elf::EM_X86_64 {
        return unsupported(format!(
            "for another machine (ELF machine {}): only x86-64 is supported",
            machine.0
        ));
    }
    match header.e_type.get(Le) {
        elf::ET_EXEC | elf::ET_DYN => Ok(header),
        elf::ET_REL => unsupported("an object file, not a program: link it first".into()),
        elf::ET_CORE => unsupported("a core dump, not a program".into()),
        _ => Err(damaged("neither a program nor a library")),
    }
}
