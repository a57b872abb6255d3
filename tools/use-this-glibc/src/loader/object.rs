//! One file as the dynamic loader sees it.

use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::elf::Image;
use crate::error::{Error, Result};

/// A program or library of a [`super::Closure`].
#[derive(Debug)]
pub struct Object {
    /// Where it was found, as the loader would print it.
    pub path: PathBuf,
    /// The names by which it was asked for.
    pub names: Vec<Vec<u8>>,
    /// Who asked first: an index into the closure's objects.
    pub requester: Option<usize>,
    pub soname: Option<Vec<u8>>,
    pub needed: Vec<Vec<u8>>,
    /// None if there is a [`Object::runpath`]: the loader ignores it then.
    pub rpath: Option<Vec<u8>>,
    pub runpath: Option<Vec<u8>>,
    /// `DF_1_NODEFLIB`.
    pub no_default_libraries: bool,
    /// Device and inode.
    pub identity: Option<(u64, u64)>,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Given(Arc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Given(bytes) => bytes,
        }
    }
}

/// What the loader makes of a path that it tries.
#[derive(Debug)]
pub enum Opened {
    Object(Box<Object>),
    /// Nothing is there, or it may not be read: the search goes on.
    Absent,
    /// A library for another class or machine: the search goes on.
    Foreign,
    /// The loader gives up with such a message.
    Broken(String),
}

impl Object {
    /// A program from bytes that stand, or will stand, at `path`.
    pub fn program(bytes: &Arc<[u8]>, path: &Path) -> Result<Self> {
        Self::new(Bytes::Given(Arc::clone(bytes)), path, None)
    }

    /// The file at `path`, or why it cannot be loaded.
    pub fn read(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Opened::Object(object) => Ok(*object),
            Opened::Absent => Err(Error::Io(format!("{}: cannot be read", path.display()))),
            Opened::Foreign => Err(Error::Unsupported(format!(
                "{}: for another machine than x86-64",
                path.display()
            ))),
            Opened::Broken(why) => Err(Error::Unsupported(format!("{}: {why}", path.display()))),
        }
    }

    /// Opens a file as the loader does when it searches.
    pub fn open(path: &Path) -> Opened {
        let Ok(metadata) = fs::metadata(path) else {
            return Opened::Absent;
        };
        // A pipe would be waited for.
        if !metadata.is_file() {
            return Opened::Broken("is no file".into());
        }
        let Ok(file) = File::open(path) else {
            return Opened::Absent;
        };
        // SAFETY: the map is private and only read. Whoever writes to the file meanwhile changes what is read, which is checked like
        // any other bytes; whoever truncates it ends this process by SIGBUS, as the dynamic loader's.
        let map = match unsafe { Mmap::map(&file) } {
            Ok(map) => map,
            Err(error) => return Opened::Broken(error.to_string()),
        };
        const CLASS: usize = 4;
        const MACHINE: usize = 18;
        const X86_64: [u8; 2] = 62_u16.to_le_bytes();
        if map.len() < 64 {
            return Opened::Broken("file too short".into());
        }
        if !map.starts_with(b"\x7fELF") {
            return Opened::Broken("invalid ELF header".into());
        }
        if map[CLASS] != 2 || map[MACHINE..MACHINE + 2] != X86_64 {
            return Opened::Foreign;
        }
        let identity = Some((metadata.dev(), metadata.ino()));
        match Self::new(Bytes::Mapped(map), path, identity) {
            Ok(object) => Opened::Object(Box::new(object)),
            Err(error) => Opened::Broken(error.to_string()),
        }
    }

    fn new(bytes: Bytes, path: &Path, identity: Option<(u64, u64)>) -> Result<Self> {
        let image = Image::parse(&bytes)?;
        let owned = |text: Option<&[u8]>| text.map(<[u8]>::to_vec);
        let runpath = owned(image.runpath());
        let rpath = owned(image.rpath()).filter(|_| runpath.is_none());
        let soname = owned(image.soname());
        let needed = image.needed().iter().map(|name| name.to_vec()).collect();
        let no_default_libraries = image.no_default_libraries();
        Ok(Self {
            path: path.to_path_buf(),
            names: Vec::new(),
            requester: None,
            soname,
            needed,
            rpath,
            runpath,
            no_default_libraries,
            identity,
            bytes,
        })
    }

    /// The file again, for what is not kept.
    pub fn image(&self) -> Result<Image<'_>> {
        Image::parse(&self.bytes)
    }

    /// What `$ORIGIN` stands for.
    pub fn origin(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Whether the loader takes it for a library of that name without a search.
    pub fn is_called(&self, name: &[u8]) -> bool {
        self.names.iter().any(|known| known == name) || self.soname.as_deref() == Some(name)
    }
}
