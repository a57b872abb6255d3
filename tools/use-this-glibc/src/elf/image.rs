//! Reading: header, program headers and what the dynamic section names.
//!
//! Everything is checked when an [`Image`] is made or when it is asked for; offsets and sizes of the file are never trusted.

use crate::error::Result;

/// A 64-bit little-endian x86-64 ELF file.
pub struct Image<'a> {
    bytes: &'a [u8],
}

/// What a file is to the kernel and the dynamic loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A dynamic program at a fixed address (`ET_EXEC` with an interpreter).
    Program,
    /// A dynamic program that goes anywhere (`ET_DYN` with an interpreter).
    PositionIndependent,
    /// A library (`ET_DYN` with a dynamic section and without an interpreter). Static PIEs count as [`Kind::Static`] (`DF_1_PIE`).
    Library,
    /// A program without an interpreter.
    Static,
}

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

impl<'a> Image<'a> {
    /// Refuses ([`crate::error::Error::Unsupported`]) what is no ELF file, damaged, or for another machine or byte order, each with a line of its own.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self { bytes })
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn kind(&self) -> Kind {
        todo!()
    }

    /// `PT_INTERP`, without its NUL.
    pub fn interpreter(&self) -> Option<&'a [u8]> {
        todo!()
    }

    /// `DT_SONAME`.
    pub fn soname(&self) -> Option<&'a [u8]> {
        todo!()
    }

    /// `DT_NEEDED`, in order.
    pub fn needed(&self) -> &[&'a [u8]] {
        todo!()
    }

    /// `DT_RPATH`.
    pub fn rpath(&self) -> Option<&'a [u8]> {
        todo!()
    }

    /// `DT_RUNPATH`.
    pub fn runpath(&self) -> Option<&'a [u8]> {
        todo!()
    }

    /// `DF_1_NODEFLIB`: the system's directories are not searched.
    pub fn no_default_libraries(&self) -> bool {
        todo!()
    }

    /// `DT_VERNEED`.
    pub fn needed_versions(&self) -> Result<Vec<NeededVersion<'a>>> {
        todo!()
    }

    /// `DT_VERDEF`: names of the versions that the file defines, without the base one.
    pub fn defined_versions(&self) -> Result<Vec<&'a [u8]>> {
        todo!()
    }

    /// `DT_SYMTAB`, counted by `DT_GNU_HASH` or `DT_HASH`, without local symbols.
    pub fn symbols(&self) -> Result<Vec<Symbol<'a>>> {
        todo!()
    }

    /// Bytes after all that the headers account for (segments, section headers and their contents): something was appended, as
    /// self-extracting programs do.
    pub fn payload(&self) -> Option<std::ops::Range<usize>> {
        todo!()
    }
}
