//! Linux for the algorithm: futex(2), clocks, the thread control block.
//!
//! May touch: system calls that neither allocate nor set `errno` (a lock call leaves `errno` alone).

use core::arch::asm;

use autolock_abi::{
    Mutex,
    sync::{AtomicU32, Ordering::Relaxed},
};
use autolock_lock::{
    node::Node,
    platform::{Deadline, Event, FOREVER, Parking, Platform, Wait},
};

use crate::{kernel, nodes, source::Source, stats, tcb};

/// Linux on x86-64.
#[derive(Debug)]
pub struct Linux;

unsafe extern "C" {
    /// `<sys/single_threaded.h>`, glibc 2.32.
    static __libc_single_threaded: core::sync::atomic::AtomicU8;

    /// `<sched.h>`, glibc 2.29; by way of the vDSO.
    fn getcpu(cpu: *mut u32, node: *mut u32) -> i32;
}

/// A system call past libc: it leaves `errno` alone, is no cancellation point, and no function of the program can stand in for it. Returns the
/// result or a negative error number.
///
/// # Safety
/// - As the call of this number says.
#[inline]
pub(crate) unsafe fn system_call(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the caller answers for the call; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// futex(2): returns the result or a negative error number.
///
/// # Safety
/// - `timeout` is null or valid. (Of `word` the kernel checks the address itself.)
unsafe fn futex(
    word: usize,
    operation: i32,
    value: u32,
    timeout: *const libc::timespec,
    bitset: u32,
) -> isize {
    let arguments = [
        word,
        operation as usize,
        value as usize,
        timeout.expose_provenance(),
        0,
        bitset as usize,
    ];
    // SAFETY: the caller answers for the pointers.
    unsafe { system_call(libc::SYS_futex, arguments) }
}

/// FUTEX_PRIVATE_FLAG for a private mutex.
const fn private(shared: bool) -> i32 {
    if shared { 0 } else { libc::FUTEX_PRIVATE_FLAG }
}

/// Wakes up to `count` sleepers; returns how many.
fn wake(word: *const AtomicU32, shared: bool, count: u32) -> isize {
    // SAFETY: a wake uses the address as a key only; a mapping that is gone gives EFAULT or wakes nobody.
    unsafe {
        futex(
            word.addr(),
            libc::FUTEX_WAKE | private(shared),
            count,
            core::ptr::null(),
            0,
        )
    }
}

fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid clock and a valid pointer: cannot fail. The vDSO makes no system call on usual clock sources.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    now
}

/// Nanoseconds on a clock that counts from the machine's start.
pub(crate) fn ns(id: libc::clockid_t) -> u64 {
    let now = clock(id);
    now.tv_sec
        .cast_unsigned()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec.cast_unsigned())
}

const fn clock_of(deadline: &Deadline) -> libc::clockid_t {
    if deadline.realtime {
        libc::CLOCK_REALTIME
    } else {
        libc::CLOCK_MONOTONIC
    }
}

/// Nanoseconds from now until `deadline`; 0 if it has passed.
pub(crate) fn remaining_ns(deadline: &Deadline) -> u64 {
    let now = clock(clock_of(deadline));
    let ns = (i128::from(deadline.sec) - i128::from(now.tv_sec)) * 1_000_000_000
        + i128::from(deadline.nsec)
        - i128::from(now.tv_nsec);
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

impl Platform for Linux {
    type OnCpu = Source;

    #[inline]
    fn tid() -> i32 {
        tcb::tid()
    }

    #[inline]
    fn tid_or_zero() -> i32 {
        tcb::tid_or_zero()
    }

    #[inline]
    fn cpu() -> u16 {
        tcb::cpu()
    }

    #[inline]
    fn place() -> u16 {
        tcb::place()
    }

    #[inline]
    fn enroll() {
        kernel::enroll();
    }

    #[inline]
    fn arm(word: &AtomicU32, parking: Parking, limit_ns: u64, deadline: Option<&Deadline>) -> bool {
        kernel::arm(word, parking, limit_ns, deadline)
    }

    #[inline]
    fn disarm() {
        kernel::disarm();
    }

    #[inline]
    fn parks() -> u32 {
        kernel::parks()
    }

    fn node() -> u16 {
        let mut node = 0;
        // SAFETY: a null and a valid pointer; cannot fail with them.
        unsafe { getcpu(core::ptr::null_mut(), &raw mut node) };
        node as u16
    }

    #[inline]
    fn single_threaded() -> bool {
        // SAFETY: glibc's variable; it changes only in this thread while it is true.
        unsafe { __libc_single_threaded.load(Relaxed) != 0 }
    }

    fn now_ns() -> u64 {
        ns(libc::CLOCK_MONOTONIC)
    }

    fn expired(deadline: &Deadline) -> bool {
        remaining_ns(deadline) == 0
    }

    #[inline]
    fn pause() {
        core::hint::spin_loop();
    }

    /// On a futex that nobody else knows: a sandboxed program may allow no other system call.
    fn sleep(ns: u64) {
        let nobody = AtomicU32::new(0);
        Self::wait(&nobody, 0, false, ns, None);
    }

    /// By the C function, which keeps `errno` where it is: sched_yield(2) does not fail on Linux.
    fn yield_now() {
        // SAFETY: takes nothing.
        unsafe { libc::sched_yield() };
    }

    #[inline]
    fn take_node() -> &'static Node {
        nodes::take()
    }

    #[inline]
    fn give_node(node: &'static Node) {
        nodes::give(node);
    }

    fn wait(
        word: &AtomicU32,
        expected: u32,
        shared: bool,
        backstop_ns: u64,
        deadline: Option<&Deadline>,
    ) -> Wait {
        // The deadline is absolute and its clock may be set (CLOCK_REALTIME): wait on it as such unless the backstop comes first.
        let by_deadline = deadline.filter(|deadline| remaining_ns(deadline) <= backstop_ns);
        let (operation, timeout) = match by_deadline {
            Some(deadline) => (
                libc::FUTEX_WAIT_BITSET
                    | if deadline.realtime {
                        libc::FUTEX_CLOCK_REALTIME
                    } else {
                        0
                    },
                libc::timespec {
                    tv_sec: deadline.sec,
                    tv_nsec: deadline.nsec,
                },
            ),
            None => (
                libc::FUTEX_WAIT,
                libc::timespec {
                    tv_sec: (backstop_ns / 1_000_000_000).cast_signed(),
                    tv_nsec: (backstop_ns % 1_000_000_000).cast_signed(),
                },
            ),
        };
        if timeout.tv_sec < 0 {
            return Wait::TimedOut; // The kernel refuses times before the clock's beginning.
        }
        let timeout = if by_deadline.is_none() && backstop_ns == FOREVER {
            core::ptr::null()
        } else {
            &raw const timeout
        };
        // SAFETY: a live reference, and null or a valid timespec.
        let result = unsafe {
            futex(
                core::ptr::from_ref(word).expose_provenance(),
                operation | private(shared),
                expected,
                timeout,
                libc::FUTEX_BITSET_MATCH_ANY.cast_unsigned(),
            )
        };
        match i32::try_from(-result).unwrap_or(0) {
            0 => Wait::Woken,
            libc::ETIMEDOUT => Wait::TimedOut,
            libc::EINTR => Wait::Interrupted,
            _ => Wait::Retry,
        }
    }

    fn wake_one(word: *const AtomicU32, shared: bool) -> bool {
        wake(word, shared, 1) > 0
    }

    fn wake_all(word: *const AtomicU32, shared: bool) {
        wake(word, shared, i32::MAX.cast_unsigned());
    }

    fn requeue_one(gate: &AtomicU32, expected: u32, word: &AtomicU32) -> bool {
        // FUTEX_CMP_REQUEUE(gate, wake 0, requeue 1, word, expected): the fourth argument is a number, not a time.
        let arguments = [
            core::ptr::from_ref(gate).expose_provenance(),
            (libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG) as usize,
            0,
            1,
            core::ptr::from_ref(word).expose_provenance(),
            expected as usize,
        ];
        // SAFETY: live references; the kernel compares `gate`.
        let result = unsafe { system_call(libc::SYS_futex, arguments) };
        result > 0
    }

    #[inline]
    fn note_wake() {
        stats::note_wake();
    }

    #[inline]
    fn note(event: Event, mutex: &Mutex) {
        stats::note(event, mutex);
    }
}
