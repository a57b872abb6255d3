//! Asking `autolockd` for its table: by its socket, within [`greeting::PATIENCE_MS`], in a process of which nothing is known.
//!
//! May touch: the socket and /proc/self/status, by system calls past libc, which neither set `errno` nor can be a function of the program's. Leaves behind one mapping at most.

use core::ffi::{CStr, c_int};
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering::Relaxed;

use autolock_lock::platform::Platform as _;
use autolock_oncpu::{
    greeting::{self, Answer, Greeting},
    table::{self, Table},
};

use crate::{
    linux::{self, Linux},
    options::Backend,
};

/// Why there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refusal {
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
    pub(crate) const ALL: [Self; 10] = [
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

    pub(crate) const fn text(self) -> &'static str {
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

/// The table, mapped for the process's life. [`Backend::Ebpf`] tries under a seccomp filter, too.
pub(crate) fn attach(backend: Backend, socket: &[u8]) -> Result<&'static Table, Refusal> {
    if !matches!(backend, Backend::Auto | Backend::Ebpf) {
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

/// Whether there is a file of this name.
pub(crate) fn exists(path: &CStr) -> bool {
    open(path, libc::O_PATH).is_ok()
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
pub(crate) fn is_unfiltered() -> bool {
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
    // Before anything else: it is closed on every way out. (Not by `then_some`: one that did not come is not to be closed.)
    let descriptor = carries.then(|| Descriptor(control.descriptor));
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

    #[test]
    fn each_refusal_is_found_again_by_its_number() {
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, number);
        }
    }
}
