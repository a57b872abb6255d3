//! A test's threads: started together, told when to stop, joined, optionally interrupted by signals.

use super::child::trouble;
use super::ground::work;
use super::inject;
use super::random::{Random, mix};
use super::signals;
use crate::clock;
use std::sync::Barrier;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

/// Enough for a lock call and a signal handler, and little for a thousand threads.
const STACK: usize = 128 << 10;

/// A thread of the test's own.
pub fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
    let started = Builder::new().stack_size(STACK).spawn_scoped(scope, work);
    if let Err(error) = started {
        trouble(&format!(
            "cannot start a thread: {error}; raise `ulimit -u`"
        ));
    }
}

/// Threads that do the same at the same time.
pub struct Crew {
    seed: u64,
    stop: AtomicBool,
    done: AtomicUsize,
    tids: Vec<AtomicI32>,
}

/// One of them.
pub struct Worker<'a> {
    pub index: usize,
    pub random: Random,
    stop: &'a AtomicBool,
}

impl Crew {
    pub fn new(threads: usize, seed: u64) -> Crew {
        Crew {
            seed,
            stop: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            tids: (0..threads).map(|_| AtomicI32::new(0)).collect(),
        }
    }

    pub fn threads(&self) -> usize {
        self.tids.len()
    }

    /// Thread `index`'s id, 0 before it has begun.
    pub fn tid(&self, index: usize) -> i32 {
        self.tids[index].load(Relaxed)
    }

    pub fn finished(&self) -> bool {
        self.done.load(Acquire) == self.threads()
    }

    /// `work` in every thread; after `duration` they are told to stop. Returns when all have.
    pub fn work(&self, duration: Duration, signals: bool, work: impl Fn(&mut Worker) + Sync) {
        let start = Barrier::new(self.threads() + 1);
        std::thread::scope(|scope| {
            for index in 0..self.threads() {
                let (start, work) = (&start, &work);
                spawn(scope, move || {
                    let seed = mix(self.seed ^ mix(index as u64));
                    inject::seed(seed);
                    // SAFETY: gettid(2) takes nothing and cannot fail.
                    self.tids[index].store(unsafe { libc::gettid() }, Relaxed);
                    let mut worker = Worker {
                        index,
                        random: Random::new(seed.rotate_left(32)),
                        stop: &self.stop,
                    };
                    start.wait();
                    signals::allow_steps(true);
                    work(&mut worker);
                    signals::allow_steps(false);
                    self.done.fetch_add(1, Release);
                });
            }
            start.wait();
            if signals {
                let seed = mix(self.seed);
                spawn(scope, move || signals::at_random(self, seed));
            }
            let end = Instant::now() + duration;
            while !self.finished() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                clock::sleep(left.min(Duration::from_millis(2)));
            }
            self.stop.store(true, Relaxed);
        });
    }
}

impl Worker<'_> {
    /// Until the time is over.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    /// A random time inside the section: mostly none, sometimes long enough for others to come, sometimes off the CPU.
    pub fn hold(&mut self) {
        match self.random.below(64) {
            0..32 => {}
            32..60 => work(self.random.below(50)),
            60..63 => work(self.random.below(2000)),
            _ if self.goes_on() => std::thread::yield_now(),
            _ => {}
        }
    }

    /// A random time outside.
    pub fn gap(&mut self) {
        match self.random.below(64) {
            0..32 => {}
            32..63 => work(self.random.below(100)),
            _ => std::thread::yield_now(),
        }
    }
}
