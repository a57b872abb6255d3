//! The end of a process, and when the table is shown.
//!
//! A process ends by `exit` (the preload's destructor), `_exit` and `_Exit` (wrapped), `quick_exit` (registered first, so called last) or a signal
//! (`signals`). The end is noted in the capture's header and the final table is printed, unless a signal's was just printed. Ends that nobody
//! tells us of (`kill -9`, a fault, `abort`, exit_group(2) made directly) leave the capture as it is.
//!
//! Only the process that the capture is of notes and prints: a child of `vfork` calls `_exit` in its parent's memory, and a child of
//! `fork` may not have begun its own yet.

use core::ffi::c_int;
use core::fmt::Write as _;
use core::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_capture::{Capture, layout::ending};
use autolock_shim::real::Next;

use crate::{
    options,
    process::{self, Held},
    real::call_next,
    system, table,
    table::{FilePath, Occasion},
    text::Text,
};

/// What is needed of the recorder. All three are called in signal handlers.
#[derive(Clone, Copy, Debug)]
pub struct Recorder {
    /// The capture, if one has begun.
    pub capture: fn() -> Option<Capture>,
    /// Now, on its clock.
    pub now_ns: fn() -> u64,
    /// Puts the path of its file into a buffer; empty if it is in memory only.
    pub file: FilePath,
}

static RECORDER: AtomicPtr<Recorder> = AtomicPtr::new(core::ptr::null_mut());
/// What stderr was at the start: device and inode. Where descriptor 2 is something else by now, it may be a file of the program's, which is not ours to write to.
static STDERR: [AtomicU64; 2] = [const { AtomicU64::new(u64::MAX) }; 2];
/// When a signal's table was printed last (CLOCK_MONOTONIC); 0: never.
static SIGNALLED_NS: AtomicU64 = AtomicU64::new(0);

/// A final table so soon after a signal's would say the same again.
const SOON_NS: u64 = 2_000_000_000;
/// How long an ending waits for another thread that is printing.
const PATIENCE_NS: u64 = 2_000_000_000;

static EXIT_NOW: Next = Next::new(c"_exit", None);
static EXIT_NOW_C: Next = Next::new(c"_Exit", None);

/// Called once, from the preload's constructor.
pub fn start(recorder: &'static Recorder) {
    unsafe extern "C" {
        fn at_quick_exit(function: extern "C" fn()) -> c_int;
    }
    extern "C" fn quick() {
        finish(ending::QUICK_EXIT, 0);
    }
    if let Some((device, inode)) = system::identity(libc::STDERR_FILENO) {
        STDERR[0].store(device, Relaxed);
        STDERR[1].store(inode, Relaxed);
    }
    let _ = EXIT_NOW.get();
    let _ = EXIT_NOW_C.get();
    // Release: pairs with `capture`.
    RECORDER.store(core::ptr::from_ref(recorder).cast_mut(), Release);
    // SAFETY: a function that stays. If there is no room for it, a table less is printed.
    unsafe { at_quick_exit(quick) };
}

/// The recorder and the capture of this very process, if there is one.
fn own() -> Option<(&'static Recorder, Capture)> {
    // Acquire: pairs with `start`.
    let recorder = RECORDER.load(Acquire);
    // SAFETY: null, or what `start` was given, which stays.
    let recorder = unsafe { recorder.as_ref() }?;
    let capture = (recorder.capture)()?;
    (capture.header().pid.load(Relaxed) == system::pid()).then_some((recorder, capture))
}

/// Why a table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A signal that ends most programs.
    Signal(c_int),
    /// Somebody asked by the signal that was chosen for it.
    Demand,
    /// Time has passed.
    Interval,
    /// The process ends.
    End,
}

fn is_stderr_still() -> bool {
    let at_start = (STDERR[0].load(Relaxed), STDERR[1].load(Relaxed));
    system::identity(libc::STDERR_FILENO) == Some(at_start)
}

/// Prints the table on stderr, if one is wanted and there is a capture; without waiting for another thread that is at it, but for an ending.
pub fn show(why: Why) {
    let rows = options::get().rows;
    let Some((recorder, capture)) = own().filter(|_| rows > 0 && is_stderr_still()) else {
        return;
    };
    let soon = || {
        let last = SIGNALLED_NS.load(Relaxed);
        last != 0 && system::monotonic_ns().wrapping_sub(last) < SOON_NS
    };
    if why == Why::End {
        let_finish();
        if soon() {
            return again(recorder.file);
        }
    }
    let occasion = Occasion {
        why: match why {
            Why::Signal(libc::SIGINT) => "SIGINT",
            Why::Signal(libc::SIGTERM) => "SIGTERM",
            Why::Signal(_) => "signal",
            Why::Demand => "on demand",
            Why::Interval => "so far",
            Why::End => "at exit",
        },
        file: recorder.file,
        now_ns: (recorder.now_ns)(),
        rows,
        patience_ns: match why {
            Why::End => PATIENCE_NS,
            _ => 0,
        },
    };
    let printed = table::print(capture, &occasion, libc::STDERR_FILENO);
    if printed && matches!(why, Why::Signal(_)) {
        SIGNALLED_NS.store(system::monotonic_ns(), Relaxed);
    }
}

/// Waits a while for a thread that is printing, if there is one: the process is about to end under it.
pub(crate) fn let_finish() {
    drop(Held::within(process::TABLE, PATIENCE_NS));
}

/// One line instead of the table: it was there a moment ago.
#[inline(never)]
fn again(file: FilePath) {
    let mut path = [0; 256];
    let most = path.len();
    let file = file(&mut path);
    let mut bytes = [0; 350];
    let mut line = Text::new(&mut bytes);
    let _ = line.write_str("pthread-mutex-profile: ended");
    // A path that is cut would only mislead.
    if !file.is_empty() && file.len() < most {
        let _ = line.write_str("; final figures: autolock report ");
        line.push_shown(file);
    }
    let _ = line.write_str("\n");
    system::write_all(libc::STDERR_FILENO, line.as_bytes());
}

/// Notes how the process ends. The first end counts. Returns whether it was this one.
fn note(kind: u32, detail: u32) -> bool {
    let Some((recorder, capture)) = own() else {
        return false;
    };
    let header = capture.header();
    // Relaxed: who reads it, reads a file.
    let first = header
        .ending
        .compare_exchange(ending::NONE, kind, Relaxed, Relaxed)
        .is_ok();
    if first {
        header.ending_detail.store(detail, Relaxed);
        header.ended_ns.store((recorder.now_ns)(), Relaxed);
    }
    first
}

/// Notes that the process dies by a signal.
pub(crate) fn note_signal(signal: c_int) {
    note(ending::SIGNAL, signal as u32);
}

/// Takes [`note_signal`] back: the process is one that does not die by it (the first of its namespace), or a debugger held the signal back.
pub(crate) fn survived() {
    if let Some((_, capture)) = own() {
        let header = capture.header();
        let dying = header
            .ending
            .compare_exchange(ending::SIGNAL, ending::NONE, Relaxed, Relaxed);
        if dying.is_ok() {
            header.ending_detail.store(0, Relaxed);
            header.ended_ns.store(0, Relaxed);
        }
    }
}

/// Whether this process's capture has ended.
pub(crate) fn has_ended() -> bool {
    own().is_some_and(|(_, capture)| capture.header().ending.load(Relaxed) != ending::NONE)
}

/// This process's capture.
pub(crate) fn capture() -> Option<Capture> {
    own().map(|(_, capture)| capture)
}

fn finish(kind: u32, detail: u32) {
    let _blocked = system::Blocked::all();
    if note(kind, detail) {
        show(Why::End);
    }
}

/// `exit`, or return from `main`. Called from the preload's destructor.
pub fn destructor() {
    finish(ending::EXIT, 0);
}

/// `_exit`.
///
/// # Safety
/// - As `_exit`.
pub unsafe fn exit_now(status: c_int) -> ! {
    finish(ending::UNDERSCORE_EXIT, (status & 0xff) as u32);
    call_next!(EXIT_NOW, fn(c_int) -> (), (), status);
    last_resort(status)
}

/// `_Exit`.
///
/// # Safety
/// - As `_Exit`.
pub unsafe fn exit_now_c(status: c_int) -> ! {
    finish(ending::UNDERSCORE_EXIT, (status & 0xff) as u32);
    call_next!(EXIT_NOW_C, fn(c_int) -> (), (), status);
    last_resort(status)
}

/// exit_group(2), where libc's function cannot be found.
fn last_resort(status: c_int) -> ! {
    loop {
        // SAFETY: a number; does not return.
        unsafe { system::call(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::table::synthetic;

    fn made() -> Option<Capture> {
        static MADE: OnceLock<Capture> = OnceLock::new();
        Some(*MADE.get_or_init(synthetic::capture))
    }

    static SYNTHETIC: Recorder = Recorder {
        capture: made,
        now_ns: system::monotonic_ns,
        file: |_| b"",
    };

    /// Runs something in a child of `fork` or of a raw clone that shares the memory, as one of `vfork` does.
    fn in_child(shares_memory: bool, child: extern "C" fn(*mut libc::c_void) -> c_int) -> c_int {
        let mut stack = vec![0u128; 1 << 14];
        let flags = if shares_memory {
            libc::CLONE_VM | libc::CLONE_VFORK
        } else {
            0
        };
        let top = stack.as_mut_ptr_range().end.cast();
        // SAFETY: a stack of its own that stays until the child has ended; the child makes system calls only.
        let pid = unsafe { libc::clone(child, top, flags | libc::SIGCHLD, core::ptr::null_mut()) };
        assert!(pid > 0);
        let mut status = 0;
        // SAFETY: our child, and room for its status.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert!(libc::WIFEXITED(status));
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn the_first_end_counts_and_only_the_captures_own_process_notes_it() {
        extern "C" fn ends(_: *mut libc::c_void) -> c_int {
            note_signal(libc::SIGTERM);
            survived();
            // SAFETY: ends the child.
            unsafe { exit_now(7) }
        }
        start(&SYNTHETIC);
        let capture = made().expect("made");
        let header = capture.header();
        let seen = || {
            (
                header.ending.load(Relaxed),
                header.ending_detail.load(Relaxed),
                header.ended_ns.load(Relaxed) != 0,
            )
        };
        assert_eq!(in_child(true, ends), 7);
        assert_eq!(in_child(false, ends), 7);
        assert_eq!(seen(), (ending::NONE, 0, false));

        note_signal(libc::SIGINT);
        assert_eq!(seen(), (ending::SIGNAL, libc::SIGINT as u32, true));
        assert!(has_ended());
        survived();
        assert_eq!(seen(), (ending::NONE, 0, false));
        assert!(note(ending::EXIT, 0));
        assert!(!note(ending::UNDERSCORE_EXIT, 3));
        survived();
        assert_eq!(seen(), (ending::EXIT, 0, true));
        // As if it were another process's.
        header.pid.fetch_add(1, Relaxed);
        assert!(!has_ended());
        header.ending.store(ending::NONE, Relaxed);
        assert!(!note(ending::EXIT, 0));
    }
}
