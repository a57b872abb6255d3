//! Do condition waits of this libc go through a preload's mutexes? Reads the file.

use std::fs::File;
use std::path::Path;

use object::read::elf::ElfFile64;
use object::read::{Object, ObjectSymbol, ObjectSymbolTable, ReadCache, RelocationTarget};

use super::finding::Obstacle;

/// The functions by which the patched libc re-acquires, resolved like a program's own.
const RELOCKS: &str = "pthread_mutex_lock";

/// What to know about condition waits; nothing where they are patched, or the file cannot be read.
pub fn note(libc: &Path, program: &Path) -> Option<Obstacle> {
    (!waits_by_symbol(libc)?).then(|| {
        Obstacle::new(
            "glibc",
            "condition waits re-acquire inside this glibc, without the library's policy",
        )
        .fix(format!(
            "use-this-glibc --output {} \"$(cargo xtask glibc)\" {}",
            quoted(&Path::new(".").join(program.file_name().unwrap_or_default())),
            quoted(program)
        ))
    })
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let quoted = shlex::try_quote(&text).map(Into::into);
    quoted.unwrap_or(text)
}

/// A stock libc does not refer to its own mutex functions by their symbols (glibc-patches).
fn waits_by_symbol(libc: &Path) -> Option<bool> {
    let cache = ReadCache::new(File::open(libc).ok()?);
    let elf: ElfFile64<'_, object::Endianness, _> = ElfFile64::parse(&cache).ok()?;
    let symbols = elf.dynamic_symbol_table()?;
    let mut relocations = elf.dynamic_relocations()?;
    Some(relocations.any(|(_, relocation)| {
        let RelocationTarget::Symbol(index) = relocation.target() else {
            return false;
        };
        let symbol = symbols.symbol_by_index(index);
        symbol.is_ok_and(|symbol| symbol.name() == Ok(RELOCKS))
    }))
}
