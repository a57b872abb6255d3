//! Waits on condition variables: between two holds of the mutex.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::layout::{histogram, site};
use libc::{EOWNERDEAD, ETIMEDOUT};

use super::{
    Caller, Primitive,
    account::account,
    find,
    held::{released, take},
    inside,
    stacks::stack_here,
};
use crate::{clock, record, tls};

/// The hold of a mutex ends, since its holder is about to wait on a condition variable; returns when.
///
/// # Safety
/// - `object` is an initialised lock of kind `P`.
pub unsafe fn begin<P: Primitive>(object: usize) -> u64 {
    let Some(thread) = tls::thread() else {
        return clock::now_ns();
    };
    let Some(recorder) = record::recorder() else {
        return 0;
    };
    if thread.held_count.load(Relaxed) != 0 {
        inside(thread, || {
            let ended = take(thread, object as u64)?;
            released(&recorder, thread, &ended);
            Some(())
        });
    }
    clock::now_ns()
}

/// The wait is over: 0 or `ETIMEDOUT`, and the mutex is held again; or an error, and there was no wait.
///
/// # Safety
/// - `object` is an initialised lock of kind `P`.
pub unsafe fn end<P: Primitive>(object: usize, caller: Caller, start: u64, result: c_int) {
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
        Some(())
    });
    // SAFETY: the caller's contract.
    unsafe { account::<P>(object, caller, stack, None) };
}
