//! A lock under test: its functions, the same on the injecting platform, and what it promises.

use super::busted;
use super::inject::Injecting;
use crate::lock::{Lock, Origin, Source};
use anyhow::Result;
use autolock_lock::algorithm::{Order, Waiting};
use autolock_lock::locks;
use std::path::PathBuf;

/// See the module.
pub struct Subject {
    pub lock: Lock,
    /// None for libraries and other crates' locks: their code cannot be had on another platform.
    pub injecting: Option<Lock>,
    /// Whether it may be destroyed right after the last unlock.
    pub release_is_final: bool,
    pub order: Order,
    pub waiting: Waiting,
}

impl Subject {
    pub fn open(source: &Source) -> Result<Subject> {
        // Of a foreign library nothing is known: it is promised nothing, and sleeps as glibc does.
        let info = source.info();
        Ok(Subject {
            lock: source.open()?,
            injecting: match source.origin {
                Origin::Entry(entry) => injecting(entry.info.name),
                Origin::Library(_) => None,
            },
            release_is_final: match source.origin {
                Origin::Entry(entry) => entry.release_is_final,
                Origin::Library(_) => true,
            },
            order: info.map_or(Order::Unfair, |info| info.order),
            waiting: info.map_or(Waiting::Sleeps, |info| info.waiting),
        })
    }

    /// Whether each hand-over goes to one certain thread, which has to have a CPU for it.
    pub fn needs_turns(&self) -> bool {
        self.order == Order::Fifo && self.waiting == Waiting::Spins
    }
}

fn injecting(name: &str) -> Option<Lock> {
    let ours = locks::find::<Injecting>(name.as_bytes());
    let entry = ours.or_else(|| busted::find::<Injecting>(name))?;
    Some(Lock {
        name: name.into(),
        library: PathBuf::new(),
        size: entry.size,
        ops: entry.operations,
    })
}
