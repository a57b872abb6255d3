//! Queue nodes: one kind for all queue locks, so that one pool serves them all.
//!
//! A node is never unmapped. Whoever holds a stale pointer to one reads wrong values, not foreign memory.

use autolock_abi::sync::{AtomicPtr, AtomicU32, hint};

/// A waiter's or holder's place in a queue, alone on its pair of cache lines.
///
/// What the fields mean is each lock's own business; all locks may leave anything in them.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Node {
    /// The next node in the queue.
    pub next: AtomicPtr<Node>,
    /// The node before, for locks that look back.
    pub previous: AtomicPtr<Node>,
    /// What the node's waiter waits for; a futex word for locks that sleep.
    pub state: AtomicU32,
    /// (hint) Who waits here.
    pub tid: hint::AtomicI32,
    /// (hint) Where it was when it last wrote that down, as [`crate::platform::Platform::place`] said.
    pub place: hint::AtomicU16,
    /// (hint) A time in nanoseconds, for locks that publish one.
    pub time_ns: hint::AtomicU64,
    /// The pool's own: the next free node. No lock may touch it.
    pub free: hint::AtomicPtr<Node>,
    /// The pool's own as well: the link of a stack.
    pub link: hint::AtomicU32,
}

impl Node {
    /// A node in no queue.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next: AtomicPtr::new(core::ptr::null_mut()),
            previous: AtomicPtr::new(core::ptr::null_mut()),
            state: AtomicU32::new(0),
            tid: hint::AtomicI32::new(0),
            place: hint::AtomicU16::new(0),
            time_ns: hint::AtomicU64::new(0),
            free: hint::AtomicPtr::new(core::ptr::null_mut()),
            link: hint::AtomicU32::new(0),
        }
    }

    /// The pointer that stands for this node in a queue.
    #[inline]
    #[must_use]
    pub fn pointer(&'static self) -> *mut Self {
        core::ptr::from_ref(self).cast_mut()
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

/// The node that a queue's pointer stands for.
///
/// # Safety
/// - `pointer` is null or came from [`Node::pointer`].
#[inline]
#[must_use]
pub unsafe fn at(pointer: *mut Node) -> Option<&'static Node> {
    // SAFETY: nodes are never unmapped, and all their fields are atomics.
    unsafe { pointer.as_ref() }
}
