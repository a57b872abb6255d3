//! What the library did, printed at exit with `AUTOLOCK_STATS=1`.
//!
//! Counted on slow paths alone, and only when asked for. Fast acquisitions are derived: each mutex counts its acquisitions anyway, and
//! a small table remembers the count at the last slow acquisition. A mutex that was never waited for does not appear in it.

use core::fmt::Write as _;
use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_abi::Mutex;
use autolock_lock::{oncpu::HolderState, platform::Event};

use crate::{
    cond, kernel, slots,
    source::{self, Name},
};

static ON: AtomicBool = AtomicBool::new(false);

static ACQUIRED: AtomicU64 = AtomicU64::new(0);
static CONTENDED: AtomicU64 = AtomicU64::new(0);
static SPUN: AtomicU64 = AtomicU64::new(0);
static PARKED: AtomicU64 = AtomicU64::new(0);
static WOKEN: AtomicU64 = AtomicU64::new(0);
static PREEMPTED: AtomicU64 = AtomicU64::new(0);
static BACKSTOP: AtomicU64 = AtomicU64::new(0);
static DELEGATED: AtomicU64 = AtomicU64::new(0);
/// Answers of the source, if it is not user space.
static RUNNING: AtomicU64 = AtomicU64::new(0);
static OFF_CPU: AtomicU64 = AtomicU64::new(0);
static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Mutexes whose acquisition count is remembered at once; more share a place and are counted less often.
const PLACES: usize = 1024;

struct Place {
    busy: AtomicBool,
    mutex: AtomicU64,
    seq: AtomicU64,
}

static TABLE: [Place; PLACES] = [const {
    Place {
        busy: AtomicBool::new(false),
        mutex: AtomicU64::new(0),
        seq: AtomicU64::new(0),
    }
}; PLACES];

/// Turns the counters on. Called once, from the preload's constructor.
pub fn start(on: bool) {
    ON.store(on, Relaxed);
}

/// Counts an event on a slow path.
#[inline]
pub fn note(event: Event, mutex: &Mutex) {
    if ON.load(Relaxed) {
        count(event, mutex);
    }
}

/// Counts a wake.
#[inline]
pub fn note_wake() {
    add(&WOKEN);
}

/// Counts a call that went to glibc's own function.
#[inline]
pub fn note_delegated() {
    add(&DELEGATED);
}

/// Counts what the source said of a holder.
#[inline]
pub fn note_answer(state: HolderState) {
    add(match state {
        HolderState::Running => &RUNNING,
        HolderState::NotRunning => &OFF_CPU,
        HolderState::Unknown => &UNKNOWN,
    });
}

#[inline]
fn add(counter: &AtomicU64) {
    if ON.load(Relaxed) {
        counter.fetch_add(1, Relaxed);
    }
}

#[cold]
fn count(event: Event, mutex: &Mutex) {
    match event {
        Event::Contended => {
            CONTENDED.fetch_add(1, Relaxed);
            derive_acquired(mutex);
        }
        Event::Spun => _ = SPUN.fetch_add(1, Relaxed),
        Event::Parked => _ = PARKED.fetch_add(1, Relaxed),
        Event::Preempted => _ = PREEMPTED.fetch_add(1, Relaxed),
        Event::Backstop => _ = BACKSTOP.fetch_add(1, Relaxed),
    }
}

/// Adds what the mutex's own count has grown by since it was last seen here.
fn derive_acquired(mutex: &Mutex) {
    let address = core::ptr::from_ref(mutex).addr() as u64;
    let place =
        &TABLE[(address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 54 & (PLACES - 1)];
    if place.busy.swap(true, Acquire) {
        return; // Another thread is at it; the next event will count for both.
    }
    let seq = u64::from(mutex.seq.load(Relaxed));
    let before = place.seq.swap(seq, Relaxed);
    let since = (seq as u32).wrapping_sub(before as u32); // Modulo 2^32, as the mutex counts.
    let known = place.mutex.swap(address, Relaxed) == address && since < u32::MAX / 2;
    // A mutex that is new here, or that was made anew since, counts from now on.
    ACQUIRED.fetch_add(if known { u64::from(since) } else { 1 }, Relaxed);
    place.busy.store(false, Release);
}

/// Prints the counters if they are on. Called at exit.
pub fn finish() {
    if !ON.load(Relaxed) {
        return;
    }
    let mut line = Line::default();
    let get = |counter: &AtomicU64| counter.load(Relaxed);
    let _ = writeln!(
        line,
        "autolock: acquired={} contended={} spun={} parked={} woken={} backstop={} delegated={} (acquired: derived, on mutexes that were waited for)",
        // Mutexes that share a place are counted less often; each contended call is an acquisition at least.
        get(&ACQUIRED).max(get(&CONTENDED)),
        get(&CONTENDED),
        get(&SPUN),
        get(&PARKED),
        get(&WOKEN),
        get(&BACKSTOP),
        get(&DELEGATED),
    );
    line.print();
    let mut line = Line::default();
    let _ = match source::name() {
        Name::User(why) => writeln!(line, "autolock: source=user ({why})"),
        Name::Kernel => {
            let (slots, unserved) = kernel::figures();
            writeln!(
                line,
                "autolock: source=kernel slots={slots} unserved={unserved} parks={} running={} off-cpu={} unknown={} (slots: threads that got one; parks: waiters that lost their CPU and slept; the rest: what the kernel said of holders)",
                get(&PREEMPTED),
                get(&RUNNING),
                get(&OFF_CPU),
                get(&UNKNOWN),
            )
        }
        Name::Ebpf => writeln!(
            line,
            "autolock: source=ebpf running={} off-cpu={} unknown={} (what autolockd's table said of holders; unknown: it is stale or knows nothing, and user space decided)",
            get(&RUNNING),
            get(&OFF_CPU),
            get(&UNKNOWN),
        ),
    };
    line.print();
    if let Some(kernel) = kernel::counted() {
        let mut line = Line::default();
        let _ = writeln!(
            line,
            "autolock: kernel creates={} peak={} parks={} wakes={} timeouts={} signals={} changed={} refused={} parked-ms={} (as the kernel counted)",
            kernel.creates,
            kernel.slots_peak,
            kernel.parks,
            kernel.wakes,
            kernel.timeouts,
            kernel.signals,
            kernel.changed,
            kernel.refused,
            kernel.parked_ns / 1_000_000,
        );
        line.print();
    }
    if let Some((algorithm, mutexes, unserved)) = slots::figures() {
        let mut line = Line::default();
        let _ = writeln!(
            line,
            "autolock: algorithm={algorithm} mutexes={mutexes} unserved={unserved} condition-waits={} (the figures above are of process-shared mutexes alone)",
            if cond::comes_back() {
                "interposed"
            } else {
                "libc"
            },
        );
        line.print();
    }
}

/// One line for stderr, without allocating; what does not fit is cut.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; 2048],
    used: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 2048],
            used: 0,
        }
    }
}

impl Line {
    /// Just this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut line = Self::default();
        let _ = line.write_str(text);
        line
    }

    /// Writes it to stderr in one system call; an error has nowhere to go.
    pub fn print(&self) {
        // SAFETY: the first `used` bytes are initialised.
        unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.used) };
    }
}

impl core::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            let Some(place) = self.bytes.get_mut(self.used) else {
                return Ok(());
            };
            *place = byte;
            self.used += 1;
        }
        Ok(())
    }
}
