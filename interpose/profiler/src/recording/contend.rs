//! Acquisitions that wait: how long, and because of whom.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::{
    Recorder,
    layout::{Lock, Thread, control, site},
};
use libc::{EOWNERDEAD, ETIMEDOUT};

use super::{
    Caller, Primitive,
    account::{Wait, account},
    find, inside,
    stacks::stack_at,
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
        let start = clock::now_ns();
        thread.waiting_since_ns.store(start, Relaxed);
        thread.waiting_for.store(index, Relaxed);
        Some((stack, holder, start))
    });
    let Some((stack, holder, start)) = before else {
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
        0 | EOWNERDEAD => unsafe { account::<P>(object, caller, stack, Some(wait)) },
        ETIMEDOUT => {
            inside(thread, || {
                let site = [index, site::TIMEOUT, stack, holder];
                recorder.add(thread.tid.load(Relaxed), site, wait.ns, 1);
                Some(())
            });
        }
        _ => {}
    }
    result
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
