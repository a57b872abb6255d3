//! Small ELF files made by code, of every shape that linkers make and some that they do not. They do not run; `elf_real.rs` has those that do.

#![allow(dead_code)]

#[path = "../../fuzz/checks.rs"]
pub mod checks;
pub mod workshop;

/// What kind of file to make.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `ET_DYN`; else `ET_EXEC`.
    pub dynamic_type: bool,
    /// Address of the first segment.
    pub base: u64,
    pub interpreter: Option<Vec<u8>>,
    pub program_headers_segment: bool,
    /// `p_align` of the `PT_LOAD`s.
    pub align: u64,
    /// The data segment begins at a page of the file, rather than right after the other.
    pub separate: bool,
    /// `.dynamic` in the read-only segment.
    pub dynamic_read_only: bool,
    pub needed: Vec<Vec<u8>>,
    pub soname: Option<Vec<u8>>,
    pub rpath: Option<Vec<u8>>,
    pub runpath: Option<Vec<u8>>,
    /// `DT_NULL`s besides the one at the end.
    pub spare: usize,
    /// `DT_NEEDED` last rather than first.
    pub needed_last: bool,
    /// Symbol versions, needed and defined.
    pub versions: bool,
    pub bss: u64,
    pub sections: bool,
    /// Contents that no segment has, such as `.comment`.
    pub unmapped: usize,
    /// More `PT_NULL`s, to fill the program headers.
    pub extra_headers: usize,
    pub flags_1: Option<u64>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            dynamic_type: true,
            base: 0,
            interpreter: Some(b"/lib64/ld-linux-x86-64.so.2".to_vec()),
            program_headers_segment: true,
            align: 0x1000,
            separate: false,
            dynamic_read_only: false,
            needed: vec![b"libm.so.6".to_vec(), b"libc.so.6".to_vec()],
            soname: None,
            rpath: None,
            runpath: None,
            spare: 4,
            needed_last: false,
            versions: true,
            bss: 0x100,
            sections: true,
            unmapped: 33,
            extra_headers: 0,
            flags_1: None,
        }
    }
}

/// The versions that [`Spec::versions`] makes: needed library, version, weak.
pub const NEEDED_VERSIONS: [(&str, &str, bool); 3] = [
    ("libc.so.6", "GLIBC_2.2.5", false),
    ("libc.so.6", "GLIBC_2.34", true),
    ("libm.so.6", "GLIBC_2.29", false),
];
/// Defined ones, the base one left out.
pub const DEFINED_VERSIONS: [&str; 2] = ["SYNTH_1", "SYNTH_2"];
/// Name, version, library, defined, weak.
pub type Symbol = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    bool,
    bool,
);
pub const SYMBOLS: [Symbol; 6] = [
    ("puts", Some("GLIBC_2.2.5"), Some("libc.so.6"), false, false),
    ("start", Some("GLIBC_2.34"), Some("libc.so.6"), false, true),
    ("exp", Some("GLIBC_2.29"), Some("libm.so.6"), false, false),
    ("hook", None, None, false, true),
    ("old", Some("SYNTH_1"), None, true, false),
    ("new", Some("SYNTH_2"), None, true, false),
];

struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, name: &[u8]) -> u64 {
        let at = self.0.len() as u64;
        self.0.extend(name);
        self.0.push(0);
        at
    }
}

struct Section {
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
}

/// The file.
pub fn build(spec: &Spec) -> Vec<u8> {
    let mut strings = Strings(vec![0]);
    let mut bytes = vec![0; 64];
    let headers = 5
        + spec.extra_headers
        + usize::from(spec.program_headers_segment)
        + usize::from(spec.interpreter.is_some());
    bytes.resize(64 + headers * 56, 0);
    let mut sections = vec![Section {
        kind: 0,
        flags: 0,
        address: 0,
        offset: 0,
        size: 0,
    }];

    let mut read_only = |bytes: &mut Vec<u8>, kind: u32, contents: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let (offset, size) = (bytes.len() as u64, contents.len() as u64);
        bytes.extend(contents);
        sections.push(Section {
            kind,
            flags: 2,
            address: spec.base + offset,
            offset,
            size,
        });
        spec.base + offset
    };

    // The order of the linkers: interpreter, hash, symbols, strings, versions.
    let interpreter = spec.interpreter.as_ref().map(|name| {
        let name = [name, &b"\0"[..]].concat();
        (read_only(&mut bytes, 1, &name), name.len() as u64)
    });
    let mut entries: Vec<(u64, u64)> = Vec::new();
    let needed: Vec<_> = spec
        .needed
        .iter()
        .map(|name| (1, strings.add(name)))
        .collect();
    let mut hash = Vec::new();
    for word in [1u32, SYMBOLS.len() as u32 + 1, 1] {
        hash.extend(word.to_le_bytes());
    }
    hash.extend((0..SYMBOLS.len() as u32 + 1).flat_map(|index| ((index + 1) % 7).to_le_bytes()));
    entries.push((4, read_only(&mut bytes, 5, &hash)));
    let mut symbols = vec![0; 24];
    for (name, _, _, defined, weak) in SYMBOLS {
        symbols.extend((strings.add(name.as_bytes()) as u32).to_le_bytes());
        symbols.extend([if weak { 0x22 } else { 0x12 }, 0]);
        symbols.extend(u16::from(defined).to_le_bytes());
        symbols.extend([0; 16]);
    }
    entries.push((6, read_only(&mut bytes, 11, &symbols)));
    entries.push((11, 24));
    if spec.versions {
        let (numbers, needs, definitions) = versions(&mut strings);
        entries.push((0x6fff_fff0, read_only(&mut bytes, 0x6fff_ffff, &numbers)));
        entries.push((0x6fff_fffe, read_only(&mut bytes, 0x6fff_fffe, &needs)));
        entries.push((0x6fff_ffff, 2));
        entries.push((
            0x6fff_fffc,
            read_only(&mut bytes, 0x6fff_fffd, &definitions),
        ));
        entries.push((0x6fff_fffd, 3));
    }
    let mut string = |tag, name: &Option<Vec<u8>>| {
        name.iter()
            .map(|name| (tag, strings.add(name)))
            .collect::<Vec<_>>()
    };
    entries.extend(string(14, &spec.soname));
    entries.extend(string(15, &spec.rpath));
    entries.extend(string(29, &spec.runpath));
    entries.push((10, strings.0.len() as u64));
    entries.push((5, read_only(&mut bytes, 3, &strings.0)));
    entries.push((21, 0));
    entries.extend(spec.flags_1.map(|flags| (0x6fff_fffb, flags)));
    if spec.needed_last {
        entries.extend(needed);
    } else {
        entries.splice(0..0, needed);
    }
    entries.resize(entries.len() + 1 + spec.spare, (0, 0));
    let dynamic: Vec<u8> = entries
        .iter()
        .flat_map(|&(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
        .collect();

    let mut dynamic_at = (0, 0);
    if spec.dynamic_read_only {
        let address = read_only(&mut bytes, 6, &dynamic);
        dynamic_at = (address - spec.base, address);
    }
    let text = Load {
        flags: 5,
        offset: 0,
        address: spec.base,
        size: bytes.len() as u64,
        memory: bytes.len() as u64,
    };

    bytes.resize(
        bytes
            .len()
            .next_multiple_of(if spec.separate { 4096 } else { 8 }),
        0,
    );
    let offset = bytes.len() as u64;
    let skew = spec.base % spec.align;
    let mut address =
        (text.address + text.size).next_multiple_of(spec.align) + (offset + skew) % spec.align;
    if address < text.address + text.size {
        address += spec.align;
    }
    bytes.extend(b"datadata");
    if !spec.dynamic_read_only {
        dynamic_at = (offset + 8, address + 8);
        sections.push(Section {
            kind: 6,
            flags: 3,
            address: address + 8,
            offset: offset + 8,
            size: dynamic.len() as u64,
        });
        bytes.extend(&dynamic);
    }
    let size = bytes.len() as u64 - offset;
    let data = Load {
        flags: 6,
        offset,
        address,
        size,
        memory: size + spec.bss,
    };
    sections.push(Section {
        kind: 8,
        flags: 3,
        address: address + size,
        offset: offset + size,
        size: spec.bss,
    });

    let unmapped = bytes.len() as u64;
    if spec.sections {
        bytes.resize(bytes.len() + spec.unmapped, b'c');
        sections.push(Section {
            kind: 1,
            flags: 0,
            address: 0,
            offset: unmapped,
            size: spec.unmapped as u64,
        });
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let section_table = bytes.len() as u64;
    if spec.sections {
        for section in &sections {
            bytes.extend(0u32.to_le_bytes());
            bytes.extend(section.kind.to_le_bytes());
            for field in [
                section.flags,
                section.address,
                section.offset,
                section.size,
                0,
                8,
                0,
            ] {
                bytes.extend(field.to_le_bytes());
            }
        }
    }

    let mut table = Vec::new();
    let mut header = |kind: u32, load: &Load, align: u64| {
        table.extend(kind.to_le_bytes());
        table.extend(load.flags.to_le_bytes());
        for field in [
            load.offset,
            load.address,
            load.address,
            load.size,
            load.memory,
            align,
        ] {
            table.extend(field.to_le_bytes());
        }
    };
    let part = |offset: u64, address: u64, size: u64| Load {
        flags: 4,
        offset,
        address,
        size,
        memory: size,
    };
    if spec.program_headers_segment {
        header(6, &part(64, spec.base + 64, headers as u64 * 56), 8);
    }
    if let Some((address, size)) = interpreter {
        header(3, &part(address - spec.base, address, size), 1);
    }
    header(1, &text, spec.align);
    header(1, &data, spec.align);
    header(
        2,
        &part(dynamic_at.0, dynamic_at.1, dynamic.len() as u64),
        8,
    );
    header(0x6474_e551, &part(0, 0, 0), 16);
    header(0x6474_e552, &part(data.offset, data.address, 8), 1);
    for _ in 0..spec.extra_headers {
        header(0, &part(0, 0, 0), 0);
    }
    bytes[64..64 + table.len()].copy_from_slice(&table);

    let mut file_header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file_header.extend([if spec.dynamic_type { 3 } else { 2 }, 0, 62, 0, 1, 0, 0, 0]);
    let (sections_at, sections_count) = if spec.sections {
        (section_table, sections.len() as u16)
    } else {
        (0, 0)
    };
    for field in [spec.base + 64, 64, sections_at] {
        file_header.extend(field.to_le_bytes());
    }
    file_header.extend([0; 4]);
    for field in [64, 56, headers as u16, 64, sections_count, 0] {
        file_header.extend(field.to_le_bytes());
    }
    bytes[..64].copy_from_slice(&file_header);
    bytes
}

struct Load {
    flags: u32,
    offset: u64,
    address: u64,
    size: u64,
    memory: u64,
}

/// `DT_VERSYM`, `DT_VERNEED`, `DT_VERDEF`. Numbers: needed ones 4 to 6, defined ones 2 and 3.
fn versions(strings: &mut Strings) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let numbers = [0u16, 4, 5, 6, 1, 2, 0x8003];
    let numbers = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let mut needs = Vec::new();
    let mut left = 2;
    for library in ["libc.so.6", "libm.so.6"] {
        let of: Vec<_> = NEEDED_VERSIONS
            .iter()
            .enumerate()
            .filter(|(_, need)| need.0 == library)
            .collect();
        left -= 1;
        needs.extend(1u16.to_le_bytes());
        needs.extend((of.len() as u16).to_le_bytes());
        needs.extend((strings.add(library.as_bytes()) as u32).to_le_bytes());
        needs.extend(16u32.to_le_bytes());
        needs.extend(
            if left == 0 {
                0u32
            } else {
                16 + of.len() as u32 * 16
            }
            .to_le_bytes(),
        );
        for (place, (index, (_, version, weak))) in of.iter().enumerate() {
            needs.extend(0u32.to_le_bytes());
            needs.extend(if *weak { 2u16 } else { 0 }.to_le_bytes());
            needs.extend((*index as u16 + 4).to_le_bytes());
            needs.extend((strings.add(version.as_bytes()) as u32).to_le_bytes());
            needs.extend(if place + 1 == of.len() { 0u32 } else { 16 }.to_le_bytes());
        }
    }
    let mut definitions = Vec::new();
    for (index, name) in ["synth.so"].into_iter().chain(DEFINED_VERSIONS).enumerate() {
        let last = index == DEFINED_VERSIONS.len();
        for field in [1u16, u16::from(index == 0), index as u16 + 1, 1] {
            definitions.extend(field.to_le_bytes());
        }
        for field in [0, 20, if last { 0 } else { 28 }] {
            definitions.extend(u32::to_le_bytes(field));
        }
        for field in [strings.add(name.as_bytes()) as u32, 0] {
            definitions.extend(field.to_le_bytes());
        }
    }
    (numbers, needs, definitions)
}
