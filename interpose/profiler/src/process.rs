//! Whose memory this is: the process's own, or borrowed from the parent by a child of `vfork`; and locks that do not outlive their process.
//!
//! A child of `vfork` (`posix_spawn` works so too) runs in its parent's memory until it becomes another program: it must print nothing and
//! change nothing that is about the parent. A child of `fork` has a copy, in which a lock may be held by a thread that does not exist there.
//! Both are told apart by a page that the kernel gives to children of `vfork` as it is and clears in those of `fork`, `_Fork` and clone(2)
//! (madvise(2), `MADV_WIPEONFORK`, Linux 4.14). Where the kernel has no such thing, children of `fork` count as those of `vfork`, unless
//! they came by `fork` itself.

use core::sync::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::system;

#[repr(C)]
struct Page {
    /// The process that the memory belongs to; 0 in a child of `fork` that has not asked yet.
    owner: AtomicU32,
    locks: [Lock; LOCKS],
}

const LOCKS: usize = 2;

/// Guards what the application thinks of its signal handlers.
pub const ACTIONS: usize = 0;
/// Guards the table's buffers.
pub const TABLE: usize = 1;

/// A lock between threads, for short sections with signals blocked.
#[derive(Debug)]
struct Lock {
    /// 0, or the holder's thread id; with [`WAITED`] if somebody sleeps.
    word: AtomicU32,
}

const WAITED: u32 = 1 << 31;
/// How long one sleep lasts at most.
const NAP_NS: u64 = 10_000_000;

static STAND_IN: Page = Page {
    owner: AtomicU32::new(0),
    locks: [const {
        Lock {
            word: AtomicU32::new(0),
        }
    }; LOCKS],
};
static PAGE: AtomicPtr<Page> = AtomicPtr::new(core::ptr::null_mut());

fn page() -> &'static Page {
    // Acquire: pairs with `start`, which may run while other constructors' threads do.
    let page = PAGE.load(Acquire);
    if page.is_null() {
        return &STAND_IN;
    }
    // SAFETY: a mapping that stays, zeroed at first: valid atomics.
    unsafe { &*page }
}

/// Makes the page. Called once, from the preload's constructor.
pub fn start() {
    extern "C" fn forked() {
        let page = page();
        page.owner.store(system::pid(), Relaxed);
        for lock in &page.locks {
            lock.word.store(0, Release);
        }
    }
    const SIZE: usize = 4096;
    // SAFETY: a new private mapping.
    let mapping = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapping != libc::MAP_FAILED {
        // SAFETY: our own mapping. If it fails `forked` has to do.
        unsafe { libc::madvise(mapping, SIZE, libc::MADV_WIPEONFORK) };
        PAGE.store(mapping.cast(), Release);
    }
    page().owner.store(system::pid(), Relaxed);
    // SAFETY: a function that only stores. If there is no memory for it the page has to do.
    unsafe { libc::pthread_atfork(None, None, Some(forked)) };
}

/// Whether the caller's process owns its memory: false in a child of `vfork`.
#[must_use]
pub fn owns_memory() -> bool {
    let me = system::pid();
    // Relaxed: the number alone matters, and a process's first thread wrote it.
    match page().owner.compare_exchange(0, me, Relaxed, Relaxed) {
        Ok(_) => true,
        Err(owner) => owner == me,
    }
}

/// A lock that is held. All signals are blocked in this thread meanwhile.
#[derive(Debug)]
pub struct Held {
    lock: &'static Lock,
    // Dropped after `drop` has released: a handler must not find the lock held by its own thread.
    _signals: system::Blocked,
}

impl Held {
    /// Takes a lock. Not in a child of `vfork`: its parent's thread is where it is.
    #[must_use]
    pub fn new(lock: usize) -> Self {
        loop {
            if let Some(held) = Self::within(lock, NAP_NS) {
                return held;
            }
        }
    }

    /// Takes a lock if it is free, or gets free in `patience_ns`. Never waits for the calling thread itself.
    #[must_use]
    pub fn within(lock: usize, patience_ns: u64) -> Option<Self> {
        let signals = system::Blocked::all();
        let lock = page().locks.get(lock)?;
        let word = &lock.word;
        let me = system::tid();
        let mut until = None;
        let mut mine = me;
        loop {
            // Acquire: pairs with `drop`'s release.
            let Err(holder) = word.compare_exchange(0, mine, Acquire, Relaxed) else {
                return Some(Self {
                    lock,
                    _signals: signals,
                });
            };
            let now = system::monotonic_ns();
            let end = *until.get_or_insert(now.saturating_add(patience_ns));
            if holder & !WAITED == me || now >= end {
                return None;
            }
            mine = me | WAITED; // There may be others asleep: whoever slept wakes them when it is done.
            // Relaxed: only the holder's release is waited for.
            if holder & WAITED != 0
                || word
                    .compare_exchange(holder, holder | WAITED, Relaxed, Relaxed)
                    .is_ok()
            {
                system::futex_wait(word, holder | WAITED, (end - now).min(NAP_NS));
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Release: pairs with `within`'s acquire.
        if self.lock.word.swap(0, Release) & WAITED != 0 {
            system::futex_wake(&self.lock.word);
        }
    }
}

/// Once for all tests of this crate, whichever is the first.
#[cfg(test)]
pub(crate) fn started() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(start);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs something in a child made by a raw clone(2), and returns its exit status.
    fn in_child(flags: i32, child: fn() -> i32) -> i32 {
        // SAFETY: the child makes no use of libc's state, and ends by itself. With CLONE_VFORK the parent's stack is left alone
        // below this frame until then only if it runs on another: so it gets one.
        let pid = unsafe {
            extern "C" fn run(child: *mut libc::c_void) -> i32 {
                // SAFETY: what `in_child` passes.
                let child: fn() -> i32 = unsafe { core::mem::transmute(child) };
                child()
            }
            let mut stack = vec![0u64; 1 << 15];
            let pid = libc::clone(
                run,
                stack.as_mut_ptr_range().end.cast(),
                flags | libc::SIGCHLD,
                child as *mut libc::c_void,
            );
            std::mem::forget(stack);
            pid
        };
        assert!(pid > 0);
        let mut status = 0;
        // SAFETY: our child, and room for its status.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert!(libc::WIFEXITED(status), "{status:#x}");
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn children_of_vfork_own_nothing_and_those_of_fork_find_all_locks_free() {
        started();
        assert!(owns_memory());
        let held = Held::new(TABLE);
        let child = || i32::from(owns_memory()) | i32::from(Held::within(TABLE, 0).is_some()) << 1;
        assert_eq!(in_child(libc::CLONE_VM | libc::CLONE_VFORK, child), 0);
        assert_eq!(in_child(0, child), 3);
        drop(held);
        assert!(owns_memory());
    }

    #[test]
    fn threads_take_turns_and_nobody_sleeps_on() {
        started();
        static TURNS: AtomicU32 = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let _held = Held::new(ACTIONS);
                        let turn = TURNS.load(Relaxed);
                        TURNS.store(turn + 1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(TURNS.load(Relaxed), 80_000);
        let held = Held::new(ACTIONS);
        assert!(Held::within(ACTIONS, u64::MAX).is_none(), "itself");
        assert!(
            std::thread::spawn(|| Held::within(ACTIONS, 0).is_none())
                .join()
                .expect("no panic")
        );
        drop(held);
    }
}
