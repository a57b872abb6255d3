//! Reports made up for tests: their totals are sums over their sites, as in those of captures.

use crate::report::model::Distribution;
use crate::report::model::{
    Cost, Dropped, Ending, Frame, Function, Kind, Lock, Mode, Module, Process, Report, Site,
    SiteKind, Stack, Waiting,
};

/// Names that a careless writer would trip over.
pub(crate) const EVIL: [&str; 8] = [
    "<script>alert('1')</script>\"&]]>",
    "a;b 17",
    "operator,(int, char const*)",
    "line\nbreak\ttab\u{1}",
    "../../etc/passwd",
    "",
    "=HYPERLINK(\"x\") 3.5",
    "--",
];

/// A report to be filled.
pub(crate) struct Builder(pub Report);

impl Builder {
    pub(crate) fn new() -> Self {
        Self(Report {
            process: Process {
                executable: "/usr/bin/cached".into(),
                command: ["cached", "-t", "4", "--data", "a b;c"]
                    .map(String::from)
                    .into(),
                pid: 4242,
                parent: 1,
                started_ns: 1_790_000_000_123_456_789,
                duration_ns: 10_500_000_000,
                ending: Ending::Signal(2),
                mode: Mode::Sampled,
                next: Some("/lib/x86_64-linux-gnu/libc.so.6".into()),
                threads: 9,
            },
            locks: Vec::new(),
            sites: Vec::new(),
            stacks: Vec::new(),
            modules: [
                (
                    "/lib/x86_64-linux-gnu/libc.so.6",
                    "c0ffee00",
                    0x7f00_0000_0000,
                ),
                ("/usr/bin/cached", "0123456789abcdef", 0x5500_0000_0000),
            ]
            .map(|(path, build_id, base)| Module {
                path: path.into(),
                build_id: build_id.into(),
                base,
                start: base,
                end: base + 0x20_0000,
            })
            .into(),
            waiting: Vec::new(),
            dropped: Dropped::default(),
            notes: Vec::new(),
            cost: Cost {
                native_ns: 14.2,
                counted_ns: 3.1,
                timed_ns: 41.0,
            },
        })
    }

    pub(crate) fn lock(&mut self, name: &str, kind: Kind) -> usize {
        let index = self.0.locks.len();
        self.0.locks.push(Lock {
            name: name.into(),
            id: format!(
                "{:016x}",
                0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 + 1)
            ),
            address: 0x5500_0010_0000 + 64 * index as u64,
            kind,
            first_use: None,
            incarnations: 1,
            acquisitions: 0,
            recursions: 0,
            failed_tries: 0,
            most_waiters: 0,
            compared: 0,
            changed: 0,
            wait: Distribution::empty(),
            hold: Distribution::empty(),
            cond: Distribution::empty(),
            reacquire: Distribution::empty(),
            timed_out: Distribution::empty(),
        });
        index
    }

    /// Of functions, the innermost first; `a => b` is `a` inlined into `b`.
    pub(crate) fn stack(&mut self, functions: &[&str]) -> usize {
        let frame = |(depth, names): (usize, &&str)| {
            let outermost = depth + 1 == functions.len();
            Frame {
                module: Some(usize::from(!outermost)),
                address: names
                    .bytes()
                    .fold(0x1000, |a, b| (a * 31 + u64::from(b)) % 0x1f_0000),
                functions: names
                    .split(" => ")
                    .map(|name| Function {
                        name: name.into(),
                        file: (!outermost).then(|| "/src/cached/store.cc".into()),
                        line: (!outermost).then_some(10 * depth as u32 + 17),
                    })
                    .collect(),
            }
        };
        let frames = functions.iter().enumerate().map(frame).collect();
        self.0.stacks.push(Stack { frames });
        self.0.stacks.len() - 1
    }

    /// Times of one site.
    pub(crate) fn site(
        &mut self,
        kind: SiteKind,
        lock: usize,
        stack: Option<usize>,
        holder: Option<usize>,
        times: impl Iterator<Item = u64>,
    ) {
        let mut site = Site {
            lock,
            kind,
            stack,
            holder,
            count: 0,
            total_ns: 0,
            max_ns: 0,
            samples: 0,
        };
        let lock = &mut self.0.locks[lock];
        let distribution = match kind {
            SiteKind::Wait => &mut lock.wait,
            SiteKind::Hold => &mut lock.hold,
            SiteKind::Cond => &mut lock.cond,
            SiteKind::Reacquire => &mut lock.reacquire,
            SiteKind::TimedOut => &mut lock.timed_out,
        };
        for ns in times {
            site.count += 1;
            site.samples += 1;
            site.total_ns += ns;
            site.max_ns = site.max_ns.max(ns);
            distribution.histogram.saturating_record(ns);
        }
        distribution.count += site.count;
        distribution.samples += site.samples;
        distribution.total_ns += site.total_ns;
        distribution.max_ns = distribution.max_ns.max(site.max_ns);
        if kind == SiteKind::Hold {
            lock.acquisitions += site.count;
        }
        self.0.sites.push(site);
    }
}

/// Numbers with a long tail, the same every time.
pub(crate) fn times(seed: u64, count: u64, median_ns: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
        let spread = (unit / (1.0 - unit * 0.999_99)).powf(0.9);
        (median_ns as f64 * spread) as u64 + 20
    })
}

/// A server with a few locks, of which two matter; a cycle of waiting threads at its end.
pub(crate) fn server() -> Report {
    let mut b = Builder::new();
    let stats = b.lock("stats_lock", Kind::Mutex);
    let table = b.lock(
        "cache::Table<std::string, Item>::shards_[3].mutex",
        Kind::Adaptive,
    );
    let readers = b.lock("config_lock", Kind::Readers);
    let writers = b.lock("config_lock", Kind::Writers);
    let queue = b.lock("worker_queue", Kind::Mutex);
    let idle = b.lock("log_lock", Kind::Recursive);
    let spin = b.lock("libcached.so+0x4a40", Kind::Spin);
    let root = ["start_thread", "clone3"];
    let mut stack = |functions: &[&str]| {
        let mut all = functions.to_vec();
        all.extend(root);
        b.stack(&all)
    };
    let count = stack(&[
        "std::lock_guard<std::mutex>::lock_guard => Stats::count(unsigned long)",
        "handle_request(Connection&)",
        "worker_loop(void*)",
    ]);
    let flush = stack(&[
        "Stats::flush(std::ostream&, std::chrono::duration<long, std::ratio<1l, 1000l> >)",
        "timer_tick",
        "event_loop",
        "timer_thread",
    ]);
    let get = stack(&[
        "cache::Table<std::string, Item>::get(std::string const&) const",
        "process_get => handle_request(Connection&)",
        "worker_loop(void*)",
    ]);
    let set = stack(&[
        "cache::Table<std::string, Item>::set(std::string const&, Item&&)",
        "process_set => handle_request(Connection&)",
        "worker_loop(void*)",
    ]);
    let evict = stack(&[
        "cache::Lru::evict(unsigned long)",
        "cache::Table<std::string, Item>::grow()",
        "maintenance_thread",
    ]);
    let reload = stack(&["reload_config(char const*)", "signal_thread"]);
    let read = stack(&[
        "config_value",
        "handle_request(Connection&)",
        "worker_loop(void*)",
    ]);
    let pop = stack(&["Queue::pop()", "worker_loop(void*)"]);
    let log = stack(&[
        "log_line",
        "handle_request(Connection&)",
        "worker_loop(void*)",
    ]);
    use SiteKind::{Cond, Hold, Reacquire, TimedOut, Wait};
    b.site(
        Wait,
        stats,
        Some(count),
        Some(flush),
        times(1, 1_800, 900_000),
    );
    b.site(
        Wait,
        stats,
        Some(count),
        Some(count),
        times(2, 60_000, 1_500),
    );
    b.site(Wait, stats, Some(flush), Some(count), times(3, 300, 4_000));
    b.site(Hold, stats, Some(count), None, times(4, 200_000, 110));
    b.site(Hold, stats, Some(flush), None, times(5, 105, 4_000_000));
    b.site(Wait, table, Some(get), Some(evict), times(6, 420, 700_000));
    b.site(Wait, table, Some(get), Some(set), times(7, 9_000, 2_500));
    b.site(Wait, table, Some(set), Some(get), times(8, 8_000, 1_100));
    b.site(Wait, table, Some(set), None, times(9, 12, 3_000));
    b.site(Hold, table, Some(get), None, times(10, 90_000, 300));
    b.site(Hold, table, Some(set), None, times(11, 40_000, 700));
    b.site(Hold, table, Some(evict), None, times(12, 60, 6_000_000));
    b.site(
        TimedOut,
        table,
        Some(evict),
        Some(get),
        times(13, 3, 50_000_000),
    );
    b.site(
        Wait,
        readers,
        Some(read),
        Some(reload),
        times(14, 25, 12_000_000),
    );
    b.site(Hold, readers, Some(read), None, times(15, 150_000, 90));
    b.site(Hold, writers, Some(reload), None, times(16, 4, 20_000_000));
    b.site(Cond, queue, Some(pop), None, times(17, 5_000, 3_000_000));
    b.site(Reacquire, queue, Some(pop), None, times(18, 5_000, 900));
    b.site(Hold, queue, Some(pop), None, times(19, 30_000, 150));
    b.site(Hold, idle, Some(log), None, times(20, 2_000, 5_000));
    b.site(Hold, spin, Some(log), None, times(21, 500, 40));
    let mut report = b.0;
    for (lock, waiters) in [(stats, 7), (table, 5), (readers, 4)] {
        let lock = &mut report.locks[lock];
        lock.most_waiters = waiters;
        lock.compared = 4_000;
        lock.changed = 2_700;
        lock.failed_tries = 12;
    }
    report.locks[idle].recursions = 333;
    report.locks[stats].first_use = Some(count);
    report.locks[spin].first_use = Some(log);
    for lock in &mut report.locks {
        lock.hold.samples /= 16;
    }
    report.waiting = vec![
        waiting(
            101,
            stats,
            3_200_000_000,
            Some(count),
            Some((102, Some(flush))),
        ),
        waiting(
            102,
            table,
            3_100_000_000,
            Some(evict),
            Some((101, Some(get))),
        ),
        waiting(
            103,
            stats,
            2_900_000_000,
            Some(count),
            Some((102, Some(flush))),
        ),
        waiting(104, queue, 40_000, None, None),
    ];
    report.notes = vec!["/usr/bin/cached has changed since: its names may be wrong".into()];
    report.dropped.holds = 7;
    report.dropped.stacks = 2;
    report
}

fn waiting(
    tid: u32,
    lock: usize,
    for_ns: u64,
    stack: Option<usize>,
    holder: Option<(u32, Option<usize>)>,
) -> Waiting {
    Waiting {
        tid,
        lock,
        for_ns,
        stack,
        holder_tid: holder.map(|(tid, _)| tid),
        holder: holder.and_then(|(_, stack)| stack),
    }
}

/// No lock was ever waited for or held.
pub(crate) fn empty() -> Report {
    let mut report = Builder::new().0;
    report.modules.clear();
    report.process.command.clear();
    report.process.ending = Ending::None;
    report
}

/// Each name is somewhere, and two locks have each.
pub(crate) fn evil() -> Report {
    let mut b = Builder::new();
    b.0.process.command.extend(EVIL.map(String::from));
    b.0.process.executable = EVIL[0].into();
    for (i, name) in (0..).zip(EVIL.iter().chain(&EVIL)) {
        let lock = b.lock(name, Kind::Mutex);
        let waiter = b.stack(&[name, &format!("{name} => {name}"), "main"]);
        let holder = b.stack(&[&format!("{name} holder"), "main"]);
        b.site(
            SiteKind::Wait,
            lock,
            Some(waiter),
            Some(holder),
            times(i, 50, 10_000),
        );
        b.site(SiteKind::Wait, lock, None, None, times(i + 99, 5, 500));
        b.site(
            SiteKind::Hold,
            lock,
            Some(holder),
            None,
            times(i, 80, 1_000),
        );
        // What is out of bounds: a damaged capture.
        b.0.waiting.push(waiting(
            i as u32,
            lock,
            1,
            Some(9_999),
            Some((i as u32, Some(9_999))),
        ));
    }
    for module in &mut b.0.modules {
        module.path = EVIL[0].into();
    }
    b.0
}

/// `locks` locks, of one name each ten.
pub(crate) fn huge(locks: usize) -> Report {
    let mut b = Builder::new();
    let stacks: Vec<usize> = (0..100)
        .map(|i| {
            let leaf = format!("Object{i}::method(int)");
            b.stack(&[&leaf, "dispatch => run", "main"])
        })
        .collect();
    for i in 0..locks {
        let lock = b.lock(&format!("Object{}::mutex_", i / 10), Kind::Mutex);
        let seed = i as u64;
        let (waiter, holder) = (stacks[i % 100], stacks[i * 7 % 100]);
        b.site(
            SiteKind::Wait,
            lock,
            Some(waiter),
            Some(holder),
            times(seed, 1 + seed % 30, 2_000),
        );
        b.site(
            SiteKind::Hold,
            lock,
            Some(holder),
            None,
            times(seed, 40, 300),
        );
    }
    b.0
}
