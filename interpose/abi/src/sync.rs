//! The loom seam: the atomics that the protocol consists of are loom's own under `--cfg loom`.

#[cfg(not(loom))]
pub use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(loom)]
pub use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// Atomics that the protocol does not depend on (hints, and what only the holder writes): never modelled.
pub mod hint {
    pub use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU16, AtomicU32, AtomicU64};
}

/// A Release store to a word on which others do read-modify-writes all the time.
///
/// In the model an exchange: loom 0.7 lets such a store be overtaken by a concurrent read-modify-write that has read the value before it, which
/// the memory model forbids (C++20, [atomics.order] 10: a read-modify-write reads the last value before its own in the modification order).
#[inline]
pub fn store_release(word: &AtomicU32, value: u32) {
    if cfg!(loom) {
        word.swap(value, Ordering::Release);
    } else {
        word.store(value, Ordering::Release);
    }
}
