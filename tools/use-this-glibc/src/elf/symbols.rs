//! Reading: dynamic symbols and the versions that they need and define.
//!
//! As the loader reads them: by the addresses in the dynamic section, entry to entry until a link is zero.

use object::LittleEndian as Le;
use object::elf;
use object::pod::{Pod, from_bytes, slice_from_all_bytes};
use object::read::elf::{GnuHashTable, HashTable};

use super::image::{Header, Image, damaged};
use crate::error::Result;

/// One entry of `DT_VERNEED`: this version is looked for in that library.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NeededVersion<'a> {
    /// As in `DT_NEEDED`.
    pub library: &'a [u8],
    pub version: &'a [u8],
    /// `VER_FLG_WEAK`: its absence is a warning only.
    pub weak: bool,
}

/// A dynamic symbol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Symbol<'a> {
    pub name: &'a [u8],
    /// The version's name; none for symbols without a version.
    pub version: Option<&'a [u8]>,
    /// For an undefined symbol with a version: the library that is named beside it in `DT_VERNEED`.
    pub library: Option<&'a [u8]>,
    pub defined: bool,
    pub weak: bool,
}

/// A version with the number that `DT_VERSYM` has for it.
struct Numbered<'a> {
    number: u16,
    version: NeededVersion<'a>,
}

/// A version's name and, where it is needed rather than defined, its library.
type VersionName<'a> = (&'a [u8], Option<&'a [u8]>);

impl<'a> Image<'a> {
    /// `DT_VERNEED`.
    pub fn needed_versions(&self) -> Result<Vec<NeededVersion<'a>>> {
        let numbered = self.read_needed_versions()?;
        Ok(numbered.into_iter().map(|entry| entry.version).collect())
    }

    /// `DT_VERDEF`: names of the versions that the file defines, without the base one.
    pub fn defined_versions(&self) -> Result<Vec<&'a [u8]>> {
        let numbered = self.read_defined_versions()?;
        Ok(numbered.into_iter().map(|(_, name)| name).collect())
    }

    /// `DT_SYMTAB`, counted by `DT_GNU_HASH` or `DT_HASH`, without local symbols.
    ///
    /// A `DT_GNU_HASH` without entries does not tell how many undefined symbols there are: those that relocations name are
    /// listed then.
    pub fn symbols(&self) -> Result<Vec<Symbol<'a>>> {
        let Some(address) = self.value(elf::DT_SYMTAB) else {
            return Ok(Vec::new());
        };
        let size = size_of::<elf::Sym64<Le>>() as u64;
        if self.value(elf::DT_SYMENT).is_some_and(|is| is != size) {
            return Err(damaged("its dynamic symbols have an unknown size"));
        }
        let mapped = self.mapped_from(address).unwrap_or_default();
        let (table, _) = object::pod::slice_from_bytes::<elf::Sym64<Le>>(
            mapped,
            mapped.len() / size_of::<elf::Sym64<Le>>(),
        )
        .unwrap_or_default();
        let table = table
            .get(..self.symbol_count()?)
            .ok_or_else(|| damaged("its dynamic symbols are not mapped"))?;

        let versions = self.version_names()?;
        let versym = match self.value(elf::DT_VERSYM) {
            Some(address) => self
                .mapped_from(address)
                .and_then(|bytes| object::pod::slice_from_bytes(bytes, table.len()).ok())
                .map(|(numbers, _)| numbers)
                .ok_or_else(|| damaged("its symbol versions are not mapped"))?,
            None => &[] as &[elf::Versym<Le>],
        };

        let mut names = self.names();
        let mut symbols = Vec::new();
        for (index, symbol) in table.iter().enumerate().skip(1) {
            if symbol.st_bind() == elf::STB_LOCAL {
                continue;
            }
            let defined = symbol.st_shndx.get(Le) != elf::SHN_UNDEF;
            let number = versym.get(index).map_or(0, |entry| entry.0.get(Le).0) & 0x7fff;
            let version = versions.get(usize::from(number)).copied().flatten();
            symbols.push(Symbol {
                name: names.get(symbol.st_name.get(Le).into())?,
                version: version.map(|(name, _)| name),
                library: version.and_then(|(_, library)| library.filter(|_| !defined)),
                defined,
                weak: symbol.st_bind() == elf::STB_WEAK,
            });
        }
        Ok(symbols)
    }

    fn symbol_count(&self) -> Result<usize> {
        if let Some(address) = self.value(elf::DT_HASH) {
            let bytes = self.mapped_from(address).unwrap_or_default();
            let table = HashTable::<Header>::parse(Le, bytes)
                .map_err(|_| damaged("its symbol hash table is not mapped"))?;
            return Ok(table.symbol_table_length() as usize);
        }
        let Some(address) = self.value(elf::DT_GNU_HASH) else {
            return self.symbols_relocated();
        };
        let bytes = self.mapped_from(address).unwrap_or_default();
        let table = GnuHashTable::<Header>::parse(Le, bytes)
            .map_err(|_| damaged("its symbol hash table is not mapped"))?;
        match table.symbol_table_length(Le) {
            Some(count) => Ok(count as usize),
            None => Ok(self.symbols_relocated()?.max(table.symbol_base() as usize)),
        }
    }

    /// One more than the highest symbol that a relocation names.
    fn symbols_relocated(&self) -> Result<usize> {
        let tables = [
            (elf::DT_RELA, elf::DT_RELASZ),
            (elf::DT_JMPREL, elf::DT_PLTRELSZ),
        ];
        let mut highest = 0;
        for (at, size) in tables {
            let Some((address, size)) = self.value(at).zip(self.value(size)) else {
                continue;
            };
            let relocations = self
                .mapped_from(address)
                .zip(usize::try_from(size).ok())
                .and_then(|(bytes, size)| bytes.get(..size))
                .and_then(|bytes| slice_from_all_bytes::<elf::Rela64<Le>>(bytes).ok())
                .ok_or_else(|| damaged("its relocations are not mapped"))?;
            highest = relocations
                .iter()
                .map(|relocation| relocation.r_sym(Le, false) as usize)
                .fold(highest, usize::max);
        }
        Ok(highest + 1)
    }

    /// For each number in `DT_VERSYM`.
    fn version_names(&self) -> Result<Vec<Option<VersionName<'a>>>> {
        let mut names = Vec::new();
        let mut set = |number: u16, name| {
            // 0 and 1 mean local and global; the top bit hides.
            let number = usize::from(number & 0x7fff);
            if number > 1 {
                if names.len() <= number {
                    names.resize(number + 1, None);
                }
                names[number] = Some(name);
            }
        };
        for (number, name) in self.read_defined_versions()? {
            set(number, (name, None));
        }
        for Numbered { number, version } in self.read_needed_versions()? {
            set(number, (version.version, Some(version.library)));
        }
        Ok(names)
    }

    fn read_needed_versions(&self) -> Result<Vec<Numbered<'a>>> {
        let mut found = Vec::new();
        let Some(address) = self.value(elf::DT_VERNEED) else {
            return Ok(found);
        };
        let mut names = self.names();
        let mut needs = Chain::new(self, address)?;
        while let Some(need) = needs.next::<elf::Verneed<Le>>(|need| need.vn_next.get(Le))? {
            let library = names.get(need.vn_file.get(Le).into())?;
            let mut versions = needs.branch(need.vn_aux.get(Le))?;
            while let Some(version) =
                versions.next::<elf::Vernaux<Le>>(|version| version.vna_next.get(Le))?
            {
                found.push(Numbered {
                    number: version.vna_other.get(Le).0,
                    version: NeededVersion {
                        library,
                        version: names.get(version.vna_name.get(Le).into())?,
                        weak: version.vna_flags.get(Le).contains(elf::VER_FLG_WEAK),
                    },
                });
            }
            needs.steps = versions.steps;
        }
        Ok(found)
    }

    fn read_defined_versions(&self) -> Result<Vec<(u16, &'a [u8])>> {
        let mut found = Vec::new();
        let Some(address) = self.value(elf::DT_VERDEF) else {
            return Ok(found);
        };
        let mut names = self.names();
        let mut definitions = Chain::new(self, address)?;
        while let Some(definition) =
            definitions.next::<elf::Verdef<Le>>(|definition| definition.vd_next.get(Le))?
        {
            if definition.vd_flags.get(Le).contains(elf::VER_FLG_BASE) {
                continue;
            }
            // The first is its name, the others those of the versions that it follows.
            let mut name = definitions.branch(definition.vd_aux.get(Le))?;
            if let Some(name) = name.next::<elf::Verdaux<Le>>(|_| 0)? {
                let name = names.get(name.vda_name.get(Le).into())?;
                found.push((definition.vd_ndx.get(Le).0, name));
            }
        }
        Ok(found)
    }
}

/// Entries that name the distance to the next one, zero in the last.
struct Chain<'a> {
    /// From the current entry on; `None` past the last one.
    rest: Option<&'a [u8]>,
    /// From the entry that [`Chain::next`] gave last.
    current: &'a [u8],
    /// Entries do not overlap, so there cannot be more than the file has room for.
    steps: usize,
}

impl<'a> Chain<'a> {
    fn new(image: &Image<'a>, address: u64) -> Result<Self> {
        let rest = image
            .mapped_from(address)
            .ok_or_else(|| damaged("its version tables are not mapped"))?;
        Ok(Self {
            rest: Some(rest),
            current: rest,
            steps: image.bytes().len() / size_of::<elf::Vernaux<Le>>(),
        })
    }

    fn next<T: Pod>(&mut self, link: impl Fn(&T) -> u32) -> Result<Option<&'a T>> {
        let Some(rest) = self.rest else {
            return Ok(None);
        };
        let wrong = || damaged("its version tables are not mapped or have no end");
        self.steps = self.steps.checked_sub(1).ok_or_else(wrong)?;
        let (entry, _) = from_bytes::<T>(rest).map_err(|()| wrong())?;
        self.current = rest;
        self.rest = match link(entry) {
            0 => None,
            distance => Some(rest.get(distance as usize..).ok_or_else(wrong)?),
        };
        Ok(Some(entry))
    }

    /// The chain that begins so far from the current entry.
    fn branch(&self, distance: u32) -> Result<Self> {
        let rest = self
            .current
            .get(distance as usize..)
            .ok_or_else(|| damaged("its version tables are not mapped"))?;
        Ok(Self {
            rest: Some(rest),
            current: rest,
            steps: self.steps,
        })
    }
}
