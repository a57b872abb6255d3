//! Sites and histograms: what is measured goes there.

use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{LONGEST_CHAIN, Recorder, Room, System, mix};
use crate::layout::{self, Histogram, Lock, Row, SITE_BUCKETS, Site, Stack};

impl<S: System> Recorder<S> {
    /// Adds `weight` times `ns` to a site.
    pub fn add(&self, tid: u32, [lock, kind, stack, holder]: [u32; 4], ns: u64, weight: u64) {
        let hash = mix(u64::from(lock) << 32 | u64::from(stack))
            ^ mix(u64::from(holder) << 8 | u64::from(kind));
        let site = self
            .bucket(&self.header().site_buckets, SITE_BUCKETS, mix(hash))
            .and_then(|bucket| {
                let same = |site: &Site| {
                    site.lock.load(Relaxed) == lock
                        && site.kind.load(Relaxed) == kind
                        && site.stack.load(Relaxed) == stack
                        && site.holder.load(Relaxed) == holder
                };
                self.find_site(bucket, same).or_else(|| {
                    self.adding(tid, || {
                        self.find_site(bucket, same).or_else(|| {
                            let index = self.reserve::<Site>(1, Room::Rest)?;
                            let site = self.capture.place::<Site>(index)?;
                            site.lock.store(lock, Relaxed);
                            site.kind.store(kind, Relaxed);
                            site.stack.store(stack, Relaxed);
                            site.holder.store(holder, Relaxed);
                            site.next.store(bucket.load(Relaxed), Relaxed);
                            self.publish_item::<Site>(index);
                            bucket.store(index, Release);
                            Some(site)
                        })
                    })
                })
            });
        match site {
            Some(site) => {
                site.count.fetch_add(weight, Relaxed);
                site.total_ns.fetch_add(ns.saturating_mul(weight), Relaxed);
                site.samples.fetch_add(1, Relaxed);
                if site.max_ns.load(Relaxed) < ns {
                    site.max_ns.fetch_max(ns, Relaxed);
                }
            }
            None if stack != 0 || holder != 0 => {
                // Without room for a place of its own it is at an unknown one, if that has room.
                self.add(tid, [lock, kind, 0, 0], ns, weight);
            }
            None => _ = self.header().dropped.sites.fetch_add(1, Relaxed),
        }
    }

    fn find_site(&self, bucket: &AtomicU32, same: impl Fn(&Site) -> bool) -> Option<&'static Site> {
        let mut index = bucket.load(Acquire);
        for _ in 0..LONGEST_CHAIN {
            let site = self.capture.get::<Site>(index)?;
            if same(site) {
                return Some(site);
            }
            index = site.next.load(Relaxed);
        }
        None
    }

    /// Adds `weight` times `ns` to a lock's histogram, of [`layout::histogram`].
    pub fn count(&self, tid: u32, lock: u32, which: usize, ns: u64, weight: u64) {
        if self.try_count(tid, lock, which, ns, weight).is_none() {
            self.header().dropped.values.fetch_add(1, Relaxed);
        }
    }

    fn try_count(&self, tid: u32, lock: u32, which: usize, ns: u64, weight: u64) -> Option<()> {
        let lock = self.capture.get::<Lock>(lock)?;
        let own = lock.histograms.get(which)?;
        let mut histogram = own.load(Acquire);
        if histogram == 0 {
            let stack = self.capture.get::<Stack>(lock.first_use.load(Relaxed));
            // A static lock's is not mixed with others': those of the same first use have names of their own.
            let shared = stack
                .filter(|_| lock.place.load(Relaxed) == 0)
                .and_then(|stack| stack.histograms.get(which));
            histogram = shared.map_or(0, |shared| shared.load(Acquire));
            if histogram == 0 {
                histogram = self.adding(tid, || {
                    let to = match shared {
                        Some(shared) if !self.has_room(Room::Histograms) => shared,
                        _ => own,
                    };
                    if to.load(Relaxed) == 0 {
                        let index = self.reserve::<Histogram>(1, Room::Locks)?;
                        self.publish_item::<Histogram>(index);
                        to.store(index, Release);
                    }
                    Some(to.load(Relaxed))
                })?;
            }
        }
        let (row, counter) = layout::slot(ns);
        let link = self.capture.get::<Histogram>(histogram)?.rows.get(row)?;
        let mut index = link.load(Acquire);
        if index == 0 {
            index = self.adding(tid, || {
                if link.load(Relaxed) == 0 {
                    let index = self.reserve::<Row>(1, Room::Locks)?;
                    self.publish_item::<Row>(index);
                    link.store(index, Release);
                }
                Some(link.load(Relaxed))
            })?;
        }
        let counter = self.capture.get::<Row>(index)?.counts.get(counter)?;
        counter.fetch_add(weight, Relaxed);
        Some(())
    }

    // Threads.
}
