//! Losing the CPU anywhere: threads of any lock, interrupted by signals and made to run step by step for a while.
//!
//! A signal's handler spins, yields, sleeps, or sets the trap flag in what it has interrupted: from then on each instruction ends in SIGTRAP,
//! whose handler gives the CPU away now and then. So a preemption between any two instructions of a lock comes up within
//! milliseconds, which a timer would take hours for. No help from the lock is needed.
//!
//! May touch: SIGUSR1 and SIGTRAP of a test's own process, static TLS.

use super::crew::Crew;
use super::random::Random;
use autolock_lock::platform::Platform;
use autolock_shim::linux::Linux;
use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Instructions in a row, at most: some lock and unlock calls.
const STEPS: u64 = 400;
/// Of so many steps, one loses the CPU.
const STEPS_PER_LOSS: u64 = 16;
/// The trap flag of EFLAGS.
const TRAP: i64 = 1 << 8;

thread_local! {
    /// Steps that the thread has yet to go. Static TLS without a destructor.
    static LEFT: Cell<u64> = const { Cell::new(0) };
    static ALLOWED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread may be made to run step by step. Not while it begins or ends: glibc blocks all signals there, and a
/// SIGTRAP that is blocked kills.
pub fn allow_steps(allowed: bool) {
    ALLOWED.set(allowed);
    if !allowed {
        // The next step, if there is one, is the last.
        LEFT.set(0);
    }
}

/// Interrupts random threads of the crew until it has finished.
pub fn at_random(crew: &Crew, seed: u64) {
    let mut random = Random::new(seed);
    while !crew.finished() {
        let tid = crew.tid(random.below(crew.threads() as u64) as usize);
        if tid != 0 {
            interrupt(tid);
        }
        crate::clock::sleep(Duration::from_micros(10 + random.below(190)));
    }
}

/// Interrupts the calling thread.
pub fn interrupt_myself() {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    interrupt(unsafe { libc::gettid() });
}

fn interrupt(tid: i32) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        install(libc::SIGUSR1, interrupted);
        install(libc::SIGTRAP, stepped);
    });
    let process = std::process::id();
    // SAFETY: a signal that this process handles, to a thread of its own or, if that has ended, to nobody.
    unsafe { libc::syscall(libc::SYS_tgkill, process, tid, libc::SIGUSR1) };
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::ucontext_t);

fn install(signal: libc::c_int, handler: Handler) {
    // SAFETY: all zero is a valid sigaction with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // No SA_RESTART: system calls are cut short.
    action.sa_flags = libc::SA_SIGINFO;
    // No handler is interrupted: what ends in SIGTRAP while that is blocked, as in its own handler, kills.
    // SAFETY: a valid set, a valid signal.
    unsafe { libc::sigaddset(&raw mut action.sa_mask, libc::SIGUSR1) };
    // SAFETY: a handler of the type that SA_SIGINFO says, which does only what a handler may do.
    let rc = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    assert_eq!(rc, 0, "signal {signal} can be handled");
}

/// The handlers' numbers. They differ from run to run, as the instructions that signals hit do.
fn draw() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    super::random::mix(COUNT.fetch_add(1, Relaxed))
}

/// Loses some time, the CPU, or both, at once or somewhere in the next instructions. Touches neither locks nor errno.
extern "C" fn interrupted(_: libc::c_int, _: *mut libc::siginfo_t, at: *mut libc::ucontext_t) {
    let drawn = draw();
    match drawn % 8 {
        0 => (0..5000).for_each(|_| spin_loop()),
        1 => Linux::yield_now(),
        2 => Linux::sleep(30_000),
        _ if !ALLOWED.get() => {}
        _ => {
            LEFT.set(1 + (drawn >> 8) % STEPS);
            set_trap(at, true);
        }
    }
}

extern "C" fn stepped(_: libc::c_int, _: *mut libc::siginfo_t, at: *mut libc::ucontext_t) {
    let left = LEFT.get().saturating_sub(1);
    LEFT.set(left);
    set_trap(at, left > 0);
    let drawn = draw();
    if drawn.is_multiple_of(STEPS_PER_LOSS) {
        match drawn >> 16 & 1 {
            0 => Linux::sleep(drawn >> 32 & 0xffff),
            _ => Linux::yield_now(),
        }
    }
}

/// Whether what was interrupted goes on step by step. The kernel clears the flag for the handler itself.
fn set_trap(at: *mut libc::ucontext_t, on: bool) {
    // SAFETY: the kernel's third argument to a handler with SA_SIGINFO: what it will return to.
    let flags = unsafe { &mut (*at).uc_mcontext.gregs[libc::REG_EFL as usize] };
    *flags = if on { *flags | TRAP } else { *flags & !TRAP };
}
