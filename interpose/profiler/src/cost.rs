//! What the profiler costs, measured where it runs: on a mutex of its own, when a capture begins.
//!
//! May touch: that mutex, its record, which is hidden, and the capture's header. Takes some ten microseconds. As a program's own calls, these go to
//! whatever comes first in the search order: with another preload in front of the profiler its cost is in there too.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use autolock_capture::{
    Recorder,
    layout::{Thread, control},
};
use libc::pthread_mutex_t;

use crate::{clock, real, record::Linux};

/// A mutex that only [`measure`] knows; it is called by one thread.
struct Own(UnsafeCell<pthread_mutex_t>);

// SAFETY: a mutex is made for sharing.
unsafe impl Sync for Own {}

static OWN: Own = Own(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// Pairs in a batch.
const PAIRS: u32 = 64;
/// Batches, of which the shortest counts: the others were disturbed.
const BATCHES: u32 = 3;

/// The shortest time of a pair, in picoseconds.
fn time(mut pair: impl FnMut()) -> u64 {
    let mut shortest = u64::MAX;
    for _ in 0..BATCHES {
        let start = clock::monotonic_ns();
        for _ in 0..PAIRS {
            pair();
        }
        shortest = shortest.min(clock::monotonic_ns().saturating_sub(start));
    }
    shortest.saturating_mul(1000) / u64::from(PAIRS)
}

/// Measures and notes it. The calling thread has its place.
pub fn measure(recorder: &Recorder<Linux>, thread: &'static Thread) {
    unsafe extern "C" {
        fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> i32;
        fn pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> i32;
    }
    let own = OWN.0.get();
    let key = own.addr() as u64;
    let native = time(|| {
        let _ = real::call!(MUTEX_LOCK, fn(*mut pthread_mutex_t), own);
        let _ = real::call!(MUTEX_UNLOCK, fn(*mut pthread_mutex_t), own);
    });
    let pair = || {
        // SAFETY: an initialised mutex.
        unsafe { pthread_mutex_lock(own) };
        // SAFETY: held by this thread.
        unsafe { pthread_mutex_unlock(own) };
    };
    pair();
    let Some(entry) = Recorder::<Linux>::entry(thread, key) else {
        return; // The calls do not come here.
    };
    let lock = crate::record::lock_of(entry);
    lock.control.fetch_or(control::HIDDEN, Relaxed);
    pair();
    entry.skip.store(u32::MAX, Relaxed);
    let counted = time(pair);
    let timed = time(|| {
        entry.skip.store(1, Relaxed);
        thread.skip.store(0, Relaxed);
        pair();
    });
    recorder.forget_timing(thread);
    let cost = &recorder.capture().header().cost;
    let note = |to: &AtomicU64, ps: u64| to.store(ps, Relaxed);
    note(&cost.native_ps, native);
    note(&cost.counted_ps, counted.saturating_sub(native));
    note(&cost.timed_ps, timed.saturating_sub(native));
}
