//! Names for code addresses and static locks: from the files that were loaded, and their debug information.
//!
//! Debug information is looked for in the file itself, then by its build id and by its `.gnu_debuglink` in the usual places (`/usr/lib/debug`,
//! beside the file, in `.debug` there); dwz's common part too. A file whose build id is not the captured one is not used: it was built anew
//! since. May touch: these files, reading; only regular ones, for a capture may name anything.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use object::read::{Object, ObjectSymbol, ReadCache, SymbolKind};

use super::model::{Function, Module};

/// Where distributions put debug information.
const DEBUG: &str = "/usr/lib/debug";
/// Symbols before the nearest one that are looked at for one that covers an address.
const NESTED: usize = 16;

/// Names by module and address; each file is read once, when the first name from it is asked for.
#[derive(Default)]
pub struct Symbols {
    files: HashMap<usize, Option<Binary>>,
    known: HashMap<(usize, u64), Vec<Function>>,
    /// Modules whose names cannot be told, and why: a sentence each.
    pub notes: Vec<String>,
}

/// The names in one file.
struct Binary {
    dwarf: Option<Loader>,
    functions: Vec<Symbol>,
    data: Vec<Symbol>,
}

struct Symbol {
    address: u64,
    /// 0 if the file does not say.
    size: u64,
    name: String,
}

impl Symbols {
    /// The functions at `address` of module number `index`, the innermost inlined one first; named after module and address if nothing is known.
    pub fn functions(&mut self, index: usize, module: &Module, address: u64) -> Vec<Function> {
        if let Some(known) = self.known.get(&(index, address)) {
            return known.clone();
        }
        let mut functions = match self.file(index, module) {
            Some(file) => file.functions(address),
            None => Vec::new(),
        };
        if functions.is_empty() {
            functions.push(unknown(format!("{}+{address:#x}", base_name(&module.path))));
        }
        self.known.insert((index, address), functions.clone());
        functions
    }

    /// The variable that covers `address` of module number `index`: `name`, `name+0x28` for a member.
    pub fn variable(&mut self, index: usize, module: &Module, address: u64) -> Option<String> {
        let data = &self.file(index, module)?.data;
        let symbol = covering(data, address)?;
        Some(match address - symbol.address {
            0 => demangled(&symbol.name),
            offset => format!("{}+{offset:#x}", demangled(&symbol.name)),
        })
    }

    fn file(&mut self, index: usize, module: &Module) -> Option<&Binary> {
        let notes = &mut self.notes;
        let file = self.files.entry(index).or_insert_with(|| {
            // The kernel's, which no file has.
            if module.path.is_empty() || module.path.starts_with("linux-vdso") {
                return None;
            }
            match Binary::open(Path::new(&module.path), &module.build_id) {
                Ok(file) => Some(file),
                Err(why) => {
                    notes.push(format!("no names from {}: {why}", module.path));
                    None
                }
            }
        });
        file.as_ref()
    }
}

/// A function of which only this is known.
pub fn unknown(name: String) -> Function {
    Function {
        name,
        file: None,
        line: None,
    }
}

/// The last part of a path.
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Binary {
    fn open(path: &Path, build_id: &str) -> Result<Self, Cow<'static, str>> {
        if !path.is_file() {
            return Err("there is no such file (any more)".into());
        }
        let cache = cached(path).ok_or("it cannot be read")?;
        let file = object::File::parse(&cache).map_err(|_| "it is not an ELF file")?;
        let own_id = file.build_id().ok().flatten().unwrap_or_default();
        if !build_id.is_empty() && hexadecimal(own_id) != build_id {
            return Err("it was built anew since the capture (its build id differs)".into());
        }
        let has_dwarf = file.section_by_name(".debug_info").is_some();
        let debug = (!has_dwarf)
            .then(|| debug_file(path, &file, own_id))
            .flatten();
        let mut functions = Vec::new();
        let mut data = Vec::new();
        collect(file.symbols(), &mut functions, &mut data);
        if let Some(debug) = debug.as_deref().and_then(cached)
            && let Ok(debug) = object::File::parse(&debug)
        {
            collect(debug.symbols(), &mut functions, &mut data);
        }
        if data.is_empty() || functions.is_empty() {
            collect(file.dynamic_symbols(), &mut functions, &mut data);
        }
        for symbols in [&mut functions, &mut data] {
            order(symbols);
        }
        let dwarf = debug.as_deref().unwrap_or(path);
        Ok(Self {
            dwarf: Loader::new_with_sup(dwarf, common_part(dwarf))
                .or_else(|_| Loader::new(path))
                .ok(),
            functions,
            data,
        })
    }

    fn functions(&self, address: u64) -> Vec<Function> {
        let mut found = Vec::new();
        if let Some(mut frames) = self
            .dwarf
            .as_ref()
            .and_then(|d| d.find_frames(address).ok())
        {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|f| f.raw_name().ok());
                let location = frame.location.as_ref();
                found.push(Function {
                    name: demangled(&name.unwrap_or_default()),
                    file: location.and_then(|l| l.file).map(clean),
                    line: location.and_then(|l| l.line),
                });
            }
        }
        // Without a function's name, in a unit that only has lines, the symbol's serves.
        let symbol = || covering(&self.functions, address).map(|symbol| demangled(&symbol.name));
        if found.is_empty() {
            found.extend(symbol().map(unknown));
        } else if let Some(last) = found.last_mut().filter(|last| last.name.is_empty()) {
            last.name = symbol().unwrap_or_default();
        }
        found.retain(|function| !function.name.is_empty());
        found
    }
}

fn collect<'d>(
    symbols: impl Iterator<Item = impl ObjectSymbol<'d>>,
    functions: &mut Vec<Symbol>,
    data: &mut Vec<Symbol>,
) {
    for symbol in symbols {
        let into = match symbol.kind() {
            SymbolKind::Text => &mut *functions,
            SymbolKind::Data => &mut *data,
            _ => continue,
        };
        if let Ok(name) = symbol.name()
            && !symbol.is_undefined()
            && !name.is_empty()
        {
            into.push(Symbol {
                address: symbol.address(),
                size: symbol.size(),
                name: name.to_owned(),
            });
        }
    }
}

/// By address; the best name of an address last.
fn order(symbols: &mut [Symbol]) {
    symbols.sort_by(|a, b| {
        let addresses = a.address.cmp(&b.address);
        addresses.then_with(|| quality(a).cmp(&quality(b)))
    });
}

/// Of several names for one thing: the one with a size, then the one that looks least like an implementation's.
fn quality(symbol: &Symbol) -> impl Ord {
    let underscores = symbol.name.bytes().take_while(|&b| b == b'_').count();
    let mangled = symbol.name.starts_with("_Z") || symbol.name.starts_with("_R");
    (
        symbol.size != 0,
        Reverse(if mangled { 0 } else { underscores }),
        Reverse(symbol.name.len()),
        Reverse(&symbol.name),
    )
}

/// The innermost symbol around `address`; one without a size reaches to the next one.
fn covering(symbols: &[Symbol], address: u64) -> Option<&Symbol> {
    let behind = symbols.partition_point(|symbol| symbol.address <= address);
    let before = &symbols[behind.saturating_sub(NESTED)..behind];
    before.iter().enumerate().rev().find_map(|(i, symbol)| {
        let covers = match symbol.size {
            0 => i + 1 == before.len(),
            size => address - symbol.address < size,
        };
        covers.then_some(symbol)
    })
}

fn cached(path: &Path) -> Option<ReadCache<File>> {
    path.is_file()
        .then(|| File::open(path).ok())?
        .map(ReadCache::new)
}

/// The file with the debug information of `file`, if that is apart.
fn debug_file<'d, R: object::ReadRef<'d>>(
    path: &Path,
    file: &object::File<'d, R>,
    build_id: &[u8],
) -> Option<PathBuf> {
    if let Some(path) = by_build_id(build_id) {
        return Some(path);
    }
    let (name, checksum) = file.gnu_debuglink().ok().flatten()?;
    let name = std::ffi::OsStr::from_bytes(name);
    let path = path.canonicalize().ok()?;
    let folder = path.parent()?;
    let inside = folder.strip_prefix("/").unwrap_or(folder);
    [
        folder.join(name),
        folder.join(".debug").join(name),
        Path::new(DEBUG).join(inside).join(name),
    ]
    .into_iter()
    .find(|candidate| {
        *candidate != path && candidate.is_file() && checksum_of(candidate) == Some(checksum)
    })
}

fn by_build_id(id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = id.split_first()?;
    let path = format!("{DEBUG}/.build-id/{first:02x}/{}.debug", hexadecimal(rest));
    Some(PathBuf::from(path)).filter(|path| path.is_file())
}

/// What dwz took out of `path` into a file that several share.
fn common_part(path: &Path) -> Option<PathBuf> {
    let cache = cached(path)?;
    let file = object::File::parse(&cache).ok()?;
    let (name, id) = file.gnu_debugaltlink().ok().flatten()?;
    let beside = path
        .canonicalize()
        .ok()?
        .parent()?
        .join(std::ffi::OsStr::from_bytes(name));
    Some(beside)
        .filter(|path| path.is_file())
        .or_else(|| by_build_id(id))
}

fn checksum_of(path: &Path) -> Option<u32> {
    let mut sum = flate2::CrcWriter::new(std::io::sink());
    std::io::copy(&mut File::open(path).ok()?, &mut sum).ok()?;
    Some(sum.crc().sum())
}

/// A name as in the source. A plain one stays: the demangler would take a lock called `b` for the type `bool`.
fn demangled(name: &str) -> String {
    if name.starts_with("_Z") || name.starts_with("_R") {
        return clean(&addr2line::demangle_auto(Cow::Borrowed(name), None));
    }
    clean(name)
}

/// Text from a file that is not trusted, fit for a terminal: without control characters.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Bytes as people write build ids.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mangled_names_are_demangled() {
        for (name, shown) in [
            ("b", "b"),
            ("rw", "rw"),
            ("_ZN5store5Shard3putEi", "store::Shard::put(int)"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvC6_123foo3bar", "123foo::bar"),
            ("_Znonsense", "_Znonsense"),
        ] {
            assert_eq!(demangled(name), shown);
        }
    }

    #[test]
    fn the_innermost_symbol_with_the_best_name_covers() {
        let symbol = |address, size, name: &str| Symbol {
            address,
            size,
            name: name.to_owned(),
        };
        let mut symbols = vec![
            symbol(100, 50, "structure"),
            symbol(110, 8, "__member_alias"),
            symbol(110, 8, "member"),
            symbol(110, 0, "label"),
            symbol(200, 0, "open"),
            symbol(300, 4, "last"),
        ];
        order(&mut symbols);
        let at = |address| covering(&symbols, address).map(|s| s.name.as_str());
        for (address, name) in [
            (99, None),
            (100, Some("structure")),
            (110, Some("member")),
            (117, Some("member")),
            (118, Some("structure")),
            (150, None),
            (250, Some("open")),
            (303, Some("last")),
            (304, None),
            (u64::MAX, None),
        ] {
            assert_eq!(at(address), name, "{address}");
        }
    }
}
