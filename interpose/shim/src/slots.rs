//! `AUTOLOCK_ALGORITHM`: a lock of the collection under each private mutex ([`autolock_lock::outer`]).
//!
//! The locks stand in slots of one reserved range of addresses, for they are larger than the 16 bytes that a mutex has to spare. A mutex gets its slot when it
//! is first locked and keeps the slot's token in `seat`; the slot knows its mutex's address. So a mutex that was copied gets a slot of its own, and one
//! that is initialised anew without having been destroyed gives its old slot back. When there are no slots left, a
//! mutex does with glibc's word alone.
//!
//! A fork child starts without slots: threads that it does not have may be in the middle of the old ones. It learns of it from its fork handler; what unlocks in
//! a child before that (a handler that was registered earlier, any code after `_Fork` or a bare clone(2)) still meets the old slots, and may wait there for a thread
//! that does not exist.
//!
//! May touch: mutexes' `seat`, the slots; mmap(2) and `pthread_atfork` at start.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_abi::Mutex;
use autolock_lock::{algorithm::Entry, outer::Inner};

use crate::{linux::Linux, mutex, nodes, stack::Stack, stats::Line};

/// What stands before each lock.
#[repr(C, align(128))]
struct Header {
    /// The mutex's address; 0 while the slot is free.
    mutex: AtomicUsize,
    /// The stack's link while it is free.
    link: AtomicU32,
}

/// Slots at most. An index has 20 bits.
const SLOTS: usize = 1 << 20;
/// Bytes of addresses at most, for large locks.
const RANGE_BYTES: usize = 4 << 30;
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

/// What was chosen; null as long as nothing was.
static CHOSEN: AtomicPtr<Entry> = AtomicPtr::new(null_mut());
static RANGE: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static STRIDE: AtomicUsize = AtomicUsize::new(0);
/// Slots in the range.
static LIMIT: AtomicUsize = AtomicUsize::new(0);
/// The first slot that nobody has had.
static UNUSED: AtomicUsize = AtomicUsize::new(0);
static FREED: Stack = Stack::new();
/// Forks since the range was made, plus 1, in a token's upper bits; never 0 there.
static GENERATION: AtomicU32 = AtomicU32::new(1);
/// Lock calls that found no slot.
static UNSERVED: AtomicU64 = AtomicU64::new(0);

/// The inner locks of this process.
#[derive(Debug)]
pub struct Slots;

impl Inner for Slots {
    #[inline]
    fn of(mutex: &Mutex) -> u32 {
        // Acquire: pairs with the Release in `assign`, which follows the lock's initialisation.
        let token = mutex.seat.load(Acquire);
        if is_of(token, mutex) {
            token
        } else {
            assign(mutex)
        }
    }

    fn lock(token: u32) {
        let (entry, lock) = at(token);
        // SAFETY: an initialised lock in a slot, which is never unmapped.
        unsafe { (entry.operations.lock)(lock) };
    }

    fn try_lock(token: u32) -> bool {
        let (entry, lock) = at(token);
        // SAFETY: as above.
        unsafe { (entry.operations.trylock)(lock) == 0 }
    }

    fn unlock(token: u32) {
        if is_current(token) {
            let (entry, lock) = at(token);
            // SAFETY: as above, and the caller's thread holds it: the mutex said so.
            unsafe { (entry.operations.unlock)(lock) };
        }
    }
}

/// Whether a token is of this process, not of the one that forked it, and of a slot that was ever used.
#[inline]
fn is_current(token: u32) -> bool {
    token >> INDEX_BITS == GENERATION.load(Relaxed)
        && ((token & INDEX_MASK) as usize) < UNUSED.load(Relaxed)
}

/// Whether a token that stands in a mutex, or in memory that is about to become one, is that mutex's own.
#[inline]
fn is_of(token: u32, mutex: &Mutex) -> bool {
    is_current(token)
        && header(token & INDEX_MASK).mutex.load(Relaxed) == core::ptr::from_ref(mutex).addr()
}

/// The header of a slot, whose index is below the limit.
#[inline]
fn header(index: u32) -> &'static Header {
    let bytes = (index as usize).wrapping_mul(STRIDE.load(Relaxed));
    let header = RANGE.load(Relaxed).wrapping_add(bytes).cast::<Header>();
    // SAFETY: within the range, which is never unmapped; zero, as the kernel gives it, is a valid header.
    unsafe { &*header }
}

/// The algorithm and the lock of a current token.
#[inline]
fn at(token: u32) -> (&'static Entry, *mut c_void) {
    let header = core::ptr::from_ref(header(token & INDEX_MASK));
    let lock = header.wrapping_add(1).cast_mut().cast();
    // SAFETY: tokens exist only after `start`, which stored a pointer to a static.
    (unsafe { &*CHOSEN.load(Relaxed) }, lock)
}

/// A slot for a mutex that has none; 0 if there is none left.
#[cold]
#[inline(never)]
fn assign(mutex: &Mutex) -> u32 {
    let mut old = mutex.seat.load(Acquire);
    let Some(index) = take() else {
        UNSERVED.fetch_add(1, Relaxed);
        return 0;
    };
    let token = GENERATION.load(Relaxed) << INDEX_BITS | index;
    let (entry, lock) = at(token);
    // SAFETY: the slot's memory has the lock's size and alignment, and nobody else knows of it.
    unsafe { (entry.operations.init)(lock, core::ptr::null()) };
    let address = core::ptr::from_ref(mutex).addr();
    header(index).mutex.store(address, Relaxed);
    loop {
        // Release: pairs with the Acquire in `of`.
        match mutex.seat.compare_exchange(old, token, Release, Acquire) {
            Ok(_) => return token,
            Err(now) if is_of(now, mutex) => {
                put_back(index);
                return now; // Another thread was faster.
            }
            Err(now) => old = now,
        }
    }
}

/// An index that is nobody's.
fn take() -> Option<u32> {
    if let Some(index) = FREED.pop(|index| &header(index).link) {
        return Some(index);
    }
    let limit = LIMIT.load(Relaxed);
    let mut next = UNUSED.load(Relaxed);
    while next < limit {
        match UNUSED.compare_exchange_weak(next, next + 1, Relaxed, Relaxed) {
            Ok(_) => return Some(next as u32),
            Err(now) => next = now,
        }
    }
    None
}

fn put_back(index: u32) {
    let header = header(index);
    header.mutex.store(0, Relaxed);
    FREED.push(index, &header.link);
}

/// Whether an algorithm was chosen.
#[inline]
#[must_use]
pub fn chosen() -> bool {
    !CHOSEN.load(Relaxed).is_null()
}

/// Takes a mutex's slot away: it is destroyed, or about to be made anew. Nobody uses it.
pub fn forget(mutex: &Mutex) {
    let token = mutex.seat.load(Relaxed);
    if chosen() && is_of(token, mutex) {
        let (entry, lock) = at(token);
        // SAFETY: an initialised lock that nobody uses any more.
        unsafe { (entry.operations.destroy)(lock) };
        mutex.seat.store(0, Relaxed);
        put_back(token & INDEX_MASK);
    }
}

/// Chooses the algorithm for all private mutexes. Called once, from the preload's constructor; without addresses for it, one line
/// and the default algorithm.
pub fn start(entry: &'static Entry) {
    let stride = size_of::<Header>() + entry.size.next_multiple_of(align_of::<Header>());
    let limit = SLOTS.min(RANGE_BYTES / stride.max(1));
    // SAFETY: a new mapping at an address that the kernel chooses.
    let range = unsafe {
        libc::mmap(
            null_mut(),
            limit * stride,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if range == libc::MAP_FAILED || !nodes::start() {
        Line::of("autolock: AUTOLOCK_ALGORITHM: no addresses for its locks (ulimit -v?); using autolock\n").print();
        return;
    }
    STRIDE.store(stride, Relaxed);
    LIMIT.store(limit, Relaxed);
    RANGE.store(range.cast(), Relaxed);
    // SAFETY: a function of the right type.
    unsafe { libc::pthread_atfork(None, None, Some(start_again)) };
    // Release: whoever sees the choice sees the range. (There is one thread, as a rule.)
    CHOSEN.store(core::ptr::from_ref(entry).cast_mut(), Release);
    mutex::interpose();
}

/// In a fork child.
extern "C" fn start_again() {
    let next = GENERATION.load(Relaxed).wrapping_add(1) & (u32::MAX >> INDEX_BITS);
    GENERATION.store(next.max(1), Relaxed);
    UNUSED.store(0, Relaxed);
    FREED.clear();
}

/// For the statistics: the algorithm's name, mutexes that got a lock of it, lock calls that found none left.
#[must_use]
pub fn figures() -> Option<(&'static str, usize, u64)> {
    // SAFETY: null or a pointer to a static.
    let entry = unsafe { CHOSEN.load(Acquire).as_ref() }?;
    let mutexes = UNUSED.load(Relaxed);
    Some((entry.info.name, mutexes, UNSERVED.load(Relaxed)))
}

/// The algorithm of this name.
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static Entry> {
    autolock_lock::locks::find::<Linux>(name)
}
