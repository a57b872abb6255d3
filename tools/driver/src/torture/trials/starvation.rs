//! Who gets in next. A FIFO lock serves waiters that are surely queued in their order. A FIFO or bounded lock lets every thread in
//! while all the others hammer. Of an unfair lock it is told how unfair it was, and nothing is judged.

use crate::torture::child::fail;
use crate::torture::crew::spawn;
use crate::torture::ground::{Ground, Guarded, Phase, work};
use crate::torture::queued::Waiter;
use autolock_lock::algorithm::Order;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Waiters of one queue.
const QUEUE: usize = 6;
/// Acquisitions by all before a thread that has had less than [`SHARE`] has starved.
const STARVED: u64 = 1 << 24;
const SHARE: u64 = 2;
/// A section's length, so that others come while it is held.
const HOLD: u64 = 10;

pub fn run(ground: &Ground) -> Option<String> {
    let guarded = ground.gentle();
    if ground.order() == Order::Fifo && ground.threads > 2 {
        ground.phase(Phase::Queue);
        for _ in ground.rounds(2, 20) {
            queue(&guarded, QUEUE.min(ground.threads - 1));
        }
    }
    let before = guarded.passes();
    ground.phase(Phase::Starve);
    let (passes, remark) = match ground.order() {
        Order::Unfair => share(ground, &guarded),
        Order::Fifo | Order::Bounded => (everybody_gets_in(ground, &guarded), None),
    };
    guarded.settle(before + passes);
    remark
}

/// This thread holds the lock until `waiters` others wait for it, one after the other; then they must come in that order.
fn queue(guarded: &Guarded, waiters: usize) {
    let order = Mutex::new(Vec::new());
    let places: Vec<_> = (0..waiters).map(|_| Waiter::default()).collect();
    guarded.lock();
    guarded.enter(0);
    std::thread::scope(|scope| {
        for (index, place) in places.iter().enumerate() {
            let order = &order;
            spawn(scope, move || {
                place.lock(guarded);
                guarded.enter(index + 1);
                if let Ok(mut order) = order.lock() {
                    order.push(index);
                }
                guarded.leave(index + 1);
                guarded.unlock();
            });
            if !place.until_it_waits() {
                fail("a thread got in while another held the lock");
            }
        }
        guarded.leave(0);
        guarded.unlock();
    });
    let order = order.into_inner().unwrap_or_default();
    if !order.is_sorted() {
        fail(&format!("waiters that came in order got in as {order:?}"));
    }
}

/// All hammer until each has been inside twice. Returns how often somebody was.
fn everybody_gets_in(ground: &Ground, guarded: &Guarded) -> u64 {
    let counts: Vec<_> = (0..ground.threads).map(|_| AtomicU64::new(0)).collect();
    let content = AtomicUsize::new(0);
    ground.together(ground.threads, |worker| {
        while content.load(Relaxed) < counts.len() {
            let mine = pass(guarded, worker.index, &counts[worker.index]);
            if mine == SHARE {
                content.fetch_add(1, Relaxed);
            }
            if guarded.passes() > STARVED {
                let counts: Vec<_> = counts.iter().map(|count| count.load(Relaxed)).collect();
                starved(&counts);
            }
        }
    });
    counts.into_iter().map(AtomicU64::into_inner).sum()
}

fn starved(counts: &[u64]) -> ! {
    let (thread, least) = (0..)
        .zip(counts)
        .min_by_key(|&(_, count)| count)
        .unwrap_or((0, &0));
    let total: u64 = counts.iter().sum();
    fail(&format!("thread {thread} got in {least} times of {total}"));
}

/// All hammer for a while. Returns how often somebody was inside, and what the thread with the fewest acquisitions got of a fair share.
fn share(ground: &Ground, guarded: &Guarded) -> (u64, Option<String>) {
    let counts: Vec<_> = (0..ground.threads).map(|_| AtomicU64::new(0)).collect();
    ground.together(ground.threads, |worker| {
        while worker.goes_on() {
            pass(guarded, worker.index, &counts[worker.index]);
        }
    });
    let counts: Vec<_> = counts.into_iter().map(AtomicU64::into_inner).collect();
    let total: u64 = counts.iter().sum();
    let least = counts.iter().min().copied().unwrap_or(0);
    let percent = 100 * least * counts.len() as u64 / total.max(1);
    (total, Some(format!("{percent}%")))
}

fn pass(guarded: &Guarded, thread: usize, count: &AtomicU64) -> u64 {
    guarded.lock();
    guarded.enter(thread);
    work(HOLD);
    guarded.leave(thread);
    guarded.unlock();
    count.fetch_add(1, Relaxed) + 1
}
