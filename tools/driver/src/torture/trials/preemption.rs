//! The CPU is lost at the worst points: locks of the collection run on a platform that yields, sleeps, returns from waits
//! early and hands out nodes full of garbage; all locks' threads are interrupted by signals, after which they run step by step.

use super::exclusion::hammer;
use crate::torture::crew::Crew;
use crate::torture::ground::{Ground, Phase};
use crate::torture::inject::Torment;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub fn run(ground: &Ground) -> Option<String> {
    let guarded = ground.tormented(Torment::EarlyReturns);
    ground.phase(Phase::Hammer);
    let passes = AtomicU64::new(0);
    Crew::new(ground.threads, ground.seed).work(ground.duration, true, |worker| {
        passes.fetch_add(hammer(&guarded, worker, 4), Relaxed);
    });
    guarded.settle(passes.into_inner());
    None
}
