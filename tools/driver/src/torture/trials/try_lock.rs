//! try_lock tells the truth: fails while another thread holds the lock, succeeds when nobody does, and never waits.

use super::exclusion::hammer;
use crate::torture::child::fail;
use crate::torture::crew::spawn;
use crate::torture::ground::{Ground, Guarded, Phase};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Calls of each thread while the lock is held.
const TRIES: usize = 20;

pub fn run(ground: &Ground) -> Option<String> {
    let guarded = ground.gentle();
    ground.phase(Phase::Held);
    let mut passes = 0;
    for _ in ground.rounds(2, 50) {
        passes += round(&guarded, ground.threads);
    }
    ground.phase(Phase::Hammer);
    let mixed = AtomicU64::new(passes);
    ground.together(ground.threads, |worker| {
        mixed.fetch_add(hammer(&guarded, worker, 2), Relaxed);
    });
    guarded.settle(mixed.into_inner());
    None
}

/// This thread holds the lock, taken by lock or by try_lock; half of the others try, the other half wait for it. It lets go when all
/// have tried. Returns how often somebody was inside.
fn round(guarded: &Guarded, threads: usize) -> u64 {
    if !guarded.try_lock() {
        fail("try_lock of a free lock fails");
    }
    guarded.enter(0);
    let tried = Barrier::new(threads.div_ceil(2) + 1);
    let waited = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 1..=threads {
            let (tried, waited) = (&tried, &waited);
            spawn(scope, move || {
                if thread % 2 == 0 {
                    guarded.lock();
                    guarded.enter(thread);
                    guarded.leave(thread);
                    guarded.unlock();
                    waited.fetch_add(1, Relaxed);
                    return;
                }
                for _ in 0..TRIES {
                    if guarded.try_lock() {
                        fail(&format!(
                            "thread {thread}'s try_lock succeeded while thread 0 held the lock"
                        ));
                    }
                }
                tried.wait();
            });
        }
        // A try_lock that waits for the holder is a hang: the holder waits for it.
        tried.wait();
        guarded.leave(0);
        guarded.unlock();
    });
    if !guarded.try_lock() {
        fail("try_lock fails though every thread has unlocked");
    }
    guarded.unlock();
    1 + waited.into_inner() as u64
}
