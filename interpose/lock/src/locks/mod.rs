//! The collection: a file for each lock, and the list of them all.
//!
//! A lock's header gives its source, the table of its word's states, its memory orderings and what it is bad at.

mod bounded;
mod clh;
mod clh_autolock;
mod flexguard;
mod malthusian;
mod mcs;
mod mcs_autolock;
mod mcs_stp;
mod mcs_tp;
mod mutexee;
mod queue;
mod rseq;
mod tas;
mod u_scl;

use core::marker::PhantomData;

use crate::{
    algorithm::{Entry, entry},
    platform::Platform,
};

pub use clh::Clh;
pub use clh_autolock::ClhAutolock;
pub use flexguard::FlexGuard;
pub use malthusian::Malthusian;
pub use mcs::Mcs;
pub use mcs_autolock::McsAutolock;
pub use mcs_stp::McsStp;
pub use mcs_tp::McsTp;
pub use mutexee::Mutexee;
pub use rseq::{RseqAutolock, RseqNormlock};
pub use tas::Tas;
pub use u_scl::UScl;

/// Every lock of the collection on the platform `P`.
#[derive(Debug)]
pub struct Collection<P>(PhantomData<P>);

impl<P: Platform> Collection<P> {
    /// In the order in which they are listed.
    pub const ENTRIES: &'static [Entry] = &[
        entry::<Tas<P>>(),
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
