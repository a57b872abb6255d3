//! What is recorded at an acquisition and at a release, for every kind of lock.
//!
//! The fast path of an uncontended acquisition is a try, one counter in the thread's own [`Entry`], one comparison with the lock's control word, which
//! is rarely written, and a countdown to the next timed one. Nothing that other threads write often is touched. A release looks at one word of the
//! thread's own, which says whether there is anything to record.
//!
//! What takes longer happens outside the critical section: stacks are taken before the lock is asked for, waits and holds are recorded after it was
//! released. Inside, a timed acquisition reads the clock and writes to the thread's own memory.
//!
//! A thread's own data are relaxed atomics that only it writes. A signal handler that locks may come between: entries and holds are looked at
//! again by key after every call that takes time, and inside a cold path ([`Thread::inside`]) the handler's operations go straight on, counted as dropped.
//!
//! - Here: the fast paths. [`account`]: acquisitions that are more than a count; [`contend`]: those that wait; [`held`]: what is held and will be recorded;
//!   [`stacks`]: where; [`waits`]: condition variables.
//!
//! May touch: the capture, the lock words that are looked at (never written), the calling thread's stack.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::{
    Recorder,
    layout::{Entry, Lock, Thread, control},
    recorder::prefetch,
};
use libc::EBUSY;

use crate::{
    record::{self, Linux},
    tls,
};
use account::{account, settle};
use contend::contended;
use held::release;
use stacks::{stack_at, stack_here};

mod account;
mod contend;
mod held;
mod stacks;
pub mod waits;

/// A kind of lock, by its address.
pub trait Primitive {
    /// What is added to the address to tell readers from writers.
    const TAG: u64 = 0;
    /// Whether only one thread holds it at a time.
    const EXCLUSIVE: bool = true;
    /// Whether readers hold the same lock under the next key.
    const HAS_READERS: bool = false;
    /// Whether the lock itself says who holds it; else the record does.
    const KNOWS_HOLDER: bool = true;

    /// Whether it looks held. A hint that saves a try.
    ///
    /// # Safety
    /// - `object` is an initialised lock of this kind.
    unsafe fn is_busy(object: usize) -> bool;

    /// Whether a try does as an acquisition does if it succeeds.
    ///
    /// # Safety
    /// - As [`Self::is_busy`].
    #[inline(always)]
    unsafe fn may_try(_object: usize) -> bool {
        true
    }

    /// Of [`autolock_capture::layout::kind`].
    ///
    /// # Safety
    /// - As [`Self::is_busy`].
    unsafe fn kind(object: usize) -> u32;

    /// Thread id of the holder; 0 if unknown.
    ///
    /// # Safety
    /// - As [`Self::is_busy`].
    unsafe fn holder(object: usize) -> u32;

    /// Whether the calling thread, which holds it, holds it more than once.
    ///
    /// # Safety
    /// - As [`Self::is_busy`].
    unsafe fn is_nested(_object: usize) -> bool {
        false
    }
}

/// Where a lock function was called: the return address, and the stack pointer behind it.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The return address.
    pub address: usize,
    /// The stack pointer that the caller has again after the return.
    pub stack_pointer: usize,
}

/// Adds 1 to a counter of the thread's own.
#[inline(always)]
fn bump(counter: &core::sync::atomic::AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// An acquisition that waits if it must: `try_real` first, where the lock does not look held, then `real`.
///
/// # Safety
/// - `object` is an initialised lock of kind `P`.
#[inline(always)]
pub unsafe fn lock<P: Primitive>(
    object: usize,
    caller: Caller,
    try_real: impl Fn() -> c_int,
    real: impl Fn() -> c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    let Some((thread, entry)) = (unsafe { find::<P>(object, caller) }) else {
        return real();
    };
    let stack = prepare(thread, entry, caller);
    // SAFETY: the caller's contract.
    if !unsafe { P::is_busy(object) } {
        // SAFETY: the caller's contract.
        let result = if unsafe { P::may_try(object) } {
            try_real()
        } else {
            real()
        };
        if result == 0 {
            // SAFETY: the caller's contract; it is held now.
            unsafe { acquired::<P>(thread, entry, object, caller, stack) };
            return 0;
        }
        if result != EBUSY {
            // SAFETY: as above.
            return unsafe { settle::<P>(object, caller, stack, result) };
        }
    }
    // SAFETY: the caller's contract.
    unsafe { contended::<P>(object, caller, stack, &real) }
}

/// A try.
///
/// # Safety
/// - As [`lock`].
#[inline(always)]
pub unsafe fn trylock<P: Primitive>(
    object: usize,
    caller: Caller,
    real: impl Fn() -> c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    let Some((thread, entry)) = (unsafe { find::<P>(object, caller) }) else {
        return real();
    };
    let stack = prepare(thread, entry, caller);
    let result = real();
    match result {
        // SAFETY: the caller's contract; it is held now.
        0 => unsafe { acquired::<P>(thread, entry, object, caller, stack) },
        EBUSY => {
            let failed = entry.failed.load(Relaxed).wrapping_add(1);
            entry.failed.store(failed, Relaxed);
            if failed >= 1 << 31 {
                flush(entry);
            }
        }
        // SAFETY: as above.
        _ => return unsafe { settle::<P>(object, caller, stack, result) },
    }
    result
}

/// A release.
///
/// # Safety
/// - As [`lock`].
#[inline(always)]
pub unsafe fn unlock<P: Primitive>(object: usize, real: impl Fn() -> c_int) -> c_int {
    if let Some(thread) = tls::thread() {
        if !P::KNOWS_HOLDER || P::HAS_READERS {
            unsign::<P>(thread, object);
        }
        if thread.held_count.load(Relaxed) != 0 {
            // SAFETY: the caller's contract.
            return unsafe { release::<P>(thread, object, &real) };
        }
    }
    real()
}

/// The calling thread's entry for the lock.
#[inline(always)]
unsafe fn find<P: Primitive>(
    object: usize,
    caller: Caller,
) -> Option<(&'static Thread, &'static Entry)> {
    if let Some(thread) = tls::thread()
        && let Some(entry) = Recorder::<Linux>::entry(thread, object as u64 | P::TAG)
    {
        return Some((thread, entry));
    }
    // SAFETY: the caller's contract.
    unsafe { find_slowly::<P>(object, caller) }
}

#[cold]
#[inline(never)]
unsafe fn find_slowly<P: Primitive>(
    object: usize,
    caller: Caller,
) -> Option<(&'static Thread, &'static Entry)> {
    let thread = match tls::thread() {
        Some(thread) => thread,
        None => match record::enter() {
            Some(thread) => thread,
            None => {
                record::note_dropped();
                return None;
            }
        },
    };
    let recorder = record::recorder()?;
    let key = object as u64 | P::TAG;
    // Of a thousand locks that are used by turns neither the lock nor its record is in the cache: let both come at once.
    recorder.prefetch_lock(key);
    prefetch(object);
    let entry = inside(thread, || {
        let known = Recorder::<Linux>::any_entry(thread, key);
        if known.is_some() {
            return known;
        }
        // SAFETY: the caller's contract.
        let lock = unsafe { lock_record::<P>(&recorder, thread, object, caller) };
        recorder.new_entry(thread, key, lock, random(thread))
    });
    if entry.is_none() {
        let dropped = &recorder.capture().header().dropped.operations;
        dropped.fetch_add(1, Relaxed);
    }
    Some((thread, entry?))
}

/// The index of the lock's record; 0 if there is no room.
unsafe fn lock_record<P: Primitive>(
    recorder: &Recorder<Linux>,
    thread: &Thread,
    object: usize,
    caller: Caller,
) -> u32 {
    let key = object as u64 | P::TAG;
    if let Some(lock) = recorder.find_lock(key) {
        return lock;
    }
    let module = record::module(recorder, object);
    let place = if module.index == 0 {
        0
    } else {
        module.frame(object)
    };
    let stack = stack_at(recorder, thread, caller);
    let tid = thread.tid.load(Relaxed);
    // SAFETY: the caller's contract.
    let kind = unsafe { P::kind(object) };
    recorder.lock(tid, key, kind, place, stack)
}

/// Runs something that a signal handler must not enter a second time; none if it would.
fn inside<R>(thread: &Thread, run: impl FnOnce() -> Option<R>) -> Option<R> {
    if thread.inside.load(Relaxed) != 0 {
        return None;
    }
    thread.inside.store(1, Relaxed);
    let error = record::errno();
    let result = run();
    record::set_errno(error);
    thread.inside.store(0, Relaxed);
    result
}

#[cold]
#[inline(never)]
fn flush(entry: &Entry) {
    if let Some(recorder) = record::recorder() {
        recorder.flush(entry);
    }
}

/// A random number of the thread's own (xorshift64, Marsaglia 2003).
fn random(thread: &Thread) -> u32 {
    let mut random = thread.random.load(Relaxed);
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    thread.random.store(random, Relaxed);
    (random >> 33) as u32
}

/// Uniform from 1 to twice `mean` less 1, so that nothing periodic hides.
fn draw(thread: &Thread, mean: u32) -> u32 {
    if mean <= 1 {
        1
    } else {
        1 + random(thread) % (2 * mean - 1)
    }
}

/// Takes the stack if this acquisition may need it: it will be timed, or others may wait for it and ask where it was.
#[inline(always)]
fn prepare(thread: &'static Thread, entry: &'static Entry, caller: Caller) -> u32 {
    let is_elsewhere = entry.caller.load(Relaxed) != caller.address as u64
        || entry.stack_pointer.load(Relaxed) != caller.stack_pointer as u64;
    if entry.skip.load(Relaxed) <= 1 && !account::postpone(thread, entry)
        || entry.control.load(Relaxed) & control::HOT != 0 && is_elsewhere
    {
        let wait_of = waits::reacquisition(thread, entry, caller);
        stack_here(thread, wait_of.unwrap_or(caller))
    } else {
        0
    }
}

/// It was free and is the caller's now.
#[inline(always)]
unsafe fn acquired<P: Primitive>(
    thread: &'static Thread,
    entry: &'static Entry,
    object: usize,
    caller: Caller,
    stack: u32,
) {
    let lock = record::lock_of(entry);
    // SAFETY: the caller's contract.
    if lock.control.load(Relaxed) != entry.control.load(Relaxed) || unsafe { P::is_nested(object) }
    {
        // SAFETY: the caller's contract.
        unsafe { account::<P>(object, caller, stack, None) };
        return;
    }
    let skip = entry.skip.load(Relaxed);
    if skip <= 1 {
        // SAFETY: the caller's contract.
        unsafe { account::<P>(object, caller, stack, None) };
        return;
    }
    entry.skip.store(skip - 1, Relaxed);
    bump(&entry.acquisitions);
    entry.caller.store(caller.address as u64, Relaxed);
    entry
        .stack_pointer
        .store(caller.stack_pointer as u64, Relaxed);
    if !P::KNOWS_HOLDER || !P::EXCLUSIVE {
        sign(thread, entry, lock);
    }
}

/// Takes back what [`sign`] said.
#[inline(always)]
fn unsign<P: Primitive>(thread: &Thread, object: usize) {
    let key = object as u64 | u64::from(P::HAS_READERS);
    if let Some(entry) = Recorder::<Linux>::entry(thread, key)
        && entry.control.load(Relaxed) & control::HOT != 0
    {
        let lock = record::lock_of(entry);
        if lock.holder.load(Relaxed) == thread.index.load(Relaxed) {
            lock.holder.store(0, Relaxed);
        }
    }
}

/// Says who acquired a lock that does not say it itself, while somebody may ask. A hint.
#[inline(always)]
fn sign(thread: &Thread, entry: &Entry, lock: &Lock) {
    let me = thread.index.load(Relaxed);
    if entry.control.load(Relaxed) & control::HOT != 0 && lock.holder.load(Relaxed) != me {
        lock.holder.store(me, Relaxed);
    }
}
