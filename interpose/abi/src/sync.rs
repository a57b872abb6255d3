//! The loom seam: the atomics that the protocol consists of are loom's own under `--cfg loom`.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

/// Atomics that the protocol does not depend on (hints, and what only the holder writes): never modelled.
pub mod hint {
    pub use core::sync::atomic::{AtomicI32, AtomicU16, AtomicU32};
}
