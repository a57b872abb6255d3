//! Tickets whose waiters ask after the holder, and sleep when it does not run or their turn is far. Beside it the twin that does not ask.
//!
//! | name | a waiter |
//! |---|---|
//! | `ticket_autolock` | sleeps at once if more than [`NEAR`] others are before it or the holder does not run; spins while the holder runs; if nobody knows, spins as long as the queue moves, and briefly beyond |
//! | `ticket_normlock` | spins for ever |
//!
//! The pair differs in the waiter's decision alone: the same words, the same record of the holder, the same releasing exchange. (`ticket` is the plain
//! lock.)
//!
//! Source: tickets: Reed and Kanodia, "Synchronization with eventcounts and sequencers", CACM 22(2), 1979; spin while the holder
//! runs, else block: FreeBSD's adaptive mutexes (mutex(9)). What is known of the holder comes from the platform's
//! [`OnCpu`](crate::oncpu::OnCpu) source, by way of a [`HolderRecord`].
//!
//! One releasing exchange must tell the holder whether the very waiter sleeps whose turn comes. So a waiter does not look at one word `serving`, but
//! at the slot of its ticket, all slots on one line. A ticket's slot is the remainder of its division by the number of slots; the slot is a
//! futex word, with twice a ticket and in bit 0 a mark:
//!
//! | a slot | meaning | transitions |
//! |---|---|---|
//! | 2t | ticket t, of this slot, has or had its turn (any other ticket: none has had yet) | -> 2(t + slots) by the exchange of the holder of the ticket just before that (`unlock`); -> 2t + 1 by a waiter |
//! | 2t + 1 | the same, and a waiter for a later ticket of this slot may sleep | -> 2(t + slots) likewise, and then a wake of all that sleep here |
//!
//! `next` is the ticket to draw, as in `partitioned`; so are the wraps, but at 2^31: tickets have 31 bits in a slot.
//!
//! No wake-up is lost: a waiter sleeps only on the value with the mark, while its ticket is not in the slot. Until the next exchange of the slot this value
//! stays, and that exchange finds the mark and wakes all who sleep; the kernel's look at the word lets nobody fall asleep after it. Whoever wakes
//! and still has no turn (with more waiters than slots, some share one) marks the new value and sleeps again. Where the kernel parks waiters that lose their
//! CPUs ([`crate::armed`]), it sets the mark and puts them to sleep; whose turn has come is not parked. There is no duty, for all are woken.
//!
//! Memory orderings: a load of a slot is Acquire and pairs with the Release exchange of `unlock`; the mark is Relaxed: it carries nothing, and that exchange
//! reads it. `next` is Relaxed as in `partitioned`. `ticket` is Relaxed: the holder writes it, and reads it itself; others take it for a hint how far the
//! queue is. After `unlock`'s exchange the lock may be gone: the wake uses the address alone.
//!
//! Bad at: with more threads than CPUs every hand-over waits until a sleeper has woken up, for nobody may overtake it.

use core::marker::PhantomData;

use autolock_abi::{
    auto_lock::Parking,
    sync::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{between::Patience, ticket::FIRST};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    armed::Armed,
    oncpu::HolderRecord,
    platform::{FOREVER, Platform},
};

/// From how many waiters before it on a waiter does not spin.
const NEAR: u32 = 4;
const MARK: u32 = 1;

/// See the module. `AUTO`: asks after the holder. `SLOTS` is a power of two.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct AutoTicket<P, const AUTO: bool, const SLOTS: usize> {
    slots: [AtomicU32; SLOTS],
    next: AtomicU32,
    /// The holder's ticket.
    ticket: AtomicU32,
    holder: HolderRecord,
    platform: PhantomData<fn(P)>,
}

/// Spins for ever.
pub type TicketNormlock<P> = AutoTicket<P, false, 32>;
/// Spins while the holder runs.
pub type TicketAutolock<P> = AutoTicket<P, true, 32>;

impl<P: Platform, const AUTO: bool, const SLOTS: usize> Algorithm for AutoTicket<P, AUTO, SLOTS> {
    const INFO: Info = Info {
        name: if AUTO {
            "ticket_autolock"
        } else {
            "ticket_normlock"
        },
        about: if AUTO {
            "tickets; near waiters spin while the holder runs, the others sleep on a futex each"
        } else {
            "ticket_autolock without asking: spins for ever"
        },
        source: "Reed and Kanodia, CACM 1979; FreeBSD mutex(9)",
        order: Order::Fifo,
        waiting: if AUTO {
            Waiting::Sleeps
        } else {
            Waiting::Spins
        },
    };

    fn new() -> Self {
        Self {
            // The first ticket in its own slot grants it; in any other it is nobody's.
            slots: core::array::from_fn(|_| AtomicU32::new(granting(FIRST))),
            next: AtomicU32::new(FIRST),
            ticket: AtomicU32::new(FIRST),
            holder: HolderRecord::nobody(),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        // Relaxed: it only numbers; the slot's Acquire orders.
        let ticket = self.next.fetch_add(1, Relaxed);
        P::preemption_point();
        if !grants(self.slot(ticket).load(Acquire), ticket) {
            self.wait(ticket);
        }
        self.acquired(ticket);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        let ticket = self.next.load(Relaxed);
        let acquired = grants(self.slot(ticket).load(Acquire), ticket)
            && self
                .next
                .compare_exchange(ticket, ticket.wrapping_add(1), Relaxed, Relaxed)
                .is_ok();
        if acquired {
            self.acquired(ticket);
        }
        acquired
    }

    unsafe fn unlock(&self) {
        P::preemption_point();
        let next = self.ticket.load(Relaxed).wrapping_add(1);
        self.holder.clear();
        let slot = self.slot(next);
        let address = &raw const *slot;
        if slot.swap(granting(next), Release) & MARK != 0 {
            P::preemption_point();
            P::wake_all(address, false);
            if AUTO {
                P::enroll(); // Somebody had to wait for me.
            }
        }
    }
}

/// A slot's value that gives `ticket` its turn.
const fn granting(ticket: u32) -> u32 {
    ticket << 1
}

/// Whether it is the turn of `ticket`.
const fn grants(slot: u32, ticket: u32) -> bool {
    slot & !MARK == granting(ticket)
}

impl<P: Platform, const AUTO: bool, const SLOTS: usize> AutoTicket<P, AUTO, SLOTS> {
    const MASK: usize = {
        assert!(SLOTS.is_power_of_two());
        SLOTS - 1
    };

    #[inline]
    fn slot(&self, ticket: u32) -> &AtomicU32 {
        // Below SLOTS, as the compiler sees too: no check is left.
        &self.slots[ticket as usize & Self::MASK]
    }

    #[inline]
    fn acquired(&self, ticket: u32) {
        self.ticket.store(ticket, Relaxed);
        self.holder.record::<P>();
    }

    #[cold]
    #[inline(never)]
    fn wait(&self, ticket: u32) {
        let slot = self.slot(ticket);
        let mut patience = Patience::new();
        let mut holders = self.ticket.load(Relaxed);
        if AUTO {
            P::enroll();
        }
        let mut armed = Armed::<P>::new(slot, parking(ticket), 0, None);
        loop {
            if AUTO {
                armed.arm();
            }
            let value = slot.load(Acquire);
            if grants(value, ticket) {
                return; // And is disarmed.
            }
            if AUTO && !self.is_worth_spinning(ticket, &mut holders, &mut patience) {
                armed.disarm();
                if value & MARK != 0 || mark(slot, value) {
                    P::preemption_point();
                    P::wait(slot, value | MARK, false, FOREVER, None);
                    patience = Patience::new();
                }
            } else {
                P::pause();
            }
        }
    }

    /// `holders` is the holder's ticket at the last look.
    fn is_worth_spinning(&self, ticket: u32, holders: &mut u32, patience: &mut Patience) -> bool {
        let now = self.ticket.load(Relaxed);
        if now != *holders {
            *holders = now;
            *patience = Patience::new();
        }
        ticket.wrapping_sub(now) <= NEAR && patience.lasts(self.holder.state::<P>(), 1)
    }
}

/// A spinning waiter that loses its CPU sleeps until its turn, as one that has set the mark.
const fn parking(ticket: u32) -> Parking {
    Parking {
        mask: !MARK,
        value: granting(ticket),
        leave_mask: 0,
        leave: MARK,
    }
}

/// Says that somebody may sleep on the slot, if it still has this value. Relaxed: see the module.
fn mark(slot: &AtomicU32, value: u32) -> bool {
    slot.compare_exchange(value, value | MARK, Relaxed, Relaxed)
        .is_ok()
}
