//! Acquisitions that wait: how long, and because of whom.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::{
    Recorder,
    layout::{Entry, Lock, Thread, control, site},
};
use libc::{EOWNERDEAD, ETIMEDOUT};

use super::{
    Caller, Primitive,
    account::{Wait, account},
    find, inside,
    stacks::stack_at,
    waits::{reacquired, reacquisition},
};
use crate::{
    cache, clock, options,
    record::{self, Linux},
};

/// An acquisition that finds it held.
#[cold]
#[inline(never)]
pub(super) unsafe fn contended<P: Primitive>(
    object: usize,
    caller: Caller,
    stack: u32,
    real: &dyn Fn() -> c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    let found = unsafe { find::<P>(object, caller) };
    let (Some((thread, entry)), Some(recorder)) = (found, record::recorder()) else {
        return real();
    };
    let lock = record::lock_of(entry);
    let index = entry.lock.load(Relaxed);
    let wait_of = reacquisition(thread, entry, caller);
    let is_again = wait_of.is_some();
    let caller = wait_of.unwrap_or(caller);
    let start = clock::now_ns();
    if let Some((stack, holder)) = as_before(thread, entry, index, caller, start) {
        // It may be the wait that never ends.
        thread.waiting_for.store(index, Relaxed);
        let result = real();
        thread.waiting_for.store(0, Relaxed);
        if matches!(result, 0 | EOWNERDEAD) {
            let end_ns = clock::now_ns();
            let wait = Wait {
                ns: end_ns.saturating_sub(start),
                end_ns,
                holder,
            };
            // SAFETY: the caller's contract; it is held now.
            unsafe { succeeded::<P>(thread, object, caller, stack, wait, is_again) };
            return result;
        }
        if result == ETIMEDOUT {
            let ns = clock::now_ns().saturating_sub(start);
            timed_out(&recorder, thread, [index, site::TIMEOUT, stack, holder], ns);
        }
        return result;
    }
    let before = inside(thread, || {
        // First of all: it may be released any moment.
        // SAFETY: the caller's contract.
        let (holder_tid, holder) = unsafe { holder::<P>(&recorder, thread, lock, object) };
        heat(lock);
        let stack = if stack == 0 {
            stack_at(&recorder, thread, caller)
        } else {
            stack
        };
        thread.waiting_stack.store(stack, Relaxed);
        thread.waiting_holder.store(holder, Relaxed);
        thread.waiting_holder_tid.store(holder_tid, Relaxed);
        let waiters = lock.waiters.fetch_add(1, Relaxed) + 1;
        if waiters > lock.most_waiters.load(Relaxed) {
            lock.most_waiters.fetch_max(waiters, Relaxed);
        }
        thread.waited_for.store(index, Relaxed);
        thread.waits.store(0, Relaxed);
        thread.waiting_since_ns.store(start, Relaxed);
        thread.waiting_for.store(index, Relaxed);
        Some((stack, holder))
    });
    let Some((stack, holder)) = before else {
        return real();
    };
    let result = real();
    let end = clock::now_ns();
    lock.waiters.fetch_sub(1, Relaxed);
    thread.waiting_for.store(0, Relaxed);
    let wait = Wait {
        ns: end.saturating_sub(start),
        end_ns: end,
        holder,
    };
    match result {
        // SAFETY: the caller's contract; it is held now.
        0 | EOWNERDEAD => unsafe {
            succeeded::<P>(thread, object, caller, stack, wait, is_again);
        },
        ETIMEDOUT => {
            timed_out(
                &recorder,
                thread,
                [index, site::TIMEOUT, stack, holder],
                wait.ns,
            );
        }
        _ => {}
    }
    result
}

/// It waited, and holds it now. A re-acquisition's wait is part of that on the condition variable.
unsafe fn succeeded<P: Primitive>(
    thread: &Thread,
    object: usize,
    caller: Caller,
    stack: u32,
    wait: Wait,
    is_again: bool,
) {
    if is_again {
        reacquired(thread, &wait);
    }
    let wait = (!is_again).then_some(wait);
    // SAFETY: the caller's contract.
    unsafe { account::<P>(object, caller, stack, wait) };
}

/// Waits that come so soon after the last, in nanoseconds, ...
const SOON_NS: u64 = 20_000;
/// ... are taken to be for the same reason, but for one in so many.
const LOOK_EACH: u32 = 16;

/// The stack and the holder's of the last wait, if this one can be taken to be like it: for the same lock, from the same place, soon after. To look again at
/// every one would touch memory that holder and waiters fight for, while the lock may be free already.
fn as_before(
    thread: &Thread,
    entry: &Entry,
    index: u32,
    caller: Caller,
    now: u64,
) -> Option<(u32, u32)> {
    let waits = thread.waits.load(Relaxed) + 1;
    let last = thread.waiting_since_ns.load(Relaxed);
    if waits >= LOOK_EACH
        || options::get().full
        || thread.waited_for.load(Relaxed) != index
        || now.saturating_sub(last) > SOON_NS
        || entry.caller.load(Relaxed) != caller.address as u64
        || entry.stack_pointer.load(Relaxed) != caller.stack_pointer as u64
    {
        return None;
    }
    thread.waits.store(waits, Relaxed);
    thread.waiting_since_ns.store(now, Relaxed);
    let stack = thread.waiting_stack.load(Relaxed);
    Some((stack, thread.waiting_holder.load(Relaxed)))
}

#[cold]
#[inline(never)]
fn timed_out(recorder: &Recorder<Linux>, thread: &Thread, site: [u32; 4], ns: u64) {
    inside(thread, || {
        recorder.add(thread.tid.load(Relaxed), site, ns, 1);
        Some(())
    });
}

/// From now on acquirers note where they are.
fn heat(lock: &Lock) {
    if lock.control.load(Relaxed) & control::HOT == 0 {
        lock.control.fetch_or(control::HOT, Relaxed);
    }
}

/// Who holds it, and where that thread acquired it: thread id and stack, 0 if unknown.
unsafe fn holder<P: Primitive>(
    recorder: &Recorder<Linux>,
    thread: &Thread,
    lock: &Lock,
    object: usize,
) -> (u32, u32) {
    // SAFETY: the caller's contract.
    let tid = unsafe { P::holder(object) };
    let (holder, key) = if tid != 0 {
        // Of a read-write lock: its writer.
        (record::thread_of(recorder, tid), object as u64)
    } else {
        let key = object as u64 | u64::from(P::HAS_READERS);
        (silent_holder::<P>(recorder, lock, key), key)
    };
    let Some(holder) = holder else {
        return (0, 0);
    };
    let tid = holder.tid.load(Relaxed);
    let Some(entry) = Recorder::<Linux>::any_entry(holder, key) else {
        return (tid, 0);
    };
    let caller = entry.caller.load(Relaxed) as usize;
    let stack_pointer = entry.stack_pointer.load(Relaxed) as usize;
    if caller == 0 {
        return (tid, 0);
    }
    let stack = cache::lookup_unverified(holder, caller, stack_pointer).unwrap_or_else(|| {
        // It acquired before anybody waited: the caller alone is known.
        let frame = record::module(recorder, caller).frame(caller);
        recorder.stack(thread.tid.load(Relaxed), &[frame])
    });
    (tid, stack)
}

/// Who holds a lock that does not say it (any more): a spin lock, readers, a mutex that was released in the meantime. `key` is what it is held under.
fn silent_holder<P: Primitive>(
    recorder: &Recorder<Linux>,
    lock: &Lock,
    key: u64,
) -> Option<&'static Thread> {
    let capture = recorder.capture();
    if P::KNOWS_HOLDER && !P::HAS_READERS {
        // In full mode the last acquisition of a mutex is noted; else it is gone.
        let last = lock.last_owner.load(Relaxed);
        return capture
            .get::<Thread>(last)
            .filter(|_| P::EXCLUSIVE && options::get().full);
    }
    // Who finds no writer, and waits to write, waits for readers: for the one that came last, say.
    let lock = if P::HAS_READERS {
        recorder
            .find_lock(key)
            .and_then(|readers| capture.get::<Lock>(readers))?
    } else {
        lock
    };
    if lock.control.load(Relaxed) & control::HOT != 0 {
        return capture.get::<Thread>(lock.holder.load(Relaxed));
    }
    heat(lock);
    // Nobody has waited for it before, so nobody has said who holds it. Perhaps the hold is timed.
    let mut threads = capture.all::<Thread>().map(|(_, thread)| thread);
    threads.find(|thread| {
        let count = thread.held_count.load(Relaxed) as usize;
        let mut held = thread.held.iter().take(count);
        held.any(|held| held.key.load(Relaxed) == key)
    })
}
