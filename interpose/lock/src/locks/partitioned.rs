//! Tickets whose waiters look at different words: the partitioned ticket lock, and Anderson's array lock.
//!
//! | name | slots | |
//! |---|---|---|
//! | `partitioned_ticket` | 4 | a few waiters share a slot |
//! | `aepfl` | 32 | an array with an element for each waiter that is expected |
//!
//! Sources: `partitioned_ticket`: Dice, "Brief announcement: a partitioned ticket lock", SPAA 2011. `aepfl`: Anderson, "The performance
//! of spin lock alternatives for shared-memory multiprocessors", IEEE TPDS 1(1), 1990.
//!
//! Anderson's flags say yes or no, so that with more waiters than flags two would take the same yes. Here a flag says whose yes it is: it
//! holds the ticket. So any number of waiters is right, in order, and the two locks differ in the number of slots; with more waiters than those, every
//! further one makes one line more crowded.
//!
//! A ticket's slot is the remainder of its division by the number of slots, each slot on cache lines of its own.
//!
//! | a slot | meaning | transitions |
//! |---|---|---|
//! | a ticket of this slot | that ticket holds the lock, or held it; or, if nobody has it yet, it is free for whoever draws it | -> a later ticket of this slot, by a store of the holder of the ticket just before (`unlock`) |
//! | any other ticket | this slot's first turn is still to come | as above |
//!
//! `next` is the ticket to draw: it grows by a fetch-add (`lock`), or by a compare-exchange if its slot shows it already (`try_lock`).
//! `holder` is the holder's ticket. All wrap (a slot may then not be taken for served too early: it shows a ticket of 4 or 32 turns ago, never of
//! 2^32); they begin shortly before that, so that every run of a test passes it.
//!
//! Memory orderings: a load of a slot is Acquire and pairs with the Release store of `unlock`; `next` is Relaxed, it only numbers, and
//! `try_lock` has looked at the slot before (see `ticket`); `holder` is Relaxed: only the holder reads or writes it.
//!
//! Bad at: space; an unlock always writes a line that the next waiter has; as in all queues, a waiter that is not running when its turn
//! comes holds everybody up.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{padded::Padded, ticket::FIRST};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    platform::Platform,
};

/// How many slots tell the partitioned ticket lock's list entry from Anderson's.
const FEW: usize = 4;

/// See the module. `SLOTS` is a power of two.
#[derive(Debug)]
pub struct Partitioned<P, const SLOTS: usize> {
    next: Padded<AtomicU32>,
    holder: AtomicU32,
    slots: [Padded<AtomicU32>; SLOTS],
    platform: PhantomData<fn(P)>,
}

/// Few slots.
pub type PartitionedTicket<P> = Partitioned<P, FEW>;
/// An array of slots for as many waiters.
pub type Aepfl<P> = Partitioned<P, 32>;

impl<P: Platform, const SLOTS: usize> Algorithm for Partitioned<P, SLOTS> {
    const INFO: Info = if SLOTS == FEW {
        Info {
            name: "partitioned_ticket",
            about: "tickets; waiters spread over 4 words",
            source: "Dice, SPAA 2011",
            order: Order::Fifo,
            waiting: Waiting::Spins,
        }
    } else {
        Info {
            name: "aepfl",
            about: "array of flags; up to 32 waiters spin on one each, more share",
            source: "Anderson, IEEE TPDS 1990",
            order: Order::Fifo,
            waiting: Waiting::Spins,
        }
    };

    fn new() -> Self {
        Self {
            next: Padded(AtomicU32::new(FIRST)),
            holder: AtomicU32::new(FIRST),
            // The first ticket in its own slot grants it; in any other it is nobody's.
            slots: core::array::from_fn(|_| Padded(AtomicU32::new(FIRST))),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        // Relaxed: it only numbers; the slot's Acquire orders.
        let ticket = self.next.0.fetch_add(1, Relaxed);
        P::preemption_point();
        let slot = self.slot(ticket);
        while slot.load(Acquire) != ticket {
            P::pause();
        }
        self.holder.store(ticket, Relaxed);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        let ticket = self.next.0.load(Relaxed);
        let free = self.slot(ticket).load(Acquire) == ticket;
        let acquired = free
            && self
                .next
                .0
                .compare_exchange(ticket, ticket.wrapping_add(1), Relaxed, Relaxed)
                .is_ok();
        if acquired {
            self.holder.store(ticket, Relaxed);
        }
        acquired
    }

    unsafe fn unlock(&self) {
        P::preemption_point();
        let next = self.holder.load(Relaxed).wrapping_add(1);
        self.slot(next).store(next, Release);
    }
}

impl<P: Platform, const SLOTS: usize> Partitioned<P, SLOTS> {
    const MASK: usize = {
        assert!(SLOTS.is_power_of_two());
        SLOTS - 1
    };

    #[inline]
    fn slot(&self, ticket: u32) -> &AtomicU32 {
        // Below SLOTS, as the compiler sees too: no check is left.
        &self.slots[ticket as usize & Self::MASK].0
    }
}
