//! Reading a stack whose ends nobody knows, without ever faulting.
//!
//! Coroutines, signal stacks and stacks that the program provides look like any other memory; glibc tells a thread's own stack only with a lock and an
//! allocation. So nothing is assumed: a page is read if it is known to be there,
//!
//! - because the walk starts there: it belongs to the frames between the walk and the lock's caller;
//! - because it is the main thread's stack: from a stack pointer up to `__libc_stack_end` there is nothing else, and the kernel keeps at least 128 MiB below that
//!   end free of other mappings (`mmap_base`, arch/x86/mm/mmap.c);
//! - because it is the end of a stack that glibc made or was given for a thread: those are at least `PTHREAD_STACK_MIN` long, the thread pointer at the upper end;
//! - or because the kernel could read it just now: rt_sigprocmask(2) reads the set before it finds that the operation is an invalid one (the way
//!   of Abseil's `AddressIsReadable`). One such call for each page of 4 KiB, some 100 ns, and none for the pages above.
//!
//! The last leaves a page that another thread unmaps between the question and the read. The pages of a stack that somebody is on are not unmapped; the others are only
//! looked at when a program without call frame information left something like a frame pointer in `%rbp`.
//!
//! May touch: the calling thread's stack, what expressions of call frame information point to, and the code before a return address.

use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const PAGE: usize = 4096;
/// Of the main thread's stack what is taken to be without holes.
const MAIN_STACK: usize = 64 << 20;
/// The part of `PTHREAD_STACK_MIN` (16 KiB) that is certainly below the thread pointer.
const THREAD_STACK: usize = 8 << 10;

/// `__libc_stack_end`; 0 if unknown.
static STACK_END: AtomicUsize = AtomicUsize::new(0);
/// The main thread's thread pointer, which is not at the end of its stack; 0 if unknown.
static MAIN_THREAD: AtomicUsize = AtomicUsize::new(0);

/// Looks up what is known of stacks. Called once, from the preload's constructor, in the main thread.
pub fn start() {
    // SAFETY: a NUL-terminated name; dlsym has no other requirement.
    let end = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_stack_end".as_ptr()) };
    if !end.is_null() {
        // SAFETY: ld.so's `void *__libc_stack_end`.
        STACK_END.store(unsafe { end.cast::<usize>().read() }, Relaxed);
    }
    MAIN_THREAD.store(thread_pointer(), Relaxed);
}

fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the first word of the thread control block is its own address (ELF TLS ABI for x86-64).
    unsafe {
        asm!("mov {}, fs:[0]", out(reg) pointer, options(pure, readonly, nostack, preserves_flags));
    }
    pointer
}

/// Memory that was found readable: from `low` to `high`, whole pages.
#[derive(Debug)]
pub struct Memory {
    low: usize,
    high: usize,
}

impl Memory {
    /// The stack from `low` to `high`, which is there, and what is known to follow.
    #[must_use]
    pub fn new(low: usize, high: usize) -> Self {
        let mut end = high;
        let main = STACK_END.load(Relaxed);
        if main.checked_sub(low).is_some_and(|size| size < MAIN_STACK) {
            end = end.max(main);
        }
        let thread = thread_pointer();
        if ![0, thread].contains(&MAIN_THREAD.load(Relaxed))
            && thread
                .checked_sub(low)
                .is_some_and(|size| size < THREAD_STACK)
        {
            end = end.max(thread);
        }
        Self {
            low: low & !(PAGE - 1),
            high: (end | (PAGE - 1)).saturating_add(1),
        }
    }

    /// The aligned word at `address`.
    #[inline]
    pub fn word(&mut self, address: usize) -> Option<usize> {
        if !address.is_multiple_of(8) || !(self.knows(address) || self.ask(address)) {
            return None;
        }
        let pointer = core::ptr::with_exposed_provenance::<usize>(address);
        // SAFETY: aligned, in a page that can be read. Volatile: the stack is the program's, which the compiler does not see.
        Some(unsafe { pointer.read_volatile() })
    }

    /// The byte at `address`.
    pub fn byte(&mut self, address: usize) -> Option<u8> {
        let word = self.word(address & !7)?;
        word.to_le_bytes().get(address & 7).copied()
    }

    #[inline]
    fn knows(&self, address: usize) -> bool {
        (self.low..self.high).contains(&address)
    }

    /// Whether the kernel can read the page of `address`; if so it is known from now on.
    #[cold]
    fn ask(&mut self, address: usize) -> bool {
        let page = address & !(PAGE - 1);
        // The first page holds nothing, and the last of user space nothing either.
        if page == 0 || page >= (1 << 47) - PAGE || !readable(page) {
            return false;
        }
        if page == self.high {
            self.high += PAGE;
        } else {
            self.low = page;
            self.high = page + PAGE;
        }
        true
    }
}

/// Whether 8 bytes can be read. Touches no `errno`, and changes no signal mask.
fn readable(address: usize) -> bool {
    const NO_SUCH_OPERATION: usize = usize::MAX;
    let result: isize;
    // SAFETY: reads a set of signals and refuses the operation; the kernel checks the address itself, and clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_rt_sigprocmask as isize => result,
            in("rdi") NO_SUCH_OPERATION,
            in("rsi") address,
            in("rdx") 0usize,
            in("r10") 8usize,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == -(libc::EINVAL as isize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not() {
        // SAFETY: a new mapping.
        let pages = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                3 * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(pages, libc::MAP_FAILED);
        let at = pages.expose_provenance();
        // SAFETY: within the mapping.
        unsafe { pages.cast::<usize>().write(7) };
        let second = pages.wrapping_byte_add(PAGE);
        // SAFETY: a page of ours that nobody uses.
        let protected = unsafe { libc::mprotect(second, PAGE, libc::PROT_NONE) };
        assert_eq!(protected, 0);
        let mut memory = Memory { low: 0, high: 0 };
        assert_eq!(memory.word(at), Some(7));
        assert_eq!(memory.byte(at), Some(7));
        assert_eq!(memory.word(at + 1), None, "unaligned");
        assert_eq!(memory.word(at + PAGE), None, "PROT_NONE");
        assert_eq!(memory.word(at + 2 * PAGE), Some(0));
        // SAFETY: ours, and not used again.
        assert_eq!(unsafe { libc::munmap(pages, 3 * PAGE) }, 0);
        let mut memory = Memory { low: 0, high: 0 };
        for address in [
            at,
            0,
            8,
            1 << 47,
            (1 << 47) - 8,
            0x8000_0000_0000_0000,
            usize::MAX & !7,
        ] {
            assert_eq!(memory.word(address), None, "{address:#x}");
        }
    }

    #[test]
    fn only_the_end_of_a_threads_stack_is_taken_for_granted() {
        start();
        // Tests run in threads of their own.
        std::thread::spawn(|| {
            MAIN_THREAD.store(8, Relaxed);
            let end = thread_pointer();
            let knows = |below: usize| Memory::new(end - below, end - below + 8).knows(end - 8);
            assert!(knows(1024) && knows(THREAD_STACK - 8));
            assert!(!knows(3 * THREAD_STACK) && !knows(1 << 20));
            MAIN_THREAD.store(end, Relaxed);
            assert!(!knows(5000), "the main thread's has its end elsewhere");
        })
        .join()
        .expect("the thread's own check");
    }

    #[test]
    fn asking_leaves_the_signal_mask_alone() {
        let mask = || {
            let mut set = 0u64;
            let to = &raw mut set;
            // SAFETY: the first 8 bytes of the set are all that the kernel has signals for; nothing is changed.
            unsafe { libc::syscall(libc::SYS_rt_sigprocmask, 0, 0usize, to, 8usize) };
            set
        };
        let all = [usize::MAX; 2];
        let before = mask();
        assert!(readable(all.as_ptr().addr()));
        assert_eq!(mask(), before);
    }
}
