//! What a thread holds and will be recorded at the release; and the release.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::{
    Recorder,
    layout::{HELD, Held, Thread, histogram, site},
};

use super::{Primitive, account::Wait, inside};
use crate::{
    clock,
    record::{self, Linux},
};

/// A hold to be remembered.
#[derive(Debug)]
pub(super) struct New {
    pub(super) key: u64,
    pub(super) lock: u32,
    pub(super) stack: u32,
    pub(super) weight: u32,
    pub(super) since_ns: u64,
    pub(super) wait: Option<Wait>,
}

/// Remembers a hold until its release. One of the same key that is still there was released by another thread, and never will be by this one.
pub(super) fn hold(recorder: &Recorder<Linux>, thread: &Thread, new: &New) {
    let count = (thread.held_count.load(Relaxed) as usize).min(HELD);
    let known = if new.key & 1 == 0 {
        position(thread, count, new.key)
    } else {
        None // A thread may hold a lock several times for reading.
    };
    let place = known.unwrap_or(count);
    let dropped = &recorder.capture().header().dropped.holds;
    if known.is_some() {
        dropped.fetch_add(1, Relaxed);
    }
    let Some(held) = thread.held.get(place) else {
        dropped.fetch_add(1, Relaxed);
        if let Some(wait) = new.wait {
            waited(recorder, thread, new.lock, new.stack, &wait);
        }
        return;
    };
    held.key.store(new.key, Relaxed);
    held.lock.store(new.lock, Relaxed);
    held.stack.store(new.stack, Relaxed);
    held.weight.store(new.weight, Relaxed);
    held.since_ns.store(new.since_ns, Relaxed);
    held.contended.store(u32::from(new.wait.is_some()), Relaxed);
    if let Some(wait) = new.wait {
        held.wait_ns.store(wait.ns, Relaxed);
        held.holder.store(wait.holder, Relaxed);
    }
    if known.is_none() {
        thread.held_count.store(count as u32 + 1, Relaxed);
    }
}

/// The newest hold of this key among the first `count`.
fn position(thread: &Thread, count: usize, key: u64) -> Option<usize> {
    thread
        .held
        .iter()
        .take(count)
        .rposition(|held| held.key.load(Relaxed) == key)
}

/// A contended wait goes into the record.
fn waited(recorder: &Recorder<Linux>, thread: &Thread, lock: u32, stack: u32, wait: &Wait) {
    let tid = thread.tid.load(Relaxed);
    recorder.add(tid, [lock, site::WAIT, stack, wait.holder], wait.ns, 1);
    recorder.count(tid, lock, histogram::WAIT, wait.ns, 1);
}

/// What was remembered of a hold.
pub(super) struct Ended {
    lock: u32,
    stack: u32,
    weight: u32,
    ns: u64,
    wait: Option<Wait>,
}

/// Takes a hold out of the thread's list, if it is there; it ends now.
pub(super) fn take(thread: &Thread, key: u64) -> Option<Ended> {
    let count = (thread.held_count.load(Relaxed) as usize).min(HELD);
    let place = position(thread, count, key)?;
    let held = thread.held.get(place)?;
    let weight = held.weight.load(Relaxed);
    let since = held.since_ns.load(Relaxed);
    let ended = Ended {
        lock: held.lock.load(Relaxed),
        stack: held.stack.load(Relaxed),
        weight,
        ns: if weight == 0 {
            0
        } else {
            clock::now_ns().saturating_sub(since)
        },
        wait: (held.contended.load(Relaxed) != 0).then(|| Wait {
            ns: held.wait_ns.load(Relaxed),
            end_ns: since,
            holder: held.holder.load(Relaxed),
        }),
    };
    let last = thread.held.get(count - 1)?;
    if place != count - 1 {
        copy(held, last);
    }
    last.key.store(0, Relaxed);
    thread.held_count.store(count as u32 - 1, Relaxed);
    Some(ended)
}

fn copy(to: &Held, from: &Held) {
    to.key.store(from.key.load(Relaxed), Relaxed);
    to.lock.store(from.lock.load(Relaxed), Relaxed);
    to.weight.store(from.weight.load(Relaxed), Relaxed);
    to.since_ns.store(from.since_ns.load(Relaxed), Relaxed);
    to.wait_ns.store(from.wait_ns.load(Relaxed), Relaxed);
    to.stack.store(from.stack.load(Relaxed), Relaxed);
    to.holder.store(from.holder.load(Relaxed), Relaxed);
    to.contended.store(from.contended.load(Relaxed), Relaxed);
}

/// An ended hold goes into the record.
pub(super) fn released(recorder: &Recorder<Linux>, thread: &Thread, ended: &Ended) {
    if let Some(wait) = &ended.wait {
        waited(recorder, thread, ended.lock, ended.stack, wait);
    }
    if ended.weight != 0 {
        let tid = thread.tid.load(Relaxed);
        let weight = u64::from(ended.weight);
        recorder.add(
            tid,
            [ended.lock, site::HOLD, ended.stack, 0],
            ended.ns,
            weight,
        );
        recorder.count(tid, ended.lock, histogram::HOLD, ended.ns, weight);
    }
}

/// A release by a thread that remembers holds.
#[cold]
#[inline(never)]
pub(super) unsafe fn release<P: Primitive>(
    thread: &'static Thread,
    object: usize,
    real: &dyn Fn() -> c_int,
) -> c_int {
    let key = object as u64;
    // SAFETY: the caller's contract.
    if unsafe { P::is_nested(object) } {
        return real();
    }
    // A read-write lock does not say which way it is released.
    let ended = inside(thread, || {
        take(thread, key).or_else(|| take(thread, key | 1))
    });
    let result = real();
    if let Some(ended) = ended
        && let Some(recorder) = record::recorder()
    {
        inside(thread, || {
            released(&recorder, thread, &ended);
            Some(())
        });
    }
    result
}
