//! What must hold for any bytes. The fuzz targets, the replay of their corpus (`tests/elf_corpus.rs`) and the property tests
//! (`tests/elf_properties.rs`) share it.
//!
//! Results are read by an own small reader, so that a mistake in the library's does not vouch for itself.

use use_this_glibc::elf::{Change, Image, RunPath, apply, undo};

/// Reading: no panic, and what is found lies within the file.
pub fn parse(bytes: &[u8]) {
    let Ok(image) = Image::parse(bytes) else {
        return;
    };
    let within = bytes.as_ptr_range();
    let inside = |name: &[u8]| {
        let name = name.as_ptr_range();
        assert!(within.start <= name.start && name.end <= within.end);
    };
    let single = [
        image.interpreter(),
        image.soname(),
        image.rpath(),
        image.runpath(),
    ];
    single.into_iter().flatten().for_each(inside);
    image.needed().iter().copied().for_each(inside);
    let _ = (image.kind(), image.no_default_libraries());
    let _ = image.needs_linux_5_18();
    if let Some(payload) = image.payload() {
        assert!(payload.start < payload.end && payload.end <= bytes.len());
    }
    for symbol in image.symbols().unwrap_or_default() {
        inside(symbol.name);
        symbol.version.into_iter().for_each(inside);
        symbol.library.into_iter().for_each(inside);
    }
    for needed in image.needed_versions().unwrap_or_default() {
        inside(needed.library);
        inside(needed.version);
    }
    (image.defined_versions().unwrap_or_default().into_iter()).for_each(inside);
}

/// Taking back: no panic, nothing out of nothing. As it is, and with the end of a record behind it.
pub fn restore(bytes: &[u8]) {
    for bytes in [bytes, &[bytes, b"use-this-glibc 1"].concat()] {
        if let Ok(Some(original)) = undo::original(bytes) {
            assert!(original.len() < bytes.len());
        }
    }
}

/// Changing: the result reads as asked, everything else is as it was, and the original comes back. Tells whether it was changed.
pub fn edit(original: &[u8], change: &Change) -> bool {
    let changed = match apply(original, change) {
        Ok(changed) => changed,
        Err(error) => {
            assert!(matches!(error.status(), 2 | 3), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
            return false;
        }
    };
    assert_eq!(
        Ok(&changed),
        apply(original, change).as_ref(),
        "the same again"
    );
    if *change == Change::default() {
        assert_eq!(changed, original);
        return true;
    }
    assert_eq!(
        Ok(Some(original)),
        undo::original(&changed).as_ref().map(Option::as_deref)
    );
    assert_eq!(
        apply(&changed, change).map_err(|error| error.status()),
        Err(3)
    );
    reads_as_asked(original, &changed, change);
    let old = Read::new(original);
    let new = Read::new(&changed);
    one_more_segment(&old, &new);
    dynamic_section_as_asked(&old, &new, change);
    nothing_else_changed(&old, &new);
    true
}

fn reads_as_asked(original: &[u8], changed: &[u8], change: &Change) {
    let old = Image::parse(original).expect("it was changed");
    let new = Image::parse(changed).expect("the result parses");
    let interpreter = change.interpreter.as_deref().or(old.interpreter());
    assert_eq!(new.interpreter(), interpreter);
    assert_eq!((new.kind(), new.soname()), (old.kind(), old.soname()));
    match &change.run_path {
        Some((RunPath::Rpath, path)) => {
            assert_eq!((new.rpath(), new.runpath()), (Some(&path[..]), None))
        }
        Some((RunPath::Runpath, path)) => {
            assert_eq!((new.rpath(), new.runpath()), (None, Some(&path[..])))
        }
        None => assert_eq!((new.rpath(), new.runpath()), (old.rpath(), old.runpath())),
    }
    let mut needed = old.needed().to_vec();
    needed.extend(change.add_needed.iter().map(Vec::as_slice));
    assert_eq!(new.needed(), needed);
    assert_eq!(new.payload(), None, "our own record is no payload");
}

/// All old segments are there, in order, and one more that gets in nobody's way.
fn one_more_segment(old: &Read<'_>, new: &Read<'_>) {
    let loads = |read: &Read<'_>| -> Vec<Segment> {
        let mut segments = read.segments.clone();
        segments.retain(|segment| segment.kind == PT_LOAD);
        segments
    };
    let (before, mut after) = (loads(old), loads(new));
    let added = after.pop().expect("a segment was added");
    assert_eq!(before, after);
    assert_eq!(new.segments.len(), old.segments.len() + 1);
    assert_eq!(added.offset % 4096, added.address % 4096);
    assert_eq!(added.file_size, added.memory_size);
    assert!(added.offset >= old.bytes.len() as u64);
    assert!(added.offset - old.bytes.len() as u64 <= (64 << 20) + 4096);
    for load in &before {
        let end = load.address + load.memory_size;
        assert!(added.address >= end.next_multiple_of(4096));
    }
    assert_eq!(added.flags & 5, 4, "readable, not executable");
    // The kernel and the loader find the program headers in memory.
    let table = new.number(32, 8);
    assert!(table >= added.offset && table.is_multiple_of(8));
    assert!(table - added.offset + new.segments.len() as u64 * 56 <= added.file_size);
    for (before, after) in others(old).zip(others(new)) {
        match before.kind {
            PT_PHDR => assert_eq!(
                (after.offset, after.address, after.file_size),
                (
                    table,
                    table - added.offset + added.address,
                    new.segments.len() as u64 * 56
                )
            ),
            PT_INTERP | PT_DYNAMIC => assert!(
                before == after
                    || (after.kind == before.kind
                        && new.at(after.address, after.file_size) == Some(after.offset))
            ),
            _ => assert_eq!(before, after),
        }
    }
    // What the loader writes into is writable.
    let dynamic = new.only(PT_DYNAMIC);
    if dynamic != old.only(PT_DYNAMIC) {
        assert_eq!(added.flags, 6);
    }
}

fn others<'a>(read: &'a Read<'_>) -> impl Iterator<Item = &'a Segment> {
    read.segments
        .iter()
        .filter(|segment| segment.kind != PT_LOAD)
}

/// Old entries in their order, new needed libraries after the old ones, one run path, strings that begin as the old ones.
fn dynamic_section_as_asked(old: &Read<'_>, new: &Read<'_>, change: &Change) {
    let run_path = |tag| tag == DT_RPATH || tag == DT_RUNPATH;
    let kept = |read: &Read<'_>, moved: bool| -> Vec<(u64, u64)> {
        let mut entries = read.entries();
        entries.retain(|&(tag, _)| !(change.run_path.is_some() && run_path(tag)));
        entries.retain(|&(tag, _)| !(moved && (tag == DT_STRTAB || tag == DT_STRSZ)));
        entries
    };
    let moved = change.run_path.is_some() || !change.add_needed.is_empty();
    let mut after = kept(new, moved);
    let needed =
        |entries: &[(u64, u64)]| entries.iter().filter(|entry| entry.0 == DT_NEEDED).count();
    let first = needed(&kept(old, moved));
    let mut seen = 0;
    after.retain(|&(tag, _)| {
        seen += usize::from(tag == DT_NEEDED);
        tag != DT_NEEDED || seen <= first
    });
    assert_eq!(seen, first + change.add_needed.len());
    assert_eq!(kept(old, moved), after);
    if change.run_path.is_some() {
        let paths = new
            .entries()
            .iter()
            .filter(|entry| run_path(entry.0))
            .count();
        assert_eq!(paths, 1);
    }
    if let Some(strings) = old.strings() {
        assert!(new.strings().expect("strings").starts_with(strings));
    }
}

/// Every byte of the original is where it was, except the header's two fields, the dynamic section where it stands, and section headers.
fn nothing_else_changed(old: &Read<'_>, new: &Read<'_>) {
    let mut allowed = vec![(32, 40), (56, 58)];
    let dynamic = old.only(PT_DYNAMIC);
    if new.only(PT_DYNAMIC) == dynamic {
        allowed.push((dynamic.offset, dynamic.offset + dynamic.file_size));
    }
    let sections = old.number(40, 8);
    // Only address, offset and size of a section.
    for section in (0..old.number(60, 2)).filter(|_| sections != 0) {
        let at = sections.saturating_add(section * 64);
        allowed.push((at.saturating_add(16), at.saturating_add(40)));
    }
    allowed.sort_unstable();
    let mut from = 0;
    for (start, end) in allowed
        .into_iter()
        .chain([(old.bytes.len() as u64, u64::MAX)])
    {
        let start = (start as usize).min(old.bytes.len());
        if from < start {
            assert!(
                old.bytes[from..start] == new.bytes[from..start],
                "bytes {from}..{start}"
            );
        }
        from = from.max(end as usize);
    }
}

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const PT_PHDR: u64 = 6;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    kind: u64,
    flags: u64,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

/// Reads files that were accepted already: panics on others.
struct Read<'a> {
    bytes: &'a [u8],
    segments: Vec<Segment>,
}

impl<'a> Read<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut read = Self {
            bytes,
            segments: Vec::new(),
        };
        let table = read.number(32, 8);
        for index in 0..read.number(56, 2) {
            let at = table + index * 56;
            let field = |from, size| read.number(at + from, size);
            let segment = Segment {
                kind: field(0, 4),
                flags: field(4, 4),
                offset: field(8, 8),
                address: field(16, 8),
                file_size: field(32, 8),
                memory_size: field(40, 8),
                align: field(48, 8),
            };
            read.segments.push(segment);
        }
        read
    }

    fn number(&self, at: u64, size: usize) -> u64 {
        let mut number = [0; 8];
        number[..size].copy_from_slice(&self.bytes[at as usize..at as usize + size]);
        u64::from_le_bytes(number)
    }

    fn only(&self, kind: u64) -> &Segment {
        let mut of_kind = self.segments.iter().filter(|segment| segment.kind == kind);
        let segment = of_kind.next().expect("a segment of the type");
        assert_eq!(of_kind.next(), None);
        segment
    }

    /// The offset of what is mapped there.
    fn at(&self, address: u64, size: u64) -> Option<u64> {
        self.segments.iter().find_map(|load| {
            let into = address.checked_sub(load.address)?;
            (load.kind == PT_LOAD && into.checked_add(size)? <= load.file_size)
                .then(|| load.offset + into)
        })
    }

    fn entries(&self) -> Vec<(u64, u64)> {
        let dynamic = self.only(PT_DYNAMIC);
        let start = self.at(dynamic.address, dynamic.file_size).expect("mapped");
        (start..)
            .step_by(16)
            .map(|at| (self.number(at, 8), self.number(at + 8, 8)))
            .take_while(|&(tag, _)| tag != 0)
            .collect()
    }

    fn strings(&self) -> Option<&'a [u8]> {
        let entries = self.entries();
        let last = |tag| {
            entries
                .iter()
                .rfind(|entry| entry.0 == tag)
                .map(|entry| entry.1)
        };
        let (address, size) = (last(DT_STRTAB)?, last(DT_STRSZ)?);
        let start = self.at(address, size)? as usize;
        Some(&self.bytes[start..start + size as usize])
    }
}

/// A change from the beginning of fuzzed bytes, and the rest, an ELF file.
///
/// One byte of flags (1: interpreter, 2: run path, 4: it is `DT_RUNPATH`, 8 and 16: number of libraries), then the names, each to its NUL.
pub fn split(data: &[u8]) -> (Change, &[u8]) {
    let Some((&flags, mut rest)) = data.split_first() else {
        return (Change::default(), data);
    };
    let mut name = || {
        let end = rest
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(rest.len());
        let name = rest[..end].to_vec();
        rest = rest.get(end + 1..).unwrap_or_default();
        name
    };
    let kind = if flags & 4 == 0 {
        RunPath::Rpath
    } else {
        RunPath::Runpath
    };
    let change = Change {
        interpreter: (flags & 1 != 0).then(&mut name),
        run_path: (flags & 2 != 0).then(|| (kind, name())),
        add_needed: (0..(flags >> 3) & 3).map(|_| name()).collect(),
    };
    (change, rest)
}

/// The other way.
#[allow(dead_code)]
pub fn join(change: &Change, file: &[u8]) -> Vec<u8> {
    let run_path = change.run_path.as_ref();
    let mut flags = u8::from(change.interpreter.is_some()) | (u8::from(run_path.is_some()) << 1);
    flags |= u8::from(run_path.is_some_and(|(kind, _)| *kind == RunPath::Runpath)) << 2;
    flags |= (change.add_needed.len().min(3) as u8) << 3;
    let mut data = vec![flags];
    let names = change
        .interpreter
        .iter()
        .chain(run_path.map(|(_, path)| path));
    for name in names.chain(change.add_needed.iter().take(3)) {
        data.extend(name);
        data.push(0);
    }
    data.extend(file);
    data
}
