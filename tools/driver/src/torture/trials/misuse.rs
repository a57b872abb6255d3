//! Uses that the contract allows and that locks with hidden queue nodes get wrong.

use crate::torture::child::fail;
use crate::torture::crew::{Worker, spawn};
use crate::torture::ground::{Ground, Guarded, Phase};
use crate::torture::random::Random;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Locks that one thread holds at once, alone.
const MANY: usize = 100;
/// Locks of which several threads hold some at once.
const SHARED: usize = 8;
/// Threads that live for one acquisition or two.
const SHORT_LIVED: usize = 1000;
/// Times that one address is a lock.
const LIVES: usize = 50;

pub fn run(ground: &Ground) -> Option<String> {
    ground.phase(Phase::Reinit);
    one_address(ground);
    ground.phase(Phase::Many);
    many_alone(ground);
    some_together(ground);
    ground.phase(Phase::Chain);
    chain(ground);
    ground.phase(Phase::Generations);
    generations(ground);
    if !ground.subject.release_is_final {
        return Some("*".into());
    }
    ground.phase(Phase::Final);
    super::release::run(ground);
    None
}

/// Init on whatever the last life left there; try_lock's holder unlocks, and lock finds it free.
fn one_address(ground: &Ground) {
    let guarded = ground.gentle();
    for life in 0..LIVES {
        if !guarded.try_lock() {
            fail(&format!("held after init number {life}"));
        }
        guarded.unlock();
        guarded.lock();
        if guarded.try_lock() {
            fail("its own thread's try_lock succeeds while it holds the lock");
        }
        guarded.unlock();
        guarded.destroy();
        guarded.init();
    }
    guarded.settle(0);
}

/// One thread takes many and releases them in every order; another sees at each step which are held.
fn many_alone(ground: &Ground) {
    let mut random = ground.random("many");
    let locks: Vec<_> = (0..MANY).map(|_| ground.gentle()).collect();
    let mut order: Vec<usize> = (0..MANY).collect();
    for shape in 0..3 {
        for (index, lock) in locks.iter().enumerate() {
            if index % 3 == 0 {
                if !lock.try_lock() {
                    fail("try_lock of a free lock fails while others are held");
                }
            } else {
                lock.lock();
            }
        }
        match shape {
            0 => {}
            1 => order.reverse(),
            _ => random.shuffle(&mut order),
        }
        let (released, held) = order.split_at(MANY / 2);
        released.iter().for_each(|&index| locks[index].unlock());
        std::thread::scope(|scope| {
            let locks = &locks;
            spawn(scope, move || {
                for &index in released {
                    if !locks[index].try_lock() {
                        fail(&format!(
                            "unlocking lock {index} did not release it, {MANY} held before"
                        ));
                    }
                    locks[index].unlock();
                }
                if let Some(index) = held.iter().find(|&&index| locks[index].try_lock()) {
                    fail(&format!(
                        "lock {index} is free, though another was unlocked"
                    ));
                }
            });
        });
        held.iter().for_each(|&index| locks[index].unlock());
    }
    locks.iter().for_each(|lock| lock.settle(0));
}

/// Every thread takes some of a few locks, in their order so that none waits for ever, and releases them in any.
fn some_together(ground: &Ground) {
    let locks: Vec<_> = (0..SHARED).map(|_| ground.gentle()).collect();
    let passes: Vec<_> = (0..SHARED).map(|_| AtomicU64::new(0)).collect();
    let short = Ground {
        duration: ground.duration / 2,
        ..*ground
    };
    short.together(ground.threads, |worker| {
        loop {
            let mut taken: Vec<usize> = (0..SHARED)
                .filter(|&index| {
                    let wanted = worker.random.one_in(2);
                    if wanted {
                        locks[index].lock();
                        locks[index].enter(worker.index);
                    }
                    wanted
                })
                .collect();
            worker.random.shuffle(&mut taken);
            for index in taken {
                locks[index].leave(worker.index);
                locks[index].unlock();
                passes[index].fetch_add(1, Relaxed);
            }
            if !worker.goes_on() {
                break;
            }
        }
    });
    for (lock, passes) in locks.iter().zip(passes) {
        lock.settle(passes.into_inner());
    }
}

/// All threads walk along the same locks, taking the next before they release the last.
fn chain(ground: &Ground) {
    let locks: Vec<_> = (0..SHARED).map(|_| ground.gentle()).collect();
    let walks = AtomicU64::new(0);
    let short = Ground {
        duration: ground.duration / 2,
        ..*ground
    };
    short.together(ground.threads, |worker| {
        loop {
            walk(&locks, worker);
            walks.fetch_add(1, Relaxed);
            if !worker.goes_on() {
                break;
            }
        }
    });
    let walks = walks.into_inner();
    locks.iter().for_each(|lock| lock.settle(walks));
}

fn walk(locks: &[Guarded], worker: &Worker) {
    let mut before: Option<&Guarded> = None;
    for lock in locks.iter().map(Some).chain([None]) {
        if let Some(lock) = lock {
            lock.lock();
            lock.enter(worker.index);
        }
        if let Some(before) = before {
            before.leave(worker.index);
            before.unlock();
        }
        before = lock;
    }
}

/// Threads end while others wait for what they held, and new ones come: their nodes go from hand to hand.
fn generations(ground: &Ground) {
    let guarded = ground.gentle();
    let passes = AtomicU64::new(0);
    let left = AtomicUsize::new(SHORT_LIVED);
    let alive = ground.threads.min(8);
    std::thread::scope(|scope| {
        // Each line of descent has one thread alive; its last act is an unlock.
        for line in 0..alive {
            let (guarded, passes, left) = (&guarded, &passes, &left);
            spawn(scope, move || {
                let mut random = Random::new(line as u64);
                while left.fetch_sub(1, Relaxed) as isize > 0 {
                    std::thread::scope(|scope| {
                        let times = 1 + random.below(2);
                        passes.fetch_add(times, Relaxed);
                        spawn(scope, move || {
                            for _ in 0..times {
                                guarded.lock();
                                guarded.enter(line);
                                guarded.leave(line);
                                guarded.unlock();
                            }
                        });
                    });
                }
            });
        }
    });
    guarded.settle(passes.into_inner());
}
