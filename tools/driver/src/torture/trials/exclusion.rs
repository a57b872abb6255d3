//! Mutual exclusion: all threads hammer, by lock and by try_lock, with sections and gaps of random length.

use crate::torture::crew::Worker;
use crate::torture::ground::{Ground, Guarded, Phase};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub fn run(ground: &Ground) -> Option<String> {
    let guarded = ground.gentle();
    ground.phase(Phase::Hammer);
    let passes = AtomicU64::new(0);
    ground.together(ground.threads, |worker| {
        passes.fetch_add(hammer(&guarded, worker, 8), Relaxed);
    });
    guarded.settle(passes.into_inner());
    None
}

/// Until the worker is told to stop, but once at least; one in `tries` by try_lock. Returns how often it was inside.
pub fn hammer(guarded: &Guarded, worker: &mut Worker, tries: u64) -> u64 {
    let mut passes = 0;
    loop {
        if worker.random.one_in(tries) {
            passes += u64::from(guarded.try_pass(worker));
        } else {
            guarded.pass(worker);
            passes += 1;
        }
        if passes > 0 && !worker.goes_on() {
            return passes;
        }
        worker.gap();
    }
}
