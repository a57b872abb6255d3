//! Lost wake-ups: all threads go for the lock at about the same time, once, and then nobody comes any more who could
//! wake a forgotten sleeper by accident. The hand-over within a round is to a thread that spins, falls asleep or sleeps.

use crate::clock;
use crate::torture::crew::{Crew, Worker};
use crate::torture::ground::{Ground, Guarded, Phase, work};
use crate::torture::inject::Torment;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Rounds at most.
const ROUNDS: usize = 100_000;

pub fn run(ground: &Ground) -> Option<String> {
    let guarded = ground.gentle();
    ground.phase(Phase::Burst);
    guarded.settle(bursts(ground, &guarded, false));
    let guarded = ground.tormented(Torment::Preemption);
    ground.phase(Phase::WorstPoints);
    guarded.settle(bursts(ground, &guarded, false));
    ground.phase(Phase::Signals);
    let guarded = ground.gentle();
    guarded.settle(bursts(ground, &guarded, true));
    None
}

fn bursts(ground: &Ground, guarded: &Guarded, signals: bool) -> u64 {
    let silence = Barrier::new(ground.threads);
    // Thread 0 says before each silence whether there is another round; it only ever grows.
    let rounds = AtomicUsize::new(1);
    let passes = AtomicU64::new(0);
    Crew::new(ground.threads, ground.seed).work(ground.duration, signals, |worker| {
        for round in 1..=ROUNDS {
            if worker.index == 0 && worker.goes_on() {
                rounds.store(round + 1, Relaxed);
            }
            if !worker.random.one_in(4) {
                burst(guarded, worker);
                passes.fetch_add(1, Relaxed);
            }
            silence.wait();
            if rounds.load(Relaxed) <= round {
                break;
            }
        }
    });
    passes.into_inner()
}

fn burst(guarded: &Guarded, worker: &mut Worker) {
    match worker.random.below(4) {
        0 => {}
        1 => std::thread::yield_now(),
        _ => work(worker.random.below(500)),
    }
    guarded.lock();
    guarded.enter(worker.index);
    match worker.random.below(16) {
        0..8 => {}
        8..14 => work(worker.random.below(1000)),
        14 => std::thread::yield_now(),
        // Long enough for waiters to fall asleep; nothing depends on it.
        _ => clock::sleep(Duration::from_micros(worker.random.below(200))),
    }
    guarded.leave(worker.index);
    guarded.unlock();
}
