//! Condition variables: the time in a wait is neither a hold of the mutex nor a wait for it.
//!
//! A wait may end by cancellation, which unwinds the stack through our frame. So that frame is not Rust's: [`wait_functions`] makes each exported function
//! a few instructions with their call frame information, which call [`begin`], the next function in the chain, and [`end`]. After a cancellation `end` is not
//! called: the mutex is held again, unrecorded, by a thread that is about to end.
//!
//! Stock glibc takes the mutex again inside the wait, past the preload: idle time and re-acquisition are one. One with `glibc-patches/` comes back to us for it, and the
//! two are apart.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use autolock_shim::reach;
use libc::ETIMEDOUT;

use crate::{
    modules,
    mutex::Mutex,
    real,
    recording::{self, Caller},
};

/// What a wait function needs to know before it waits, in the two registers that the C ABI returns such a structure in.
#[repr(C)]
#[derive(Debug)]
pub struct Begun {
    /// When, for [`end`].
    start_ns: u64,
    /// The next function in the chain.
    next: *mut c_void,
}

/// Which function is called.
pub mod which {
    /// `pthread_cond_wait`.
    pub const WAIT: u32 = 0;
    /// `pthread_cond_timedwait`.
    pub const TIMEDWAIT: u32 = 1;
    /// `pthread_cond_clockwait`.
    pub const CLOCKWAIT: u32 = 2;
    /// `cnd_wait`.
    pub const C11_WAIT: u32 = 3;
    /// `cnd_timedwait`.
    pub const C11_TIMEDWAIT: u32 = 4;
}

/// Whether libc comes back to us to release and re-acquire the mutex: from `pthread_cond_*`, from `cnd_*`.
static POSIX_COMES_BACK: AtomicBool = AtomicBool::new(false);
static C11_COMES_BACK: AtomicBool = AtomicBool::new(false);

/// Finds out. Called once, from the preload's constructor, before anything is recorded.
pub fn start() {
    let posix = reach::is_called_by(&real::COND_TIMEDWAIT, &real::MUTEX_UNLOCK);
    let c11 = reach::is_called_by(&real::CND_TIMEDWAIT, &real::MTX_UNLOCK);
    POSIX_COMES_BACK.store(posix, Relaxed);
    C11_COMES_BACK.store(c11, Relaxed);
    if let Some(caller) = calling_module() {
        recording::waits::start(caller.start..caller.end);
    }
}

/// From where libc's calls arrive: from libc, or from a preload in front of us whose lock function libc calls.
fn calling_module() -> Option<modules::Found> {
    // SAFETY: a NUL-terminated name; dlsym has no other requirement.
    let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pthread_mutex_lock".as_ptr()) };
    let ours = modules::find(start as *const () as usize);
    let is_other = |found: &modules::Found| {
        // A program that takes the function's address may give it one of its own, from where it goes on to us.
        ours.is_some_and(|ours| ours.start != found.start) && !modules::is_executable(found)
    };
    modules::find(first.addr()).filter(is_other).or_else(|| {
        // Not the linker's idea of its address, which may be the program's too.
        modules::find(autolock_shim::real::symbol(c"gnu_get_libc_version").addr())
    })
}

#[inline]
fn comes_back(which: u32) -> bool {
    match which {
        which::C11_WAIT | which::C11_TIMEDWAIT => C11_COMES_BACK.load(Relaxed),
        _ => POSIX_COMES_BACK.load(Relaxed),
    }
}

/// The function for a libc that has not got the one that was called.
unsafe extern "C" fn missing() -> c_int {
    libc::EINVAL
}

/// Before a wait with `mutex`.
///
/// # Safety
/// - `mutex` is an initialised mutex; the caller's address and stack pointer are those of a call.
pub unsafe extern "C" fn begin(
    which: u32,
    mutex: *mut c_void,
    address: usize,
    stack_pointer: usize,
) -> Begun {
    let next = match which {
        which::WAIT => &real::COND_WAIT,
        which::TIMEDWAIT => &real::COND_TIMEDWAIT,
        which::CLOCKWAIT => &real::COND_CLOCKWAIT,
        which::C11_WAIT => &real::CND_WAIT,
        _ => &real::CND_TIMEDWAIT,
    };
    let mut next = next.get();
    if next.is_null() {
        next = missing as *mut c_void;
    }
    let caller = Caller {
        address,
        stack_pointer,
    };
    let object = mutex.expose_provenance();
    // SAFETY: the caller's contract.
    let start_ns = unsafe { recording::waits::begin::<Mutex>(object, caller, comes_back(which)) };
    Begun { start_ns, next }
}

/// After a wait; returns its result.
///
/// # Safety
/// - `mutex` is an initialised mutex; the caller's address and stack pointer are those of a call.
pub unsafe extern "C" fn end(
    which: u32,
    mutex: *mut c_void,
    start_ns: u64,
    result: c_int,
    address: usize,
    stack_pointer: usize,
) -> c_int {
    const THRD_TIMEDOUT: c_int = 4; // <threads.h>
    let error = match (which, result) {
        (which::C11_WAIT | which::C11_TIMEDWAIT, THRD_TIMEDOUT) => ETIMEDOUT,
        _ => result,
    };
    let caller = Caller {
        address,
        stack_pointer,
    };
    let object = mutex.expose_provenance();
    let comes_back = comes_back(which);
    // SAFETY: the caller's contract.
    unsafe { recording::waits::end::<Mutex>(object, caller, start_ns, error, comes_back) };
    result
}

/// The exported wait functions. A macro, so that the symbols are made in the leaf crate.
#[macro_export]
macro_rules! wait_functions {
    ($($symbol:ident = $which:ident;)*) => {
        $(
            #[doc = concat!("`", stringify!($symbol), "`, see `autolock_profiler::cond`.")]
            ///
            /// # Safety
            #[doc = concat!("- As `", stringify!($symbol), "` in the C standard, POSIX or glibc.")]
            // SAFETY: this library is a preload: replacing libc's symbol of this name is its purpose.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $symbol() {
                // Four arguments at most, kept at rbp-8 to rbp-32; the start at rbp-40. The stack is aligned to 16 at the calls.
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "push rbp",
                    ".cfi_def_cfa_offset 16",
                    ".cfi_offset rbp, -16",
                    "mov rbp, rsp",
                    ".cfi_def_cfa_register rbp",
                    "sub rsp, 48",
                    "mov [rbp - 8], rdi",
                    "mov [rbp - 16], rsi",
                    "mov [rbp - 24], rdx",
                    "mov [rbp - 32], rcx",
                    "mov edi, {which}",
                    "mov rdx, [rbp + 8]",
                    "lea rcx, [rbp + 16]",
                    "call {begin}",
                    "mov [rbp - 40], rax",
                    "mov rax, rdx",
                    "mov rdi, [rbp - 8]",
                    "mov rsi, [rbp - 16]",
                    "mov rdx, [rbp - 24]",
                    "mov rcx, [rbp - 32]",
                    "call rax",
                    "mov edi, {which}",
                    "mov rsi, [rbp - 16]",
                    "mov rdx, [rbp - 40]",
                    "mov ecx, eax",
                    "mov r8, [rbp + 8]",
                    "lea r9, [rbp + 16]",
                    "call {end}",
                    "leave",
                    ".cfi_def_cfa rsp, 8",
                    "ret",
                    ".cfi_endproc",
                    which = const $crate::cond::which::$which,
                    begin = sym $crate::cond::begin,
                    end = sym $crate::cond::end,
                )
            }
        )*
    };
}
