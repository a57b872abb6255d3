//! The capture's file: where it is made, and what else is read from files for its header.
//!
//! May touch: files, by system calls made directly: libc's are cancellation points, which lock functions are not.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use autolock_capture::layout::Header;

use crate::{
    options::{self, Path},
    system,
    text::Text,
};

/// What to map.
#[derive(Debug)]
pub enum Place {
    /// This file, of the right size.
    File(i32),
    /// Memory: no file is wanted, or none can be made.
    Memory,
}

/// The path of the capture; empty if there is no file.
static CAPTURE: [AtomicU8; PATH] = [const { AtomicU8::new(0) }; PATH];
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Longest path.
pub const PATH: usize = 1024;

/// The path of the process's capture, in `buffer`; empty if it is in memory only, or there is none.
pub fn path(buffer: &mut [u8]) -> &[u8] {
    let length = LENGTH.load(Relaxed).min(buffer.len());
    for (to, from) in buffer.iter_mut().zip(&CAPTURE) {
        *to = from.load(Relaxed);
    }
    buffer.get(..length).unwrap_or(&[])
}

/// There is no file (any more).
pub fn forget() {
    LENGTH.store(0, Relaxed);
}

/// Files of one name that are tried: a program that became another one keeps its process id, and ids come round again.
const TRIES: u32 = 10_000;

/// Whether the process may make files of this size: a larger one would be SIGXFSZ.
fn is_allowed(bytes: usize) -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid pointer.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    failed != 0 || limit.rlim_cur >= bytes as u64
}

/// Makes the file that the options name, or one of the same name in `/tmp`.
pub fn create(bytes: usize) -> Place {
    if !is_allowed(bytes) {
        return Place::Memory;
    }
    let pattern = &options::get().file;
    let pid = system::pid();
    create_as(bytes, |suffix| pattern.expand(pid, suffix))
        .or_else(|| create_as(bytes, |suffix| pattern.expand_in(b"/tmp/", pid, suffix)))
        .map_or(Place::Memory, Place::File)
}

/// Makes a new file, with a number behind its name if that is taken.
fn create_as(bytes: usize, path: impl Fn(&[u8]) -> Option<Path>) -> Option<i32> {
    for attempt in 1..=TRIES {
        let mut suffix = [0; 16];
        let mut text = Text::new(&mut suffix);
        if attempt > 1 {
            write!(text, ".{attempt}").ok()?;
        }
        let path = path(text.as_bytes())?;
        let flags =
            libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let name = path.as_c_str().as_ptr().expose_provenance();
        let arguments = [libc::AT_FDCWD as usize, name, flags as usize, 0o600, 0, 0];
        // SAFETY: a NUL-terminated path.
        let file = unsafe { system::call(libc::SYS_openat, arguments) };
        if file == -(libc::EEXIST as isize) {
            continue;
        }
        let file = i32::try_from(file).ok().filter(|file| *file >= 0)?;
        // SAFETY: numbers only; our own descriptor.
        let failed =
            unsafe { system::call(libc::SYS_ftruncate, [file as usize, bytes, 0, 0, 0, 0]) };
        if failed != 0 {
            close(file);
            // SAFETY: a NUL-terminated path, of the file that we have just made.
            unsafe { system::call(libc::SYS_unlink, [name, 0, 0, 0, 0, 0]) };
            return None;
        }
        for (to, from) in CAPTURE.iter().zip(path.as_bytes()) {
            to.store(*from, Relaxed);
        }
        LENGTH.store(path.as_bytes().len(), Relaxed);
        return Some(file);
    }
    None
}

/// Closes a descriptor of ours.
pub fn close(file: i32) {
    // SAFETY: numbers only; our own descriptor.
    unsafe { system::call(libc::SYS_close, [file as usize, 0, 0, 0, 0, 0]) };
}

fn store(to: &[AtomicU8], from: &[u8]) -> u32 {
    for (to, from) in to.iter().zip(from) {
        to.store(*from, Relaxed);
    }
    from.len().min(to.len()) as u32
}

/// Notes what process this is: its command line and its executable.
pub fn describe(header: &Header) {
    let mut buffer = [0_u8; 1024];
    if let Some(file) = system::File::open(c"/proc/self/cmdline") {
        let read = file.read_at(0, &mut buffer);
        let length = store(&header.command, buffer.get(..read).unwrap_or(&[]));
        header.command_length.store(length, Relaxed);
    }
    let path = system::read_link(c"/proc/self/exe", &mut buffer);
    // One less: a NUL stays behind it.
    let room = header.executable.len() - 1;
    let path = path.unwrap_or(&[]);
    store(&header.executable, path.get(..room).unwrap_or(path));
}
