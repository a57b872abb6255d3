//! One seam for on-CPU knowledge: is the holder of this mutex running?
//!
//! Every answer is a hint. A wrong or frozen one may cost time, never progress: nobody spins without a bound
//! because of a [`HolderState::Running`], and a waiter that parks because of a [`HolderState::NotRunning`] is woken like
//! any other. The hot path is generic over the source: no call goes through a vtable.

use autolock_abi::{
    Mutex,
    sync::{Ordering::Relaxed, hint},
};

use crate::platform::Platform;

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

/// Whom a source is asked about: what a holder wrote down when it took the lock. Any values are legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its thread id; 0 if there is none or it is unknown.
    pub tid: i32,
    /// Where it took the lock, as [`Platform::place`] said.
    pub place: u16,
}

impl Holder {
    /// What stands in a mutex.
    #[inline]
    #[must_use]
    pub fn of(mutex: &Mutex) -> Self {
        // Relaxed: hints, ordered with nothing.
        Self {
            tid: mutex.owner.load(Relaxed),
            place: mutex.holder_place.load(Relaxed),
        }
    }
}

/// A source of on-CPU knowledge.
pub trait OnCpu {
    /// What the source knows of this thread, whatever CPU it was on. For owners in a lock word's manner: written after the acquisition, 0 again before the release, so that a
    /// thread that stands there holds the lock.
    #[inline]
    fn thread(_holder: Holder) -> HolderState {
        HolderState::Unknown
    }

    /// Whether [`Holder::place`] is a CPU.
    #[inline]
    fn places_are_cpus() -> bool {
        true
    }

    /// The state of `holder`, for a waiter that runs on `my_cpu`. Where the source knows nothing of the thread, user space does: a holder that took the
    /// lock on the CPU that I am on now is not running. That is wrong when it has migrated since; then the waiter parks without need.
    #[inline]
    fn holder(holder: Holder, my_cpu: u16) -> HolderState {
        match Self::thread(holder) {
            HolderState::Unknown if holder.place == my_cpu && Self::places_are_cpus() => {
                HolderState::NotRunning
            }
            state => state,
        }
    }
}

/// User space alone.
#[derive(Debug)]
pub struct Blind;

impl OnCpu for Blind {}

/// No CPU's number, and no slot's.
pub const NOWHERE: u16 = u16::MAX;

/// Where a lock that is not glibc's writes its holder down. Every value is a hint.
#[derive(Debug)]
pub struct HolderRecord {
    tid: hint::AtomicI32,
    place: hint::AtomicU16,
}

impl HolderRecord {
    /// Nobody.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            tid: hint::AtomicI32::new(0),
            place: hint::AtomicU16::new(NOWHERE),
        }
    }

    /// Writes the calling thread down. By the holder, after its acquisition.
    #[inline]
    pub fn record<P: Platform>(&self) {
        self.tid.store(P::tid(), Relaxed);
        self.place.store(P::place(), Relaxed);
    }

    /// Writes nobody down. By the holder, before its release.
    #[inline]
    pub fn clear(&self) {
        self.tid.store(0, Relaxed);
        self.place.store(NOWHERE, Relaxed);
    }

    /// What the platform's source knows of whoever is written down; [`HolderState::Unknown`] if nobody is.
    #[inline]
    #[must_use]
    pub fn state<P: Platform>(&self) -> HolderState {
        let holder = Holder {
            tid: self.tid.load(Relaxed),
            place: self.place.load(Relaxed),
        };
        if holder.tid == 0 {
            HolderState::Unknown
        } else {
            P::OnCpu::holder(holder, P::cpu())
        }
    }
}
