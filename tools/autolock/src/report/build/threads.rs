//! What threads have not handed over to the locks, and who waits.

use autolock_capture::layout::{self, Header};

use super::super::bytes::{Item, get, parts};
use super::super::model::{Site, SiteKind, Waiting};
use super::{Builder, HIGHEST, LARGEST, take};

impl Builder<'_> {
    /// The capture's end on its own clock, or the last sign of life in it.
    pub(super) fn end(&self) -> u64 {
        let header = self.file.header();
        let ended = get!(header, Header, ended_ns);
        if ended != 0 {
            return ended;
        }
        let mut last = get!(header, Header, started_ns);
        for (_, thread) in self.file.items::<layout::Thread>().iter() {
            last = last.max(get!(thread, layout::Thread, waiting_since_ns));
            for entry in parts!(thread, layout::Thread, entries) {
                last = last.max(get!(entry, layout::Entry, sampled_ns));
            }
            for held in parts!(thread, layout::Thread, held) {
                last = last.max(get!(held, layout::Held, since_ns));
            }
        }
        last
    }

    /// What threads have not handed over: acquisitions, waits that are recorded at the release, waits that go on. And how many threads live.
    pub(super) fn threads(&mut self, end: u64) -> (usize, Vec<Waiting>) {
        let mut living = 0;
        let mut waiting = Vec::new();
        for (_, thread) in self.file.items::<layout::Thread>().iter() {
            let mut whole = true;
            for entry in parts!(thread, layout::Thread, entries) {
                if get!(entry, layout::Entry, key) != 0 {
                    whole &= self.entry(entry);
                }
            }
            let tid = get!(thread, layout::Thread, tid);
            if tid != 0 {
                living += 1;
                if get!(thread, layout::Thread, held_count) != 0 {
                    for held in parts!(thread, layout::Thread, held) {
                        whole &= self.held(held);
                    }
                }
                let lock = get!(thread, layout::Thread, waiting_for);
                match self.lock_of.get(&lock) {
                    Some(&lock) => waiting.push(self.waiting(thread, tid, lock, end)),
                    None => whole &= lock == 0 || self.hidden.contains(&lock),
                }
            }
            self.damage.threads += u64::from(!whole);
        }
        (living, waiting)
    }

    fn entry(&mut self, entry: Item<'_, layout::Entry>) -> bool {
        let acquisitions = get!(entry, layout::Entry, acquisitions);
        let failed = u64::from(get!(entry, layout::Entry, failed));
        let index = get!(entry, layout::Entry, lock);
        let Some(&lock) = self.lock_of.get(&index) else {
            return self.hidden.contains(&index) || acquisitions == 0 && failed == 0;
        };
        let fits = take(&mut self.room.operations, acquisitions)
            && take(&mut self.room.operations, failed);
        if fits {
            self.locks[lock].acquisitions += acquisitions;
            self.locks[lock].failed_tries += failed;
        }
        fits
    }

    fn held(&mut self, held: Item<'_, layout::Held>) -> bool {
        if get!(held, layout::Held, key) == 0 || get!(held, layout::Held, contended) == 0 {
            return true;
        }
        let index = get!(held, layout::Held, lock);
        let Some(&lock) = self.lock_of.get(&index) else {
            return self.hidden.contains(&index);
        };
        let wait = get!(held, layout::Held, wait_ns);
        if wait > LARGEST {
            return false;
        }
        if take(&mut self.room.values, 1) {
            let _ = self.locks[lock].wait.histogram.record(wait.min(HIGHEST));
        }
        self.site(Site {
            lock,
            kind: SiteKind::Wait,
            stack: self.stack(get!(held, layout::Held, stack)),
            holder: self.stack(get!(held, layout::Held, holder)),
            count: 1,
            total_ns: wait,
            max_ns: wait,
            samples: 1,
        });
        true
    }

    fn waiting(
        &mut self,
        thread: Item<'_, layout::Thread>,
        tid: u32,
        lock: usize,
        end: u64,
    ) -> Waiting {
        let holder_tid = get!(thread, layout::Thread, waiting_holder_tid);
        Waiting {
            tid,
            lock,
            for_ns: end.saturating_sub(get!(thread, layout::Thread, waiting_since_ns)),
            stack: self.stack(get!(thread, layout::Thread, waiting_stack)),
            holder_tid: Some(holder_tid).filter(|&tid| tid != 0),
            holder: self.stack(get!(thread, layout::Thread, waiting_holder)),
        }
    }
}
