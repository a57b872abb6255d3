//! Names of places in programs and libraries: one pass over the symbol table of each module's file, for all places at once.
//!
//! Read by pread(2), not mapped: a file that shrinks meanwhile must not kill the process. Nothing in the file is believed.

use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::{
    Capture,
    layout::{Module, PATH, frame},
};
use libc::{Elf64_Ehdr, Elf64_Shdr, Elf64_Sym};

use crate::{system::File, text::Text};

/// A lock, and the symbol that it is named after.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// The lock's index.
    pub lock: u32,
    /// Where to look; 0: nowhere.
    pub frame: u64,
    /// Whether that is a return address: the call stands before it.
    pub is_call: bool,
    /// What stands there, if it is known.
    pub symbol: Option<Symbol>,
    /// Its name, up to a NUL.
    pub text: [u8; LONGEST],
}

impl Name {
    /// None.
    pub const NONE: Self = Self {
        lock: 0,
        frame: 0,
        is_call: false,
        symbol: None,
        text: [0; LONGEST],
    };
}

/// A symbol that covers a place.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Its address in the file.
    pub value: u64,
    /// Where in the file its name is.
    name_at: u64,
    global: bool,
}

/// Longest name that is shown.
pub const LONGEST: usize = 96;

/// What a pass needs.
pub struct Symbols {
    block: [Elf64_Sym; BLOCK],
    path: [u8; PATH + 1],
}

/// Symbols that are read at once.
const BLOCK: usize = 256;
// <elf.h>
const SHT_SYMTAB: u32 = 2;
const SHT_NOTE: u32 = 7;
const SHT_DYNSYM: u32 = 11;
const SHN_UNDEF: u16 = 0;
const NT_GNU_BUILD_ID: u32 = 3;

impl Symbols {
    /// Empty.
    pub const NEW: Self = Self {
        block: [Elf64_Sym {
            st_name: 0,
            st_info: 0,
            st_other: 0,
            st_shndx: 0,
            st_value: 0,
            st_size: 0,
        }; BLOCK],
        path: [0; PATH + 1],
    };

    /// Finds the symbols of all names.
    #[inline(never)]
    pub fn resolve(&mut self, capture: Capture, names: &mut [Name]) {
        for at in 0..names.len() {
            let index = frame::module(names[at].frame);
            let seen = |name: &Name| frame::module(name.frame) == index;
            if names[..at].iter().any(seen) {
                continue;
            }
            if let Some(module) = capture.get::<Module>(index)
                && let Some(file) = self.open(capture, module)
            {
                self.search(&file, index, &mut names[at..]);
            }
        }
    }

    /// Opens a module's file, if it is still the one that was loaded.
    #[inline(never)]
    fn open(&mut self, capture: Capture, module: &Module) -> Option<File> {
        let length = (module.path_length.load(Relaxed) as usize).min(PATH);
        let mut path = Text::new(&mut self.path);
        for byte in module.path.get(..length)? {
            path.push(&[byte.load(Relaxed)]);
        }
        path.push(&[0]);
        let path = CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
        // Where the path leads elsewhere by now (replaced, removed, another root directory), the executable is still found so.
        let file = is_executable(capture, module)
            .then(|| File::open(c"/proc/self/exe"))
            .flatten()
            .or_else(|| File::open(path))?;
        let sections = Sections::read(&file)?;
        let wanted = module.build_id_length.load(Relaxed) as usize;
        let same = wanted == 0
            || sections
                .iter(&file)
                .filter(|section| section.sh_type == SHT_NOTE)
                .any(|section| has_build_id(&file, &section, module, wanted));
        same.then_some(file)
    }

    /// Looks through `.symtab`, or `.dynsym` where that was stripped.
    #[inline(never)]
    fn search(&mut self, file: &File, module: u32, names: &mut [Name]) -> Option<()> {
        let sections = Sections::read(file)?;
        let of_type = |kind| {
            sections
                .iter(file)
                .find(|section| section.sh_type == kind && section.sh_size > 0)
        };
        let table = of_type(SHT_SYMTAB).or_else(|| of_type(SHT_DYNSYM))?;
        let strings = sections.get(file, u64::from(table.sh_link))?;
        let size = size_of::<Elf64_Sym>() as u64;
        let mut left = table.sh_size / size;
        let mut at = table.sh_offset;
        while left > 0 {
            let most = left.min(BLOCK as u64) as usize;
            // SAFETY: the bytes of an array of plain numbers, any of which are valid.
            let bytes = unsafe {
                core::slice::from_raw_parts_mut(
                    self.block.as_mut_ptr().cast::<u8>(),
                    most * size_of::<Elf64_Sym>(),
                )
            };
            let count = file.read_at(at, bytes) / size_of::<Elf64_Sym>();
            for symbol in self.block.get(..count)? {
                consider(symbol, strings.sh_offset, module, names);
            }
            if count < most {
                break; // The file is shorter than it says.
            }
            left -= most as u64;
            at = at.checked_add(most as u64 * size)?;
        }
        for name in names {
            if frame::module(name.frame) == module
                && let Some(symbol) = name.symbol
            {
                file.read_at(symbol.name_at, &mut name.text);
            }
        }
        Some(())
    }
}

/// Remembers a symbol for the names that it covers better than what they have: nearer, or as near and global.
fn consider(symbol: &Elf64_Sym, strings: u64, module: u32, names: &mut [Name]) {
    // Not those of sections, files and thread-local variables. NOTYPE, OBJECT, FUNC, COMMON, GNU_IFUNC.
    let fits = matches!(symbol.st_info & 0xf, 0 | 1 | 2 | 5 | 10);
    if !fits || symbol.st_shndx == SHN_UNDEF || symbol.st_size == 0 {
        return;
    }
    for name in names {
        let place = frame::offset(name.frame).wrapping_sub(u64::from(name.is_call));
        if frame::module(name.frame) != module
            || place.wrapping_sub(symbol.st_value) >= symbol.st_size
        {
            continue;
        }
        let found = Symbol {
            value: symbol.st_value,
            name_at: strings.wrapping_add(u64::from(symbol.st_name)),
            global: symbol.st_info >> 4 == 1,
        };
        let better = name
            .symbol
            .is_none_or(|known| (known.value, known.global) < (found.value, found.global));
        if better {
            name.symbol = Some(found);
        }
    }
}

/// Whether a module is the program itself.
pub fn is_executable(capture: Capture, module: &Module) -> bool {
    let length = (module.path_length.load(Relaxed) as usize).min(PATH);
    let executable = &capture.header().executable;
    length > 0
        && (0..length).all(|at| module.path[at].load(Relaxed) == executable[at].load(Relaxed))
        && executable[length].load(Relaxed) == 0
}

/// The section headers of a file.
struct Sections {
    at: u64,
    count: u64,
}

impl Sections {
    fn read(file: &File) -> Option<Self> {
        // SAFETY: plain numbers.
        let header = unsafe { file.read::<Elf64_Ehdr>(0) }?;
        let elf64 = header.e_ident.starts_with(b"\x7fELF\x02\x01"); // 64 bits, little-endian.
        let sized = usize::from(header.e_shentsize) == size_of::<Elf64_Shdr>();
        if !elf64 || !sized || header.e_shoff == 0 {
            return None;
        }
        let mut sections = Self {
            at: header.e_shoff,
            count: u64::from(header.e_shnum),
        };
        if sections.count == 0 {
            // 65280 or more: their number stands in the first.
            sections.count = 1;
            sections.count = sections.get(file, 0)?.sh_size;
        }
        Some(sections)
    }

    fn get(&self, file: &File, index: u64) -> Option<Elf64_Shdr> {
        if index >= self.count {
            return None;
        }
        let at = index.checked_mul(size_of::<Elf64_Shdr>() as u64)?;
        // SAFETY: plain numbers.
        unsafe { file.read(self.at.checked_add(at)?) }
    }

    fn iter<'a>(&'a self, file: &'a File) -> impl Iterator<Item = Elf64_Shdr> + 'a {
        (0..self.count).map_while(|index| self.get(file, index))
    }
}

/// Whether a section of notes has this module's build id. Only the first note: linkers give it a section of its own.
fn has_build_id(file: &File, section: &Elf64_Shdr, module: &Module, wanted: usize) -> bool {
    let mut bytes = [0u8; 16 + 32];
    let length = file.read_at(section.sh_offset, &mut bytes);
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        word.map_or(0, u32::from_le_bytes)
    };
    let (name_size, id_size, kind) = (word(0), word(4) as usize, word(8));
    name_size == 4
        && kind == NT_GNU_BUILD_ID
        && bytes.get(12..16) == Some(b"GNU\0")
        && id_size == wanted
        && wanted <= module.build_id.len()
        && length >= 16 + wanted
        && (0..wanted).all(|at| bytes[16 + at] == module.build_id[at].load(Relaxed))
}
