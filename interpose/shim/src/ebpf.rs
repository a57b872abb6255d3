//! What the scheduler says: `autolockd`'s table of the threads on a CPU, which an eBPF program writes at each context switch.
//!
//! [`start`] asks the daemon once, from the preload's constructor, within [`greeting::PATIENCE_MS`]. What remains of it is a read-only mapping and no
//! descriptor. Later nothing is asked: an answer is three loads from the mapping and the coarse clock, which the vDSO reads from memory. A table that
//! its daemon left behind is not believed, and believed again as soon as a daemon beats in it; both without a system call.
//!
//! The thread that asks is running. A table that does not say so is about others' thread ids, as in a child that was born into another PID namespace,
//! or has not seen a switch to this thread yet: it says nothing about the holder either.
//!
//! Why nobody hangs on what the table says, be it frozen or a lie:
//! - *Running* makes the attendant's patience longer, up to a fixed time in which the mutex does not move; whoever else spins (newcomers, waiters of a
//!   process-shared mutex, the collection's locks) does so for the same bounded time as ever, or a longer bounded one.
//! - *Not running* makes a waiter sleep, by the protocol by which every waiter sleeps: it has written into the word that a wake is owed, or found
//!   it free, and then it tries to acquire before it asks again.
//! - *Unknown* is what user space alone begins with.
//!
//! May touch: at start the socket and /proc/self/status, by system calls past libc, which neither set `errno` nor can be a function of the program's; afterwards the
//! mapping, `%fs` and the vDSO.

use core::ffi::{CStr, c_int};
use core::fmt::Write as _;
use core::mem::MaybeUninit;
use core::sync::atomic::{
    AtomicPtr, AtomicU8,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_lock::{
    oncpu::{HolderState, OnCpu},
    platform::Platform as _,
};
use autolock_oncpu::{
    greeting::{self, Answer, Greeting},
    table::{self, Table},
};

use crate::{
    linux::{self, Linux},
    options::Backend,
    stats::{self, Line},
    tcb,
};

/// The mapping; null: user space alone. Written once.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(core::ptr::null_mut());
/// How [`start`] ended: an index into [`Refusal::ALL`], or beyond it.
static OUTCOME: AtomicU8 = AtomicU8::new(Refusal::NotAsked as u8);
const ATTACHED: u8 = u8::MAX;

/// The table where there is one, and what user space knows where it says nothing.
#[derive(Debug)]
pub struct Ebpf;

impl OnCpu for Ebpf {
    #[inline]
    fn thread(tid: i32) -> HolderState {
        // Acquire: pairs with the Release in `start`.
        let table = TABLE.load(Acquire);
        if table.is_null() {
            return HolderState::Unknown;
        }
        // SAFETY: mapped by `start` for the process's life; all of it atomics.
        look_up(unsafe { &*table }, tid)
    }
}

#[inline(never)]
fn look_up(table: &Table, tid: i32) -> HolderState {
    let now = || linux::ns(libc::CLOCK_MONOTONIC_COARSE);
    let state = state_of(table, tcb::tid(), tid, now);
    stats::note_answer(state);
    state
}

/// What `table` says of `tid` to the running thread `me`.
fn state_of(table: &Table, me: i32, tid: i32, now_ns: impl FnOnce() -> u64) -> HolderState {
    let state = match table.thread(tid) {
        table::RUNNING => HolderState::Running,
        table::NOT_RUNNING => HolderState::NotRunning,
        _ => return HolderState::Unknown,
    };
    if table.thread(me) == table::RUNNING && table.is_fresh(now_ns()) {
        state
    } else {
        HolderState::Unknown
    }
}

/// Why there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Refusal {
    NotAsked,
    NoDaemon,
    NotAllowed,
    Filtered,
    Silent,
    Stranger,
    ForeignPidNamespace,
    Unsure,
    NoDescriptor,
    NoTable,
}

impl Refusal {
    const ALL: [Self; 10] = [
        Self::NotAsked,
        Self::NoDaemon,
        Self::NotAllowed,
        Self::Filtered,
        Self::Silent,
        Self::Stranger,
        Self::ForeignPidNamespace,
        Self::Unsure,
        Self::NoDescriptor,
        Self::NoTable,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::NotAsked => "autolockd is not asked",
            Self::NoDaemon => "no autolockd listens",
            Self::NotAllowed => "this user may not connect to autolockd",
            Self::Filtered => {
                "there is, or may be, a seccomp filter that ends the program if it connects to autolockd"
            }
            Self::Silent => "autolockd does not answer in time",
            Self::Stranger => "who listens is not autolockd, or of another version",
            Self::ForeignPidNamespace => "this process is in another PID namespace than autolockd",
            Self::Unsure => "autolockd could not find out who asks",
            Self::NoDescriptor => "this process may open no more files",
            Self::NoTable => "autolockd's table cannot be mapped",
        }
    }

    const fn of(error: c_int) -> Self {
        match error {
            libc::EACCES | libc::EPERM => Self::NotAllowed,
            libc::EAGAIN => Self::Silent,
            libc::EPROTOTYPE => Self::Stranger,
            libc::EMFILE | libc::ENFILE => Self::NoDescriptor,
            _ => Self::NoDaemon,
        }
    }
}

/// Asks the daemon for its table, unless it is not to be asked. Called once, from the preload's constructor; takes [`greeting::PATIENCE_MS`] at most. Says
/// something only where the table was asked for and is not to be had.
pub fn start(backend: Backend, socket: Option<&[u8]>) {
    let socket = socket.unwrap_or(greeting::SOCKET.as_bytes());
    match attach(backend, socket) {
        Ok(table) => {
            OUTCOME.store(ATTACHED, Relaxed);
            // Release: pairs with the Acquire in `thread`: the mapping is there.
            TABLE.store(core::ptr::from_ref(table).cast_mut(), Release);
        }
        Err(refusal) => {
            OUTCOME.store(refusal as u8, Relaxed);
            if backend == Backend::Ebpf {
                let mut line = Line::default();
                let _ = writeln!(
                    line,
                    "autolock: AUTOLOCK_BACKEND=ebpf: {}; using user space",
                    refusal.text()
                );
                line.print();
            }
        }
    }
}

/// Where knowledge comes from, for the statistics: whether there is a table, and a word about it.
#[must_use]
pub fn source() -> (bool, &'static str) {
    match Refusal::ALL.get(usize::from(OUTCOME.load(Relaxed))) {
        Some(refusal) => (false, refusal.text()),
        None => (true, "autolockd's table"),
    }
}

fn attach(backend: Backend, socket: &[u8]) -> Result<&'static Table, Refusal> {
    if backend == Backend::User {
        return Err(Refusal::NotAsked);
    }
    let address = address_of(socket)?;
    if backend == Backend::Auto {
        // With what the dynamic loader has done, too, so no filter can mind it. Where nobody listens, this is all.
        // SAFETY: `address_of` leaves a NUL behind the path, in an array that outlives the call.
        let path = unsafe { CStr::from_ptr(address.sun_path.as_ptr()) };
        drop(open(path, libc::O_PATH)?);
        if !is_unfiltered() {
            return Err(Refusal::Filtered);
        }
    }
    map(&ask(&address)?)
}

/// A descriptor that is closed in time.
struct Descriptor(c_int);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's.
        let _ = unsafe { call(libc::SYS_close, [self.number(), 0, 0, 0, 0, 0]) };
    }
}

impl Descriptor {
    fn of(result: Result<usize, c_int>) -> Result<Self, Refusal> {
        match result {
            Ok(number) => Ok(Self(number as c_int)),
            Err(error) => Err(Refusal::of(error)),
        }
    }

    const fn number(&self) -> usize {
        self.0 as usize
    }
}

/// A system call: its result, or an error number.
///
/// # Safety
/// - As the call of this number says.
unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<usize, c_int> {
    // SAFETY: the caller's contract.
    let result = unsafe { linux::system_call(number, arguments) };
    usize::try_from(result).map_err(|_| -result as c_int)
}

fn open(path: &CStr, flags: c_int) -> Result<Descriptor, Refusal> {
    let arguments = [
        libc::AT_FDCWD as usize,
        path.as_ptr().expose_provenance(),
        (flags | libc::O_CLOEXEC) as usize,
        0,
        0,
        0,
    ];
    // SAFETY: a path that ends with NUL.
    Descriptor::of(unsafe { call(libc::SYS_openat, arguments) })
}

fn address_of(socket: &[u8]) -> Result<libc::sockaddr_un, Refusal> {
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    // A NUL must follow.
    if socket.len() >= address.sun_path.len() {
        return Err(Refusal::NoDaemon);
    }
    for (to, from) in address.sun_path.iter_mut().zip(socket) {
        *to = from.cast_signed();
    }
    Ok(address)
}

/// Whether no seccomp filter is in place. By /proc: prctl(2) is a call that a filter may end the program for. Where there is no /proc there may be one.
fn is_unfiltered() -> bool {
    const FIELD: &[u8] = b"\nSeccomp:\t";
    let Ok(status) = open(c"/proc/self/status", libc::O_RDONLY) else {
        return false;
    };
    let mut bytes = [0_u8; 1024];
    let mut matched = 0;
    loop {
        let buffer = bytes.as_mut_ptr().expose_provenance();
        // SAFETY: a valid buffer of this length.
        let read = unsafe {
            call(
                libc::SYS_read,
                [status.number(), buffer, bytes.len(), 0, 0, 0],
            )
        };
        let Ok(read @ 1..) = read else {
            return false;
        };
        for &byte in bytes.iter().take(read) {
            match FIELD.get(matched) {
                None => return byte == b'0',
                Some(&next) if next == byte => matched += 1,
                Some(_) => matched = usize::from(byte == b'\n'),
            }
        }
    }
}

/// Connects, and returns the descriptor that comes with the daemon's message.
fn ask(address: &libc::sockaddr_un) -> Result<Descriptor, Refusal> {
    let until = Linux::now_ns() + greeting::PATIENCE_MS.unsigned_abs() as u64 * 1_000_000;
    let kind = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as usize;
    // SAFETY: takes numbers.
    let socket = Descriptor::of(unsafe {
        call(libc::SYS_socket, [libc::AF_UNIX as usize, kind, 0, 0, 0, 0])
    })?;
    // Blocks while the daemon's queue is full.
    until_done(&socket, libc::SO_SNDTIMEO, until, || {
        let at = core::ptr::from_ref(address).expose_provenance();
        let length = size_of::<libc::sockaddr_un>();
        // SAFETY: an address of this length.
        unsafe { call(libc::SYS_connect, [socket.number(), at, length, 0, 0, 0]) }
    })?;
    receive(&socket, until)
}

/// Makes a blocking call on the socket that ends by `until`, again when a signal or a debugger interrupts it.
fn until_done(
    socket: &Descriptor,
    limit: c_int,
    until: u64,
    mut attempt: impl FnMut() -> Result<usize, c_int>,
) -> Result<usize, Refusal> {
    loop {
        let left = until.saturating_sub(Linux::now_ns()) / 1000;
        if left == 0 {
            return Err(Refusal::Silent); // And 0 would mean no limit.
        }
        let left = libc::timeval {
            tv_sec: 0,
            tv_usec: left.cast_signed(),
        };
        let arguments = [
            socket.number(),
            libc::SOL_SOCKET as usize,
            limit as usize,
            (&raw const left).expose_provenance(),
            size_of::<libc::timeval>(),
            0,
        ];
        // SAFETY: a valid option value of this length.
        unsafe { call(libc::SYS_setsockopt, arguments) }.map_err(Refusal::of)?;
        match attempt() {
            Ok(done) => return Ok(done),
            Err(libc::EINTR) => {}
            Err(error) => return Err(Refusal::of(error)),
        }
    }
}

/// Room for one descriptor, and not for the second that the padding of `CMSG_SPACE` would admit.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptor: c_int,
}

const CONTROL_SIZE: usize = size_of::<libc::cmsghdr>() + size_of::<c_int>();

fn receive(socket: &Descriptor, until: u64) -> Result<Descriptor, Refusal> {
    let mut greeting = MaybeUninit::<Greeting>::zeroed();
    let mut control = MaybeUninit::<Control>::zeroed();
    let mut part = libc::iovec {
        iov_base: greeting.as_mut_ptr().cast(),
        iov_len: size_of::<Greeting>(),
    };
    // SAFETY: integers and pointers, which may be null.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_SIZE;
    let received = until_done(socket, libc::SO_RCVTIMEO, until, || {
        let arguments = [
            socket.number(),
            (&raw mut message).expose_provenance(),
            libc::MSG_CMSG_CLOEXEC as usize,
            0,
            0,
            0,
        ];
        // SAFETY: a message header whose buffers have the lengths that it says.
        unsafe { call(libc::SYS_recvmsg, arguments) }
    })?;
    // SAFETY: integers: zeroes, and what the kernel wrote.
    let control = unsafe { control.assume_init() };
    let carries = message.msg_controllen >= CONTROL_SIZE
        && control.header.cmsg_level == libc::SOL_SOCKET
        && control.header.cmsg_type == libc::SCM_RIGHTS
        && control.header.cmsg_len == CONTROL_SIZE;
    // Before anything else: it is closed on every way out.
    let descriptor = carries.then_some(Descriptor(control.descriptor));
    if received != size_of::<Greeting>() || message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(Refusal::Stranger);
    }
    // SAFETY: integers, received in full.
    check(&unsafe { greeting.assume_init() })?;
    // None: more than one, none at all, or none that this process may have open.
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Refusal::NoDescriptor);
    }
    descriptor.ok_or(Refusal::NoTable)
}

fn check(greeting: &Greeting) -> Result<(), Refusal> {
    // SAFETY: getpid(2) takes nothing and cannot fail.
    let pid = unsafe { libc::getpid() }.unsigned_abs();
    if greeting.grants(pid) {
        Ok(())
    } else if greeting.magic != table::MAGIC || greeting.version != table::VERSION {
        Err(Refusal::Stranger)
    } else if greeting.answer == Answer::Unsure as u32 {
        Err(Refusal::Unsure)
    } else if greeting.answer == Answer::ForeignPidNamespace as u32 || greeting.pid != pid {
        Err(Refusal::ForeignPidNamespace)
    } else {
        Err(Refusal::Stranger)
    }
}

/// Maps the table for the process's life.
fn map(descriptor: &Descriptor) -> Result<&'static Table, Refusal> {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    let room = status.as_mut_ptr().expose_provenance();
    // SAFETY: room for the answer.
    unsafe { call(libc::SYS_fstat, [descriptor.number(), room, 0, 0, 0, 0]) }
        .map_err(|_| Refusal::NoTable)?;
    // SAFETY: integers, filled in.
    let status = unsafe { status.assume_init() };
    // A map's descriptor is no regular file, and cannot be mapped beyond its end. A file could, and reading there is SIGBUS.
    if status.st_mode & libc::S_IFMT == libc::S_IFREG && status.st_size < table::SIZE as i64 {
        return Err(Refusal::NoTable);
    }
    let arguments = [
        0,
        table::SIZE,
        libc::PROT_READ as usize,
        libc::MAP_SHARED as usize,
        descriptor.number(),
        0,
    ];
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let address = unsafe { call(libc::SYS_mmap, arguments) }.map_err(|_| Refusal::NoTable)?;
    let address = core::ptr::with_exposed_provenance::<Table>(address);
    // SAFETY: that many readable bytes, aligned to a page, until the process ends or the mapping is given up below; integers, read as atomics.
    let mapped = unsafe { &*address };
    // Relaxed: constant.
    if mapped.magic.load(Relaxed) == table::MAGIC && mapped.version.load(Relaxed) == table::VERSION
    {
        return Ok(mapped);
    }
    // SAFETY: the mapping just made; the reference is not used any more.
    let _ = unsafe {
        call(
            libc::SYS_munmap,
            [address.expose_provenance(), table::SIZE, 0, 0, 0, 0],
        )
    };
    Err(Refusal::Stranger)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: i32 = 10;
    const HOLDER: i32 = 20;
    const NOW: u64 = 1_000_000_000_000;

    /// A fresh table in which this thread runs.
    fn fresh() -> Box<Table> {
        // SAFETY: zero is a valid table.
        let table = unsafe { Box::<Table>::new_zeroed().assume_init() };
        table.heartbeat.store(NOW, Relaxed);
        set(&table, ME, table::RUNNING);
        table
    }

    fn set(table: &Table, tid: i32, byte: u8) {
        table.threads[tid.unsigned_abs() as usize].store(byte, Relaxed);
    }

    fn ask(table: &Table) -> HolderState {
        state_of(table, ME, HOLDER, || NOW)
    }

    #[test]
    fn a_fresh_table_is_believed() {
        let table = fresh();
        assert_eq!(ask(&table), HolderState::Unknown);
        set(&table, HOLDER, table::RUNNING);
        assert_eq!(ask(&table), HolderState::Running);
        set(&table, HOLDER, table::NOT_RUNNING);
        assert_eq!(ask(&table), HolderState::NotRunning);
        set(&table, HOLDER, 77);
        assert_eq!(ask(&table), HolderState::Unknown);
    }

    #[test]
    fn a_stale_table_is_not_believed_until_it_beats_again() {
        let table = fresh();
        set(&table, HOLDER, table::NOT_RUNNING);
        for (heartbeat, state) in [
            (NOW, HolderState::NotRunning),
            (0, HolderState::Unknown),
            (NOW - table::STALE_NS, HolderState::Unknown),
            (NOW - table::STALE_NS + 1, HolderState::NotRunning),
            // The clock is coarse: a beat may be ahead of it.
            (NOW + 4_000_000, HolderState::NotRunning),
            (NOW + table::STALE_NS, HolderState::Unknown),
        ] {
            table.heartbeat.store(heartbeat, Relaxed);
            assert_eq!(ask(&table), state, "{heartbeat}");
        }
    }

    #[test]
    fn a_table_that_denies_that_the_asker_runs_is_about_others() {
        let table = fresh();
        set(&table, HOLDER, table::NOT_RUNNING);
        for byte in [table::NOT_RUNNING, table::UNKNOWN, 77] {
            set(&table, ME, byte);
            assert_eq!(ask(&table), HolderState::Unknown, "{byte}");
        }
    }

    #[test]
    fn no_thread_id_is_beyond_the_table() {
        let table = fresh();
        for tid in [0, -1, i32::MIN, i32::MAX] {
            assert_eq!(state_of(&table, ME, tid, || NOW), HolderState::Unknown);
            set(&table, HOLDER, table::RUNNING);
            assert_eq!(state_of(&table, tid, HOLDER, || NOW), HolderState::Unknown);
        }
    }

    #[test]
    fn each_refusal_is_found_again_by_its_number() {
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, number);
        }
        assert!(Refusal::ALL.len() < usize::from(ATTACHED));
    }
}
