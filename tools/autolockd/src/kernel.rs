//! The eBPF program and its map.
//!
//! The map is pinned, and outlives the daemon: the next one takes it over, and clients' mappings come to life again. The program and its
//! link are descriptors of this process: however it ends, the kernel detaches and unloads them.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use autolock_oncpu::table;
use aya::maps::{Map, MapData, MapType};
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};

/// The compiled `bpf/oncpu.bpf.c`; empty where clang was missing.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/oncpu.bpf.o"));

const MAP: &str = "oncpu";
const PROGRAM: &str = "oncpu_switch";
const TRACEPOINT: &str = "sched_switch";
/// `BPF_F_MMAPABLE`, `BPF_F_RDONLY` and `BPF_OBJ_GET` (include/uapi/linux/bpf.h).
const MMAPABLE: u32 = 1 << 10;
const READ_ONLY: u32 = 1 << 3;
const OBJ_GET: libc::c_long = 7;

/// Where the map is pinned.
#[must_use]
pub fn pin(bpffs: &Path) -> PathBuf {
    bpffs.join(table::PIN)
}

/// The pin's own folder, made where it is missing. Its owner could unpin the map, so it must be ours alone: a BPF file system may be
/// writable for everybody.
///
/// # Errors
/// Names the folder.
pub fn own_folder(bpffs: &Path) -> Result<PathBuf> {
    let pin = pin(bpffs);
    let folder = pin.parent().context("a pin is in a folder")?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot create {}", folder.display()));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(folder)
        .with_context(|| format!("cannot look at {}", folder.display()))?;
    if !found.is_dir()
        || found.uid() != nix::unistd::geteuid().as_raw()
        || found.mode() & 0o022 != 0
    {
        bail!(
            "{0} is somebody else's, or others may write to it: rm -r {0}",
            folder.display()
        );
    }
    Ok(folder.to_owned())
}

/// The map, with the program that is not attached yet.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
    pin: PathBuf,
}

impl Loaded {
    /// Takes the pinned map over, or makes and pins one, and parses the program.
    ///
    /// # Errors
    /// A pinned object of another shape; `bpf(2)`'s.
    pub fn new(bpffs: &Path) -> Result<Self> {
        let pin = pin(bpffs);
        if fs::symlink_metadata(&pin).is_ok() {
            check_shape(&pin)?;
        }
        let ebpf = EbpfLoader::new()
            .map_pin_path(MAP, pin.as_path())
            .load(OBJECT)
            .context("cannot make the map")?;
        Ok(Self { ebpf, pin })
    }

    /// The writable descriptor.
    ///
    /// # Errors
    /// Never, with the object that the build script makes.
    pub fn map(&self) -> Result<impl AsFd + '_> {
        match self.ebpf.map(MAP) {
            Some(Map::Array(map)) => Ok(map.fd()),
            _ => bail!("the object has no array map {MAP}"),
        }
    }

    /// A descriptor that clients may have: the kernel maps it read-only and lets no system call write by it.
    ///
    /// # Errors
    /// `BPF_OBJ_GET`'s.
    pub fn read_only_map(&self) -> Result<OwnedFd> {
        open_read_only(&self.pin).with_context(|| format!("cannot open {}", self.pin.display()))
    }

    /// Loads and attaches the program: from now on the bytes are written, until `self` is dropped. Returns the program's number.
    ///
    /// # Errors
    /// `bpf(2)`'s, with the verifier's words.
    pub fn attach(&mut self) -> Result<u32> {
        let program: &mut BtfTracePoint = self
            .ebpf
            .program_mut(PROGRAM)
            .with_context(|| format!("the object has no program {PROGRAM}"))?
            .try_into()?;
        let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        program
            .load(TRACEPOINT, &btf)
            .context("cannot load the program")?;
        program.attach().context("cannot attach the program")?;
        Ok(program.info()?.id())
    }
}

/// A pinned object that is not ours by its shape is nobody's to overwrite.
fn check_shape(pin: &Path) -> Result<()> {
    let info = MapData::from_pin(pin).and_then(|map| map.info());
    let ours = info.as_ref().is_ok_and(|info| {
        info.map_type().is_ok_and(|kind| kind == MapType::Array)
            && info.key_size() == 4
            && info.value_size() as usize == table::SIZE
            && info.max_entries() == 1
            && info.map_flags() == MMAPABLE
    });
    if ours {
        return Ok(());
    }
    let found = match info {
        Ok(info) => format!(
            "key {}, value {}, {} entries, flags {:#x}",
            info.key_size(),
            info.value_size(),
            info.max_entries(),
            info.map_flags()
        ),
        Err(error) => format!("{:#}", anyhow!(error)),
    };
    bail!(
        "{} is not a table of this version ({found}): autolockd --remove",
        pin.display()
    )
}

/// aya opens pinned objects for reading and writing only.
fn open_read_only(pin: &Path) -> io::Result<OwnedFd> {
    /// The members of `union bpf_attr` that `BPF_OBJ_GET` reads.
    #[repr(C)]
    struct ObjGet {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = ObjGet {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: READ_ONLY,
    };
    // SAFETY: `attributes` and the path that it points to live through the call, and the kernel only reads them.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET,
            &raw const attributes,
            size_of::<ObjGet>(),
        )
    };
    match i32::try_from(descriptor) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Removes the pinned map; it is freed when the last mapping of it is gone. Returns whether there was one.
///
/// # Errors
/// Of the file system.
pub fn remove(bpffs: &Path) -> Result<bool> {
    let pin = pin(bpffs);
    let found = match fs::remove_file(&pin) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot remove {}", pin.display()));
        }
    };
    if let Some(folder) = pin.parent() {
        // Something else in it stays.
        let _ = fs::remove_dir(folder);
    }
    Ok(found)
}
