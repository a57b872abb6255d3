//! A waiter's agreement with the scheduler, where there is such a scheduler (`linux-patches/`): *if I lose my CPU while this word is not mine, let me sleep
//! on it.*
//!
//! A waiter that is preempted while it spins would come back, after a while, to spin on a lock that has long been released, or to find it taken; until then
//! whoever relies on it waits. Armed, it is parked instead: the kernel writes into the word what any waiter writes before it sleeps, and puts it to sleep
//! there. So a park is a sleep that the waiter did not call for, and all that the protocol of the word says of sleepers holds for it:
//!
//! 1. *Before*: the word says that a sleeper is owed a wake, from before it sleeps: the kernel's compare-exchange to [`Parking::left`], then a futex wait on that value. It
//!    finds the word still waited for ([`Parking::waits`]), or does not park.
//! 2. *After*: the wake may have been meant for any of the sleepers. The waiter has the duty to pass it on: [`Armed::was_parked`] and [`Armed::disarm`] tell. They
//!    say so after a time-out or a signal, too, when there is no duty; then one wake too many is made.
//! 3. *Never the holder*: a waiter disarms before the compare-exchange that may make it the holder. Else it could be parked on its own lock.
//!
//! A signal disarms, too, and the wait goes on unarmed. Where there is no such scheduler, or no slot for this thread, nothing happens here.

use core::marker::PhantomData;

use autolock_abi::{auto_lock::Parking, sync::AtomicU32};

use crate::platform::{Deadline, Platform};

/// One wait's agreement; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Armed<'a, P: Platform> {
    word: &'a AtomicU32,
    parking: Parking,
    limit_ns: u64,
    deadline: Option<&'a Deadline>,
    /// The thread's parks when it was armed or last asked. They change only while it is armed, so whoever is not armed asks nothing.
    parks: u32,
    armed: bool,
    platform: PhantomData<fn(P)>,
}

impl<'a, P: Platform> Armed<'a, P> {
    /// Not armed yet. A park is to end after `limit_ns` (0: the system's limit) or at the deadline, if neither a wake nor the system ends it before.
    #[inline]
    pub(crate) fn new(
        word: &'a AtomicU32,
        parking: Parking,
        limit_ns: u64,
        deadline: Option<&'a Deadline>,
    ) -> Self {
        Self {
            word,
            parking,
            limit_ns,
            deadline,
            parks: 0,
            armed: false,
            platform: PhantomData,
        }
    }

    /// From here on the thread may be parked. Returns whether it may.
    #[inline]
    pub(crate) fn arm(&mut self) -> bool {
        if !self.armed {
            self.parks = P::parks();
            self.armed = P::arm(self.word, self.parking, self.limit_ns, self.deadline);
        }
        self.armed
    }

    pub(crate) const fn is_armed(&self) -> bool {
        self.armed
    }

    /// Whether it was, since this was last asked.
    #[inline]
    pub(crate) fn was_parked(&mut self) -> bool {
        self.armed && self.parks_changed()
    }

    fn parks_changed(&mut self) -> bool {
        let now = P::parks();
        core::mem::replace(&mut self.parks, now) != now
    }

    /// From here on it is not parked. Returns whether it was, since that was last asked.
    #[inline]
    pub(crate) fn disarm(&mut self) -> bool {
        if core::mem::take(&mut self.armed) {
            P::disarm();
            return self.parks_changed();
        }
        false
    }
}

impl<P: Platform> Drop for Armed<'_, P> {
    fn drop(&mut self) {
        self.disarm();
    }
}
