//! The eBPF programs and their map, the table.
//!
//! - The map is pinned, and outlives the daemon: the next one takes it over, and clients' mappings come to life again.
//! - The programs and the link are descriptors of this process: however it ends, the kernel detaches and unloads them.
//! - The map is frozen: no process can write it, whatever descriptor it has. (A descriptor that is read-only itself cannot be mapped: the kernel
//!   maps a map's memory only where the mapping could be shared for writing.) So the daemon writes the header by a program that it runs.

use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use autolock_oncpu::table::{self, Table};
use aya::maps::{Map, MapData, MapType};
use aya::programs::{BtfTracePoint, RawTracePoint, RawTracePointRunOptions, TestRun as _};
use aya::{Btf, Ebpf, EbpfLoader};

/// The compiled `bpf/oncpu.bpf.c`; empty where clang was missing.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/oncpu.bpf.o"));

const MAP: &str = "oncpu";
const SWITCH: &str = "oncpu_switch";
const WRITE: &str = "oncpu_write";
const WIPE: &str = "oncpu_wipe";
const TRACEPOINT: &str = "sched_switch";
/// `BPF_F_MMAPABLE` and `BPF_MAP_FREEZE` (include/uapi/linux/bpf.h).
const MMAPABLE: u32 = 1 << 10;
const MAP_FREEZE: libc::c_long = 22;
/// What `oncpu_wipe` wipes at once.
const PAGE: usize = 4096;

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

/// The table, kept by this process. Heartbeat 0 when it is dropped: clients need not wait until it is old.
#[derive(Debug)]
pub struct Keeper {
    ebpf: Ebpf,
}

impl Keeper {
    /// Takes the pinned map over, or makes and pins one; empties it, since what a daemon before us left is old. Clients that have it mapped keep it.
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
        let mut keeper = Self { ebpf };
        freeze(keeper.map()?).with_context(|| format!("cannot freeze {}", pin.display()))?;
        for name in [WRITE, WIPE] {
            let program: &mut RawTracePoint =
                keeper.ebpf.program_mut(name).context(name)?.try_into()?;
            program
                .load()
                .with_context(|| format!("cannot load {name}"))?;
        }
        keeper.write(offset_of!(Table, heartbeat), 0)?;
        keeper.write(offset_of!(Table, program), 0)?;
        for page in table::HEADER_SIZE / PAGE..table::SIZE / PAGE {
            keeper.run(WIPE, [page as u64, 0])?;
        }
        keeper.write(offset_of!(Table, magic), table::MAGIC)?;
        keeper.write(offset_of!(Table, version), u64::from(table::VERSION))?;
        Ok(keeper)
    }

    /// The descriptor that clients get too: it can be mapped to read, and nothing else.
    ///
    /// # Errors
    /// Never, with the object that the build script makes.
    pub fn map(&self) -> Result<BorrowedFd<'_>> {
        match self.ebpf.map(MAP) {
            Some(Map::Array(map)) => Ok(map.fd().as_fd()),
            _ => bail!("the object has no array map {MAP}"),
        }
    }

    /// Attaches the program: from now on the bytes are written, until `self` is dropped. Returns the program's number.
    ///
    /// # Errors
    /// `bpf(2)`'s, with the verifier's words.
    pub fn attach(&mut self) -> Result<u32> {
        let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        let program: &mut BtfTracePoint =
            self.ebpf.program_mut(SWITCH).context(SWITCH)?.try_into()?;
        program
            .load(TRACEPOINT, &btf)
            .with_context(|| format!("cannot load {SWITCH}"))?;
        program
            .attach()
            .with_context(|| format!("cannot attach {SWITCH}"))?;
        let program = program.info()?.id();
        self.write(offset_of!(Table, program), u64::from(program))?;
        self.write(offset_of!(Table, started), crate::now_ns())?;
        self.beat()?;
        Ok(program)
    }

    /// Says that the daemon is alive.
    ///
    /// # Errors
    /// `bpf(2)`'s: without `CAP_BPF` before Linux 5.19.
    pub fn beat(&self) -> Result<()> {
        self.write(offset_of!(Table, heartbeat), crate::now_ns())
    }

    /// Stores eight bytes of the header.
    fn write(&self, offset: usize, value: u64) -> Result<()> {
        self.run(WRITE, [(offset / size_of::<u64>()) as u64, value])
    }

    fn run(&self, name: &str, arguments: [u64; 2]) -> Result<()> {
        let program: &RawTracePoint = self
            .ebpf
            .program(name)
            .context("no such program")?
            .try_into()?;
        let mut options = RawTracePointRunOptions::new();
        options.args[..2].copy_from_slice(&arguments);
        program
            .test_run(options)
            .with_context(|| format!("cannot run {name}"))?;
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Where it fails, the table is stale soon enough.
        let _ = self.write(offset_of!(Table, heartbeat), 0);
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

/// No process writes the map any more. A map that a daemon before us has frozen stays so.
fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    // `union bpf_attr` for `BPF_MAP_FREEZE` is the descriptor.
    let descriptor = map.as_raw_fd();
    // SAFETY: the kernel reads a descriptor's number from where it is told to, of the size that it is told.
    let frozen = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            MAP_FREEZE,
            &raw const descriptor,
            size_of_val(&descriptor),
        )
    };
    let error = io::Error::last_os_error();
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"))?;
    let is_frozen = fdinfo
        .lines()
        .any(|line| line.split_ascii_whitespace().eq(["frozen:", "1"]));
    match (frozen, is_frozen) {
        (_, true) => Ok(()),
        (0, false) => Err(io::ErrorKind::Unsupported.into()),
        (_, false) => Err(error),
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
