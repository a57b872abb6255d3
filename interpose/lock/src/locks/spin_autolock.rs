//! TTAS that asks after its holder: spins while the holder runs, sleeps when it does not. Beside it the twin that does not ask.
//!
//! | name | a waiter |
//! |---|---|
//! | `spin_autolock` | spins while the holder runs, sleeps on the word when it does not; if nobody knows, spins briefly, then sleeps |
//! | `spin_normlock` | spins for ever |
//! | `backoff_autolock`, `backoff_normlock` | the same with random exponential backoff between two looks |
//!
//! A pair differs in the waiter's decision alone. The normlock has the same word, writes its holder down as the other does, and releases by the
//! same exchange, so that the difference between their figures is what the knowledge is worth. (`spinlock` and `backoff_spinlock` are the same
//! without that.)
//!
//! Sources: spin while the holder runs, else block: FreeBSD's adaptive mutexes (mutex(9)); the word: Drepper, "Futexes are
//! tricky", 2004. What is known of the holder comes from the platform's [`OnCpu`](crate::oncpu::OnCpu) source, by way of a [`HolderRecord`].
//!
//! The word's table, its memory orderings and why no wake-up is lost: `futex_word`. A waiter that wakes spins again, but acquires as
//! one that answers for the other sleepers. The record is a hint; it is cleared before the release, so that nobody takes a late look at it for the next
//! holder. Spinning is bounded whatever the source says (`between`).
//!
//! Where the kernel parks waiters that lose their CPUs ([`crate::armed`]), that is a sleep on the word as well, after which the waiter answers for the others: it disarms
//! before it tries, and what it tries depends on whether it has been parked.
//!
//! Bad at: as `futex_spinlock`; the record makes two more stores on each side of a critical section.

use autolock_abi::auto_lock::Parking;

use super::{
    between::{Between, Patience},
    futex_word::{CONTENDED, FREE, FutexWord},
};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    armed::Armed,
    oncpu::HolderRecord,
    platform::Platform,
};

/// A spinning waiter that loses its CPU sleeps.
const PARKING: Parking = Parking::until(FREE, CONTENDED);

/// See the module. `AUTO`: asks after the holder.
#[derive(Debug)]
pub struct AutoTtas<P, const AUTO: bool, const BACKOFF: bool> {
    word: FutexWord<P>,
    holder: HolderRecord,
}

/// Spins for ever.
pub type SpinNormlock<P> = AutoTtas<P, false, false>;
/// Spins while the holder runs.
pub type SpinAutolock<P> = AutoTtas<P, true, false>;
/// Spins for ever, with backoff.
pub type BackoffNormlock<P> = AutoTtas<P, false, true>;
/// Spins while the holder runs, with backoff.
pub type BackoffAutolock<P> = AutoTtas<P, true, true>;

impl<P: Platform, const AUTO: bool, const BACKOFF: bool> Algorithm for AutoTtas<P, AUTO, BACKOFF> {
    const INFO: Info = Info {
        name: match (AUTO, BACKOFF) {
            (false, false) => "spin_normlock",
            (false, true) => "backoff_normlock",
            (true, false) => "spin_autolock",
            (true, true) => "backoff_autolock",
        },
        about: match (AUTO, BACKOFF) {
            (false, false) => "spin_autolock without asking: spins for ever",
            (false, true) => "backoff_autolock without asking: spins for ever",
            (true, false) => "TTAS while the holder runs, else sleep on a futex",
            (true, true) => "TTAS with backoff while the holder runs, else sleep on a futex",
        },
        source: "FreeBSD mutex(9); Drepper, Futexes are tricky, 2004",
        order: Order::Unfair,
        waiting: if AUTO {
            Waiting::Sleeps
        } else {
            Waiting::Spins
        },
    };

    fn new() -> Self {
        Self {
            word: FutexWord::new(),
            holder: HolderRecord::nobody(),
        }
    }

    #[inline]
    fn lock(&self) {
        if !self.word.try_acquire() {
            self.lock_contended();
        }
        P::preemption_point();
        self.holder.record::<P>();
        P::preemption_point();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        let acquired = self.word.try_acquire();
        if acquired {
            self.holder.record::<P>();
        }
        acquired
    }

    #[inline]
    unsafe fn unlock(&self) {
        P::preemption_point();
        self.holder.clear();
        P::preemption_point();
        if self.word.release() && AUTO {
            P::enroll(); // Somebody had to wait for me.
        }
    }
}

impl<P: Platform, const AUTO: bool, const BACKOFF: bool> AutoTtas<P, AUTO, BACKOFF> {
    #[cold]
    #[inline(never)]
    fn lock_contended(&self) {
        if AUTO {
            P::enroll();
        }
        let mut slept = false;
        while !self.spin(&mut slept) {
            if self.word.acquire_or_sleep() {
                return;
            }
            slept = true;
        }
    }

    /// Spins while it is worth it. Returns whether the lock was acquired.
    #[inline]
    fn spin(&self, slept: &mut bool) -> bool {
        let mut between = Between::<P, false, BACKOFF>::new();
        let mut patience = Patience::new();
        let mut armed = Armed::<P>::new(self.word.word(), PARKING, 0, None);
        loop {
            if AUTO {
                armed.arm();
            }
            if self.word.is_free() {
                *slept |= armed.disarm();
                if self.word.try_acquire_as(*slept) {
                    return true;
                }
            }
            let pauses = between.wait();
            if AUTO && !patience.lasts(self.holder.state::<P>(), pauses) {
                return false; // It says 2 before it sleeps: what `armed` may still say does not matter.
            }
        }
    }
}
