//! System calls for signal handlers and endings, made directly.
//!
//! libc's functions set `errno`, and many are cancellation points: a thread could be cancelled in the middle of somebody else's table. These
//! do neither, and work in a child of `vfork` too. Results are the kernel's: a negative error number where it failed.

use core::arch::asm;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU32;

/// Makes a system call.
///
/// # Safety
/// - As the system call; it does not change the stack or replace the process's memory.
#[inline]
pub unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller answers for the arguments; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// getpid(2): the truth, in a child of `vfork` too.
#[must_use]
pub fn pid() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    (unsafe { call(libc::SYS_getpid, [0; 6]) }) as u32
}

/// gettid(2).
#[must_use]
pub fn tid() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    (unsafe { call(libc::SYS_gettid, [0; 6]) }) as u32
}

/// A set of signals as the kernel has it: signal `n` is bit `n - 1`.
pub type Mask = u64;

/// The bit of a signal.
#[must_use]
pub const fn bit(signal: i32) -> Mask {
    1 << (signal - 1)
}

/// Sets the calling thread's signal mask; returns the one before. libc's keeps its own two signals unblocked, this does not.
pub fn set_mask(mask: Mask) -> Mask {
    let mut before: Mask = 0;
    // SAFETY: two valid pointers to sets of the size that is said.
    unsafe {
        call(
            libc::SYS_rt_sigprocmask,
            [
                libc::SIG_SETMASK as usize,
                (&raw const mask).expose_provenance(),
                (&raw mut before).expose_provenance(),
                size_of::<Mask>(),
                0,
                0,
            ],
        )
    };
    before
}

/// Blocks or unblocks signals in the calling thread; returns the mask before.
pub fn change_mask(block: bool, signals: Mask) -> Mask {
    let before = set_mask(!0);
    set_mask(if block {
        before | signals
    } else {
        before & !signals
    });
    before
}

/// All signals are blocked in this thread while it lives: a handler that ran meanwhile could jump out of what must be finished.
#[derive(Debug)]
pub struct Blocked {
    before: Mask,
}

impl Blocked {
    /// Blocks them.
    #[must_use]
    pub fn all() -> Self {
        Self {
            before: set_mask(!0),
        }
    }

    /// The mask before.
    #[must_use]
    pub const fn before(&self) -> Mask {
        self.before
    }

    /// Goes on with more signals blocked than before.
    pub fn also(&mut self, more: Mask) {
        self.before |= more;
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_mask(self.before);
    }
}

/// Sends a signal to the calling thread.
pub fn raise(signal: i32) {
    // SAFETY: numbers only.
    unsafe {
        call(
            libc::SYS_tgkill,
            [pid() as usize, tid() as usize, signal as usize, 0, 0, 0],
        )
    };
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid clock and pointer: cannot fail, so `errno` stays.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

/// futex(2) FUTEX_WAIT for at most `timeout_ns`; returns for any reason.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout_ns: u64) {
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as i64,
        tv_nsec: (timeout_ns % 1_000_000_000) as i64,
    };
    // SAFETY: a live word and a valid timespec. Not private: it costs nothing here and the word may be seen by a child of `vfork`.
    unsafe {
        call(
            libc::SYS_futex,
            [
                core::ptr::from_ref(word).expose_provenance(),
                libc::FUTEX_WAIT as usize,
                expected as usize,
                (&raw const timeout).expose_provenance(),
                0,
                0,
            ],
        )
    };
}

/// futex(2) FUTEX_WAKE of everybody.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: a wake uses the address as a key.
    unsafe {
        call(
            libc::SYS_futex,
            [
                core::ptr::from_ref(word).expose_provenance(),
                libc::FUTEX_WAKE as usize,
                i32::MAX as usize,
                0,
                0,
                0,
            ],
        )
    };
}

/// How long a reader of what we write may make no progress.
const PATIENCE_MS: usize = 1000;
/// A pipe that is ready takes so much without blocking (PIPE_BUF, pipe(7)).
const PIECE: usize = 4096;

/// Writes all of it to a descriptor. A reader that stands still does not stop us: after a second what is left is given up, as it is if the descriptor is closed.
/// A reader that is gone sends no SIGPIPE. Returns whether all was written.
pub fn write_all(descriptor: i32, mut bytes: &[u8]) -> bool {
    let _blocked = Blocked::all();
    while !bytes.is_empty() {
        let mut poll = libc::pollfd {
            fd: descriptor,
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one valid pollfd.
        let ready = unsafe {
            call(
                libc::SYS_poll,
                [(&raw mut poll).expose_provenance(), 1, PATIENCE_MS, 0, 0, 0],
            )
        };
        let broken = poll.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        if ready <= 0 || broken {
            return false; // Not interrupted: signals are blocked.
        }
        let length = bytes.len().min(PIECE);
        // SAFETY: `length` bytes of a live slice.
        let written = unsafe {
            call(
                libc::SYS_write,
                [
                    descriptor as usize,
                    bytes.as_ptr().expose_provenance(),
                    length,
                    0,
                    0,
                    0,
                ],
            )
        };
        match usize::try_from(written) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            // Another writer was faster (or a debugger's stop came between): look again.
            Err(_) if written == -libc::EAGAIN as isize || written == -libc::EINTR as isize => {}
            Err(_) => {
                if written == -libc::EPIPE as isize {
                    forget_sigpipe();
                }
                return false;
            }
        }
    }
    true
}

/// Takes back the SIGPIPE that a write of this thread has raised, while it is blocked.
fn forget_sigpipe() {
    let set = bit(libc::SIGPIPE);
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid set of the size that is said, no information wanted, a valid timespec.
    unsafe {
        call(
            libc::SYS_rt_sigtimedwait,
            [
                (&raw const set).expose_provenance(),
                0,
                (&raw const now).expose_provenance(),
                size_of::<Mask>(),
                0,
                0,
            ],
        )
    };
}

/// A file that is open for reading.
#[derive(Debug)]
pub struct File {
    descriptor: i32,
}

impl File {
    /// Opens it, without waiting for anybody if it is a FIFO; none if that fails.
    #[must_use]
    pub fn open(path: &CStr) -> Option<Self> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        // SAFETY: a NUL-terminated path.
        let descriptor = unsafe {
            call(
                libc::SYS_openat,
                [
                    libc::AT_FDCWD as usize,
                    path.as_ptr().expose_provenance(),
                    flags as usize,
                    0,
                    0,
                    0,
                ],
            )
        };
        (descriptor >= 0).then_some(Self {
            descriptor: descriptor as i32,
        })
    }

    /// Reads at an offset until the buffer is full or the file ends; returns the bytes read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            // SAFETY: `rest` is writable.
            let read = unsafe {
                call(
                    libc::SYS_pread64,
                    [
                        self.descriptor as usize,
                        rest.as_mut_ptr().expose_provenance(),
                        rest.len(),
                        offset.wrapping_add(done as u64) as usize,
                        0,
                        0,
                    ],
                )
            };
            if read <= 0 {
                break;
            }
            done += read as usize;
        }
        done
    }

    /// Reads a structure of plain numbers.
    ///
    /// # Safety
    /// - Any bytes are a valid `T`.
    #[must_use]
    pub unsafe fn read<T: Copy>(&self, offset: u64) -> Option<T> {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the bytes of `value`, which are initialised.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>())
        };
        let complete = self.read_at(offset, bytes) == size_of::<T>();
        // SAFETY: initialised, and the caller says that any bytes will do.
        complete.then(|| unsafe { value.assume_init() })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: our own descriptor, not used again.
        unsafe { call(libc::SYS_close, [self.descriptor as usize, 0, 0, 0, 0, 0]) };
    }
}

/// readlink(2) into a buffer; the bytes of the target, none if that fails.
#[must_use]
pub fn read_link<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // SAFETY: a NUL-terminated path and a writable buffer.
    let length = unsafe {
        call(
            libc::SYS_readlink,
            [
                path.as_ptr().expose_provenance(),
                buffer.as_mut_ptr().expose_provenance(),
                buffer.len(),
                0,
                0,
                0,
            ],
        )
    };
    buffer.get(..usize::try_from(length).ok()?)
}

/// What a descriptor refers to: device and inode; none if it is closed.
#[must_use]
pub fn identity(descriptor: i32) -> Option<(u64, u64)> {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    let to = status.as_mut_ptr().expose_provenance();
    // SAFETY: room for the answer, which is the kernel's `struct stat` on x86-64.
    let failed = unsafe { call(libc::SYS_fstat, [descriptor as usize, to, 0, 0, 0, 0]) };
    if failed != 0 {
        return None;
    }
    // SAFETY: plain numbers.
    let status = unsafe { status.assume_init() };
    Some((status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

    fn pipe() -> (std::fs::File, OwnedFd) {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
        assert_eq!(made, 0);
        // SAFETY: a fresh descriptor.
        let reader = unsafe { std::fs::File::from_raw_fd(ends[0]) };
        // SAFETY: another one.
        (reader, unsafe { OwnedFd::from_raw_fd(ends[1]) })
    }

    #[test]
    fn a_slow_reader_gets_everything() {
        let (mut reader, writer) = pipe();
        let text: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let sent = text.clone();
        let thread = std::thread::spawn(move || write_all(writer.as_raw_fd(), &sent));
        let mut got = Vec::new();
        reader.read_to_end(&mut got).expect("a pipe");
        assert!(thread.join().expect("no panic"));
        assert_eq!(got, text);
    }

    #[test]
    fn a_reader_that_stands_still_and_a_closed_descriptor_are_given_up() {
        let (_reader, writer) = pipe();
        assert!(!write_all(writer.as_raw_fd(), &vec![b'x'; 1 << 20]));
        assert!(!write_all(-1, b"x"));
    }

    #[test]
    fn a_reader_that_is_gone_sends_no_signal() {
        let (reader, writer) = pipe();
        drop(reader);
        // SAFETY: the default action, which the Rust runtime has replaced, kills.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        assert!(!write_all(writer.as_raw_fd(), b"x"));
        let blocked = Blocked::all();
        // Without the look before.
        // SAFETY: one byte.
        let written = unsafe { libc::write(writer.as_raw_fd(), c"x".as_ptr().cast(), 1) };
        assert_eq!(written, -1);
        forget_sigpipe();
        drop(blocked);
        // SAFETY: what it was.
        unsafe { libc::signal(libc::SIGPIPE, before) };
    }

    #[test]
    fn blocked_signals_come_back_as_they_were() {
        let before = set_mask(0);
        {
            let mut blocked = Blocked::all();
            assert_eq!(blocked.before(), 0);
            blocked.also(bit(libc::SIGUSR1));
        }
        assert_eq!(set_mask(before), bit(libc::SIGUSR1));
    }
}
