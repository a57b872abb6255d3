//! `ld.so.cache`, which ldconfig(8) writes: names to files.
//!
//! Read here rather than through `ldconfig -p`: a prefix may come without an ldconfig, and its text differs from version to
//! version; the format does not (glibc, `sysdeps/generic/dl-cache.h`): a header, an entry of 24 bytes for each library, sorted
//! so that the loader's first choice comes first, strings, and an extension that names the `glibc-hwcaps` folders.
//! Entries of the hwcaps folders that glibc 2.37 gave up are left out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
/// Size of the header.
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const X86_64: u32 = 0x303;
/// `DL_CACHE_HWCAP_EXTENSION`: the lower 32 bits say which `glibc-hwcaps` folder; between them and this bit are the levels of the instruction set.
const NAMED: u64 = 1 << 62;
const LEVELS: u64 = 0x3ff << 32;
/// `cache_extension_magic`.
const EXTENSION: u32 = (-358_342_284_i32).cast_unsigned();
/// `cache_extension_tag_glibc_hwcaps`.
const HWCAPS: u32 = 1;

/// One library of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: PathBuf,
    /// The folder below `glibc-hwcaps`, such as `x86-64-v3`.
    pub hwcaps: Option<String>,
}

/// The cache's entries for x86-64.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// In the file's order.
    entries: HashMap<Vec<u8>, Vec<Entry>>,
}

impl Cache {
    /// Reads a cache; one that is not there or damaged is empty, as it is for the loader.
    pub fn open(path: &Path) -> Self {
        std::fs::read(path)
            .ok()
            .and_then(|bytes| Self::parse(&bytes))
            .unwrap_or_default()
    }

    /// None: no cache, or a damaged one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // Before glibc 2.32 the format stood behind one that nothing reads any more.
        let start = if bytes.starts_with(OLD_MAGIC) {
            let count = number(bytes, 12)? as usize;
            count
                .checked_mul(12)?
                .checked_add(16)?
                .checked_next_multiple_of(8)?
        } else {
            0
        };
        let cache = bytes.get(start..)?;
        if !cache.starts_with(MAGIC) {
            return None;
        }
        let count = number(cache, 20)? as usize;
        let table = cache.get(HEADER..HEADER.checked_add(count.checked_mul(ENTRY)?)?)?;
        let folders = folders(bytes, number(cache, 32)? as usize).unwrap_or_default();
        let mut entries: HashMap<Vec<u8>, Vec<Entry>> = HashMap::new();
        for entry in table.chunks_exact(ENTRY) {
            if number(entry, 0)? != X86_64 {
                continue;
            }
            let hwcap = u64::from(number(entry, 16)?) | u64::from(number(entry, 20)?) << 32;
            let hwcaps = if hwcap == 0 {
                None
            } else if hwcap & !(LEVELS | u64::from(u32::MAX)) == NAMED {
                match folders.get((hwcap & u64::from(u32::MAX)) as usize) {
                    Some(name) => Some(name.clone()),
                    None => continue,
                }
            } else {
                continue;
            };
            let name = string(cache, number(entry, 4)? as usize)?;
            let path = PathBuf::from(OsStr::from_bytes(string(
                cache,
                number(entry, 8)? as usize,
            )?));
            entries
                .entry(name.to_vec())
                .or_default()
                .push(Entry { path, hwcaps });
        }
        Some(Self { entries })
    }

    /// The file that a loader takes which uses these `glibc-hwcaps` folders, best first.
    pub fn find(&self, name: &[u8], hwcaps: &[String]) -> Option<&Path> {
        let entries = self.entries.get(name)?;
        let rank = |entry: &Entry| {
            entry
                .hwcaps
                .as_ref()
                .and_then(|folder| hwcaps.iter().position(|of| of == folder))
        };
        entries
            .iter()
            .filter_map(|entry| Some((rank(entry)?, entry)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
            .or_else(|| entries.iter().find(|entry| entry.hwcaps.is_none()))
            .map(|entry| entry.path.as_path())
    }

    /// Every name with its entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[Entry])> {
        self.entries
            .iter()
            .map(|(name, entries)| (name.as_slice(), entries.as_slice()))
    }
}

/// The names of the `glibc-hwcaps` folders, from the extension at that offset; none if there is no extension.
fn folders(bytes: &[u8], extension: usize) -> Option<Vec<String>> {
    if extension == 0 || number(bytes, extension)? != EXTENSION {
        return None;
    }
    let count = number(bytes, extension.checked_add(4)?)? as usize;
    let sections = bytes.get(extension.checked_add(8)?..)?.chunks_exact(16);
    for section in sections.take(count) {
        if number(section, 0)? == HWCAPS {
            let from = number(section, 8)? as usize;
            let list = bytes.get(from..from.checked_add(number(section, 12)? as usize)?)?;
            return list
                .chunks_exact(4)
                .map(|offset| {
                    let name = string(bytes, number(offset, 0)? as usize)?;
                    Some(String::from_utf8_lossy(name).into_owned())
                })
                .collect();
        }
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

/// Up to the NUL.
fn string(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    Some(&rest[..rest.iter().position(|&byte| byte == 0)?])
}
