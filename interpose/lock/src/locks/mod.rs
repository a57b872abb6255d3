//! The collection: a file for each lock, and the list of them all.
//!
//! A lock's header gives its source, the table of its word's states, its memory orderings and what it is bad at.

mod between;
mod bounded;
mod clh;
mod clh_autolock;
mod cptltkt;
mod flexguard;
mod futex_spinlock;
mod futex_word;
mod malthusian;
mod mcs;
mod mcs_autolock;
mod mcs_stp;
mod mcs_tp;
mod mutexee;
mod padded;
mod partitioned;
mod queue;
mod rseq;
mod spin_autolock;
mod tas;
mod ticket;
mod ticket_autolock;
mod ttas;
mod u_scl;

use core::marker::PhantomData;

use crate::{
    algorithm::{Entry, entry},
    platform::Platform,
};

pub use clh::Clh;
pub use clh_autolock::ClhAutolock;
pub use cptltkt::Cptltkt;
pub use flexguard::FlexGuard;
pub use futex_spinlock::{
    FutexBackoffSpinlock, FutexSpinlock, FutexYieldBackoffSpinlock, FutexYieldSpinlock,
};
pub use malthusian::Malthusian;
pub use mcs::Mcs;
pub use mcs_autolock::McsAutolock;
pub use mcs_stp::McsStp;
pub use mcs_tp::McsTp;
pub use mutexee::Mutexee;
pub use partitioned::{Aepfl, Partitioned, PartitionedTicket};
pub use rseq::{RseqAutolock, RseqNormlock};
pub use spin_autolock::{BackoffAutolock, BackoffNormlock, SpinAutolock, SpinNormlock};
pub use tas::Tas;
pub use ticket::Ticket;
pub use ticket_autolock::{AutoTicket, TicketAutolock, TicketNormlock};
pub use ttas::{BackoffSpinlock, Spinlock, YieldBackoffSpinlock, YieldSpinlock};
pub use u_scl::UScl;

/// Every lock of the collection on the platform `P`.
#[derive(Debug)]
pub struct Collection<P>(PhantomData<P>);

impl<P: Platform> Collection<P> {
    /// In the order in which they are listed.
    pub const ENTRIES: &'static [Entry] = &[
        entry::<Tas<P>>(),
        entry::<Spinlock<P>>(),
        entry::<BackoffSpinlock<P>>(),
        entry::<YieldSpinlock<P>>(),
        entry::<YieldBackoffSpinlock<P>>(),
        entry::<FutexSpinlock<P>>(),
        entry::<FutexBackoffSpinlock<P>>(),
        entry::<FutexYieldSpinlock<P>>(),
        entry::<FutexYieldBackoffSpinlock<P>>(),
        entry::<SpinNormlock<P>>(),
        entry::<SpinAutolock<P>>(),
        entry::<BackoffNormlock<P>>(),
        entry::<BackoffAutolock<P>>(),
        entry::<Ticket<P>>(),
        entry::<TicketNormlock<P>>(),
        entry::<TicketAutolock<P>>(),
        entry::<PartitionedTicket<P>>(),
        entry::<Aepfl<P>>(),
        entry::<Cptltkt<P>>(),
        entry::<Clh<P>>(),
        entry::<Clh<P>>().renamed("clh_normlock", "clh, beside clh_autolock"),
        entry::<ClhAutolock<P>>(),
        entry::<Mcs<P>>(),
        entry::<Mcs<P>>().renamed("mcs_normlock", "mcs, beside mcs_autolock"),
        entry::<McsAutolock<P>>(),
        entry::<McsStp<P>>(),
        entry::<McsTp<P>>(),
        entry::<Malthusian<P>>(),
        entry::<Mutexee<P>>(),
        entry::<UScl<P>>(),
        entry::<FlexGuard<P>>(),
        entry::<RseqNormlock<P>>(),
        entry::<RseqAutolock<P>>(),
    ];
}

/// The lock of this name.
#[must_use]
pub fn find<P: Platform>(name: &[u8]) -> Option<&'static Entry> {
    Collection::<P>::ENTRIES
        .iter()
        .find(|entry| entry.info.name.as_bytes() == name)
}
