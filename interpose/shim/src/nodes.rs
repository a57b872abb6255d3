//! Queue nodes without malloc: a free list for each thread, fed from one reserved range of addresses.
//!
//! Taking and giving a node is a load and a store on the thread's own list. A list that is empty takes over what threads that have
//! ended left behind, or else the next unused node of the range; a thread's end puts its list there (the destructor of a
//! `pthread_key_create` key). The range is reserved at start, never unmapped, and takes memory page by page as it is used.
//!
//! May touch: the thread's own list, in static TLS; mmap(2) and `pthread_key_create` at start.

use core::arch::{asm, global_asm};
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_lock::node::Node;

use crate::stack::Stack;

/// Nodes in the range: more than threads can wait and hold at once.
const NODES: usize = 1 << 20;

/// The range; null before [`start`].
static RANGE: AtomicPtr<Node> = AtomicPtr::new(null_mut());
/// The first node of the range that nobody has had.
static UNUSED: AtomicUsize = AtomicUsize::new(0);
/// What ended threads left.
static LEFT: Stack = Stack::new();
/// The key whose destructor empties a thread's list.
static KEY: AtomicU32 = AtomicU32::new(0);

// The thread's free list, in the initial-exec model as in `tcb`. Hidden, not local: `take` and `give` are inlined into other crates.
global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".p2align 3",
    ".globl autolock_free_nodes",
    ".hidden autolock_free_nodes",
    ".type autolock_free_nodes, @tls_object",
    ".size autolock_free_nodes, 8",
    "autolock_free_nodes:",
    ".zero 8",
    ".popsection",
);

#[inline]
fn list() -> *mut Node {
    let first;
    // SAFETY: reads our own aligned 8-byte thread-local variable.
    unsafe {
        asm!(
            "mov {first}, qword ptr [rip + autolock_free_nodes@GOTTPOFF]",
            "mov {first}, qword ptr fs:[{first}]",
            first = out(reg) first,
            options(readonly, nostack, preserves_flags),
        );
    }
    first
}

#[inline]
fn set_list(first: *mut Node) {
    // SAFETY: writes our own aligned 8-byte thread-local variable.
    unsafe {
        asm!(
            "mov {at}, qword ptr [rip + autolock_free_nodes@GOTTPOFF]",
            "mov qword ptr fs:[{at}], {first}",
            at = out(reg) _,
            first = in(reg) first,
            options(nostack, preserves_flags),
        );
    }
}

/// Reserves the range. Called once, before any lock of the collection is used; returns whether there is one.
#[must_use]
pub fn start() -> bool {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let range = unsafe {
        libc::mmap(
            null_mut(),
            NODES * size_of::<Node>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if range == libc::MAP_FAILED {
        return false;
    }
    let mut key = 0;
    // SAFETY: a valid pointer, and a function of the right type.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(leave)) } == 0 {
        // 1 more than the key, so that 0 is none.
        KEY.store(key.wrapping_add(1), Relaxed);
    }
    RANGE.store(range.cast(), Release);
    true
}

/// A free node: of the thread's own, of ended threads', or a new one.
#[inline]
pub fn take() -> &'static Node {
    // SAFETY: null or a node of the range, which is never unmapped.
    match unsafe { list().as_ref() } {
        Some(node) => {
            set_list(node.free.load(Relaxed));
            node
        }
        None => find(),
    }
}

/// Back to the thread's own list.
#[inline]
pub fn give(node: &'static Node) {
    node.free.store(list(), Relaxed);
    set_list(node.pointer());
}

#[cold]
#[inline(never)]
fn find() -> &'static Node {
    let key = KEY.load(Relaxed);
    if key != 0 {
        // Any value that is not null makes the destructor run at the thread's end. For one of the first 32 keys it does not allocate.
        // SAFETY: a key that was created.
        unsafe { libc::pthread_setspecific(key - 1, RANGE.load(Relaxed).cast()) };
    }
    loop {
        if let Some(left) = LEFT.pop(|index| &node(index as usize).link) {
            return node(left as usize);
        }
        let next = UNUSED.load(Relaxed);
        if next < NODES {
            if UNUSED
                .compare_exchange_weak(next, next + 1, Relaxed, Relaxed)
                .is_ok()
            {
                return node(next);
            }
        } else {
            // A million nodes are in use: one will come back.
            // SAFETY: takes nothing.
            unsafe { libc::sched_yield() };
        }
    }
}

/// The node of this index, which is below [`NODES`]. All zero, as the kernel gives it, is a valid node.
fn node(index: usize) -> &'static Node {
    // Acquire: pairs with `start`.
    let range = RANGE.load(Acquire);
    // Wrapping, so that it is one unsafe operation; the index is within the range.
    // SAFETY: within the range, which is never unmapped.
    unsafe { &*range.wrapping_add(index) }
}

fn index(node: &Node) -> u32 {
    let bytes = core::ptr::from_ref(node)
        .addr()
        .wrapping_sub(RANGE.load(Relaxed).addr());
    (bytes / size_of::<Node>()) as u32
}

/// The end of a thread: its nodes are for others. Locks that later destructors take run this again.
extern "C" fn leave(_: *mut c_void) {
    loop {
        // SAFETY: null or a node of the range.
        let Some(node) = (unsafe { list().as_ref() }) else {
            return;
        };
        set_list(node.free.load(Relaxed));
        LEFT.push(index(node), &node.link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_takes_over_what_an_ended_one_left() {
        assert!(start());
        let addresses = || {
            let nodes: Vec<_> = (0..100).map(|_| take()).collect();
            let mut addresses: Vec<_> = nodes.iter().map(|n| n.pointer().addr()).collect();
            nodes.into_iter().for_each(give);
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        };
        let run = || std::thread::spawn(addresses).join().expect("the thread");
        let first = run();
        assert_eq!(first.len(), 100, "each node once");
        assert_eq!(run(), first);
    }
}
