//! `libpthread-mutex-profile.so`: the exported symbols, in one table, and the start and end of the library's life.
//!
//! A function that acquires hands on where it was called from: the return address, which stands at the stack pointer, and the stack pointer behind it. Only the first
//! instructions of a function know these, so those functions are naked.
//!
//! `no_std`: what is not linked cannot allocate or unwind, and a program that preloads us loads no other library.
#![no_std]

use core::ffi::{c_int, c_void};

use autolock_profiler::{c11, ending, mutex, record, rwlock, signals, spin};
use libc::sighandler_t;

// Without std nothing else asks for libc when the libc crate has its `std` feature, which another crate of the same build may turn on.
#[link(name = "c")]
unsafe extern "C" {}

/// Exports C functions that jump to ours with the caller's address and stack pointer in the next two argument registers.
macro_rules! export_with_caller {
    ($($symbol:ident($address:literal, $stack_pointer:literal) = $function:path;)*) => {
        $(
            #[doc = concat!("`", stringify!($symbol), "`, see `", stringify!($function), "`.")]
            ///
            /// # Safety
            #[doc = concat!("- As `", stringify!($symbol), "` in the C standard, POSIX or glibc.")]
            // SAFETY: this library is a preload: replacing libc's symbol of this name is its purpose.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $symbol() {
                core::arch::naked_asm!(
                    concat!("mov ", $address, ", [rsp]"),
                    concat!("lea ", $stack_pointer, ", [rsp + 8]"),
                    "jmp {function}",
                    function = sym $function,
                )
            }
        )*
    };
}

export_with_caller! {
    pthread_mutex_lock("rsi", "rdx") = mutex::lock;
    pthread_mutex_trylock("rsi", "rdx") = mutex::trylock;
    pthread_mutex_timedlock("rdx", "rcx") = mutex::timedlock;
    pthread_mutex_clocklock("rcx", "r8") = mutex::clocklock;

    pthread_rwlock_rdlock("rsi", "rdx") = rwlock::rdlock;
    pthread_rwlock_tryrdlock("rsi", "rdx") = rwlock::tryrdlock;
    pthread_rwlock_timedrdlock("rdx", "rcx") = rwlock::timedrdlock;
    pthread_rwlock_clockrdlock("rcx", "r8") = rwlock::clockrdlock;
    pthread_rwlock_wrlock("rsi", "rdx") = rwlock::wrlock;
    pthread_rwlock_trywrlock("rsi", "rdx") = rwlock::trywrlock;
    pthread_rwlock_timedwrlock("rdx", "rcx") = rwlock::timedwrlock;
    pthread_rwlock_clockwrlock("rcx", "r8") = rwlock::clockwrlock;

    pthread_spin_lock("rsi", "rdx") = spin::lock;
    pthread_spin_trylock("rsi", "rdx") = spin::trylock;

    mtx_lock("rsi", "rdx") = c11::lock;
    mtx_trylock("rsi", "rdx") = c11::trylock;
    mtx_timedlock("rdx", "rcx") = c11::timedlock;
}

autolock_profiler::wait_functions! {
    pthread_cond_wait = WAIT;
    pthread_cond_timedwait = TIMEDWAIT;
    pthread_cond_clockwait = CLOCKWAIT;
    cnd_wait = C11_WAIT;
    cnd_timedwait = C11_TIMEDWAIT;
}

/// Exports C functions that do nothing but call ours.
macro_rules! export {
    ($($symbol:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $function:path;)*) => {
        $(
            #[doc = concat!("`", stringify!($symbol), "`, see `", stringify!($function), "`.")]
            ///
            /// # Safety
            #[doc = concat!("- As `", stringify!($symbol), "` in the C standard, POSIX or glibc.")]
            // SAFETY: this library is a preload: replacing libc's symbol of this name is its purpose.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $symbol($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller's contract is the function's.
                unsafe { $function($($argument),*) }
            }
        )*
    };
}

export! {
    pthread_mutex_init(mutex: *mut c_void, attributes: *const libc::pthread_mutexattr_t) -> c_int = mutex::init;
    pthread_mutex_destroy(mutex: *mut c_void) -> c_int = mutex::destroy;
    pthread_mutex_unlock(mutex: *mut c_void) -> c_int = mutex::unlock;

    pthread_rwlock_init(lock: *mut c_void, attributes: *const libc::pthread_rwlockattr_t) -> c_int = rwlock::init;
    pthread_rwlock_destroy(lock: *mut c_void) -> c_int = rwlock::destroy;
    pthread_rwlock_unlock(lock: *mut c_void) -> c_int = rwlock::unlock;

    pthread_spin_init(lock: *mut c_void, shared: c_int) -> c_int = spin::init;
    pthread_spin_destroy(lock: *mut c_void) -> c_int = spin::destroy;
    pthread_spin_unlock(lock: *mut c_void) -> c_int = spin::unlock;

    sigaction(signal: c_int, action: *const libc::sigaction, old: *mut libc::sigaction) -> c_int = signals::sigaction;
    __sigaction(signal: c_int, action: *const libc::sigaction, old: *mut libc::sigaction) -> c_int = signals::sigaction;
    signal(signal: c_int, handler: sighandler_t) -> sighandler_t = signals::signal;
    bsd_signal(signal: c_int, handler: sighandler_t) -> sighandler_t = signals::signal;
    ssignal(signal: c_int, handler: sighandler_t) -> sighandler_t = signals::signal;
    sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t = signals::sysv_signal;
    __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t = signals::sysv_signal;
    sigset(signal: c_int, handler: sighandler_t) -> sighandler_t = signals::sigset;
    sigignore(signal: c_int) -> c_int = signals::sigignore;
    siginterrupt(signal: c_int, interrupts: c_int) -> c_int = signals::siginterrupt;

    _exit(status: c_int) -> ! = ending::exit_now;
    _Exit(status: c_int) -> ! = ending::exit_now_c;
    _Fork() -> libc::pid_t = record::fork_alone;

    mtx_init(mutex: *mut c_void, kind: c_int) -> c_int = c11::init;
    mtx_destroy(mutex: *mut c_void) = c11::destroy;
    mtx_unlock(mutex: *mut c_void) -> c_int = c11::unlock;
}

/// The constructor and the destructor, in the arrays that the dynamic loader runs.
// SAFETY: both functions have the arrays' signature and run once each.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        autolock_profiler::start();
    }
    start
};

// SAFETY: as above.
#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = {
    extern "C" fn finish() {
        autolock_profiler::ending::destructor();
    }
    finish
};

/// Nothing in this library panics on purpose; if something does, the program is beyond saving.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes nothing and does not return.
    unsafe { libc::abort() }
}
