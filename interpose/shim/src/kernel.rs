//! The kernel's autolocks (`linux-patches/`): a slot for each thread, in which the kernel says whether the thread has a CPU, and is told on which word the thread spins.
//!
//! [`start`] makes the main thread's slot, from the preload's constructor, and with it the area that all slots of the process are in. Other threads get theirs
//! when they first meet contention ([`enroll`]): one that waits and does not get the mutex at once, before it waits; one that holds, after the first unlock that finds a waiter's mark
//! in the word. So a holder is unknown until somebody slept because of it, which takes a bounded spin, once in its life; threads that contend wait themselves. A
//! registered thread writes the number of its slot into the mutex in place of its CPU ([`tcb::place`]): the uncontended path is the same.
//!
//! What stands in a mutex is a hint, which may be old, another process's or garbage: it counts if it is a slot's number and the slot is of the thread that
//! the mutex names as its owner. Any slot of the area may be read: the kernel makes its page if there is none. (A program that unmaps the area gets SIGSEGV.)
//!
//! **System calls.** A lock calls nothing but futex(2), and `auto_lock_create` once in a thread. A program that has entered a sandbox since its start may be killed for that one: so the
//! kernel says in the area's header that a filter is in place, and then no thread registers any more. (A filter that another thread sets between this look and the call is too late to be seen.)
//! At the start /proc says it. `AUTOLOCK_BACKEND=kernel` registers all the same.
//!
//! **Fork.** The area is not mapped in a child, where touching it would be SIGSEGV. So everything that leads to it is believed only if a page that the kernel clears in every
//! child, however it was made (`MADV_WIPEONFORK`), says so; it holds the *epoch*, a number other than 0 that no ancestor had. A child of fork(3) attaches anew in the fork handler,
//! since it may enter a sandbox before its first contention; one of `_Fork` or of a bare system call does without. A child of vfork(2) runs in its parent's memory and thread
//! control block, and is not made a slot: the kernel names another thread id in it than the control block. If the parent has one, the child arms it in vain: the kernel looks at
//! slots of threads that run. exec and thread exit are the kernel's business.
//!
//! May touch: the area, `%fs`, that page; the system calls of the ABI; at start and in a fork child mmap(2) and /proc.

use core::arch::{asm, global_asm};
use core::ffi::c_int;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_abi::auto_lock::{self, Create, Header, Parking, Slot, Stats};
use autolock_lock::{
    oncpu::{Holder, HolderState},
    platform::Deadline,
};

use crate::{autolockd, linux, options::Backend, stats, tcb};

mod refusal;

pub(crate) use refusal::Refusal;

/// Slots whose numbers fit into a mutex, counted from 1.
const SLOTS_MAX: usize = u16::MAX as usize - 1;
/// In the place of a slot's number: the thread has asked and got none. Its low 16 bits are no slot's.
const REFUSED: u32 = 1 << 16;
const PAGE: usize = 4096;
/// There if this kernel has autolocks.
const SYSCTL: &core::ffi::CStr = c"/proc/sys/kernel/auto_lock";

/// The page that is clear in a fork child: the epoch. Null: no slots in this process. Written once.
static LIVE: AtomicPtr<AtomicU32> = AtomicPtr::new(core::ptr::null_mut());
/// The last epoch of this process or an ancestor.
static EPOCH: AtomicU32 = AtomicU32::new(0);
/// The area of the epoch; written by the constructor and in fork children, while there is one thread.
static AREA: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// Where the first slot is in it; 0: there is no header.
static FIRST: AtomicUsize = AtomicUsize::new(0);
static STRIDE: AtomicUsize = AtomicUsize::new(0);
static SLOTS: AtomicUsize = AtomicUsize::new(0);
/// Whether `AUTOLOCK_BACKEND=kernel` asks for it.
static BY_NAME: AtomicBool = AtomicBool::new(false);
/// In a fork: whether the child may make a system call that filters do not know.
static MAY_CALL: AtomicBool = AtomicBool::new(false);

/// Threads that got a slot, and that got none, for the statistics.
static ENROLLED: AtomicU64 = AtomicU64::new(0);
static UNSERVED: AtomicU64 = AtomicU64::new(0);

// The thread's own: 1 + its slot's number, or `REFUSED`, or 0; and the epoch in which that holds. In the initial-exec model as in `tcb`, which reads its low 16 bits as the place.
global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".p2align 3",
    ".local autolock_slot",
    ".type autolock_slot, @tls_object",
    ".size autolock_slot, 8",
    "autolock_slot:",
    ".zero 8",
    ".popsection",
);

/// Distance of that variable from the thread pointer.
#[inline(never)]
fn own_at() -> usize {
    let at: usize;
    // SAFETY: loads a link-time constant that the dynamic loader filled in.
    unsafe {
        asm!("mov {at}, qword ptr [rip + autolock_slot@GOTTPOFF]", at = out(reg) at, options(pure, readonly, nostack, preserves_flags));
    }
    at
}

/// The thread's own number and its epoch.
fn own() -> (u32, u32) {
    let value: u64;
    // SAFETY: reads our own aligned 8-byte thread-local variable.
    unsafe {
        asm!("mov {value}, qword ptr fs:[{at}]", value = out(reg) value, at = in(reg) own_at(), options(readonly, nostack, preserves_flags));
    }
    (value as u32, (value >> 32) as u32)
}

/// In one store: a signal handler may lock.
fn set_own(number: u32, epoch: u32) {
    let value = u64::from(epoch) << 32 | u64::from(number);
    // SAFETY: writes our own aligned 8-byte thread-local variable.
    unsafe {
        asm!("mov qword ptr fs:[{at}], {value}", at = in(reg) own_at(), value = in(reg) value, options(nostack, preserves_flags));
    }
}

/// The epoch; 0: no slots here.
#[inline]
fn epoch() -> u32 {
    // Acquire: pairs with the Release in `start`.
    let live = LIVE.load(Acquire);
    if live.is_null() {
        return 0;
    }
    // SAFETY: mapped for the process's life, and in its children.
    unsafe { &*live }.load(Relaxed)
}

/// Whether there are slots in this process.
#[inline]
pub(crate) fn is_on() -> bool {
    epoch() != 0
}

/// The slot of this number, counted from 1, if it is one's. There must be an area.
fn slot(number: usize) -> Option<&'static Slot> {
    if number.wrapping_sub(1) >= SLOTS.load(Relaxed) {
        return None;
    }
    let at = FIRST.load(Relaxed) + (number - 1) * STRIDE.load(Relaxed);
    let slot = AREA.load(Relaxed).wrapping_add(at).cast::<Slot>();
    // SAFETY: within the area, as `attach` has checked, which is mapped while the epoch lasts; all of it atomics.
    Some(unsafe { &*slot })
}

fn my_slot() -> Option<&'static Slot> {
    let now = epoch();
    if now == 0 {
        return None;
    }
    let (number, then) = own();
    slot(number as usize).filter(|_| now == then)
}

/// What the kernel says of the thread that wrote this into a mutex.
pub(crate) fn state_of(holder: Holder) -> HolderState {
    let state = match slot(usize::from(holder.place)) {
        Some(slot) => state_in(slot, holder.tid),
        None => HolderState::Unknown,
    };
    stats::note_answer(state);
    state
}

/// Relaxed: hints. The slot may change hands between the two.
fn state_in(slot: &Slot, tid: i32) -> HolderState {
    let state = slot.state.load(Relaxed);
    if tid <= 0 || slot.tid.load(Relaxed) != tid.unsigned_abs() {
        return HolderState::Unknown;
    }
    match state {
        auto_lock::RUNNING => HolderState::Running,
        auto_lock::NOT_RUNNING => HolderState::NotRunning,
        _ => HolderState::Unknown,
    }
}

/// Gives the calling thread a slot, if it has not asked yet and may ask.
#[inline]
pub(crate) fn enroll() {
    let now = epoch();
    if now != 0 && own().1 != now {
        enroll_in(now);
    }
}

#[cold]
#[inline(never)]
fn enroll_in(epoch: u32) {
    if !may_call() {
        return;
    }
    if let Ok(made) = create() {
        let number = made.slot.saturating_add(1);
        // An area that the program unmapped is made anew elsewhere: we stay with the old one, and without slots.
        let is_ours = made.area == AREA.load(Relaxed).addr() as u64;
        match slot(number as usize).filter(|_| is_ours) {
            Some(slot) if slot.tid.load(Relaxed) == tcb::tid().unsigned_abs() => {
                set_own(number, epoch);
                ENROLLED.fetch_add(1, Relaxed);
                return;
            }
            // A child of vfork in its parent's control block: the parent may still get one.
            Some(_) => return destroy(),
            None => destroy(),
        }
    }
    set_own(REFUSED, epoch);
    UNSERVED.fetch_add(1, Relaxed);
}

/// Whether no seccomp filter can mind a system call of ours, or we were told to make it all the same. There must be an area.
fn may_call() -> bool {
    if BY_NAME.load(Relaxed) {
        return true;
    }
    if FIRST.load(Relaxed) < size_of::<Header>() {
        return false;
    }
    // SAFETY: within the area, before the first slot; all of it atomics.
    let header = unsafe { &*AREA.load(Relaxed).cast::<Header>() };
    header.filtered.load(Relaxed) == 0
}

/// `auto_lock_create`: the calling thread's slot, which it may have already.
fn create() -> Result<Create, c_int> {
    let mut made = Create::default();
    let arguments = [
        (&raw mut made).expose_provenance(),
        size_of::<Create>(),
        0,
        0,
        0,
        0,
    ];
    // SAFETY: room for the answer.
    match unsafe { linux::system_call(auto_lock::SYS_CREATE, arguments) } {
        0 => Ok(made),
        error => Err(-error as c_int),
    }
}

/// `auto_lock_destroy`: gives the calling thread's slot back.
fn destroy() {
    // SAFETY: takes a number.
    let _ = unsafe { linux::system_call(auto_lock::SYS_DESTROY, [0; 6]) };
}

/// Asks to be parked; see [`autolock_lock::platform::Platform::arm`].
pub(crate) fn arm(
    word: &autolock_abi::sync::AtomicU32,
    parking: Parking,
    limit_ns: u64,
    deadline: Option<&Deadline>,
) -> bool {
    let Some(slot) = my_slot() else {
        return false;
    };
    let Some(timeout_us) = timeout_us(limit_ns, deadline.map(linux::remaining_ns)) else {
        return false;
    };
    let address = core::ptr::from_ref(word).expose_provenance() as u64;
    slot.arm(address, parking, timeout_us);
    true
}

/// The longest park; 0 is the system's limit. None: it is not worth it.
fn timeout_us(limit_ns: u64, remaining_ns: Option<u64>) -> Option<u32> {
    let ns = match remaining_ns {
        None if limit_ns == 0 => return Some(0),
        None => limit_ns,
        Some(remaining) if limit_ns == 0 => remaining,
        Some(remaining) => remaining.min(limit_ns),
    };
    match u32::try_from(ns / 1000).unwrap_or(u32::MAX) {
        0 => None,
        us => Some(us),
    }
}

/// Ends that.
pub(crate) fn disarm() {
    if let Some(slot) = my_slot() {
        slot.disarm();
    }
}

/// How often the thread was parked.
pub(crate) fn parks() -> u32 {
    my_slot().map_or(0, |slot| slot.parks.load(Relaxed))
}

/// Makes the main thread's slot and the area, if the kernel is to be asked. Called once, from the preload's constructor.
pub(crate) fn start(backend: Backend) -> Result<(), Refusal> {
    match backend {
        Backend::Kernel => BY_NAME.store(true, Relaxed),
        Backend::Auto => {
            // As with autolockd: first by what the dynamic loader has done, too.
            if !autolockd::exists(SYSCTL) {
                return Err(Refusal::NoKernel);
            }
            if !autolockd::is_unfiltered() {
                return Err(Refusal::Filtered);
            }
        }
        Backend::Ebpf | Backend::User => return Err(Refusal::NotAsked),
    }
    // First: where there are no autolocks, this is all.
    let made = create().map_err(Refusal::of)?;
    let prepared = page().ok_or(Refusal::NoMemory).and_then(|live| {
        // SAFETY: functions of the right types, which this library contains as long as it is loaded.
        match unsafe { libc::pthread_atfork(Some(before_fork), None, Some(in_child)) } {
            0 => Ok(live),
            _ => Err(Refusal::NoMemory),
        }
    });
    let attached = prepared.and_then(|live| attach(live, &made));
    if attached.is_err() {
        destroy();
    }
    attached
}

/// A page that the kernel clears in every fork child.
fn page() -> Option<&'static AtomicU32> {
    let arguments = [
        0,
        PAGE,
        (libc::PROT_READ | libc::PROT_WRITE) as usize,
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize,
        usize::MAX,
        0,
    ];
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let address = unsafe { linux::system_call(libc::SYS_mmap, arguments) };
    let address = usize::try_from(address).ok()?;
    let arguments = [address, PAGE, libc::MADV_WIPEONFORK as usize, 0, 0, 0];
    // SAFETY: our own mapping.
    if unsafe { linux::system_call(libc::SYS_madvise, arguments) } != 0 {
        return None;
    }
    // SAFETY: a page of zeroes, readable and writable, for the process's life.
    Some(unsafe { &*core::ptr::with_exposed_provenance::<AtomicU32>(address) })
}

/// Begins an epoch, with the slot that was made. While there is one thread.
fn attach(live: &'static AtomicU32, made: &Create) -> Result<(), Refusal> {
    let slots = slots_in(made).ok_or(Refusal::Stranger)?;
    if (made.slot_offset as usize) < size_of::<Header>() && !BY_NAME.load(Relaxed) {
        return Err(Refusal::Mute);
    }
    AREA.store(
        core::ptr::with_exposed_provenance_mut(made.area as usize),
        Relaxed,
    );
    FIRST.store(made.slot_offset as usize, Relaxed);
    STRIDE.store(made.slot_size as usize, Relaxed);
    SLOTS.store(slots, Relaxed);
    let next = EPOCH.load(Relaxed).wrapping_add(1).max(1);
    EPOCH.store(next, Relaxed);
    live.store(next, Relaxed);
    set_own(made.slot + 1, next);
    ENROLLED.fetch_add(1, Relaxed);
    tcb::place_is_at(Some(own_at()));
    // Release: pairs with the Acquire in `epoch`. (There is one thread, as a rule.)
    LIVE.store(core::ptr::from_ref(live).cast_mut(), Release);
    Ok(())
}

/// How many slots there are in an area as the kernel describes it; none if that is not what we know.
fn slots_in(made: &Create) -> Option<usize> {
    let (offset, stride) = (u64::from(made.slot_offset), u64::from(made.slot_size));
    let fits = made.area != 0
        && made.area.is_multiple_of(64)
        && stride >= size_of::<Slot>() as u64
        && offset.is_multiple_of(64)
        && stride.is_multiple_of(64);
    let slots = made.area_size.checked_sub(offset)?.checked_div(stride)?;
    let slots = usize::try_from(slots).ok()?.min(SLOTS_MAX);
    (fits && (made.slot as usize) < slots).then_some(slots)
}

/// In the parent: the child cannot see the header, and has the filters of the thread that forks.
extern "C" fn before_fork() {
    MAY_CALL.store(is_on() && may_call(), Relaxed);
}

/// In the child of fork(3).
extern "C" fn in_child() {
    set_own(0, 0);
    ENROLLED.store(0, Relaxed);
    UNSERVED.store(0, Relaxed);
    // SAFETY: null or mapped for the process's life, and in its children.
    let live = unsafe { LIVE.load(Relaxed).as_ref() };
    if MAY_CALL.load(Relaxed)
        && let Some(live) = live
        && let Ok(made) = create()
    {
        if attach(live, &made).is_ok() {
            return;
        }
        destroy();
    }
    tcb::place_is_at(None);
}

/// For the statistics: what the kernel has counted.
pub(crate) fn counted() -> Option<Stats> {
    let mut stats = Stats::default();
    let arguments = [
        (&raw mut stats).expose_provenance(),
        size_of::<Stats>(),
        0,
        0,
        0,
        0,
    ];
    // SAFETY: room for the answer.
    let result = (is_on() && may_call())
        .then(|| unsafe { linux::system_call(auto_lock::SYS_STATS, arguments) });
    (result == Some(0)).then_some(stats)
}

/// For the statistics: threads that have, or had, a slot; threads that asked and got none.
pub(crate) fn figures() -> (u64, u64) {
    (ENROLLED.load(Relaxed), UNSERVED.load(Relaxed))
}

#[cfg(test)]
mod tests;
