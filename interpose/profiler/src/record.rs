//! The life of a process's capture: begun at the first lock operation, dropped in a fork child, which begins its own.
//!
//! Its addresses are reserved at start and stay the same: the capture, or before there is one and in a fork child nothing, stands there. So what was read from it once can be read again at any time.
//!
//! May touch: the capture's file, at its beginning; `errno` is kept. Everything here is off the fast paths.

use core::ffi::{c_int, c_void};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_capture::{
    Capture, Recorder,
    layout::{Entry, Lock, Thread, frame, mode},
    recorder::{NewModule, System},
};
use autolock_shim::tcb;

use crate::{
    clock, cost,
    file::{self, Place},
    modules, options, real, system,
    tls::{self, State},
};

/// What the recorder asks of Linux.
#[derive(Debug)]
pub struct Linux;

/// Whether `MADV_POPULATE_WRITE` is unknown here (before Linux 5.14): then the file was given all its blocks at the start.
static IS_BACKED: AtomicBool = AtomicBool::new(false);

impl System for Linux {
    fn back(start: NonNull<u8>, bytes: usize) -> bool {
        IS_BACKED.load(Relaxed) || populate(start, bytes) == 0
    }

    /// Patience is a tenth of a second and more: whoever adds may have to wait for the disk.
    fn relax(round: u32) -> bool {
        match round {
            0..64 => core::hint::spin_loop(),
            64..256 => {
                // SAFETY: takes nothing.
                unsafe { libc::sched_yield() };
            }
            256..1256 => {
                const NAP_NS: u64 = 100_000;
                let nobody = AtomicU32::new(0);
                system::futex_wait(&nobody, 0, NAP_NS);
            }
            _ => return false,
        }
        true
    }
}

/// Makes pages exist; 0 or a negative error number. Writing into a page for which the disk has no room would be SIGBUS.
fn populate(start: NonNull<u8>, bytes: usize) -> isize {
    let start = start.as_ptr().expose_provenance();
    let advice = libc::MADV_POPULATE_WRITE as usize;
    // SAFETY: pages of our own mapping.
    unsafe { system::call(libc::SYS_madvise, [start, bytes, advice, 0, 0, 0]) }
}

pub(crate) fn errno() -> c_int {
    // SAFETY: takes nothing.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the thread's own.
    unsafe { errno.read() }
}

pub(crate) fn set_errno(error: c_int) {
    // SAFETY: takes nothing.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the thread's own.
    unsafe { errno.write(error) };
}

/// No capture yet, and the constructor has not run.
const UNSTARTED: u32 = 0;
/// None yet: the next lock operation begins one.
const IDLE: u32 = 1;
/// Some thread is about to begin it.
const BEGINNING: u32 = 2;
/// There is one.
const RUNNING: u32 = 3;
/// There will be none: no memory.
const OFF: u32 = 4;

static STATE: AtomicU32 = AtomicU32::new(UNSTARTED);
/// The reserved addresses.
static BASE: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// One more than the key whose destructor ends a thread's part; 0 if none.
static KEY: AtomicU32 = AtomicU32::new(0);
/// Whether the cost of the profiler is noted in the capture.
static WAS_MEASURED: AtomicBool = AtomicBool::new(false);
/// Threads that have a place.
static THREADS: AtomicU32 = AtomicU32::new(0);
/// CPUs that the process may run on, as far as was known at the start.
static CPUS: AtomicU32 = AtomicU32::new(1);
/// Threads' indices by the lowest bits of their ids: the last that began.
static BY_TID: [AtomicU32; 4096] = [const { AtomicU32::new(0) }; 4096];

/// Reserves what a capture needs. Called once, from the preload's constructor.
pub fn start() {
    let bytes = options::get().memory & !0xffff;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let base = unsafe {
        libc::mmap(
            null_mut(),
            bytes,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        STATE.store(OFF, Relaxed);
        return;
    }
    BASE.store(base.cast(), Relaxed);
    BYTES.store(bytes, Relaxed);
    // SAFETY: a handler that is ours and stays: preloads are not unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    let mut key = 0;
    // SAFETY: a valid pointer, and a function of the right type.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) } == 0 {
        // For one of the first 32 keys pthread_setspecific does not allocate; without a key ended threads' places are not used again.
        KEY.store(if key < 32 { key + 1 } else { 0 }, Relaxed);
    }
    CPUS.store(cpus(), Relaxed);
    // Release: pairs with `recorder`.
    STATE.store(IDLE, Release);
}

fn cpus() -> u32 {
    // SAFETY: plain bits.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: a set of this size.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return 1;
    }
    // SAFETY: as above.
    unsafe { libc::CPU_COUNT(&set) }.max(1).cast_unsigned()
}

/// The process's capture, if it has one.
#[must_use]
pub fn capture() -> Option<Capture> {
    recorder().map(|recorder| recorder.capture())
}

/// The same, to write to.
pub(crate) fn recorder() -> Option<Recorder<Linux>> {
    // Acquire: pairs with `begin`.
    if STATE.load(Acquire) != RUNNING {
        return None;
    }
    let base = NonNull::new(BASE.load(Relaxed))?;
    // SAFETY: `RUNNING` says that the capture was begun there.
    Some(unsafe { Recorder::of(base, BYTES.load(Relaxed)) })
}

/// The calling thread's place in the capture, which is begun if need be; none where there is no room for it.
#[cold]
#[inline(never)]
pub fn enter() -> Option<&'static Thread> {
    if tls::state() != State::Usual {
        return None;
    }
    let error = errno();
    tls::set_state(State::Starting);
    let thread = begin().and_then(|recorder| recorder.thread(tcb::tid().cast_unsigned()));
    match thread {
        Some(thread) => {
            BY_TID[thread.tid.load(Relaxed) as usize % BY_TID.len()]
                .store(thread.index.load(Relaxed), Relaxed);
            let seed = clock::now_ns() ^ u64::from(thread.tid.load(Relaxed)) << 32;
            thread.random.store(seed | 1, Relaxed);
            let key = KEY.load(Relaxed);
            if key != 0 {
                // SAFETY: a key that was created; any value that is not null makes its destructor run.
                unsafe { libc::pthread_setspecific(key - 1, core::ptr::from_ref(thread).cast()) };
            }
            THREADS.fetch_add(1, Relaxed);
            tls::set_thread(thread);
            tls::set_state(State::Usual);
            if let Some(recorder) = recorder()
                && !WAS_MEASURED.swap(true, Relaxed)
            {
                cost::measure(&recorder, thread);
            }
        }
        // Before the constructor, or while another thread begins: the next operation tries again.
        None if STATE.load(Relaxed) < RUNNING => tls::set_state(State::Usual),
        None => tls::set_state(State::Refused),
    }
    set_errno(error);
    thread
}

/// An operation of a thread that has no place. In a full capture there may be many of them: one shared counter is what that costs.
pub(crate) fn note_dropped() {
    if let Some(recorder) = recorder() {
        let dropped = &recorder.capture().header().dropped.operations;
        dropped.fetch_add(1, Relaxed);
    }
}

/// How many threads share a CPU, at least 1.
pub(crate) fn threads_each() -> u64 {
    u64::from((THREADS.load(Relaxed) / CPUS.load(Relaxed)).max(1))
}

/// The lock of an entry.
#[inline(always)]
pub(crate) fn lock_of(entry: &Entry) -> &'static Lock {
    let base = BASE.load(Relaxed).cast::<Lock>();
    let lock = base.wrapping_byte_add(entry.place.load(Relaxed) as usize * 64);
    // SAFETY: the recorder stored the place of a lock of this capture, which never moves.
    unsafe { &*lock }
}

/// The thread of this id, if it has a place.
pub(crate) fn thread_of(recorder: &Recorder<Linux>, tid: u32) -> Option<&'static Thread> {
    let index = BY_TID[tid as usize % BY_TID.len()].load(Relaxed);
    recorder
        .capture()
        .get::<Thread>(index)
        .filter(|thread| thread.tid.load(Relaxed) == tid && tid != 0)
}

/// The capture, begun if nobody has yet.
fn begin() -> Option<Recorder<Linux>> {
    let mut round = 0;
    loop {
        // Acquire: pairs with the releases below.
        match STATE.compare_exchange(IDLE, BEGINNING, Acquire, Acquire) {
            Ok(_) => break,
            Err(BEGINNING) if Linux::relax(round) => round += 1,
            Err(_) => return recorder(),
        }
    }
    let begun = create();
    // Release: pairs with `recorder`.
    STATE.store(if begun.is_some() { RUNNING } else { OFF }, Release);
    begun
}

fn create() -> Option<Recorder<Linux>> {
    let bytes = BYTES.load(Relaxed);
    let base = NonNull::new(BASE.load(Relaxed))?;
    let place = file::create(bytes);
    let recorder = map(base, bytes, &place)
        // A disk without room: memory will have to do.
        .or_else(|| map(base, bytes, &Place::Memory))?;
    describe(&recorder);
    recorder.publish();
    Some(recorder)
}

/// Maps the file, or memory, over the reserved addresses and begins a capture there.
fn map(base: NonNull<u8>, bytes: usize, place: &Place) -> Option<Recorder<Linux>> {
    let (file, memory) = match place {
        Place::File(file) => (*file, 0),
        Place::Memory => (-1, libc::MAP_ANONYMOUS),
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let mut works = place_mapping(base, bytes, protection, libc::MAP_SHARED | memory, file);
    if works && populate(base, 4096) == -(libc::EINVAL as isize) {
        IS_BACKED.store(true, Relaxed);
        let arguments = [file as usize, 0, 0, bytes, 0, 0];
        // SAFETY: numbers only; the descriptor is our own.
        works = file < 0 || unsafe { system::call(libc::SYS_fallocate, arguments) } == 0;
    }
    if file >= 0 {
        file::close(file); // The mapping goes on without it.
    }
    if !works {
        file::forget();
        return None;
    }
    // SAFETY: a mapping of that size, all zero, that nobody else knows yet.
    let begun = unsafe { Recorder::begin(base, bytes) };
    if begun.is_none() {
        file::forget();
    }
    begun
}

/// Puts a mapping over the reserved addresses.
fn place_mapping(
    base: NonNull<u8>,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
) -> bool {
    let base = base.as_ptr().expose_provenance();
    let flags = (flags | libc::MAP_FIXED) as usize;
    let arguments = [base, bytes, protection as usize, flags, file as usize, 0];
    // SAFETY: over our own addresses: what refers to the capture there knows from `STATE` whether there is one.
    (unsafe { system::call(libc::SYS_mmap, arguments) }) == base as isize
}

/// What the header says about the process.
fn describe(recorder: &Recorder<Linux>) {
    let header = recorder.capture().header();
    header.mode.store(
        if options::get().full {
            mode::FULL
        } else {
            mode::SAMPLED
        },
        Relaxed,
    );
    header.pid.store(system::pid(), Relaxed);
    // SAFETY: takes nothing and cannot fail.
    let parent = unsafe { libc::getppid() };
    header.parent.store(parent.cast_unsigned(), Relaxed);
    header
        .started_realtime_ns
        .store(clock::realtime_ns(), Relaxed);
    header.started_ns.store(clock::now_ns(), Relaxed);
    file::describe(header);
    let lock = real::MUTEX_LOCK.get().addr();
    let next = module(recorder, lock).index;
    header.next_module.store(next, Relaxed);
}

/// A module of the capture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Module {
    /// Its index; 0 if it has none.
    pub(crate) index: u32,
    base: usize,
    /// First address of its mapping.
    pub(crate) start: usize,
    /// The address behind its last.
    pub(crate) end: usize,
}

impl Module {
    pub(crate) const NONE: Self = Self {
        index: 0,
        base: 0,
        start: 0,
        end: 0,
    };

    /// An address in it; without a module, any address.
    pub(crate) fn frame(&self, address: usize) -> u64 {
        frame::new(self.index, address.wrapping_sub(self.base) as u64)
    }
}

/// The module that an address is in, if it is in one.
pub(crate) fn module(recorder: &Recorder<Linux>, address: usize) -> Module {
    let Some(found) = modules::find(address) else {
        return Module::NONE;
    };
    let description = modules::describe(&found);
    let index = recorder.module(
        tcb::tid().cast_unsigned(),
        &NewModule {
            base: found.base as u64,
            start: found.start as u64,
            end: found.end as u64,
            path: description.path,
            build_id: description.build_id,
        },
    );
    if index == 0 {
        return Module::NONE;
    }
    Module {
        index,
        base: found.base,
        start: found.start,
        end: found.end,
    }
}

/// A lock was made or destroyed at this key.
pub(crate) fn renewed(key: u64) {
    let Some(recorder) = recorder() else { return };
    if recorder.find_lock(key).is_some() {
        recorder.destroyed(tcb::tid().cast_unsigned(), key);
    }
}

/// A fork child: the parent's capture is not ours.
pub(crate) extern "C" fn forked() {
    if STATE.load(Relaxed) == UNSTARTED {
        return;
    }
    if let Some(base) = NonNull::new(BASE.load(Relaxed)) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // The parent's mapping stays as it is.
        place_mapping(base, BYTES.load(Relaxed), libc::PROT_NONE, flags, -1);
    }
    tls::set_thread(core::ptr::null());
    tls::set_state(State::Usual);
    file::forget();
    WAS_MEASURED.store(false, Relaxed);
    THREADS.store(0, Relaxed);
    STATE.store(IDLE, Release);
}

/// `_Fork`, which runs no handlers of `pthread_atfork`.
///
/// # Safety
/// - As `_Fork`.
pub unsafe fn fork_alone() -> libc::pid_t {
    let child = real::call_next!(real::FORK_ALONE, fn() -> libc::pid_t, -1);
    if child == 0 {
        forked();
    }
    child
}

/// The end of a thread. Locks that later destructors take give it a place again.
extern "C" fn thread_ends(_: *mut c_void) {
    let Some(thread) = tls::thread() else { return };
    tls::set_thread(core::ptr::null());
    THREADS.fetch_sub(1, Relaxed);
    if let Some(recorder) = recorder() {
        recorder.thread_ended(thread);
    }
}
