//! From the items of a capture to what they say, in names.
//!
//! Every index is looked up and may lead nowhere; what is damaged is left out, counted, and told in the report's notes. No chain is followed, so
//! no circle can catch it. Numbers whose sums would not fit 62 bits are taken for damage too: whoever adds up a report need not fear overflow.
//!
//! - [`header`]: the process; [`histograms`]; [`threads`]: what is not yet in the locks, and who waits. Here: modules, stacks, locks, sites.

mod header;
mod histograms;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek};

use anyhow::Result;
use autolock_capture::layout::{self, control, frame, histogram, kind, site};

use super::bytes::get;
use super::file::File;
use super::identity::{Identity, first_used};
use super::model::{
    Distribution, Frame, Kind, Lock, Module, Report, Site, SiteKind, Stack, Values,
};
use super::symbols::{Symbols, base_name, clean, hexadecimal, unknown};

/// Sums of any kind stay below this.
const LARGEST: u64 = 1 << 62;
/// Bytes that the histograms of one report may take.
const HISTOGRAM_BYTES: u64 = 2 << 30;
/// The largest value of a histogram.
const HIGHEST: u64 = (1 << 42) - 1;

/// Reads a capture and names what is in it.
///
/// # Errors
/// The file cannot be read, or is no capture of this version.
pub fn read(from: impl Read + Seek) -> Result<Report> {
    let file = File::read(from)?;
    Ok(Builder::new(&file).report())
}

/// Indices of a table's items in the report's list.
type Map = HashMap<u32, usize>;

struct Builder<'a> {
    file: &'a File,
    symbols: Symbols,
    modules: Vec<Module>,
    module_of: Map,
    stacks: Vec<Stack>,
    stack_of: Map,
    locks: Vec<Lock>,
    lock_of: Map,
    hidden: HashSet<u32>,
    sites: Vec<Site>,
    histograms: HashMap<u32, Values>,
    rows_taken: HashSet<u32>,
    damage: Damage,
    room: Room,
}

/// Items that were left out.
#[derive(Default)]
struct Damage {
    stacks: u64,
    locks: u64,
    sites: u64,
    rows: u64,
    threads: u64,
}

/// What may still be added before a sum gets too large.
struct Room {
    operations: u64,
    times: u64,
    values: u64,
    histograms: u64,
}

impl<'a> Builder<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            file,
            symbols: Symbols::default(),
            modules: Vec::new(),
            module_of: Map::new(),
            stacks: Vec::new(),
            stack_of: Map::new(),
            locks: Vec::new(),
            lock_of: Map::new(),
            hidden: HashSet::new(),
            sites: Vec::new(),
            histograms: HashMap::new(),
            rows_taken: HashSet::new(),
            damage: Damage::default(),
            room: Room {
                operations: LARGEST,
                times: LARGEST,
                values: LARGEST,
                histograms: HISTOGRAM_BYTES,
            },
        }
    }

    fn report(mut self) -> Report {
        self.modules();
        self.stacks();
        self.locks();
        self.sites();
        let end = self.end();
        let (threads, waiting) = self.threads(end);
        self.totals();
        let header = self.file.header();
        let mut process = self.process(header, end);
        process.threads = threads;
        let notes = self.notes();
        Report {
            process,
            dropped: header::dropped(header),
            cost: header::cost(header),
            locks: self.locks,
            sites: self.sites,
            stacks: self.stacks,
            modules: self.modules,
            waiting,
            notes,
        }
    }

    fn modules(&mut self) {
        for (index, item) in self.file.items::<layout::Module>().iter() {
            let path = get!(item, layout::Module, path);
            let path = &path[..path
                .len()
                .min(get!(item, layout::Module, path_length) as usize)];
            let id = get!(item, layout::Module, build_id);
            let id = &id[..id
                .len()
                .min(get!(item, layout::Module, build_id_length) as usize)];
            self.module_of.insert(index, self.modules.len());
            self.modules.push(Module {
                path: clean(&String::from_utf8_lossy(path)),
                build_id: hexadecimal(id),
                base: get!(item, layout::Module, base),
                start: get!(item, layout::Module, start),
                end: get!(item, layout::Module, end),
            });
        }
    }

    fn stacks(&mut self) {
        // Each frame belongs to one stack: all stacks together are not longer than their table.
        let mut frames_left = self.file.items::<std::sync::atomic::AtomicU64>().len();
        for (index, item) in self.file.items::<layout::Stack>().iter() {
            let first = u64::from(get!(item, layout::Stack, first));
            let len = u64::from(get!(item, layout::Stack, len));
            if len == 0 {
                continue;
            }
            let fits = len <= layout::DEPTH as u64 && len <= frames_left;
            let frames: Option<Vec<u64>> = fits
                .then(|| (first..first + len).map(|i| self.file.frame(i)).collect())
                .flatten();
            let Some(frames) = frames else {
                self.damage.stacks += 1;
                continue;
            };
            frames_left -= len;
            let frames = frames.into_iter().map(|frame| self.frame(frame)).collect();
            self.stack_of.insert(index, self.stacks.len());
            self.stacks.push(Stack { frames });
        }
    }

    fn frame(&mut self, word: u64) -> Frame {
        let module = self.module_of.get(&frame::module(word)).copied();
        // The call stands before the return address.
        let address = frame::offset(word).saturating_sub(1);
        Frame {
            module,
            address,
            functions: match module {
                Some(index) => self.symbols.functions(index, &self.modules[index], address),
                None => vec![unknown(format!("{address:#x}"))],
            },
        }
    }

    fn locks(&mut self) {
        for (index, item) in self.file.items::<layout::Lock>().iter() {
            if get!(item, layout::Lock, control) & control::HIDDEN != 0 {
                self.hidden.insert(index);
                continue;
            }
            let key = get!(item, layout::Lock, key);
            let Some(kind) = kind_of(get!(item, layout::Lock, kind)).filter(|_| key != 0) else {
                self.damage.locks += 1;
                continue;
            };
            let counted = [
                get!(item, layout::Lock, acquisitions),
                get!(item, layout::Lock, failed),
                get!(item, layout::Lock, recursions),
                get!(item, layout::Lock, compared),
            ];
            if !counted.iter().all(|&n| take(&mut self.room.operations, n)) {
                self.damage.locks += 1;
                continue;
            }
            let [acquisitions, failed_tries, recursions, compared] = counted;
            let first_use = get!(item, layout::Lock, first_use);
            let shared = self.file.items::<layout::Stack>().get(u64::from(first_use));
            let shared = shared.map(|stack| get!(stack, layout::Stack, histograms));
            let own = get!(item, layout::Lock, histograms);
            let mut distribution = |which: usize| match (own[which], shared.map(|s| s[which])) {
                (0, None | Some(0)) => Distribution::empty(),
                (0, Some(theirs)) => Distribution {
                    histogram: self.histogram(theirs),
                    shared: true,
                    ..Distribution::empty()
                },
                (own, _) => Distribution {
                    histogram: self.histogram(own),
                    ..Distribution::empty()
                },
            };
            let [wait, hold, cond] =
                [histogram::WAIT, histogram::HOLD, histogram::COND].map(&mut distribution);
            let first_use = self.stack_of.get(&first_use).copied();
            let (name, id) = self.name(kind, get!(item, layout::Lock, place), first_use);
            self.lock_of.insert(index, self.locks.len());
            self.locks.push(Lock {
                name,
                id,
                // The low bits tell readers from writers.
                address: key & !3,
                kind,
                first_use,
                incarnations: get!(item, layout::Lock, incarnations),
                acquisitions,
                recursions,
                failed_tries,
                most_waiters: get!(item, layout::Lock, most_waiters),
                compared,
                changed: get!(item, layout::Lock, changed).min(compared),
                wait,
                hold,
                cond,
                reacquire: Distribution::empty(),
                timed_out: Distribution::empty(),
            });
        }
    }

    /// A lock's name and identity.
    fn name(&mut self, kind: Kind, place: u64, first_use: Option<usize>) -> (String, String) {
        let mut identity = Identity::of(kind);
        let module = self.module_of.get(&frame::module(place)).copied();
        let stack = first_use.map(|index| &self.stacks[index]);
        let Some((index, offset)) = module.map(|module| (module, frame::offset(place))) else {
            for frame in stack.iter().flat_map(|stack| &stack.frames) {
                if let Some(module) = frame.module {
                    identity.place(&self.modules[module].path, frame.address);
                }
            }
            return (first_used(kind, stack, &self.modules), identity.digits());
        };
        let module = &self.modules[index];
        identity.place(&module.path, offset);
        let name = self.symbols.variable(index, module, offset);
        let name = name.unwrap_or_else(|| format!("{}+{offset:#x}", base_name(&module.path)));
        (name, identity.digits())
    }

    fn sites(&mut self) {
        for (_, item) in self.file.items::<layout::Site>().iter() {
            let lock = get!(item, layout::Site, lock);
            if self.hidden.contains(&lock) {
                continue;
            }
            let Some((&lock, kind)) =
                self.lock_of
                    .get(&lock)
                    .zip(site_kind_of(get!(item, layout::Site, kind)))
            else {
                self.damage.sites += 1;
                continue;
            };
            let site = Site {
                lock,
                kind,
                stack: self.stack(get!(item, layout::Site, stack)),
                holder: self.stack(get!(item, layout::Site, holder)),
                count: get!(item, layout::Site, count),
                total_ns: get!(item, layout::Site, total_ns),
                max_ns: get!(item, layout::Site, max_ns),
                samples: get!(item, layout::Site, samples),
            };
            self.site(site);
        }
    }

    /// Adds a site, if its numbers can be.
    fn site(&mut self, site: Site) {
        if take(&mut self.room.operations, site.count)
            && take(&mut self.room.operations, site.samples)
            && take(&mut self.room.times, site.total_ns)
            && site.max_ns <= LARGEST
        {
            self.sites.push(site);
        } else {
            self.damage.sites += 1;
        }
    }

    fn stack(&self, index: u32) -> Option<usize> {
        self.stack_of.get(&index).copied()
    }

    /// Every total of a lock is the sum of its sites.
    fn totals(&mut self) {
        for site in &self.sites {
            let lock = &mut self.locks[site.lock];
            let sum = match site.kind {
                SiteKind::Wait => &mut lock.wait,
                SiteKind::Hold => &mut lock.hold,
                SiteKind::Cond => &mut lock.cond,
                SiteKind::Reacquire => &mut lock.reacquire,
                SiteKind::TimedOut => &mut lock.timed_out,
            };
            sum.count += site.count;
            sum.total_ns += site.total_ns;
            sum.samples += site.samples;
            sum.max_ns = sum.max_ns.max(site.max_ns);
        }
        // A lock that was never waited for needs none of what others of its first use share.
        for lock in &mut self.locks {
            for sum in [&mut lock.wait, &mut lock.hold, &mut lock.cond] {
                if sum.shared && sum.count == 0 {
                    *sum = Distribution::empty();
                }
            }
        }
    }

    fn notes(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        let damage = &self.damage;
        let parts = [
            (self.file.missing_chunks, "chunks of its tables"),
            (damage.stacks, "stacks"),
            (damage.locks, "locks"),
            (damage.sites, "sites"),
            (damage.rows, "rows of histograms"),
            (damage.threads, "threads' counters (in part)"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n != 0);
        let parts: Vec<String> = parts.map(|(n, what)| format!("{n} {what}")).collect();
        if !parts.is_empty() {
            notes.push(format!(
                "the capture is damaged or was read while it was written; left out: {}",
                parts.join(", ")
            ));
        }
        notes.append(&mut self.symbols.notes);
        notes
    }
}

/// Takes `n` of what is left, if it is.
fn take(left: &mut u64, n: u64) -> bool {
    let enough = n <= *left;
    if enough {
        *left -= n;
    }
    enough
}

fn kind_of(kind: u32) -> Option<Kind> {
    Some(match kind {
        kind::MUTEX => Kind::Mutex,
        kind::READERS => Kind::Readers,
        kind::WRITERS => Kind::Writers,
        kind::SPIN => Kind::Spin,
        kind::RECURSIVE => Kind::Recursive,
        kind::ERRORCHECK => Kind::ErrorCheck,
        kind::ADAPTIVE => Kind::Adaptive,
        kind::OTHER => Kind::OtherMutex,
        _ => return None,
    })
}

fn site_kind_of(kind: u32) -> Option<SiteKind> {
    Some(match kind {
        site::WAIT => SiteKind::Wait,
        site::HOLD => SiteKind::Hold,
        site::COND => SiteKind::Cond,
        site::REACQUIRE => SiteKind::Reacquire,
        site::TIMEOUT => SiteKind::TimedOut,
        _ => return None,
    })
}
