//! Whoever has the table's descriptor tries to write the table, by every route there is; the table shows what came of it.
//!
//! Three writers: a user without rights (the descriptor in hand, then set-user-ID to 65534), root without capabilities, and root with all of
//! them, for whom some routes are open: so the routes lead somewhere. On a map that is not frozen the first one gets through too.
//!
//! Needs root and BPF; says `SKIPPED` where it cannot run.

mod support;

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, c_int, c_long, c_void};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use autolock_oncpu::table::{self, Table};
use autolockd::client;
use autolockd::mapping::Mapping;
use aya::maps::{Array, MapData};
use nix::errno::Errno;
use support::{Place, eventually};

/// No byte of a table has this value.
const MARK: u8 = 0xA5;
/// Where the header's fields end.
const FIELDS: usize = 36;

/// What the writer is told.
const WHO: &str = "AUTOLOCKD_TEST_WHO";
const SOCKET: &str = "AUTOLOCKD_TEST_SOCKET";
const BPFFS: &str = "AUTOLOCKD_TEST_BPFFS";
/// Below the BPF file system: this map instead of the daemon's.
const THAWED: &str = "thawed";

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
mod command {
    use std::ffi::c_long;
    pub const MAP_UPDATE_ELEM: c_long = 2;
    pub const MAP_DELETE_ELEM: c_long = 3;
    pub const PROG_LOAD: c_long = 5;
    pub const OBJ_PIN: c_long = 6;
    pub const OBJ_GET: c_long = 7;
    pub const PROG_TEST_RUN: c_long = 10;
    pub const PROG_GET_FD_BY_ID: c_long = 13;
    pub const MAP_GET_FD_BY_ID: c_long = 14;
    pub const OBJ_GET_INFO_BY_FD: c_long = 15;
    pub const MAP_LOOKUP_AND_DELETE_ELEM: c_long = 21;
    pub const MAP_FREEZE: c_long = 22;
    pub const MAP_UPDATE_BATCH: c_long = 26;
}

/// `BPF_PROG_TYPE_SOCKET_FILTER`, which users without rights may load where they may load any, and `BPF_PROG_TYPE_RAW_TRACEPOINT`.
const SOCKET_FILTER: u32 = 1;
const RAW_TRACEPOINT: u32 = 17;

type Route = fn(&Writer, usize) -> nix::Result<()>;

/// Each tries to store [`MARK`] at its own offset of the table. Freezing comes last: it would close the others.
const ROUTES: &[(&str, Route)] = &[
    ("mmap to write", Writer::mmap_to_write),
    ("mmap private", Writer::mmap_private),
    ("mprotect", Writer::mprotect),
    ("mremap", Writer::mremap),
    ("madvise remove", Writer::madvise_remove),
    ("write to /proc/self/mem", Writer::self_mem),
    ("process_vm_writev", Writer::process_vm_writev),
    ("read into the mapping", Writer::read_into),
    ("write to the descriptor", Writer::write_to_descriptor),
    ("reopen /proc/self/fd", Writer::reopen),
    ("update element", Writer::update),
    ("update batch", Writer::update_batch),
    ("delete element", Writer::delete),
    ("look up and delete element", Writer::look_up_and_delete),
    ("get map by id", Writer::map_by_id),
    ("get program by id", Writer::program_by_id),
    ("get the pin", Writer::get_pin),
    ("a pin of one's own", Writer::pin_elsewhere),
    ("a pin in the daemon's folder", Writer::pin_beside),
    ("a socket filter", Writer::socket_filter),
    ("a tracing program", Writer::tracing_program),
    ("a user namespace", Writer::user_namespace),
    ("the daemon's memory", Writer::daemon_memory),
    ("the daemon's descriptors", Writer::daemon_descriptors),
    ("freeze", Writer::freeze),
];

/// A client that means ill.
struct Writer {
    map: OwnedFd,
    /// The whole table, read-only.
    memory: Mapping,
    bpffs: PathBuf,
    daemon: libc::pid_t,
}

impl Writer {
    fn map(&self, protection: c_int, flags: c_int) -> nix::Result<*mut u8> {
        map(self.map.as_fd(), protection, flags)
    }

    fn shows(&self, offset: usize) -> bool {
        bytes(&self.memory)[offset].load(Relaxed) == MARK
    }

    fn address(&self, offset: usize) -> usize {
        bytes(&self.memory)[offset].as_ptr() as usize
    }

    /// The table as it is, with the mark: what an update stores.
    fn value(&self, offset: usize) -> Vec<u8> {
        let mut value: Vec<u8> = bytes(&self.memory)
            .iter()
            .map(|byte| byte.load(Relaxed))
            .collect();
        value[offset] = MARK;
        value
    }

    fn descriptor(&self) -> u64 {
        number(self.map.as_raw_fd())
    }

    fn mmap_to_write(&self, offset: usize) -> nix::Result<()> {
        map_and_mark(self.map.as_fd(), offset)
    }

    fn mmap_private(&self, offset: usize) -> nix::Result<()> {
        let memory = self.map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
        mark(memory, offset);
        Ok(())
    }

    fn mprotect(&self, offset: usize) -> nix::Result<()> {
        let memory = self.map(libc::PROT_READ, libc::MAP_SHARED)?;
        make_writable(memory)?;
        mark(memory, offset);
        Ok(())
    }

    fn mremap(&self, offset: usize) -> nix::Result<()> {
        let memory = self.map(libc::PROT_READ, libc::MAP_SHARED)?;
        // SAFETY: a mapping of this size that nothing refers to.
        let moved = unsafe {
            libc::mremap(
                memory.cast(),
                table::SIZE,
                2 * table::SIZE,
                libc::MREMAP_MAYMOVE,
            )
        };
        let memory = if moved == libc::MAP_FAILED {
            memory
        } else {
            moved.cast()
        };
        make_writable(memory)?;
        mark(memory, offset);
        Ok(())
    }

    fn madvise_remove(&self, _: usize) -> nix::Result<()> {
        let memory = self.map(libc::PROT_READ, libc::MAP_SHARED)?;
        // SAFETY: a mapping of this size that nothing refers to.
        Errno::result(unsafe { libc::madvise(memory.cast(), table::SIZE, libc::MADV_REMOVE) })
            .map(drop)
    }

    fn self_mem(&self, offset: usize) -> nix::Result<()> {
        mark_in(Path::new("/proc/self/mem"), self.address(offset))
    }

    fn process_vm_writev(&self, offset: usize) -> nix::Result<()> {
        let mut source = MARK;
        let local = libc::iovec {
            iov_base: (&raw mut source).cast(),
            iov_len: 1,
        };
        let remote = libc::iovec {
            iov_base: self.address(offset) as *mut c_void,
            iov_len: 1,
        };
        let own = nix::unistd::getpid().as_raw();
        // SAFETY: one part each; the kernel checks the remote one.
        let written =
            unsafe { libc::process_vm_writev(own, &raw const local, 1, &raw const remote, 1, 0) };
        Errno::result(written).map(drop)
    }

    fn read_into(&self, offset: usize) -> nix::Result<()> {
        let (read, mut write) = io::pipe().map_err(error)?;
        write.write_all(&[MARK]).map_err(error)?;
        // SAFETY: the kernel checks the address.
        let length =
            unsafe { libc::read(read.as_raw_fd(), self.address(offset) as *mut c_void, 1) };
        Errno::result(length).map(drop)
    }

    fn write_to_descriptor(&self, offset: usize) -> nix::Result<()> {
        let at = i64::try_from(offset).expect("an offset");
        // SAFETY: one byte to read.
        let written = unsafe { libc::pwrite(self.map.as_raw_fd(), [MARK].as_ptr().cast(), 1, at) };
        Errno::result(written).map(drop)
    }

    fn reopen(&self, offset: usize) -> nix::Result<()> {
        let path = format!("/proc/self/fd/{}", self.map.as_raw_fd());
        let again = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(error)?;
        map_and_mark(again.as_fd(), offset)
    }

    fn update(&self, offset: usize) -> nix::Result<()> {
        update(self.map.as_fd(), &self.value(offset))
    }

    fn update_batch(&self, offset: usize) -> nix::Result<()> {
        let (key, value) = (0_u32, self.value(offset));
        let one_of_map = 1 | self.descriptor() << 32;
        let attributes = [0, 0, pointer(&key), pointer(&value[0]), one_of_map, 0, 0];
        bpf(command::MAP_UPDATE_BATCH, &attributes).map(drop)
    }

    fn delete(&self, _: usize) -> nix::Result<()> {
        bpf(
            command::MAP_DELETE_ELEM,
            &[self.descriptor(), pointer(&0_u32)],
        )
        .map(drop)
    }

    fn look_up_and_delete(&self, offset: usize) -> nix::Result<()> {
        let mut room = self.value(offset);
        let room = room.as_mut_ptr() as u64;
        let attributes = [self.descriptor(), pointer(&0_u32), room, 0];
        bpf(command::MAP_LOOKUP_AND_DELETE_ELEM, &attributes).map(drop)
    }

    /// The map's number is told to whoever has a descriptor.
    fn id(&self) -> nix::Result<u32> {
        // The first members of `struct bpf_map_info`: type and id.
        let mut info = [0_u32; 2];
        let length = size_of_val(&info) as u64;
        let attributes = [self.descriptor() | length << 32, (&raw mut info) as u64];
        bpf(command::OBJ_GET_INFO_BY_FD, &attributes)?;
        Ok(info[1])
    }

    fn map_by_id(&self, offset: usize) -> nix::Result<()> {
        let map = open(command::MAP_GET_FD_BY_ID, &[u64::from(self.id()?), 0])?;
        write_by(map.as_fd(), offset, || self.value(offset))
    }

    /// The header names the program that is attached; the two that the daemon runs were loaded before.
    fn program_by_id(&self, offset: usize) -> nix::Result<()> {
        let attached = self.memory.program.load(Relaxed);
        let mut refused = Errno::ENOENT;
        for id in attached.saturating_sub(100)..=attached {
            match open(command::PROG_GET_FD_BY_ID, &[u64::from(id), 0]) {
                Ok(program) => {
                    if maps_of(program.as_fd()) == Ok(vec![self.id()?]) {
                        // Those with other arguments refuse.
                        let _ = write_header(program.as_fd(), offset);
                    }
                    if self.shows(offset) {
                        return Ok(());
                    }
                }
                Err(Errno::ENOENT) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn get_pin(&self, offset: usize) -> nix::Result<()> {
        self.get(&self.bpffs.join(table::PIN), offset)
    }

    fn get(&self, pin: &Path, offset: usize) -> nix::Result<()> {
        let pin = CString::new(pin.as_os_str().as_bytes()).expect("no NUL in a path");
        let map = open(command::OBJ_GET, &[pin.as_ptr() as u64, 0])?;
        write_by(map.as_fd(), offset, || self.value(offset))
    }

    fn pin(&self, pin: &Path) -> nix::Result<()> {
        let pin = CString::new(pin.as_os_str().as_bytes()).expect("no NUL in a path");
        bpf(command::OBJ_PIN, &[pin.as_ptr() as u64, self.descriptor()]).map(drop)
    }

    /// A BPF file system may be writable for everybody: a pin there keeps the map, and no more than that.
    fn pin_elsewhere(&self, offset: usize) -> nix::Result<()> {
        let pin = self.bpffs.join("mine");
        self.pin(&pin)?;
        let got = self.get(&pin, offset);
        std::fs::remove_file(&pin).map_err(error)?;
        got
    }

    fn pin_beside(&self, offset: usize) -> nix::Result<()> {
        let mut pin = self.bpffs.join(table::PIN).into_os_string();
        pin.push("-mine");
        let pin = PathBuf::from(pin);
        self.pin(&pin)?;
        let got = self.get(&pin, offset);
        std::fs::remove_file(&pin).map_err(error)?;
        got
    }

    fn socket_filter(&self, offset: usize) -> nix::Result<()> {
        run_program(SOCKET_FILTER, self.map.as_fd(), offset)
    }

    fn tracing_program(&self, offset: usize) -> nix::Result<()> {
        run_program(RAW_TRACEPOINT, self.map.as_fd(), offset)
    }

    /// Every capability, but over a namespace of one's own: the last few routes once more.
    fn user_namespace(&self, offset: usize) -> nix::Result<()> {
        let id = u64::from(self.id()?);
        let value = self.value(offset);
        // SAFETY: the child makes system calls alone.
        let child = Errno::result(unsafe { libc::fork() })?;
        if child == 0 {
            let inside = || {
                // SAFETY: the calling process has this thread alone.
                Errno::result(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
                let map = self.map.as_fd();
                map_and_mark(map, offset)
                    .or_else(|_| update(map, &value))
                    .or_else(|_| run_program(SOCKET_FILTER, map, offset))
                    .or_else(|_| run_program(RAW_TRACEPOINT, map, offset))
                    .or_else(|_| {
                        let map = open(command::MAP_GET_FD_BY_ID, &[id, 0])?;
                        map_and_mark(map.as_fd(), offset)
                    })
            };
            let code = inside().map_or_else(|errno| errno as i32, |()| 0);
            // SAFETY: ends the child, past every handler.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: our child.
        Errno::result(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
        match libc::WEXITSTATUS(status) {
            0 if libc::WIFEXITED(status) => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }

    /// It has no mapping to write either; whoever could write its memory could make it run its programs.
    fn daemon_memory(&self, _: usize) -> nix::Result<()> {
        let path = format!("/proc/{}/mem", self.daemon);
        File::options()
            .read(true)
            .write(true)
            .open(path)
            .map(drop)
            .map_err(error)
    }

    /// The program that writes the header needs no right but its descriptor.
    fn daemon_descriptors(&self, offset: usize) -> nix::Result<()> {
        // SAFETY: takes two integers.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, self.daemon, 0) };
        let process = owned(Errno::result(process)?);
        let mut refused = Errno::EBADF;
        for number in 0..64 {
            // SAFETY: takes three integers.
            let got =
                unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
            match Errno::result(got) {
                Ok(got) => {
                    // Its other descriptors refuse.
                    let _ = write_header(owned(got).as_fd(), offset);
                    if self.shows(offset) {
                        return Ok(());
                    }
                }
                Err(Errno::EBADF) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn freeze(&self, _: usize) -> nix::Result<()> {
        bpf(command::MAP_FREEZE, &[self.descriptor()]).map(drop)
    }
}

fn error(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn number(descriptor: c_int) -> u64 {
    u64::try_from(descriptor).expect("an open descriptor")
}

fn pointer<T>(to: &T) -> u64 {
    ptr::from_ref(to) as u64
}

fn owned(descriptor: c_long) -> OwnedFd {
    let descriptor = c_int::try_from(descriptor).expect("a descriptor");
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// `union bpf_attr`, as little-endian words.
fn bpf(command: c_long, attributes: &[u64]) -> nix::Result<c_long> {
    // SAFETY: the kernel reads the attributes; the callers' pointers in them are alive.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    })
}

fn open(command: c_long, attributes: &[u64]) -> nix::Result<OwnedFd> {
    bpf(command, attributes).map(owned)
}

/// The numbers of a program's maps: other daemons' tables are not ours to write, where we can.
fn maps_of(program: BorrowedFd<'_>) -> nix::Result<Vec<u32>> {
    let mut ids = [0_u32; 4];
    // The first members of `struct bpf_prog_info`, to `nr_map_ids` (in the upper half of its word) and `map_ids`.
    let mut info = [0_u64; 8];
    info[6] = (ids.len() as u64) << 32;
    info[7] = ids.as_mut_ptr() as u64;
    let attributes = [
        number(program.as_raw_fd()) | (size_of_val(&info) as u64) << 32,
        info.as_mut_ptr() as u64,
    ];
    bpf(command::OBJ_GET_INFO_BY_FD, &attributes)?;
    let count = usize::try_from(info[6] >> 32).expect("a few");
    Ok(ids.into_iter().take(count).collect())
}

fn map(map: BorrowedFd<'_>, protection: c_int, flags: c_int) -> nix::Result<*mut u8> {
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            table::SIZE,
            protection,
            flags,
            map.as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        Err(Errno::last())
    } else {
        Ok(memory.cast())
    }
}

fn make_writable(memory: *mut u8) -> nix::Result<()> {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a mapping of this size that nothing refers to.
    Errno::result(unsafe { libc::mprotect(memory.cast(), table::SIZE, both) }).map(drop)
}

/// `memory`: the table, mapped to write.
fn mark(memory: *mut u8, offset: usize) {
    // SAFETY: in the mapping.
    let byte = unsafe { memory.add(offset) };
    // SAFETY: writable, and others use it atomically too.
    unsafe { AtomicU8::from_ptr(byte) }.store(MARK, Relaxed);
}

fn map_and_mark(descriptor: BorrowedFd<'_>, offset: usize) -> nix::Result<()> {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    mark(map(descriptor, both, libc::MAP_SHARED)?, offset);
    Ok(())
}

fn mark_in(memory: &Path, address: usize) -> nix::Result<()> {
    File::options()
        .write(true)
        .open(memory)
        .and_then(|memory| memory.write_at(&[MARK], address as u64))
        .map(drop)
        .map_err(error)
}

fn update(map: BorrowedFd<'_>, value: &[u8]) -> nix::Result<()> {
    assert_eq!(value.len(), table::SIZE);
    let attributes = [
        number(map.as_raw_fd()),
        pointer(&0_u32),
        value.as_ptr() as u64,
        0,
    ];
    bpf(command::MAP_UPDATE_ELEM, &attributes).map(drop)
}

/// By another descriptor of the map.
fn write_by(
    map: BorrowedFd<'_>,
    offset: usize,
    value: impl FnOnce() -> Vec<u8>,
) -> nix::Result<()> {
    map_and_mark(map, offset)
        .or_else(|_| update(map, &value()))
        .or_else(|_| run_program(RAW_TRACEPOINT, map, offset))
}

/// Loads a program that stores the mark, and runs it.
fn run_program(kind: u32, map: BorrowedFd<'_>, offset: usize) -> nix::Result<()> {
    let instructions: [u64; 5] = [
        // r1 = the address of the map's value + offset (BPF_PSEUDO_MAP_VALUE)
        0x2118 | number(map.as_raw_fd()) << 32,
        (offset as u64) << 32,
        // *(u8 *)r1 = MARK
        0x0172 | u64::from(MARK) << 32,
        // r0 = 0; exit
        0xb7,
        0x95,
    ];
    let program = open(
        command::PROG_LOAD,
        &[
            u64::from(kind) | (instructions.len() as u64) << 32,
            instructions.as_ptr() as u64,
            c"Dual MIT/GPL".as_ptr() as u64,
            0,
            0,
            0,
        ],
    )?;
    let packet = [0_u8; 64];
    let mut run = [0_u64; 10];
    run[0] = number(program.as_raw_fd());
    if kind == SOCKET_FILTER {
        run[1] = packet.len() as u64;
        run[2] = packet.as_ptr() as u64;
    }
    bpf(command::PROG_TEST_RUN, &run).map(drop)
}

/// Runs what might be the daemon's `oncpu_write`.
fn write_header(program: BorrowedFd<'_>, offset: usize) -> nix::Result<()> {
    let arguments = [
        (offset / size_of::<u64>()) as u64,
        u64::from_ne_bytes([MARK; 8]),
    ];
    let mut run = [0_u64; 10];
    run[0] = number(program.as_raw_fd());
    run[5] = size_of_val(&arguments) as u64;
    run[6] = arguments.as_ptr() as u64;
    bpf(command::PROG_TEST_RUN, &run).map(drop)
}

fn bytes(table: &Table) -> &[AtomicU8] {
    // SAFETY: as many bytes as it has, each written by others atomically.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(table).cast(), table::SIZE) }
}

/// The byte that a route aims at: no thread's of ours, or, for the daemon's own program, the header's.
fn aim(route: usize) -> usize {
    match ROUTES[route].0 {
        "get program by id" => table::HEADER_SIZE - 16,
        "the daemon's descriptors" => table::HEADER_SIZE - 8,
        _ => table::SIZE - 1 - route,
    }
}

/// Where the table has what no program of the daemon's writes.
fn foreign(table: &Table) -> Vec<usize> {
    let bytes = bytes(table);
    (FIELDS..table::SIZE)
        .filter(|&offset| {
            let last = if offset < table::HEADER_SIZE {
                0
            } else {
                table::NOT_RUNNING
            };
            bytes[offset].load(Relaxed) > last
        })
        .collect()
}

/// Not a test by itself: the writer, in a process of its own.
#[test]
#[ignore = "the other tests run it"]
fn writer() {
    let Ok(who) = env::var(WHO) else { return };
    let bpffs = PathBuf::from(env::var_os(BPFFS).expect("the folder"));
    let (map, daemon) = if let Some(socket) = env::var_os(SOCKET) {
        let reply = client::ask(Path::new(&socket), support::DEADLINE).expect("it answers");
        (reply.map.expect("granted"), reply.daemon)
    } else {
        let map = MapData::from_pin(bpffs.join(THAWED)).expect("it is pinned");
        let map = map.fd().as_fd().try_clone_to_owned();
        (map.expect("a descriptor"), 1)
    };
    let memory = Mapping::new(&map).expect("clients map it");
    if who == "nobody" {
        become_nobody();
    }
    let writer = Writer {
        map,
        memory,
        bpffs,
        daemon,
    };
    for (route, (name, attempt)) in ROUTES.iter().enumerate() {
        let outcome = attempt(&writer, aim(route));
        let outcome = match outcome {
            _ if writer.shows(aim(route)) => "written".to_owned(),
            Ok(()) => "harmless".to_owned(),
            Err(errno) => format!("{errno:?}"),
        };
        println!("\nroute {name}: {outcome}");
    }
}

/// In every thread; and as inspectable for itself as any program of that user.
fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: no groups.
    assert_eq!(unsafe { libc::setgroups(0, ptr::null()) }, 0);
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) }, 0);
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }, 0);
}

/// What came of each route.
fn outcomes(command: &mut Command, who: &str) -> BTreeMap<String, String> {
    let output = command
        .args(["writer", "--exact", "--ignored", "--nocapture"])
        .env(WHO, who)
        .output()
        .expect("this test starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let outcomes: BTreeMap<String, String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("route ")?.split_once(": "))
        .map(|(route, outcome)| (route.to_owned(), outcome.to_owned()))
        .collect();
    assert_eq!(outcomes.len(), ROUTES.len(), "{said}");
    println!("{who}: {outcomes:#?}");
    outcomes
}

fn this_test() -> PathBuf {
    env::current_exe().expect("/proc is mounted")
}

fn table_of(place: &Place) -> Mapping {
    client::ask(place.socket(), Duration::from_secs(10))
        .and_then(|reply| reply.table())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", place.log()))
}

/// The routes that wrote, and that the table shows just their bytes.
fn written(table: &Table, outcomes: &BTreeMap<String, String>) -> Vec<&'static str> {
    let (routes, mut offsets): (Vec<_>, Vec<_>) = ROUTES
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| outcomes[*name] == "written")
        .map(|(route, (name, _))| (*name, aim(route)))
        .unzip();
    offsets.sort_unstable();
    let mut found = foreign(table);
    // The daemon's program writes words.
    found.retain(|offset| *offset >= table::HEADER_SIZE || offset % 8 == 0);
    assert_eq!(found, offsets, "{outcomes:#?}");
    routes
}

/// All are refused or come to nothing, and the daemon beats on in the same table.
#[track_caller]
fn assert_isolated(place: &Place, command: &mut Command, who: &str, harmless: &[&str]) {
    let table = table_of(place);
    let program = table.program.load(Relaxed);
    let started = table.started.load(Relaxed);
    command
        .env(SOCKET, place.socket())
        .env(BPFFS, place.bpffs());
    let outcomes = outcomes(command, who);
    assert_eq!(written(&table, &outcomes), <[&str; 0]>::default());
    let accepted: Vec<&str> = ROUTES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| outcomes[*name] == "harmless")
        .collect();
    assert_eq!(accepted, harmless);
    assert_eq!(table.magic.load(Relaxed), table::MAGIC);
    assert_eq!(table.version.load(Relaxed), table::VERSION);
    assert_eq!(table.program.load(Relaxed), program);
    assert_eq!(table.started.load(Relaxed), started);
    let heartbeat = table.heartbeat.load(Relaxed);
    eventually("it beats on", || table.heartbeat.load(Relaxed) > heartbeat);
}

#[test]
fn a_user_without_rights_cannot_write_the_table() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    assert_isolated(&place, &mut Command::new(this_test()), "nobody", &[]);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn root_without_capabilities_cannot_write_the_table() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(this_test());
    assert_isolated(&place, &mut command, "bare root", &[]);
    assert_eq!(daemon.stop().code(), Some(0));
}

/// The routes that capabilities open do lead to the table: refusals are not for faults of the attempts.
#[test]
fn root_with_capabilities_can() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    let mut command = Command::new(this_test());
    command
        .env(SOCKET, place.socket())
        .env(BPFFS, place.bpffs());
    let outcomes = outcomes(&mut command, "root");
    let written = written(&table, &outcomes);
    for route in [
        "get map by id",
        "get program by id",
        "get the pin",
        "a pin of one's own",
        "a pin in the daemon's folder",
        "a socket filter",
        "a tracing program",
        "the daemon's descriptors",
    ] {
        assert!(written.contains(&route), "{route}: {outcomes:#?}");
    }
    // Not even so: these are the frozen map's.
    for route in ["mmap to write", "mprotect", "update element"] {
        assert!(!written.contains(&route), "{route}: {outcomes:#?}");
    }
    daemon.stop();
}

#[test]
fn without_the_freeze_a_user_without_rights_can() {
    let Some(place) = Place::new() else { return };
    let thawed = Array::<_, [u8; table::SIZE]>::create(1, 1 << 10).expect("a map");
    thawed
        .pin(place.bpffs().join(THAWED))
        .expect("it can be pinned");
    let map = MapData::from_pin(place.bpffs().join(THAWED)).expect("it is pinned");
    let table = Mapping::new(map.fd()).expect("it is mappable");
    let mut command = Command::new(this_test());
    command.env_remove(SOCKET).env(BPFFS, place.bpffs());
    let outcomes = outcomes(&mut command, "nobody");
    let written = written(&table, &outcomes);
    // The kernel keeps mappings to read as they are, frozen or not.
    for route in [
        "mmap to write",
        "update element",
        "update batch",
        "a pin of one's own",
        "a user namespace",
    ] {
        assert!(written.contains(&route), "{route}: {outcomes:#?}");
    }
}
