//! Waits on condition variables: between two holds of the mutex.
//!
//! Stock glibc releases and re-acquires the mutex past the preload: here the hold is ended before the wait, and the acquisition counted after it. A glibc with
//! `glibc-patches/` calls our unlock and lock, which record what they always do, with two exceptions: the call comes from where the wait was called, not from
//! inside libc, and the time that it waits is part of the wait on the condition variable, noted apart ([`site::REACQUIRE`]).

use core::ffi::c_int;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use autolock_capture::{
    Recorder,
    layout::{Entry, Thread, histogram, site},
};
use libc::{EOWNERDEAD, ETIMEDOUT};

use super::{
    Caller, Primitive,
    account::{Wait, account},
    find,
    held::{released, take},
    inside,
    stacks::stack_here,
};
use crate::{
    clock,
    record::{self, Linux},
    tls,
};

/// The module from which calls of libc's waits arrive.
static FROM_START: AtomicUsize = AtomicUsize::new(0);
static FROM_END: AtomicUsize = AtomicUsize::new(0);

/// From where calls of libc's waits arrive. Called once, from the preload's constructor.
pub fn start(from: core::ops::Range<usize>) {
    FROM_START.store(from.start, Relaxed);
    FROM_END.store(from.end, Relaxed);
}

/// A wait of the calling thread's is about to begin; returns when. Unless libc `comes_back` to us for it, the hold of the mutex ends here.
///
/// # Safety
/// - `object` is an initialised lock of kind `P`.
pub unsafe fn begin<P: Primitive>(object: usize, caller: Caller, comes_back: bool) -> u64 {
    let Some(thread) = tls::thread() else {
        return clock::now_ns();
    };
    let Some(recorder) = record::recorder() else {
        return 0;
    };
    if comes_back {
        if let Some(entry) = Recorder::<Linux>::any_entry(thread, object as u64) {
            let stack_pointer = caller.stack_pointer as u64;
            thread.cond_caller.store(caller.address as u64, Relaxed);
            thread.cond_stack_pointer.store(stack_pointer, Relaxed);
            thread.reacquire_ns.store(0, Relaxed);
            thread.reacquire_holder.store(0, Relaxed);
            thread.in_cond.store(entry.lock.load(Relaxed), Relaxed);
        }
    } else if thread.held_count.load(Relaxed) != 0 {
        inside(thread, || {
            let ended = take(thread, object as u64)?;
            released(&recorder, thread, &ended);
            Some(())
        });
    }
    clock::now_ns()
}

/// Where the wait was called on whose account libc makes this call; none if it makes it on no wait's.
///
/// A wait that was cancelled is still noted, so the thread's later calls must be told from libc's.
pub(super) fn reacquisition(thread: &Thread, entry: &Entry, caller: Caller) -> Option<Caller> {
    let lock = thread.in_cond.load(Relaxed);
    let from = FROM_START.load(Relaxed)..FROM_END.load(Relaxed);
    (lock != 0 && lock == entry.lock.load(Relaxed) && from.contains(&caller.address)).then(|| {
        Caller {
            address: thread.cond_caller.load(Relaxed) as usize,
            stack_pointer: thread.cond_stack_pointer.load(Relaxed) as usize,
        }
    })
}

/// How long a re-acquisition took, for [`end`].
pub(super) fn reacquired(thread: &Thread, wait: &Wait) {
    thread.reacquire_ns.store(wait.ns, Relaxed);
    thread.reacquire_holder.store(wait.holder, Relaxed);
}

/// The wait is over: 0 or `ETIMEDOUT`, and the mutex is held again; or an error, and there was no wait.
///
/// # Safety
/// - `object` is an initialised lock of kind `P`; `comes_back` is what [`begin`] was told.
pub unsafe fn end<P: Primitive>(
    object: usize,
    caller: Caller,
    start: u64,
    result: c_int,
    comes_back: bool,
) {
    if comes_back && let Some(thread) = tls::thread() {
        thread.in_cond.store(0, Relaxed);
    }
    if !matches!(result, 0 | ETIMEDOUT | EOWNERDEAD) || start == 0 {
        return;
    }
    let end = clock::now_ns();
    // SAFETY: the caller's contract.
    let found = unsafe { find::<P>(object, caller) };
    let (Some((thread, entry)), Some(recorder)) = (found, record::recorder()) else {
        return;
    };
    let stack = stack_here(thread, caller);
    inside(thread, || {
        let tid = thread.tid.load(Relaxed);
        let lock = entry.lock.load(Relaxed);
        let ns = end.saturating_sub(start);
        recorder.add(tid, [lock, site::COND, stack, 0], ns, 1);
        recorder.count(tid, lock, histogram::COND, ns, 1);
        if comes_back {
            let holder = thread.reacquire_holder.load(Relaxed);
            let ns = thread.reacquire_ns.load(Relaxed);
            recorder.add(tid, [lock, site::REACQUIRE, stack, holder], ns, 1);
        }
        Some(())
    });
    if comes_back {
        // Whoever waits for it now asks where it was acquired.
        let stack_pointer = caller.stack_pointer as u64;
        entry.caller.store(caller.address as u64, Relaxed);
        entry.stack_pointer.store(stack_pointer, Relaxed);
    } else {
        // SAFETY: the caller's contract.
        unsafe { account::<P>(object, caller, stack, None) };
    }
}
