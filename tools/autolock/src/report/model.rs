//! What a capture says, in names: the one structure that every output is made from.
//!
//! May touch: nothing. Times are nanoseconds.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};

use hdrhistogram::Histogram;
use serde::Serialize;

/// One capture.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The process.
    pub process: Process,
    /// Its locks, each with its totals; in the order of the capture.
    pub locks: Vec<Lock>,
    /// Where was waited and held; every total of a lock is the sum of its sites.
    pub sites: Vec<Site>,
    /// Call stacks.
    pub stacks: Vec<Stack>,
    /// Programs and libraries.
    pub modules: Vec<Module>,
    /// Threads that were waiting when the capture ended (or now, if it has not).
    pub waiting: Vec<Waiting>,
    /// What is missing.
    pub dropped: Dropped,
    /// What the profiler cost.
    pub cost: Cost,
    /// What a reader must know besides: damage in the file, modules whose names cannot be told. A sentence each.
    pub notes: Vec<String>,
}

/// The process of a capture.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Path of the executable.
    pub executable: String,
    /// The command line.
    pub command: Vec<String>,
    /// Process id.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Start of the capture, nanoseconds since the epoch.
    pub started_ns: i64,
    /// How long it was recorded.
    pub duration_ns: u64,
    /// How it ended.
    pub ending: Ending,
    /// How much was timed.
    pub mode: Mode,
    /// Path of the library whose locks were profiled: libc, or another preload.
    pub next: Option<String>,
    /// Threads that were seen at the end.
    pub threads: usize,
}

/// How a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// `exit`, or return from `main`.
    Exit,
    /// `_exit` or `_Exit`.
    UnderscoreExit(u32),
    /// `quick_exit`.
    QuickExit,
    /// Killed by a signal whose default action was taken.
    Signal(u32),
    /// No end is recorded: the process runs still, was killed, crashed, or became another program.
    None,
}

/// How much was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every contended wait; holds by samples.
    Sampled,
    /// Every wait and every hold.
    Full,
}

/// A lock; readers and writers of a read-write lock are two.
#[derive(Clone, Debug, Serialize)]
pub struct Lock {
    /// What people call it: its symbol, else module and offset, else where it was first used.
    pub name: String,
    /// The same in every run of the same binaries: 16 hexadecimal digits.
    pub id: String,
    /// Its address in this run.
    pub address: u64,
    /// Its kind.
    pub kind: Kind,
    /// The stack of its first use, index in [`Report::stacks`].
    pub first_use: Option<usize>,
    /// How many locks this was, one after the other.
    pub incarnations: u32,
    /// Successful acquisitions, tries and re-acquisitions after waits on condition variables included; not those of a recursive mutex by its holder.
    pub acquisitions: u64,
    /// Acquisitions of a recursive mutex by its holder.
    pub recursions: u64,
    /// Tries that found it held.
    pub failed_tries: u64,
    /// The most threads that waited at once.
    pub most_waiters: u32,
    /// Successive acquisitions that were compared, and how many of them were by different threads.
    pub compared: u64,
    /// See `compared`.
    pub changed: u64,
    /// Contended acquisitions.
    pub wait: Distribution,
    /// Holds; in [`Mode::Sampled`] an estimate.
    pub hold: Distribution,
    /// Waits on condition variables.
    pub cond: Distribution,
    /// Of these the re-acquisition, where it can be seen apart. No histogram.
    pub reacquire: Distribution,
    /// Timed acquisitions that timed out. No histogram.
    pub timed_out: Distribution,
}

/// The kinds of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `PTHREAD_MUTEX_NORMAL`, C11 plain.
    Mutex,
    /// `PTHREAD_MUTEX_RECURSIVE`.
    Recursive,
    /// `PTHREAD_MUTEX_ERRORCHECK`.
    ErrorCheck,
    /// `PTHREAD_MUTEX_ADAPTIVE_NP`.
    Adaptive,
    /// Robust, priority-inheriting or priority-protecting.
    OtherMutex,
    /// The readers of a read-write lock.
    Readers,
    /// Its writers.
    Writers,
    /// A spin lock.
    Spin,
}

/// How often, how long.
#[derive(Clone, Debug, Serialize)]
pub struct Distribution {
    /// Occurrences (an estimate for sampled holds).
    pub count: u64,
    /// Their time in all.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many of them were really timed.
    pub samples: u64,
    /// The distribution, 2 significant digits, in nanoseconds; weighted as `count` is. Serialised as its percentiles.
    #[serde(serialize_with = "percentiles")]
    pub histogram: Values,
    /// Whether the histogram is shared with other locks of the same first use, for lack of memory.
    pub shared: bool,
}

/// What was waited or held at a place.
#[derive(Clone, Debug, Serialize)]
pub struct Site {
    /// Index in [`Report::locks`].
    pub lock: usize,
    /// What.
    pub kind: SiteKind,
    /// Where, index in [`Report::stacks`].
    pub stack: Option<usize>,
    /// Where the holder had acquired the lock, for [`SiteKind::Wait`] and [`SiteKind::TimedOut`].
    pub holder: Option<usize>,
    /// How often.
    pub count: u64,
    /// Time in all.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many were really timed.
    pub samples: u64,
}

/// What a site is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteKind {
    /// Contended acquisitions.
    Wait,
    /// Holds.
    Hold,
    /// Waits on condition variables, re-acquisition included.
    Cond,
    /// Re-acquisition after such a wait.
    Reacquire,
    /// Timed acquisitions that timed out.
    TimedOut,
}

/// A call stack.
#[derive(Clone, Debug, Serialize)]
pub struct Stack {
    /// The innermost, the caller of the lock function, first.
    pub frames: Vec<Frame>,
}

/// One return address.
#[derive(Clone, Debug, Serialize)]
pub struct Frame {
    /// Index in [`Report::modules`].
    pub module: Option<usize>,
    /// Address of the call in the module's file (one less than the return address); absolute without a module.
    pub address: u64,
    /// The functions there, the innermost inlined one first; at least one, named after module and address if nothing is known.
    pub functions: Vec<Function>,
}

/// A function of the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Function {
    /// Its demangled name.
    pub name: String,
    /// Source file.
    pub file: Option<String>,
    /// Line of the call.
    pub line: Option<u32>,
}

/// A program or library.
#[derive(Clone, Debug, Serialize)]
pub struct Module {
    /// Its path when it ran.
    pub path: String,
    /// GNU build id, hexadecimal; empty if it has none.
    pub build_id: String,
    /// Load address of what the file calls 0.
    pub base: u64,
    /// First address of its mapping.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
}

/// A thread that waits.
#[derive(Clone, Debug, Serialize)]
pub struct Waiting {
    /// Thread id.
    pub tid: u32,
    /// Index in [`Report::locks`].
    pub lock: usize,
    /// How long already; to the end of the capture, or to the last sign of life in it.
    pub for_ns: u64,
    /// Where.
    pub stack: Option<usize>,
    /// Thread id of the holder that it found.
    pub holder_tid: Option<u32>,
    /// Where that had acquired the lock.
    pub holder: Option<usize>,
}

/// What is missing from a capture, see `autolock_capture::layout::Dropped`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Dropped {
    /// Operations.
    pub operations: u64,
    /// Threads.
    pub threads: u64,
    /// Stacks.
    pub stacks: u64,
    /// Waits and holds without a site.
    pub sites: u64,
    /// Values without a histogram.
    pub values: u64,
    /// Holds that were not seen to end.
    pub holds: u64,
}

/// What an uncontended lock and unlock cost in this process, in nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// Without the profiler.
    pub native_ns: f64,
    /// What counting adds.
    pub counted_ns: f64,
    /// What timing adds.
    pub timed_ns: f64,
}

/// A histogram, copied when it is written: a hundred thousand locks with no values, or with those that they share, cost nothing.
#[derive(Clone, Debug)]
pub struct Values(Arc<Histogram<u64>>);

impl Values {
    /// Whether both are one and the same, not only equal.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<Histogram<u64>> for Values {
    fn from(histogram: Histogram<u64>) -> Self {
        Self(Arc::new(histogram))
    }
}

impl Deref for Values {
    type Target = Histogram<u64>;

    fn deref(&self) -> &Histogram<u64> {
        &self.0
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut Histogram<u64> {
        Arc::make_mut(&mut self.0)
    }
}

/// No values: 2 significant digits from 1 ns to 2^42 ns, as in the capture.
static EMPTY: LazyLock<Values> = LazyLock::new(|| {
    Histogram::new_with_bounds(1, (1 << 42) - 1, 2)
        .unwrap_or_else(|_| unreachable!("constant bounds and digits that the crate accepts"))
        .into()
});

impl Distribution {
    /// None yet: 2 significant digits from 1 ns to 2^42 ns, as in the capture.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            count: 0,
            total_ns: 0,
            max_ns: 0,
            samples: 0,
            histogram: EMPTY.clone(),
            shared: false,
        }
    }

    /// Mean in nanoseconds; 0 if there is none.
    #[must_use]
    pub fn mean_ns(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.total_ns as f64 / self.count as f64
        }
    }
}

/// What JSON shows of a histogram.
#[derive(Serialize)]
struct Percentiles {
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
}

fn percentiles<S: serde::Serializer>(
    histogram: &Histogram<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // An empty one is searched to its end otherwise, and most are.
    let at = |quantile| match histogram.is_empty() {
        true => 0,
        false => histogram.value_at_quantile(quantile),
    };
    Percentiles {
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
    }
    .serialize(serializer)
}
