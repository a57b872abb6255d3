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
//! May touch: the capture, the lock words that are looked at (never written), the calling thread's stack.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;

use autolock_capture::{
    Recorder,
    layout::{Entry, HELD, Held, Lock, Thread, control, histogram, site},
};
use libc::{EBUSY, EOWNERDEAD, ETIMEDOUT};

use crate::{
    cache, clock, options,
    record::{self, Linux, Module},
    tls,
    unwind::{self, Step},
};

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

/// Shortest time between two timed acquisitions of a lock by a thread that goes on timing as many, in nanoseconds.
const TOO_OFTEN_NS: u64 = 8_000;
/// From here on more are timed.
const RARE_NS: u64 = 4 * TOO_OFTEN_NS;
/// At least one in so many is timed.
const LONGEST_INTERVAL: u32 = 128;

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
        let result = try_real();
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
    if let Some(thread) = tls::thread()
        && thread.held_count.load(Relaxed) != 0
    {
        // SAFETY: the caller's contract.
        return unsafe { release::<P>(thread, object, &real) };
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
        None => record::enter()?,
    };
    let recorder = record::recorder()?;
    let entry = inside(thread, || {
        let key = object as u64 | P::TAG;
        // SAFETY: the caller's contract.
        let lock = unsafe { lock_record::<P>(&recorder, thread, object, caller) };
        recorder.new_entry(thread, key, lock)
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

/// Takes the stack if this acquisition may need it: it will be timed, or others may wait for it and ask where it was.
#[inline(always)]
fn prepare(thread: &'static Thread, entry: &'static Entry, caller: Caller) -> u32 {
    let is_elsewhere = entry.caller.load(Relaxed) != caller.address as u64
        || entry.stack_pointer.load(Relaxed) != caller.stack_pointer as u64;
    if entry.skip.load(Relaxed) <= 1
        || entry.control.load(Relaxed) & control::HOT != 0 && is_elsewhere
    {
        stack_here(thread, caller)
    } else {
        0
    }
}

#[cold]
#[inline(never)]
fn stack_here(thread: &'static Thread, caller: Caller) -> u32 {
    let Some(recorder) = record::recorder() else {
        return 0;
    };
    inside(thread, || Some(stack_at(&recorder, thread, caller))).unwrap_or(0)
}

/// The stack at a call of a lock function; 0 if it is not known.
fn stack_at(recorder: &Recorder<Linux>, thread: &Thread, caller: Caller) -> u32 {
    if let Some(stack) = cache::lookup(thread, caller.address, caller.stack_pointer) {
        return stack;
    }
    walk(recorder, thread, caller)
}

#[cold]
#[inline(never)]
fn walk(recorder: &Recorder<Linux>, thread: &Thread, caller: Caller) -> u32 {
    let mut steps = [Step::default(); autolock_capture::layout::DEPTH];
    let count = unwind::walk(caller.stack_pointer, &mut steps);
    let steps = match steps.get(..count) {
        Some(steps) if count != 0 => steps,
        // Not even our own frames could be walked: the caller is known all the same.
        _ => &[Step {
            address: caller.address,
            slot: caller.stack_pointer.wrapping_sub(size_of::<usize>()),
        }],
    };
    let mut frames = [0; autolock_capture::layout::DEPTH];
    let mut module = Module::NONE;
    for (frame, step) in frames.iter_mut().zip(steps) {
        // Callers are often in the same module.
        if !(module.start..module.end).contains(&step.address) {
            module = record::module(recorder, step.address);
        }
        *frame = module.frame(step.address);
    }
    let frames = frames.get(..steps.len()).unwrap_or(&[]);
    let stack = recorder.stack(thread.tid.load(Relaxed), frames);
    cache::remember(thread, caller.address, caller.stack_pointer, steps, stack);
    stack
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

/// Says who acquired a lock that does not say it itself, while somebody may ask. A hint.
#[inline(always)]
fn sign(thread: &Thread, entry: &Entry, lock: &Lock) {
    let me = thread.index.load(Relaxed);
    if entry.control.load(Relaxed) & control::HOT != 0 && lock.holder.load(Relaxed) != me {
        lock.holder.store(me, Relaxed);
    }
}

/// What is known of a contended acquisition.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// How long it took, and when it ended.
    ns: u64,
    end_ns: u64,
    /// The stack of the acquisition that was waited for.
    holder: u32,
}

/// An acquisition that is more than one count.
#[cold]
#[inline(never)]
unsafe fn account<P: Primitive>(object: usize, caller: Caller, stack: u32, wait: Option<Wait>) {
    // SAFETY: the caller's contract.
    let Some((thread, entry)) = (unsafe { find::<P>(object, caller) }) else {
        return;
    };
    let Some(recorder) = record::recorder() else {
        return;
    };
    let key = object as u64 | P::TAG;
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
            held.weight = entry.interval.load(Relaxed) >> 16;
            if P::EXCLUSIVE {
                compare_owners(thread, entry, lock);
            }
            // The clock last: from here on the critical section counts.
            let now = wait.map_or_else(clock::now_ns, |wait| wait.end_ns);
            held.since_ns = now;
            draw(thread, entry, now);
        }
        hold(&recorder, thread, &held);
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

/// Decides when the next acquisition is timed: as often as costs little.
fn draw(thread: &Thread, entry: &Entry, now: u64) {
    if options::get().full {
        entry.skip.store(1, Relaxed);
        return;
    }
    let passed = now.wrapping_sub(entry.sampled_ns.load(Relaxed));
    entry.sampled_ns.store(now, Relaxed);
    let mut interval = entry.interval.load(Relaxed) & 0xffff;
    if passed < TOO_OFTEN_NS {
        interval = (interval * 2).min(LONGEST_INTERVAL);
    } else if passed > RARE_NS {
        interval = (interval / 2).max(1);
    }
    let mut next = 1;
    if interval > 1 {
        // Uniform from 1 to twice the interval less 1, so that nothing periodic hides (xorshift64, Marsaglia 2003).
        let mut random = thread.random.load(Relaxed);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread.random.store(random, Relaxed);
        next = 1 + ((random >> 33) as u32) % (2 * interval - 1);
    }
    entry.skip.store(next, Relaxed);
    entry.interval.store(next << 16 | interval, Relaxed);
}

/// A hold to be remembered.
#[derive(Debug)]
struct New {
    key: u64,
    lock: u32,
    stack: u32,
    weight: u32,
    since_ns: u64,
    wait: Option<Wait>,
}

/// Remembers a hold until its release. One of the same key that is still there was released by another thread, and never will be by this one.
fn hold(recorder: &Recorder<Linux>, thread: &Thread, new: &New) {
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
struct Ended {
    lock: u32,
    stack: u32,
    weight: u32,
    ns: u64,
    wait: Option<Wait>,
}

/// Takes a hold out of the thread's list, if it is there; it ends now.
fn take(thread: &Thread, key: u64) -> Option<Ended> {
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
fn released(recorder: &Recorder<Linux>, thread: &Thread, ended: &Ended) {
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
unsafe fn release<P: Primitive>(
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

/// An acquisition by a try with an uncommon result: that of a dead owner's robust mutex is one.
#[cold]
#[inline(never)]
unsafe fn settle<P: Primitive>(object: usize, caller: Caller, stack: u32, result: c_int) -> c_int {
    if result == EOWNERDEAD {
        // SAFETY: the caller's contract.
        unsafe { account::<P>(object, caller, stack, None) };
    }
    result
}

/// An acquisition that finds it held.
#[cold]
#[inline(never)]
unsafe fn contended<P: Primitive>(
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
    let key = object as u64 | P::TAG;
    let capture = recorder.capture();
    // SAFETY: the caller's contract.
    let tid = unsafe { P::holder(object) };
    let holder = if tid != 0 {
        record::thread_of(recorder, tid)
    } else if P::KNOWS_HOLDER {
        // Who waits to write, and finds no writer, waits for readers: for the one that came last, say.
        let readers = recorder.find_lock(key ^ 1).filter(|_| P::HAS_READERS);
        let readers = readers.and_then(|readers| capture.get::<Lock>(readers));
        readers.and_then(|readers| {
            heat(readers);
            capture.get::<Thread>(readers.holder.load(Relaxed))
        })
    } else {
        capture.get::<Thread>(lock.holder.load(Relaxed))
    };
    let Some(holder) = holder else {
        return (0, 0);
    };
    let tid = holder.tid.load(Relaxed);
    // A read-write lock's holder may have it the other way.
    let entry =
        Recorder::<Linux>::entry(holder, key).or_else(|| Recorder::<Linux>::entry(holder, key ^ 1));
    let Some(entry) = entry else { return (tid, 0) };
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

// Condition variables.

/// The hold of a mutex ends, since its holder is about to wait on a condition variable; returns when.
///
/// # Safety
/// - `object` is an initialised lock of kind `P`.
pub unsafe fn wait_begins<P: Primitive>(object: usize) -> u64 {
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
pub unsafe fn wait_ended<P: Primitive>(object: usize, caller: Caller, start: u64, result: c_int) {
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
