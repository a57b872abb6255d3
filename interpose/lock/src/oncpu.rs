//! One seam for on-CPU knowledge: is the holder of this mutex running?
//!
//! Every answer is a hint. A wrong or frozen one may cost time, never progress: nobody spins without a bound
//! because of a [`HolderState::Running`], and a waiter that parks because of a [`HolderState::NotRunning`] is woken like
//! any other. The hot path is generic over the source: no call goes through a vtable.

use autolock_abi::{Mutex, sync::Ordering};

/// What a source knows about a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderState {
    /// On a CPU: spinning is cheaper than two context switches.
    Running,
    /// Not on a CPU: every spin is stolen from it.
    NotRunning,
    /// Unknown: a short, bounded spin.
    Unknown,
}

/// A source of on-CPU knowledge.
pub trait OnCpu {
    /// The state of the holder of `mutex`, for a waiter that runs on `my_cpu`.
    fn holder(mutex: &Mutex, my_cpu: u16) -> HolderState;
}

/// User space alone: a holder that took the lock on the CPU that I am on now is not running.
///
/// Wrong when the holder has migrated since; then the waiter parks without need.
#[derive(Debug)]
pub struct Blind;

impl OnCpu for Blind {
    #[inline]
    fn holder(mutex: &Mutex, my_cpu: u16) -> HolderState {
        // Relaxed: a hint, ordered with nothing.
        if mutex.holder_cpu.load(Ordering::Relaxed) == my_cpu {
            HolderState::NotRunning
        } else {
            HolderState::Unknown
        }
    }
}
