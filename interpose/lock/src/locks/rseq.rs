//! The rseq locks: a TTAS lock whose holder publishes the CPU that it runs on (`rseq_normlock`), and the same lock with waiters that use it
//! (`rseq_autolock`).
//!
//! Source: the rseq variants of the autolock research prototype (Linux 5.18). Here the word is a futex's and nothing is restarted.
//!
//! What rseq knows: the kernel writes the number of the CPU into each thread's rseq area (rseq(2), `cpu_id`; glibc registers it) whenever the thread
//! comes back from being preempted or moved, so that one load tells a thread where it runs. The holder writes that number into the lock. A waiter that
//! finds its own number there runs where the holder took the lock: the holder is not on that CPU now, and most likely on none, since it would have
//! to have been moved. That is certain about one CPU only; a holder preempted on another CPU goes unnoticed, and one that was moved is taken for
//! preempted. `rseq_autolock` asks the platform's on-CPU source besides, and spins at most 100 us on a holder of whom nothing bad is known.
//!
//! | word | meaning | transitions |
//! |---|---|---|
//! | `FREE` | free | -> `HELD` by whoever comes; -> `CONTENDED` by a waiter that has slept or is about to |
//! | `HELD` | held; nobody sleeps | -> `FREE` by the holder; -> `CONTENDED` by a waiter about to sleep |
//! | `CONTENDED` | held; somebody may sleep | -> `FREE` by the holder, who wakes one |
//!
//! `rseq_normlock` never writes `CONTENDED`. No lost wake-up: a woken waiter acquires with `CONTENDED`, or writes it before it sleeps again.
//!
//! Memory orderings: acquisitions are Acquire and pair with the Release exchange of `unlock`. The holder's thread id and CPU are hints.
//!
//! Bad at: `rseq_normlock` as any TTAS lock at more threads than CPUs, and it pays for the publishing; `rseq_autolock` has no order, and sleeps
//! without need when the holder has moved.

use core::marker::PhantomData;

use autolock_abi::{
    auto_lock::Parking,
    sync::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
        hint,
    },
};

use super::bounded::{FOREVER_NS, Spin};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    armed::Armed,
    oncpu::{Holder, HolderState, NOWHERE, OnCpu},
    platform::Platform,
};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// How long a waiter spins before it sleeps, whatever it believes of the holder.
const SPIN_NS: u64 = 100_000;

/// A spinning waiter that loses its CPU sleeps.
const PARKING: Parking = Parking::until(FREE, CONTENDED);

/// See the module. `AUTO` is whether waiters use what the holder publishes.
#[derive(Debug)]
pub struct Rseq<P, const AUTO: bool> {
    word: AtomicU32,
    place: hint::AtomicU16,
    tid: hint::AtomicI32,
    platform: PhantomData<fn(P)>,
}

/// Waiters spin.
pub type RseqNormlock<P> = Rseq<P, false>;
/// Waiters sleep when the holder is off its CPU.
pub type RseqAutolock<P> = Rseq<P, true>;

impl<P: Platform, const AUTO: bool> Algorithm for Rseq<P, AUTO> {
    const INFO: Info = if AUTO {
        Info {
            name: "rseq_autolock",
            about: "TTAS; waiters on the CPU where the holder took the lock sleep on a futex",
            source: "autolock prototype on Linux 5.18; rseq(2)",
            order: Order::Unfair,
            waiting: Waiting::Sleeps,
        }
    } else {
        Info {
            name: "rseq_normlock",
            about: "TTAS; the holder publishes its CPU and waiters spin all the same",
            source: "autolock prototype on Linux 5.18; rseq(2)",
            order: Order::Unfair,
            waiting: Waiting::Spins,
        }
    };

    fn new() -> Self {
        Self {
            word: AtomicU32::new(FREE),
            place: hint::AtomicU16::new(NOWHERE),
            tid: hint::AtomicI32::new(0),
            platform: PhantomData,
        }
    }

    #[inline]
    fn lock(&self) {
        if !self.acquire(HELD) {
            if AUTO {
                self.spin_or_sleep();
            } else {
                while !self.acquire(HELD) {
                    P::pause();
                }
            }
        }
        P::preemption_point();
        self.publish(P::tid(), P::place());
    }

    #[inline]
    fn try_lock(&self) -> bool {
        let acquired = self.acquire(HELD);
        if acquired {
            self.publish(P::tid(), P::place());
        }
        acquired
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.publish(0, NOWHERE);
        P::preemption_point();
        let word = &raw const self.word;
        if self.word.swap(FREE, Release) == CONTENDED {
            P::wake_one(word, false);
            if AUTO {
                P::enroll(); // Somebody had to wait for me.
            }
        }
    }
}

impl<P: Platform, const AUTO: bool> Rseq<P, AUTO> {
    #[inline]
    fn acquire(&self, held: u32) -> bool {
        self.word.load(Relaxed) == FREE
            && self
                .word
                .compare_exchange(FREE, held, Acquire, Relaxed)
                .is_ok()
    }

    #[inline]
    fn publish(&self, tid: i32, place: u16) {
        self.tid.store(tid, Relaxed);
        self.place.store(place, Relaxed);
    }

    /// Whether the holder has not got a CPU, as far as rseq and the platform's source know.
    fn holder_is_off_cpu(&self) -> bool {
        let holder = Holder {
            tid: self.tid.load(Relaxed),
            place: self.place.load(Relaxed),
        };
        let my_cpu = P::cpu();
        holder.tid != 0
            && (P::OnCpu::places_are_cpus() && holder.place == my_cpu
                || P::OnCpu::holder(holder, my_cpu) == HolderState::NotRunning)
    }

    #[cold]
    #[inline(never)]
    fn spin_or_sleep(&self) {
        P::enroll();
        // What to acquire with: who has slept does not know who else sleeps.
        let mut held = HELD;
        while !self.spin(&mut held) {
            if self.word.swap(CONTENDED, Acquire) == FREE {
                return;
            }
            P::preemption_point();
            // However it ends: the wake may have been mine.
            P::wait(&self.word, CONTENDED, false, FOREVER_NS, None);
            held = CONTENDED;
        }
    }

    /// Spins while the holder may be running. Returns whether it acquired.
    fn spin(&self, held: &mut u32) -> bool {
        let mut spin = Spin::begin::<P>();
        let mut armed = Armed::<P>::new(&self.word, PARKING, 0, None);
        loop {
            armed.arm();
            if self.word.load(Relaxed) == FREE {
                // Who was parked has slept, too. And never the holder.
                if armed.disarm() {
                    *held = CONTENDED;
                }
                if self.acquire(*held) {
                    return true;
                }
            }
            if self.holder_is_off_cpu() || spin.lasted_ns::<P>().is_some_and(|ns| ns > SPIN_NS) {
                return false;
            }
            P::pause();
        }
    }
}
