//! Thread id and CPU number from the thread control block: one load each, at any time in a thread's life.
//!
//! glibc keeps the thread id that it writes into mutexes in its thread descriptor, at a fixed distance from the thread
//! pointer (`%fs` on x86-64), and right in a fork child too: `fork` and `_Fork` refresh it. A cache of our own would have to be
//! told of every fork. The distance is 0x2d0 in every glibc since 2.4 (`struct pthread`, `nptl/descr.h`); glibc exports it to debuggers as
//! `_thread_db_pthread_tid`. [`start`] checks it against the kernel; if neither fits, a variable of our own takes its place.
//!
//! The CPU number is the kernel's rseq area, which glibc registers for each thread since 2.35 (`__rseq_offset`, rseq(2)).
//! Where there is none the distance is 0, and what is read there is the thread pointer: no CPU's number, which is all a hint needs.
//!
//! May touch: memory at `%fs`. Read on every lock: no branch beyond one.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Distance of the thread id from the thread pointer.
static TID_AT: AtomicUsize = AtomicUsize::new(0x2d0);
/// Distance of the rseq area's `cpu_id` from the thread pointer; 0 if there is none.
static CPU_AT: AtomicUsize = AtomicUsize::new(0);
/// Distance of what [`place`] reads: `cpu_id`, or a number that the kernel source keeps.
static PLACE_AT: AtomicUsize = AtomicUsize::new(0);
static PLACES_ARE_CPUS: AtomicBool = AtomicBool::new(true);
/// Whether `TID_AT` is our own variable, which a fork child must clear.
static OWN_TID: AtomicBool = AtomicBool::new(false);

// A thread-local variable of ours in the initial-exec model: no call to `__tls_get_addr`, which may allocate.
global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".p2align 2",
    ".local autolock_own_tid",
    ".type autolock_own_tid, @tls_object",
    ".size autolock_own_tid, 4",
    "autolock_own_tid:",
    ".zero 4",
    ".popsection",
);

/// Distance of `autolock_own_tid` from the thread pointer.
fn own_tid_at() -> usize {
    let at: usize;
    // SAFETY: loads a link-time constant that the dynamic loader filled in.
    unsafe {
        asm!("mov {at}, qword ptr [rip + autolock_own_tid@GOTTPOFF]", at = out(reg) at, options(pure, readonly, nostack, preserves_flags));
    }
    at
}

/// Loads 32 bits at a distance from the thread pointer.
///
/// # Safety
/// - The distance is one of a readable, aligned 32-bit field of the calling thread's control block or static TLS.
#[inline]
unsafe fn load(at: usize) -> u32 {
    let value: u32;
    // SAFETY: the caller says that the field is readable. Not `pure`: signal handlers, fork and migration change the values.
    unsafe {
        asm!("mov {value:e}, dword ptr fs:[{at}]", value = out(reg) value, at = in(reg) at, options(readonly, nostack, preserves_flags));
    }
    value
}

/// The calling thread's id.
#[inline]
#[must_use]
pub fn tid() -> i32 {
    let tid = tid_or_zero();
    if tid > 0 { tid } else { tid_from_kernel() }
}

/// The calling thread's id, or 0 where glibc's place is unknown and the thread has not called [`tid`] yet. For kinds whose owner nobody asks for.
#[inline]
#[must_use]
pub fn tid_or_zero() -> i32 {
    // SAFETY: `TID_AT` is the checked distance of the id, or, before `start`, that of every glibc known.
    unsafe { load(TID_AT.load(Relaxed)) }.cast_signed()
}

/// The CPU that the calling thread runs on, modulo 2^16; a hint.
#[inline]
#[must_use]
pub fn cpu() -> u16 {
    // SAFETY: `CPU_AT` is 0 (the thread pointer itself) or the distance of the registered rseq area's field.
    let cpu = unsafe { load(CPU_AT.load(Relaxed)) };
    cpu as u16
}

/// Where the calling thread is, for who asks after it: its CPU or its slot, whichever the source of on-CPU knowledge can use. One load as well.
#[inline]
#[must_use]
pub fn place() -> u16 {
    // SAFETY: as in `cpu`, or the distance of a thread-local variable of ours.
    let place = unsafe { load(PLACE_AT.load(Relaxed)) };
    place as u16
}

/// Whether [`place`] is the CPU.
#[inline]
#[must_use]
pub fn places_are_cpus() -> bool {
    PLACES_ARE_CPUS.load(Relaxed)
}

/// From here on [`place`] is the 32-bit thread-local variable at this distance, or the CPU. What stands in mutexes already counts as a wrong hint.
pub(crate) fn place_is_at(own: Option<usize>) {
    PLACES_ARE_CPUS.store(own.is_none(), Relaxed);
    PLACE_AT.store(own.unwrap_or_else(|| CPU_AT.load(Relaxed)), Relaxed);
}

#[cold]
#[inline(never)]
fn tid_from_kernel() -> i32 {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    let tid = unsafe { libc::gettid() };
    if OWN_TID.load(Relaxed) {
        store_own_tid(tid);
    }
    tid
}

fn store_own_tid(tid: i32) {
    // SAFETY: the distance is that of our own aligned 4-byte thread-local variable.
    unsafe {
        asm!("mov dword ptr fs:[{at}], {tid:e}", at = in(reg) own_tid_at(), tid = in(reg) tid, options(nostack, preserves_flags));
    }
}

extern "C" fn forget_own_tid() {
    store_own_tid(0);
}

/// Checks the distances. Called once, from the preload's constructor.
pub fn start() {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    let tid = unsafe { libc::gettid() }.cast_unsigned();
    // SAFETY: glibc's thread descriptor is larger than 0x2d0 + 4 bytes in every release.
    if unsafe { load(TID_AT.load(Relaxed)) } != tid {
        match tid_at_for_debuggers(tid) {
            Some(at) => TID_AT.store(at, Relaxed),
            None => {
                OWN_TID.store(true, Relaxed);
                // SAFETY: registers a handler that only writes a thread-local variable.
                unsafe { libc::pthread_atfork(None, None, Some(forget_own_tid)) };
                TID_AT.store(own_tid_at(), Relaxed);
            }
        }
    }
    if let Some(at) = rseq_cpu_at() {
        CPU_AT.store(at, Relaxed);
        PLACE_AT.store(at, Relaxed);
    }
}

/// The distance that glibc exports for libthread_db, if the thread id is really there.
fn tid_at_for_debuggers(tid: u32) -> Option<usize> {
    let symbol = crate::real::symbol(c"_thread_db_pthread_tid").cast::<[u32; 3]>();
    if symbol.is_null() {
        return None;
    }
    // SAFETY: the symbol is a descriptor of three words: size in bits, number of elements, offset.
    let [bits, _, at] = unsafe { symbol.read() };
    let at = at as usize;
    // SAFETY: an offset inside the thread descriptor.
    (bits == 32 && unsafe { load(at) } == tid).then_some(at)
}

/// The distance of rseq's `cpu_id`, if glibc has registered an area for this thread.
fn rseq_cpu_at() -> Option<usize> {
    const CPU_ID: isize = 4; // offsetof(struct rseq, cpu_id), linux/rseq.h
    let offset = crate::real::symbol(c"__rseq_offset").cast::<isize>();
    let size = crate::real::symbol(c"__rseq_size").cast::<u32>();
    if offset.is_null() || size.is_null() {
        return None;
    }
    // SAFETY: `extern const unsigned int __rseq_size`, <sys/rseq.h>.
    let size = unsafe { size.read() };
    // SAFETY: `extern const ptrdiff_t __rseq_offset`, <sys/rseq.h>.
    let offset = unsafe { offset.read() };
    (size != 0).then(|| (offset + CPU_ID).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_id_is_the_kernels_in_every_thread() {
        start();
        let check = || {
            // SAFETY: gettid(2) takes nothing and cannot fail.
            assert_eq!(tid(), unsafe { libc::gettid() });
        };
        check();
        std::thread::spawn(check)
            .join()
            .expect("the thread's own check");
    }

    #[test]
    fn our_own_variable_serves_where_glibcs_is_unknown() {
        assert_eq!(tid_at_for_debuggers(u32::MAX), None);
        // SAFETY: our own thread-local variable.
        assert_eq!(unsafe { load(own_tid_at()) }, 0);
        store_own_tid(7);
        // SAFETY: as above.
        assert_eq!(unsafe { load(own_tid_at()) }, 7);
        forget_own_tid();
        // SAFETY: as above.
        assert_eq!(unsafe { load(own_tid_at()) }, 0);
    }
}
