//! MCS spin-then-park: the queue of `mcs`; a waiter spins for about as long as a sleep and a wake-up cost, then sleeps.
//!
//! Sources: Mellor-Crummey and Scott, ACM TOCS 9(1), 1991; spinning for what blocking costs: Karlin, Li, Manasse and Owicki, "Empirical
//! studies of competitive spinning for a shared-memory multiprocessor", SOSP 1991. Dice, EuroSys 2017, measures it as MCS-STP.
//!
//! States, transitions, why no wake is lost, and memory orderings: `queue`. Order: as they came, always.
//!
//! Bad at: with more threads than CPUs every release wakes a sleeper, and the lock waits until that one runs.

use core::marker::PhantomData;

use super::queue::{Queue, SPIN_NS, await_grant, grant};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    platform::Platform,
};

/// See the module.
#[derive(Debug)]
pub struct McsStp<P> {
    queue: Queue,
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for McsStp<P> {
    const INFO: Info = Info {
        name: "mcs_stp",
        about: "MCS; a waiter spins a little, then sleeps",
        source: "Mellor-Crummey and Scott 1991; Karlin et al., SOSP 1991",
        order: Order::Fifo,
        waiting: Waiting::Sleeps,
    };

    fn new() -> Self {
        Self {
            queue: Queue::new(),
            platform: PhantomData,
        }
    }

    fn lock(&self) {
        let node = P::take_node();
        if !self.queue.enter::<P>(node) {
            await_grant::<P, false>(&node.state, || SPIN_NS);
        }
        self.queue.hold(node);
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        self.queue.try_enter::<P>()
    }

    unsafe fn unlock(&self) {
        let Some(mine) = self.queue.holder() else {
            return; // Not held: the caller broke the contract.
        };
        P::preemption_point();
        if let Some(next) = self.queue.next_or_free::<P>(mine) {
            grant::<P>(&next.state);
        }
        P::give_node(mine);
    }
}
