//! Damage: cuts, flipped bits, and headers that say what no linker says.

use super::Base;

/// One damaged file.
pub struct Damage {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Numbers that are the same each time (splitmix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;

/// Where things are in an undamaged file.
struct Map<'a>(&'a [u8]);

impl Map<'_> {
    fn number(&self, at: usize, size: usize) -> u64 {
        self.0[at..at + size]
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn headers(&self) -> std::ops::Range<usize> {
        let at = self.number(0x20, 8) as usize;
        at..at + self.number(0x38, 2) as usize * 56
    }

    /// Offsets of the program headers of a type.
    fn of_type(&self, wanted: u32) -> Vec<usize> {
        self.headers()
            .step_by(56)
            .filter(|at| self.number(*at, 4) == u64::from(wanted))
            .collect()
    }

    fn dynamic(&self) -> std::ops::Range<usize> {
        let header = self.of_type(PT_DYNAMIC)[0];
        let at = self.number(header + 8, 8) as usize;
        at..at + self.number(header + 32, 8) as usize
    }

    /// Offset of the entry with the tag.
    fn entry(&self, tag: u64) -> Option<usize> {
        self.dynamic()
            .step_by(16)
            .find(|at| self.number(*at, 8) == tag)
    }

    fn offset_of(&self, address: u64) -> usize {
        let load = |at: &usize| {
            let from = self.number(at + 16, 8);
            (from..from + self.number(at + 32, 8)).contains(&address)
        };
        let header = self
            .of_type(PT_LOAD)
            .into_iter()
            .find(load)
            .expect("an address of the file");
        (address - self.number(header + 16, 8) + self.number(header + 8, 8)) as usize
    }
}

/// At every 64 bytes of the first 4 KiB, and at every KiB after.
pub fn truncations(base: &Base) -> impl Iterator<Item = Damage> + '_ {
    let length = base.bytes.len();
    let ends = (0..length.min(4096))
        .step_by(64)
        .chain((4096..length).step_by(1024))
        .chain([length - 1]);
    ends.map(|end| Damage {
        name: format!("the first {end} bytes"),
        bytes: base.bytes[..end].to_vec(),
    })
}

/// Each bit of the file header and of the program headers.
pub fn header_bits(base: &Base) -> impl Iterator<Item = Damage> + '_ {
    bits(base, (0..64).chain(Map(&base.bytes).headers()))
}

pub fn dynamic_bits(base: &Base) -> impl Iterator<Item = Damage> + '_ {
    bits(base, Map(&base.bytes).dynamic())
}

fn bits(base: &Base, places: impl Iterator<Item = usize>) -> impl Iterator<Item = Damage> {
    places.flat_map(move |at| {
        (0..8).map(move |bit| {
            let mut bytes = base.bytes.clone();
            bytes[at] ^= 1 << bit;
            Damage {
                name: format!("byte {at:#x} bit {bit}"),
                bytes,
            }
        })
    })
}

/// Several faults in headers, dynamic section and version tables: bytes changed to any value, and 64-bit fields to values at the edges.
pub fn many_faults(
    base: &Base,
    mut numbers: Numbers,
    count: usize,
) -> impl Iterator<Item = Damage> + '_ {
    let map = Map(&base.bytes);
    let (headers, dynamic) = (map.headers(), map.dynamic());
    let tables = 0..base.bytes.len().min(0x800);
    let length = base.bytes.len() as u64;
    (0..count).map(move |number| {
        let mut bytes = base.bytes.clone();
        for _ in 0..=numbers.below(5) {
            let range = match numbers.below(4) {
                0 => 16..64,
                1 => headers.clone(),
                2 => dynamic.clone(),
                _ => tables.clone(),
            };
            let at = range.start + numbers.below(range.len());
            if numbers.below(2) == 0 {
                bytes[at] = numbers.next() as u8;
            } else {
                let edges = [
                    0,
                    1,
                    7,
                    0xfff,
                    0x1000,
                    length - 1,
                    length,
                    length + 1,
                    u64::MAX,
                    u64::MAX - 7,
                    1 << 63,
                    i64::MAX as u64,
                    1 << 47,
                    0xffff_ffff,
                ];
                let at = (at & !7).min(bytes.len() - 8);
                bytes[at..at + 8].copy_from_slice(&edges[numbers.below(edges.len())].to_le_bytes());
            }
        }
        Damage {
            name: format!("faults, number {number}"),
            bytes,
        }
    })
}

/// Headers that contradict each other or the file.
pub fn lies(base: &Base) -> Vec<Damage> {
    let map = Map(&base.bytes);
    let mut all = Vec::new();
    let mut lie = |name: &str, changes: &[(usize, &[u8])]| {
        let mut bytes = base.bytes.clone();
        for (at, value) in changes {
            bytes[*at..at + value.len()].copy_from_slice(value);
        }
        all.push(Damage {
            name: name.to_owned(),
            bytes,
        });
    };
    let word = |value: u64| value.to_le_bytes();
    let (table, length) = (map.headers().start as u64, base.bytes.len() as u64);
    let loads = map.of_type(PT_LOAD);
    let (dynamic, interp) = (map.of_type(PT_DYNAMIC)[0], map.of_type(PT_INTERP)[0]);
    let last = *loads.last().expect("a segment");
    let edges = [
        0,
        1,
        4095,
        length - 1,
        length,
        length + 1,
        u64::MAX,
        u64::MAX - 4095,
        1 << 63,
        1 << 47,
        (1 << 47) - 4096,
        0xffff_ffff,
    ];

    lie("e_phnum 0xffff", &[(0x38, &[0xff, 0xff])]);
    lie("e_phnum 0", &[(0x38, &[0, 0])]);
    lie("e_phnum 1", &[(0x38, &[1, 0])]);
    lie("e_phnum one more", &[(0x38, &[base.bytes[0x38] + 1])]);
    lie("e_phnum 0xfffe", &[(0x38, &[0xfe, 0xff])]);
    lie("e_phentsize 0", &[(0x36, &[0, 0])]);
    lie("e_phentsize 55", &[(0x36, &[55])]);
    lie("e_phentsize 64", &[(0x36, &[64])]);
    lie(
        "e_phnum 0xffff, no section headers",
        &[(0x38, &[0xff, 0xff]), (0x28, &word(0))],
    );
    for edge in edges {
        lie(&format!("e_phoff {edge:#x}"), &[(0x20, &word(edge))]);
        lie(&format!("e_shoff {edge:#x}"), &[(0x28, &word(edge))]);
        for (field, name) in [
            (8, "p_offset"),
            (16, "p_vaddr"),
            (32, "p_filesz"),
            (40, "p_memsz"),
            (48, "p_align"),
        ] {
            for header in map.headers().step_by(56) {
                let kind = map.number(header, 4);
                lie(
                    &format!("{name} {edge:#x} of the header of type {kind:#x} at {header:#x}"),
                    &[(header + field, &word(edge))],
                );
            }
        }
        for entry in map.dynamic().step_by(16) {
            let tag = map.number(entry, 8);
            lie(
                &format!("value {edge:#x} of the dynamic entry {tag:#x} at {entry:#x}"),
                &[(entry + 8, &word(edge))],
            );
        }
    }
    for value in [[0, 0], [0xff, 0xff]] {
        lie("e_shnum", &[(0x3c, &value)]);
        lie("e_shstrndx", &[(0x3e, &value)]);
        lie("e_shentsize", &[(0x3a, &value)]);
    }
    // Segments over one another, in the wrong order, and twice.
    let segment = |at: usize| base.bytes[at..at + 56].to_vec();
    lie(
        "all segments are the first",
        &loads
            .iter()
            .map(|at| (*at, &base.bytes[loads[0]..loads[0] + 56]))
            .collect::<Vec<_>>(),
    );
    lie(
        "first and last segment change places",
        &[(loads[0], &segment(last)), (last, &segment(loads[0]))],
    );
    lie(
        "the last segment over the first",
        &[(last + 16, &word(map.number(loads[0] + 16, 8)))],
    );
    lie(
        "the last segment half over the one before",
        &[(last + 16, &word(map.number(last + 16, 8) - 0x1000))],
    );
    lie("more in the file than in memory", &[(last + 40, &word(1))]);
    lie(
        "no room after the last segment",
        &[(last + 40, &word((1 << 47) - map.number(last + 16, 8)))],
    );
    lie("60 MB of .bss", &[(last + 40, &word(60 << 20))]);
    lie("1 GB of .bss", &[(last + 40, &word(1 << 30))]);
    // Pages that do not fit together.
    for align in [0_u64, 1, 3, 0x1001, 1 << 21, 1 << 40] {
        let changes: Vec<(usize, [u8; 8])> =
            loads.iter().map(|at| (at + 48, word(align))).collect();
        let changes: Vec<(usize, &[u8])> = changes
            .iter()
            .map(|(at, value)| (*at, value.as_slice()))
            .collect();
        lie(&format!("p_align {align:#x} of all segments"), &changes);
    }
    // The dynamic section is somewhere else.
    lie(
        "the dynamic section is the header table",
        &[(dynamic + 8, &word(table)), (dynamic + 16, &word(table))],
    );
    lie(
        "the dynamic section is the file header",
        &[(dynamic + 8, &word(0)), (dynamic + 16, &word(0))],
    );
    lie(
        "the dynamic section has an odd address",
        &[
            (dynamic + 8, &word(map.number(dynamic + 8, 8) + 1)),
            (dynamic + 16, &word(map.number(dynamic + 16, 8) + 1)),
        ],
    );
    lie(
        "the dynamic section is one entry long",
        &[(dynamic + 32, &word(16)), (dynamic + 40, &word(16))],
    );
    lie(
        "the dynamic section is 15 bytes long",
        &[(dynamic + 32, &word(15)), (dynamic + 40, &word(15))],
    );
    lie(
        "offset and address of the dynamic section are not the same place",
        &[(dynamic + 8, &word(map.number(dynamic + 8, 8) - 16))],
    );
    lie(
        "two dynamic sections",
        &[(map.headers().end - 56, &segment(dynamic))],
    );
    lie(
        "two interpreters",
        &[(map.headers().end - 56, &segment(interp))],
    );
    lie("no dynamic section", &[(dynamic, &[4])]);
    lie("no interpreter", &[(interp, &[4])]);
    lie(
        "the interpreter without its end",
        &[(interp + 32, &word(map.number(interp + 32, 8) - 1))],
    );
    lie(
        "the interpreter is empty",
        &[(map.number(interp + 8, 8) as usize, &[0])],
    );
    lie(
        "the interpreter is 5000 bytes",
        &[(interp + 32, &word(5000)), (interp + 40, &word(5000))],
    );
    if let Some(own) = map.of_type(PT_PHDR).first() {
        lie(
            "the header table says it is elsewhere",
            &[(own + 16, &word(0x1234_5678))],
        );
        lie(
            "the header table says it is shorter",
            &[(own + 32, &word(56)), (own + 40, &word(56))],
        );
        lie("no PT_PHDR", &[(*own, &[4])]);
        lie(
            "PT_PHDR is last",
            &[
                (*own, &segment(map.headers().end - 56)),
                (map.headers().end - 56, &segment(*own)),
            ],
        );
    }
    // Entries of the dynamic section.
    for entry in map.dynamic().step_by(16) {
        let tag = map.number(entry, 8);
        lie(
            &format!("the dynamic section ends at tag {tag:#x}"),
            &[(entry, &word(0))],
        );
        for (other, name) in [
            (1, "DT_NEEDED"),
            (5, "DT_STRTAB"),
            (10, "DT_STRSZ"),
            (15, "DT_RPATH"),
            (29, "DT_RUNPATH"),
            (30, "DT_FLAGS"),
            (0x6fff_fffb, "DT_FLAGS_1"),
        ] {
            lie(&format!("tag {tag:#x} is {name}"), &[(entry, &word(other))]);
        }
    }
    let no_end: Vec<(usize, [u8; 8])> = map
        .dynamic()
        .step_by(16)
        .filter(|at| map.number(*at, 8) == 0)
        .map(|at| (at, word(21)))
        .collect();
    lie(
        "the dynamic section has no end",
        &no_end
            .iter()
            .map(|(at, tag)| (*at, tag.as_slice()))
            .collect::<Vec<_>>(),
    );
    // Version tables.
    if let Some(entry) = map.entry(0x6fff_fffe) {
        let at = map.offset_of(map.number(entry + 8, 8));
        let aux = at + map.number(at + 8, 4) as usize;
        for edge in [0_u32, 1, 15, 16, 0x7fff_ffff, 0xffff_fff0, u32::MAX] {
            let edge = edge.to_le_bytes();
            lie("vn_next", &[(at + 12, &edge), (at + 2, &[0xff, 0xff])]);
            lie("vn_aux", &[(at + 8, &edge)]);
            lie("vna_next", &[(aux + 12, &edge), (at + 2, &[0xff, 0xff])]);
            lie("vna_name", &[(aux + 8, &edge)]);
            lie("vn_file", &[(at + 4, &edge)]);
        }
        lie("vn_cnt", &[(at + 2, &[0xff, 0xff])]);
        lie("vn_version", &[(at, &[9, 9])]);
    }
    // Hash tables.
    for tag in [4_u64, 0x6fff_fef5] {
        if let Some(entry) = map.entry(tag) {
            let at = map.offset_of(map.number(entry + 8, 8));
            for field in 0..6 {
                for edge in [0_u32, 1, 0x7fff_ffff, u32::MAX] {
                    lie(
                        &format!("word {field} of the hash table is {edge:#x}"),
                        &[(at + field * 4, &edge.to_le_bytes())],
                    );
                }
            }
        }
    }
    all
}
