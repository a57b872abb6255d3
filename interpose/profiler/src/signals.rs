//! In front of the application's handlers: SIGINT, SIGTERM and the signal of `AUTOLOCK_PROFILE_SIGNAL`.
//!
//! The kernel has our handler with the application's flags and mask, so that SA_RESTART, SA_ONSTACK, SA_NODEFER and the mask are the kernel's own
//! work. Ours prints, then jumps to the application's: same stack, same arguments, the return address the kernel's, so that
//! `siglongjmp`, `pthread_exit`, exceptions and unwinders find nothing of us. What the application thinks is installed is kept here.
//!
//! | the application's action | the kernel's | what happens |
//! |---|---|---|
//! | `SIG_DFL` (inherited or set) | our handler | table; then the process dies by this very signal. On demand: goes on |
//! | `SIG_IGN` (inherited or set) | `SIG_IGN` | nothing; inherited over `exec` as ever |
//! | a handler, set before or after ours | our handler, its mask, its flags but for SA_RESETHAND and SA_SIGINFO | table, then the handler |
//!
//! SA_RESETHAND is done here, so that only one delivery runs the handler and the next finds `SIG_DFL` with a table.
//!
//! # Concurrency
//!
//! An update changes the kernel's action and ours, in this order, under a lock that is held with all signals blocked: no handler runs in the
//! holder, so none can find the lock held by its own thread, and other threads wait a few system calls at most. Our handler takes the lock
//! to read: a signal that comes between the two changes is answered by the new action. Actions are published by the parity of a
//! counter: a child forked in the middle of an update sees the old one or the new one, whole. The lock is free in it (`process`).
//!
//! A child of `vfork` has signal actions of its own in memory that is its parent's: there everything goes to the kernel as the application says
//! it, nothing is stored and nothing is printed.
//!
//! # Not seen
//!
//! rt_sigaction(2) made directly (Go, static code): the kernel then has what was asked for, and no table is printed. A signal that is blocked and
//! fetched (`sigwait`, signalfd) runs no handler: the table is printed at exit, or by `AUTOLOCK_PROFILE_SIGNAL`.

use core::arch::naked_asm;
use core::ffi::c_int;
use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use libc::{
    SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_SIGINFO, SIG_DFL, SIG_ERR, SIG_IGN,
    sighandler_t,
};

use autolock_shim::real::Next;

use crate::{
    ending::{self, Why},
    process::{self, Held},
    real::call_next,
    system::{self, Blocked, Mask, bit},
};

static SIGACTION: Next = Next::new(c"sigaction", None);
static SIGNAL: Next = Next::new(c"signal", None);
static SYSV_SIGNAL: Next = Next::new(c"sysv_signal", None);
static SIGSET: Next = Next::new(c"sigset", None);
static SIGIGNORE: Next = Next::new(c"sigignore", None);
static SIGINTERRUPT: Next = Next::new(c"siginterrupt", None);

/// What is done at a signal, as sigaction(2) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Action {
    handler: sighandler_t,
    flags: c_int,
    mask: Mask,
    restorer: usize,
}

impl Action {
    const fn is_function(&self) -> bool {
        self.handler != SIG_DFL && self.handler != SIG_IGN
    }

    /// # Safety
    /// - `action` may be read.
    unsafe fn read(action: *const libc::sigaction) -> Self {
        // SAFETY: the caller's contract.
        let action = unsafe { action.read() };
        Self {
            handler: action.sa_sigaction,
            flags: action.sa_flags,
            // SAFETY: the kernel's set is the first word of libc's.
            mask: unsafe { (&raw const action.sa_mask).cast::<Mask>().read() },
            restorer: action
                .sa_restorer
                .map_or(0, |restorer| (restorer as *const ()).expose_provenance()),
        }
    }

    fn to_libc(self) -> libc::sigaction {
        // SAFETY: a structure of numbers, an optional pointer among them: zeroes are valid.
        let mut action = unsafe { core::mem::zeroed::<libc::sigaction>() };
        action.sa_sigaction = self.handler;
        action.sa_flags = self.flags;
        // SAFETY: the kernel's set is the first word of libc's.
        unsafe { (&raw mut action.sa_mask).cast::<Mask>().write(self.mask) };
        let restorer = core::ptr::with_exposed_provenance::<()>(self.restorer);
        // SAFETY: null, which is none, or the address that libc gave.
        action.sa_restorer =
            unsafe { core::mem::transmute::<*const (), Option<extern "C" fn()>>(restorer) };
        action
    }
}

/// An action that is stored.
struct Place {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
    restorer: AtomicUsize,
}

/// A signal whose handler is ours.
struct Watched {
    /// 0: none yet.
    signal: AtomicI32,
    /// Whether `siginterrupt` was asked for.
    interrupts: AtomicBool,
    /// The application's action is in the place of this number's parity.
    current: AtomicU32,
    places: [Place; 2],
}

/// SIGINT, SIGTERM, and the one on demand.
static WATCHED: [Watched; 3] = [const {
    Watched {
        signal: AtomicI32::new(0),
        interrupts: AtomicBool::new(false),
        current: AtomicU32::new(0),
        places: [const {
            Place {
                handler: AtomicUsize::new(SIG_DFL),
                flags: AtomicI32::new(0),
                mask: AtomicU64::new(0),
                restorer: AtomicUsize::new(0),
            }
        }; 2],
    }
}; 3];
const DEMAND: usize = 2;

/// Flags that are ours while the application has no handler: nobody expects a system call to be interrupted by a table.
const OWN_FLAGS: c_int = SA_RESTART | SA_ONSTACK;

impl Watched {
    /// The application's action. In a child of `vfork` without the lock: then it may be of two updates, if the parent's other threads make two meanwhile.
    fn action(&self) -> Action {
        // Acquire: pairs with `publish`.
        let place = &self.places[self.current.load(Acquire) as usize & 1];
        Action {
            handler: place.handler.load(Relaxed),
            flags: place.flags.load(Relaxed),
            mask: place.mask.load(Relaxed),
            restorer: place.restorer.load(Relaxed),
        }
    }

    /// Stores it. The lock is held.
    fn publish(&self, action: Action) {
        let next = self.current.load(Relaxed).wrapping_add(1);
        let place = &self.places[next as usize & 1];
        place.handler.store(action.handler, Relaxed);
        place.flags.store(action.flags, Relaxed);
        place.mask.store(action.mask, Relaxed);
        place.restorer.store(action.restorer, Relaxed);
        // Release: pairs with `action`.
        self.current.store(next, Release);
    }

    /// What the application believes the kernel to have; the kernel's word where that is not our handler.
    fn believed(&self, kernel: Action) -> Action {
        if kernel.handler == our_handler() {
            self.action()
        } else {
            kernel
        }
    }

    /// Makes an action the application's: the kernel's first, then ours. The lock is held. False, and `errno`, if the kernel refuses.
    fn install(&self, signal: c_int, mut action: Action) -> bool {
        if action.handler == our_handler() {
            // Taken from rt_sigaction(2) and given back.
            action.handler = self.action().handler;
        }
        // Flags that we decide: no reset (`take` does it), information always (the action may have changed until we read it).
        let (own, set_flags) = match action.handler {
            SIG_IGN => (0, 0),
            SIG_DFL => (
                SA_RESETHAND | SA_SIGINFO | OWN_FLAGS,
                SA_SIGINFO | OWN_FLAGS,
            ),
            _ => (SA_RESETHAND | SA_SIGINFO, SA_SIGINFO),
        };
        let mut kernel = action;
        kernel.flags = action.flags & !own | set_flags;
        if action.handler != SIG_IGN {
            kernel.handler = our_handler();
        }
        if !set(signal, kernel) {
            return false;
        }
        // The kernel drops what it does not know from flags and mask, libc adds its restorer: this is what the application would see.
        let seen = get(signal);
        self.publish(Action {
            handler: action.handler,
            flags: seen.flags & !own | action.flags & own,
            ..seen
        });
        true
    }
}

fn our_handler() -> sighandler_t {
    (on_signal as *const ()).expose_provenance()
}

fn watched(signal: c_int) -> Option<(usize, &'static Watched)> {
    // Acquire: pairs with `start`.
    WATCHED
        .iter()
        .enumerate()
        .find(|(_, watched)| signal > 0 && watched.signal.load(Acquire) == signal)
}

/// sigaction(2) by the next object's function.
///
/// # Safety
/// - As `sigaction`.
unsafe fn next_sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    call_next!(
        SIGACTION,
        fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int,
        fail(libc::ENOSYS),
        signal,
        new,
        old
    )
}

fn fail(error: c_int) -> c_int {
    // SAFETY: takes nothing.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the calling thread's own variable.
    unsafe { errno.write(error) };
    -1
}

/// The kernel's action.
fn get(signal: c_int) -> Action {
    let mut action = Action {
        handler: SIG_DFL,
        flags: 0,
        mask: 0,
        restorer: 0,
    }
    .to_libc();
    // SAFETY: room for the answer.
    unsafe { next_sigaction(signal, core::ptr::null(), &raw mut action) };
    // SAFETY: initialised.
    unsafe { Action::read(&raw const action) }
}

/// Sets the kernel's action.
fn set(signal: c_int, action: Action) -> bool {
    let action = action.to_libc();
    // SAFETY: a whole action, whose handler is the application's or ours.
    unsafe { next_sigaction(signal, &raw const action, core::ptr::null_mut()) == 0 }
}

/// Puts our handlers in front. Called once, from the preload's constructor.
pub fn start(demand: Option<c_int>) {
    for next in [
        &SIGACTION,
        &SIGNAL,
        &SYSV_SIGNAL,
        &SIGSET,
        &SIGIGNORE,
        &SIGINTERRUPT,
    ] {
        let _ = next.get();
    }
    let signals = [libc::SIGINT, libc::SIGTERM, demand.unwrap_or(0)];
    for (watched, signal) in WATCHED.iter().zip(signals) {
        if signal == 0 {
            continue;
        }
        let _held = Held::new(process::ACTIONS);
        let kernel = get(signal);
        watched.publish(kernel);
        // Release: pairs with `watched`.
        watched.signal.store(signal, Release);
        // What was ignored stays so: `install` would find nothing to do. Otherwise a handler of an earlier constructor's may be there.
        if kernel.handler != SIG_IGN {
            let flags = kernel.flags;
            watched.install(signal, kernel);
            // As it was inherited: without what libc adds.
            watched.publish(Action { flags, ..kernel });
        }
    }
}

/// Where the kernel goes. Saves the arguments, asks [`decide`], and leaves as if it had never been there.
#[unsafe(naked)]
extern "C" fn on_signal() {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "push rdx",
        ".cfi_adjust_cfa_offset 8",
        "call {decide}",
        "pop rdx",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "test rax, rax",
        "jz 2f",
        "mov r11, rax",
        "xor eax, eax", // As the kernel: a handler without a prototype may have variable arguments.
        "jmp r11",
        "2:",
        "ret",
        ".cfi_endproc",
        decide = sym decide,
    )
}

/// Prints if this signal is for that; returns the handler to go to, or 0.
extern "C" fn decide(signal: c_int) -> sighandler_t {
    let Some((index, watched)) = watched(signal) else {
        return 0;
    };
    if !process::owns_memory() {
        return decide_in_vfork_child(signal, index, watched);
    }
    let action = take(signal, watched);
    let why = if index == DEMAND {
        Why::Demand
    } else {
        Why::Signal(signal)
    };
    match action.handler {
        SIG_IGN => 0,
        SIG_DFL if index == DEMAND => {
            ending::show(why);
            0
        }
        SIG_DFL => {
            ending::show(why);
            die(signal, watched)
        }
        handler => {
            // Blocked: a handler that jumped out of a table would leave its lock behind.
            let mut blocked = Blocked::all();
            ending::show(why);
            // As the kernel has done it already, unless the action was changed between.
            blocked.also(action.mask);
            if action.flags & SA_NODEFER == 0 {
                blocked.also(bit(signal));
            }
            handler
        }
    }
}

/// Reads the action for one delivery: the last one, if it is to be reset.
#[inline(never)]
fn take(signal: c_int, watched: &Watched) -> Action {
    let _held = Held::new(process::ACTIONS);
    let action = watched.action();
    if action.is_function() && action.flags & SA_RESETHAND != 0 {
        watched.install(
            signal,
            Action {
                handler: SIG_DFL,
                ..action
            },
        );
    }
    action
}

/// Dies by a signal as if nobody had ever caught it. Returns what else to do if the application has thought of something meanwhile, or if the process
/// does not die: it is the first of its namespace, or a debugger holds the signal back.
#[inline(never)]
fn die(signal: c_int, watched: &Watched) -> sighandler_t {
    ending::let_finish();
    let held = Held::new(process::ACTIONS);
    let action = watched.action();
    if action.is_function() {
        drop(held);
        let action = take(signal, watched);
        return if action.is_function() {
            action.handler
        } else {
            0
        };
    }
    if action.handler == SIG_IGN {
        return 0;
    }
    ending::note_signal(signal);
    set(signal, DEFAULT);
    system::raise(signal);
    // This one alone: no other handler may run while we hold the lock.
    system::set_mask(!bit(signal));
    system::set_mask(!0);
    ending::survived();
    watched.install(signal, action);
    0
}

const DEFAULT: Action = Action {
    handler: SIG_DFL,
    flags: 0,
    mask: 0,
    restorer: 0,
};

/// As the kernel would have done it without us.
#[inline(never)]
fn decide_in_vfork_child(signal: c_int, index: usize, watched: &Watched) -> sighandler_t {
    let action = watched.action();
    match action.handler {
        SIG_IGN => 0,
        SIG_DFL if index == DEMAND => 0,
        SIG_DFL => {
            set(signal, DEFAULT);
            system::raise(signal);
            let mask = system::set_mask(!bit(signal));
            system::set_mask(mask);
            0
        }
        handler => {
            if action.flags & SA_RESETHAND != 0 {
                set(signal, DEFAULT);
            }
            handler
        }
    }
}

/// `sigaction`, `__sigaction`.
///
/// # Safety
/// - As `sigaction`.
pub unsafe fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    let Some((_, watched)) = watched(signal) else {
        // SAFETY: the caller's contract.
        return unsafe { next_sigaction(signal, new, old) };
    };
    // Both are touched without the lock: a bad pointer is the caller's fault alone.
    // SAFETY: the caller's contract.
    let new = (!new.is_null()).then(|| unsafe { Action::read(new) });
    let believed = if process::owns_memory() {
        let _held = Held::new(process::ACTIONS);
        let believed = watched.believed(get(signal));
        match new {
            Some(new) if !watched.install(signal, new) => return -1,
            _ => believed,
        }
    } else {
        let believed = watched.believed(get(signal));
        match new {
            Some(new) if !set(signal, new) => return -1,
            _ => believed,
        }
    };
    if !old.is_null() {
        // SAFETY: the caller's contract.
        unsafe { old.write(believed.to_libc()) };
    }
    0
}

/// Sets a handler; returns the one before; none, and `errno`, if that fails.
fn replace(signal: c_int, handler: sighandler_t, flags: c_int, mask: Mask) -> Option<sighandler_t> {
    let new = Action {
        handler,
        flags,
        mask,
        restorer: 0,
    }
    .to_libc();
    let mut old = DEFAULT.to_libc();
    // SAFETY: two whole actions.
    let result = unsafe { sigaction(signal, &raw const new, &raw mut old) };
    (result == 0).then_some(old.sa_sigaction)
}

/// The same for functions that refuse `SIG_ERR`.
fn replace_by_handler(
    signal: c_int,
    handler: sighandler_t,
    flags: c_int,
    mask: Mask,
) -> sighandler_t {
    if handler == SIG_ERR {
        fail(libc::EINVAL);
        return SIG_ERR;
    }
    replace(signal, handler, flags, mask).unwrap_or(SIG_ERR)
}

/// `signal`, `bsd_signal`, `ssignal`.
///
/// # Safety
/// - As `signal`.
pub unsafe fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    let Some((_, watched)) = watched(signal) else {
        return call_next!(
            SIGNAL,
            fn(c_int, sighandler_t) -> sighandler_t,
            SIG_ERR,
            signal,
            handler
        );
    };
    let flags = if watched.interrupts.load(Relaxed) {
        0
    } else {
        SA_RESTART
    };
    replace_by_handler(signal, handler, flags, bit(signal))
}

/// `sysv_signal`, `__sysv_signal`.
///
/// # Safety
/// - As `sysv_signal`.
pub unsafe fn sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    if watched(signal).is_none() {
        return call_next!(
            SYSV_SIGNAL,
            fn(c_int, sighandler_t) -> sighandler_t,
            SIG_ERR,
            signal,
            handler
        );
    }
    /// `SA_INTERRUPT`, which Linux ignores.
    const INTERRUPT: c_int = 0x2000_0000;
    replace_by_handler(signal, handler, SA_RESETHAND | SA_NODEFER | INTERRUPT, 0)
}

/// `sigset`.
///
/// # Safety
/// - As `sigset`.
pub unsafe fn sigset(signal: c_int, handler: sighandler_t) -> sighandler_t {
    /// `SIG_HOLD`: blocked.
    const HOLD: sighandler_t = 2;
    if watched(signal).is_none() {
        return call_next!(
            SIGSET,
            fn(c_int, sighandler_t) -> sighandler_t,
            SIG_ERR,
            signal,
            handler
        );
    }
    let before = if handler == HOLD {
        let mut now = DEFAULT.to_libc();
        // SAFETY: room for the answer.
        unsafe { sigaction(signal, core::ptr::null(), &raw mut now) };
        now.sa_sigaction
    } else if let Some(before) = replace(signal, handler, 0, 0) {
        before
    } else {
        return SIG_ERR;
    };
    let blocked = system::change_mask(handler == HOLD, bit(signal)) & bit(signal) != 0;
    if blocked { HOLD } else { before }
}

/// `sigignore`.
///
/// # Safety
/// - As `sigignore`.
pub unsafe fn sigignore(signal: c_int) -> c_int {
    if watched(signal).is_none() {
        return call_next!(SIGIGNORE, fn(c_int) -> c_int, fail(libc::ENOSYS), signal);
    }
    match replace(signal, SIG_IGN, 0, 0) {
        Some(_) => 0,
        None => -1,
    }
}

/// `siginterrupt`.
///
/// # Safety
/// - As `siginterrupt`.
pub unsafe fn siginterrupt(signal: c_int, interrupts: c_int) -> c_int {
    let Some((_, watched)) = watched(signal) else {
        return call_next!(
            SIGINTERRUPT,
            fn(c_int, c_int) -> c_int,
            fail(libc::ENOSYS),
            signal,
            interrupts
        );
    };
    let mut action = DEFAULT.to_libc();
    // SAFETY: room for the answer.
    unsafe { sigaction(signal, core::ptr::null(), &raw mut action) };
    watched.interrupts.store(interrupts != 0, Relaxed);
    if interrupts != 0 {
        action.sa_flags &= !SA_RESTART;
    } else {
        action.sa_flags |= SA_RESTART;
    }
    // SAFETY: the action that is installed, but for a flag.
    unsafe { sigaction(signal, &raw const action, core::ptr::null_mut()) }
}
