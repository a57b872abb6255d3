//! The calling thread's [`Thread`] of the capture: one load.
//!
//! May touch: two thread-local variables, in the initial-exec model: no call to `__tls_get_addr`, which may allocate.

use core::arch::{asm, global_asm};

use autolock_capture::layout::Thread;

// Hidden, not local: what reads it is inlined into other crates.
global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".p2align 3",
    ".globl autolock_profile_thread",
    ".hidden autolock_profile_thread",
    ".type autolock_profile_thread, @tls_object",
    ".size autolock_profile_thread, 16",
    "autolock_profile_thread:",
    ".zero 16",
    ".popsection",
);

/// The thread's place in the capture, if it has one.
#[inline(always)]
pub fn thread() -> Option<&'static Thread> {
    let thread: *const Thread;
    // SAFETY: reads our own aligned 8-byte thread-local variable.
    unsafe {
        asm!(
            "mov {thread}, qword ptr [rip + autolock_profile_thread@GOTTPOFF]",
            "mov {thread}, qword ptr fs:[{thread}]",
            thread = out(reg) thread,
            options(readonly, nostack, preserves_flags),
        );
    }
    // SAFETY: null, or what `set_thread` stored: a thread of the capture, whose mapping stays until `set_thread(null)` in a fork child.
    unsafe { thread.as_ref() }
}

/// Sets what [`thread`] returns.
pub fn set_thread(thread: *const Thread) {
    // SAFETY: writes our own aligned 8-byte thread-local variable.
    unsafe {
        asm!(
            "mov {at}, qword ptr [rip + autolock_profile_thread@GOTTPOFF]",
            "mov qword ptr fs:[{at}], {thread}",
            at = out(reg) _,
            thread = in(reg) thread,
            options(nostack, preserves_flags),
        );
    }
}

/// What the thread's cold path is about, so that it is not entered twice (by a signal handler, by what it calls).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum State {
    /// Nothing is known about the thread yet, or it has its place.
    Usual = 0,
    /// It is being given a place.
    Starting = 1,
    /// There is no place for it.
    Refused = 2,
}

/// The thread's state.
pub fn state() -> State {
    let state: usize;
    // SAFETY: reads the second half of our own thread-local variable.
    unsafe {
        asm!(
            "mov {state}, qword ptr [rip + autolock_profile_thread@GOTTPOFF]",
            "mov {state}, qword ptr fs:[{state} + 8]",
            state = out(reg) state,
            options(readonly, nostack, preserves_flags),
        );
    }
    match state {
        0 => State::Usual,
        1 => State::Starting,
        _ => State::Refused,
    }
}

/// Sets the thread's state.
pub fn set_state(state: State) {
    // SAFETY: writes the second half of our own thread-local variable.
    unsafe {
        asm!(
            "mov {at}, qword ptr [rip + autolock_profile_thread@GOTTPOFF]",
            "mov qword ptr fs:[{at} + 8], {state}",
            at = out(reg) _,
            state = in(reg) state as usize,
            options(nostack, preserves_flags),
        );
    }
}
