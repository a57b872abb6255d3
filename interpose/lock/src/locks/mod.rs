//! The collection: a file for each lock, and the list of them all.
//!
//! A lock's header gives its source, the table of its word's states, its memory orderings and what it is bad at.

mod bounded;
mod flexguard;
mod mcs;
mod mutexee;
mod rseq;
mod tas;
mod u_scl;

use core::marker::PhantomData;

use crate::{
    algorithm::{Entry, entry},
    platform::Platform,
};

pub use flexguard::FlexGuard;
pub use mcs::Mcs;
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
        entry::<Mcs<P>>(),
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
