//! The loom seam: the atomics of the mirrored structures, loom's own under `--cfg loom`.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicI32, AtomicU16, AtomicU32, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicI32, AtomicU16, AtomicU32, Ordering, fence};
