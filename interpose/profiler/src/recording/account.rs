//! Acquisitions that are more than one count: timed ones, contended ones, the first after something about the lock has changed.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::{
    Recorder,
    layout::{Entry, Lock, Thread, control},
};
use libc::EOWNERDEAD;

use super::{
    Caller, Primitive, bump, draw, find,
    held::{self, New},
    inside, lock_record, sign,
    waits::reacquisition,
};
use crate::{
    clock, options,
    record::{self, Linux},
};

/// A CPU times one acquisition in so many nanoseconds, about: that costs it 1 %. Threads share their CPUs' ([`record::threads_each`]).
const TIMED_EACH_NS: u64 = 64_000;
/// Where they come so much later than that, more are timed.
const RARE: u64 = 4;
/// How many a thread may time however quickly: so many can be saved up.
const MOST_CREDIT: u32 = 256;
/// A thread that has timed nothing for so long, in nanoseconds, has time to. By a clock that moves some hundred times a second.
const STALE_NS: u64 = 4_000_000;
/// At least one in so many is due, and at least one in so many that are due is timed.
const LONGEST_INTERVAL: u32 = 128;

/// What is known of a contended acquisition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// How long it took, and when it ended.
    pub(super) ns: u64,
    pub(super) end_ns: u64,
    /// The stack of the acquisition that was waited for.
    pub(super) holder: u32,
}

/// An acquisition that is more than one count.
#[cold]
#[inline(never)]
pub(super) unsafe fn account<P: Primitive>(
    object: usize,
    caller: Caller,
    stack: u32,
    wait: Option<Wait>,
) {
    // SAFETY: the caller's contract.
    let Some((thread, entry)) = (unsafe { find::<P>(object, caller) }) else {
        return;
    };
    let Some(recorder) = record::recorder() else {
        return;
    };
    let key = object as u64 | P::TAG;
    let caller = reacquisition(thread, entry, caller).unwrap_or(caller);
    let done = inside(thread, || {
        // SAFETY: the caller's contract; it is held.
        if unsafe { P::is_nested(object) } {
            let lock = record::lock_of(entry);
            lock.recursions.fetch_add(1, Relaxed);
            return Some(());
        }
        // SAFETY: the caller's contract.
        unsafe { follow::<P>(&recorder, thread, entry, object, caller) };
        bump(&entry.acquisitions);
        entry.caller.store(caller.address as u64, Relaxed);
        entry
            .stack_pointer
            .store(caller.stack_pointer as u64, Relaxed);
        let lock = record::lock_of(entry);
        if !P::KNOWS_HOLDER || !P::EXCLUSIVE {
            sign(thread, entry, lock);
        }
        let skip = entry.skip.load(Relaxed);
        let is_due = skip <= 1;
        if !is_due {
            entry.skip.store(skip - 1, Relaxed);
            if wait.is_none() {
                return Some(());
            }
        }
        let mut held = New {
            key,
            lock: entry.lock.load(Relaxed),
            stack,
            weight: 0,
            since_ns: wait.map_or(0, |wait| wait.end_ns),
            wait,
        };
        if is_due {
            held.weight = weight_of(thread, entry);
            if P::EXCLUSIVE {
                compare_owners(thread, entry, lock);
            }
            // The clock last: from here on the critical section counts.
            let now = wait.map_or_else(clock::now_ns, |wait| wait.end_ns);
            held.since_ns = now;
            plan(thread, entry, now);
        }
        held::hold(&recorder, thread, &held);
        Some(())
    });
    if done.is_none() {
        let dropped = &recorder.capture().header().dropped.operations;
        dropped.fetch_add(1, Relaxed);
    }
}

/// Brings the entry in line with the lock's control word. While the lock is held.
unsafe fn follow<P: Primitive>(
    recorder: &Recorder<Linux>,
    thread: &Thread,
    entry: &Entry,
    object: usize,
    caller: Caller,
) {
    let mut lock = record::lock_of(entry);
    let mut now = lock.control.load(Relaxed);
    let known = entry.control.load(Relaxed);
    if now == known {
        return;
    }
    let is_another = (now ^ known) & !(control::GENERATION - 1) != 0;
    if is_another || now & control::DEAD != 0 {
        // Destroyed since, and made anew here: another lock, perhaps under the same record.
        recorder.flush(entry);
        // SAFETY: the caller's contract.
        let index = unsafe { lock_record::<P>(recorder, thread, object, caller) };
        if index != 0 {
            recorder.point(entry, index);
        }
        lock = record::lock_of(entry);
        now = lock.control.load(Relaxed);
    }
    if now & control::PROBE != 0 && P::EXCLUSIVE {
        // Whoever comes first after the one that asked, answers; it holds the lock, so nobody else does.
        now = lock.control.fetch_and(!control::PROBE, Relaxed) & !control::PROBE;
        bump(&lock.compared);
        if lock.last_owner.load(Relaxed) != thread.index.load(Relaxed) {
            bump(&lock.changed);
        }
    }
    entry.control.store(now, Relaxed);
}

/// How often does the lock go from thread to thread? In full mode by comparing every two acquisitions; else a timed one asks the next. While the lock is held.
fn compare_owners(thread: &Thread, entry: &Entry, lock: &Lock) {
    let me = thread.index.load(Relaxed);
    let last = lock.last_owner.load(Relaxed);
    if options::get().full {
        if last != 0 {
            bump(&lock.compared);
            if last != me {
                bump(&lock.changed);
            }
        }
    } else {
        lock.control.fetch_or(control::PROBE, Relaxed);
        // The asking thread's own next acquisition must notice too.
        let known = entry.control.load(Relaxed) & !control::PROBE;
        entry.control.store(known, Relaxed);
    }
    if last != me {
        lock.last_owner.store(me, Relaxed);
    }
}

/// Whether an acquisition that is due by its entry is not to be timed after all, since the thread has timed too many: of a thousand locks each is due at once.
#[cold]
#[inline(never)]
pub(super) fn postpone(thread: &Thread, entry: &Entry) -> bool {
    let skip = thread.skip.load(Relaxed);
    let is_next = skip <= 1;
    let (mean, stands_for) = interval_of(entry);
    // What was planned in a hurry does not hold for a thread that has calmed down. Looked at now and then: reading even the coarse clock takes some nanoseconds.
    let since = thread.sampled_ns.load(Relaxed);
    let stale_ns = STALE_NS.max(RARE * RARE * share_ns());
    if (is_next || skip.is_multiple_of(4)) && clock::coarse_ns().saturating_sub(since) > stale_ns {
        // Those that it let pass came in quick succession and were short. To count this one for them would be worse than to miss them.
        thread.interval.store(1, Relaxed);
        thread.skip.store(0, Relaxed);
        thread.passed.store(0, Relaxed);
        set_interval(entry, mean, stands_for.min(mean));
        return false;
    }
    if is_next {
        return false;
    }
    thread.skip.store(skip - 1, Relaxed);
    let next = draw(thread, mean);
    if is_fresh(entry) {
        let passed = thread.passed.load(Relaxed).saturating_add(stands_for);
        thread.passed.store(passed, Relaxed);
        set_interval(entry, mean, next);
    } else {
        set_interval(entry, mean, stands_for.saturating_add(next));
    }
    // This one goes by without being due.
    entry.skip.store(next + 1, Relaxed);
    true
}

/// The two halves of [`Entry::interval`].
fn interval_of(entry: &Entry) -> (u32, u32) {
    let interval = entry.interval.load(Relaxed);
    (interval & 0xffff, interval >> 16)
}

fn set_interval(entry: &Entry, mean: u32, stands_for: u32) {
    let interval = stands_for.min(0xffff) << 16 | mean;
    entry.interval.store(interval, Relaxed);
}

/// Whether none of the thread's acquisitions of this lock was timed, as far as it remembers.
fn is_fresh(entry: &Entry) -> bool {
    entry.sampled_ns.load(Relaxed) == 0
}

/// The time in which a thread may time one acquisition. It is wall-clock time: a thread that shares its CPU with others runs for a part of it only.
fn share_ns() -> u64 {
    TIMED_EACH_NS * record::threads_each()
}

/// As often as costs little: `interval` for the next, given how long ago the last one was, and whether the thread has timed more than it should.
fn adapt(interval: u32, passed_ns: u64, is_spent: bool) -> u32 {
    let interval = interval.max(1);
    if passed_ns < share_ns() && is_spent {
        (interval * 2).min(LONGEST_INTERVAL)
    } else if passed_ns > RARE * share_ns() {
        (interval / 2).max(1)
    } else {
        interval
    }
}

/// How many acquisitions the one that is timed now stands for: those of this lock since the last that was timed, so that a lock never has more holds than acquisitions. The first
/// that is timed stands for those, too, of all locks of which none was: of a hundred thousand locks that are used once each, one in so many is timed.
/// (Were those of all locks counted together, as once they were, a long hold of one lock after a thousand short ones of others would count a hundred times.)
///
/// All these numbers were drawn before anything was known of this one; what they are on average is what it should count for.
fn weight_of(thread: &Thread, entry: &Entry) -> u32 {
    let (_, stands_for) = interval_of(entry);
    if is_fresh(entry) {
        let passed = thread.passed.load(Relaxed).min(1 << 16);
        thread.passed.store(0, Relaxed);
        stands_for + passed
    } else {
        stands_for
    }
}

/// Decides when the next acquisition is timed.
fn plan(thread: &Thread, entry: &Entry, now: u64) {
    if options::get().full {
        entry.skip.store(1, Relaxed);
        return;
    }
    let passed = now.wrapping_sub(thread.sampled_ns.load(Relaxed));
    thread.sampled_ns.store(now, Relaxed);
    let earned = (passed / share_ns()).min(u64::from(MOST_CREDIT)) as u32;
    let credit = thread
        .credit
        .load(Relaxed)
        .saturating_add(earned)
        .min(MOST_CREDIT);
    thread.credit.store(credit.saturating_sub(1), Relaxed);
    let is_spent = credit == 0;
    let mean = adapt(thread.interval.load(Relaxed), passed, is_spent);
    let passed = now.wrapping_sub(entry.sampled_ns.load(Relaxed));
    entry.sampled_ns.store(now, Relaxed);
    let of_entry = adapt(interval_of(entry).0, passed, is_spent);
    let next = draw(thread, of_entry);
    entry.skip.store(next, Relaxed);
    set_interval(entry, of_entry, next);
    thread.interval.store(mean, Relaxed);
    thread.skip.store(draw(thread, mean), Relaxed);
}

/// An acquisition by a try with an uncommon result: that of a dead owner's robust mutex is one.
#[cold]
#[inline(never)]
pub(super) unsafe fn settle<P: Primitive>(
    object: usize,
    caller: Caller,
    stack: u32,
    result: c_int,
) -> c_int {
    if result == EOWNERDEAD {
        // SAFETY: the caller's contract.
        unsafe { account::<P>(object, caller, stack, None) };
    }
    result
}
