//! What the lock profiler recorded of one memcached, against what is known of it and against itself.
//!
//! Known: memcached takes a lock at least once for each request that it has served, none is lost, and SIGINT ends it by its own handler.
//! Against itself: the JSON's totals of locks, the sums over its sites, the samples of the pprof files and the histograms of the logs must
//! be the same numbers. The files are read with the public schema (protocol buffers) and the public reader (`hdrhistogram`).
//!
//! May touch: the folder of the captures; starts `autolock report`.

use crate::bench::Run;
use crate::cli::Options;
use crate::process::{bounded, output};
use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use example_common::lock::Lock;
use flate2::read::GzDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A report of a capture takes a second or so.
const REPORT_LIMIT: Duration = Duration::from_secs(120);

/// Locks that are looked at one by one.
const HOTTEST: usize = 5;

/// The locks of the comparison.
pub fn locks(full: bool) -> Vec<Lock> {
    let profiled = [false, true].map(|full| Lock::Profiled { full });
    let count = if full { 2 } else { 1 };
    std::iter::once(Lock::Glibc)
        .chain(profiled.into_iter().take(count))
        .collect()
}

/// Where one memcached's capture goes.
pub struct Captures {
    folder: PathBuf,
    /// Goes away with this.
    _scratch: Option<tempfile::TempDir>,
}

/// What was recorded, and what speaks against it.
#[derive(Serialize, Debug)]
pub struct Profile {
    pub acquisitions: u64,
    pub contended: u64,
    pub wait_ns: u64,
    pub holds: u64,
    pub hold_ns: u64,
    /// The locks that were waited for the most.
    pub hottest: Vec<Hot>,
    pub problems: Vec<String>,
}

/// A lock that was waited for.
#[derive(Serialize, Debug)]
pub struct Hot {
    pub name: String,
    pub contended: u64,
    pub wait_ns: u64,
    /// The innermost function or place that waited the longest.
    pub waiter: String,
}

impl Captures {
    /// None of a memcached that is not profiled.
    pub fn of(options: &Options, lock: &Lock, threads: u16, round: u16) -> Result<Option<Self>> {
        let (Lock::Profiled { .. }, Some(profiling)) = (lock, &options.profiling) else {
            return Ok(None);
        };
        let scratch = match &profiling.keep {
            None => Some(tempfile::tempdir().context("cannot make a temporary folder")?),
            Some(_) => None,
        };
        let folder = match (&scratch, &profiling.keep) {
            (Some(scratch), _) => scratch.path().to_path_buf(),
            (None, keep) => keep
                .clone()
                .unwrap_or_default()
                .join(format!("{lock}-{threads}-threads-round-{round}")),
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // memcached stays where it is, but needs no luck for that.
        let folder = folder.canonicalize()?;
        ensure!(
            captures_in(&folder)?.is_empty(),
            "{} has captures of an earlier run",
            folder.display()
        );
        Ok(Some(Self {
            folder,
            _scratch: scratch,
        }))
    }

    /// What tells the profiler.
    pub fn variable(&self) -> (&'static str, String) {
        let pattern = self.folder.join("%e.%p.lockprof");
        ("AUTOLOCK_PROFILE_FILE", pattern.display().to_string())
    }

    /// Reads the capture of a memcached that has ended.
    pub fn examine(&self, tool: &Path, lock: &Lock, run: &Run) -> Result<Profile> {
        let captures = captures_in(&self.folder)?;
        let [capture] = captures.as_slice() else {
            anyhow::bail!("{} captures of one memcached: {captures:?}", captures.len());
        };
        let files = self.folder.join("report");
        let mut report = bounded(REPORT_LIMIT, tool);
        report.args(["report", "--json", "--output"]);
        report.arg(&files).arg(capture);
        let json = output(&mut report, "autolock report")?;
        let document: Document =
            serde_json::from_str(&json).context("autolock report's JSON is not as expected")?;

        let mut findings = Findings::default();
        findings.known(&document, capture, lock, run);
        for measure in [Measure::Wait, Measure::Hold] {
            findings.agree(&document, measure, &files)?;
        }
        let hottest = hottest(&document);
        findings.named(&document, &hottest);
        Ok(Profile {
            acquisitions: document.totals.acquisitions,
            contended: document.totals.contended,
            wait_ns: document.totals.wait_ns,
            holds: document.totals.holds,
            hold_ns: document.totals.hold_ns,
            hottest,
            problems: findings.0,
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |ns: u64| ns as f64 / 1e6;
        write!(
            f,
            "{} acquisitions, {} contended, {:.1} ms waited",
            self.acquisitions,
            self.contended,
            milliseconds(self.wait_ns)
        )?;
        for lock in &self.hottest {
            write!(
                f,
                "; {}: {} waits, {:.1} ms",
                lock.name,
                lock.contended,
                milliseconds(lock.wait_ns)
            )?;
        }
        Ok(())
    }
}

fn captures_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut captures = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.to_string_lossy().contains(".lockprof") {
            captures.push(path);
        }
    }
    Ok(captures)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Wait,
    Hold,
}

impl Measure {
    /// The name of a site's kind, and of the log.
    fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Hold => "hold",
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Self::Wait => "contention.pb.gz",
            Self::Hold => "hold.pb.gz",
        }
    }

    fn of(self, lock: &LockLine) -> (u64, u64) {
        let times = match self {
            Self::Wait => &lock.wait,
            Self::Hold => &lock.hold,
        };
        (times.count, times.total_ns)
    }

    fn total(self, totals: &Totals) -> (u64, u64) {
        match self {
            Self::Wait => (totals.contended, totals.wait_ns),
            Self::Hold => (totals.holds, totals.hold_ns),
        }
    }
}

/// What is wrong, a line each.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn check(&mut self, good: bool, problem: impl FnOnce() -> String) {
        if !good {
            self.0.push(problem());
        }
    }

    /// Against what is known of the run.
    fn known(&mut self, document: &Document, capture: &Path, lock: &Lock, run: &Run) {
        let wanted = match lock {
            Lock::Profiled { full: true } => "full",
            _ => "sampled",
        };
        let Process { mode, ending } = &document.process;
        self.check(mode == wanted, || {
            format!("recorded in {mode} mode, not {wanted}")
        });
        // The handler of memcached has run: it leaves `main`.
        self.check(*ending == "exit", || {
            format!("the capture ends by {ending}, not by exit")
        });
        let named = format!("autolock report {}", capture.display());
        self.check(run.said.contains(&named), || {
            "the table at SIGINT does not name the capture".to_string()
        });
        let (acquired, served) = (document.totals.acquisitions, run.served.operations);
        self.check(acquired >= served && served > 0, || {
            format!("{acquired} acquisitions for {served} requests")
        });
        let dropped: u64 = document.dropped.values().sum();
        self.check(dropped == 0, || {
            format!("{dropped} things were dropped: {:?}", document.dropped)
        });
    }

    /// The same numbers everywhere.
    fn agree(&mut self, document: &Document, measure: Measure, files: &Path) -> Result<()> {
        let name = measure.name();
        let total = measure.total(&document.totals);
        let locks = sum(document.locks.iter().map(|lock| measure.of(lock)));
        let sites = document.sites.iter().filter(|site| site.kind == name);
        let sites = sum(sites.map(|site| (site.count, site.total_ns)));
        let profile = pprof_totals(&files.join(measure.profile()))?;
        for (what, found) in [("locks", locks), ("sites", sites), ("pprof file", profile)] {
            self.check(found == total, || {
                format!("{name}: the {what} have {found:?} times and ns, the totals {total:?}")
            });
        }
        let (together, tagged) = log_counts(&files.join(format!("{name}.hlog")))?;
        for (what, found) in [("log", together), ("log's locks", tagged)] {
            self.check(found == total.0, || {
                format!(
                    "{name}: the {what} have {found} values, the totals {}",
                    total.0
                )
            });
        }
        Ok(())
    }

    /// That the hottest locks have names, and their waiters places.
    fn named(&mut self, document: &Document, hottest: &[Hot]) {
        self.check(
            document.totals.contended == 0 || !hottest.is_empty(),
            || "no lock is named".to_string(),
        );
        for lock in hottest {
            let address = lock.name.is_empty() || lock.name.starts_with("0x");
            self.check(!address, || format!("a lock is called {:?}", lock.name));
            self.check(!lock.waiter.is_empty(), || {
                format!("nobody knows where {} was waited for", lock.name)
            });
        }
    }
}

fn sum(pairs: impl Iterator<Item = (u64, u64)>) -> (u64, u64) {
    pairs.fold((0, 0), |all, pair| (all.0 + pair.0, all.1 + pair.1))
}

/// Locks of one name together, as the table has them.
fn hottest(document: &Document) -> Vec<Hot> {
    let mut rows: Vec<Hot> = Vec::new();
    for (index, lock) in document.locks.iter().enumerate() {
        let (contended, wait_ns) = Measure::Wait.of(lock);
        if contended == 0 {
            continue;
        }
        if let Some(row) = rows.iter_mut().find(|row| row.name == lock.name) {
            row.contended += contended;
            row.wait_ns += wait_ns;
            continue;
        }
        let sites = document.sites.iter();
        let waits = sites.filter(|site| site.lock == index && site.kind == "wait");
        let stack = waits
            .max_by_key(|site| site.total_ns)
            .and_then(|site| document.stacks.get(site.stack?));
        let function = stack.and_then(|stack| stack.frames.first()?.functions.first());
        rows.push(Hot {
            name: lock.name.clone(),
            contended,
            wait_ns,
            waiter: function
                .map(|function| function.name.clone())
                .unwrap_or_default(),
        });
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.wait_ns));
    rows.truncate(HOTTEST);
    rows
}

/// What is needed of `profile.proto` of github.com/google/pprof, with its field numbers.
#[derive(Clone, PartialEq, Message)]
struct PprofProfile {
    #[prost(message, repeated, tag = "2")]
    sample: Vec<PprofSample>,
}

#[derive(Clone, PartialEq, Message)]
struct PprofSample {
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

/// Sums of a profile's two values.
fn pprof_totals(file: &Path) -> Result<(u64, u64)> {
    let name = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(file).with_context(name)?)
        .read_to_end(&mut bytes)
        .with_context(name)?;
    let profile = PprofProfile::decode(bytes.as_slice()).with_context(name)?;
    let pairs = profile
        .sample
        .iter()
        .map(|sample| match sample.value.as_slice() {
            &[count, time] => Ok((u64::try_from(count)?, u64::try_from(time)?)),
            values => anyhow::bail!("{} values of a sample", values.len()),
        });
    let pairs: Vec<(u64, u64)> = pairs.collect::<Result<_>>().with_context(name)?;
    Ok(sum(pairs.into_iter()))
}

/// Values in the histogram of all locks, and in those of each lock together.
fn log_counts(file: &Path) -> Result<(u64, u64)> {
    let name = || format!("cannot read {}", file.display());
    let log = fs::read(file).with_context(name)?;
    let mut reader = Deserializer::new();
    let (mut together, mut tagged) = (0, 0);
    for entry in IntervalLogIterator::new(&log) {
        let entry = entry.map_err(|error| anyhow::anyhow!("{}: {error:?}", file.display()))?;
        let LogEntry::Interval(interval) = entry else {
            continue;
        };
        let compressed = BASE64_STANDARD
            .decode(interval.encoded_histogram())
            .with_context(name)?;
        let histogram: Histogram<u64> = reader
            .deserialize(&mut compressed.as_slice())
            .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        match interval.tag() {
            None => together += histogram.len(),
            Some(_) => tagged += histogram.len(),
        }
    }
    Ok((together, tagged))
}

/// What is needed of the JSON.
#[derive(Deserialize)]
struct Document {
    totals: Totals,
    process: Process,
    locks: Vec<LockLine>,
    sites: Vec<Site>,
    stacks: Vec<Stack>,
    dropped: std::collections::BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Totals {
    acquisitions: u64,
    contended: u64,
    wait_ns: u64,
    holds: u64,
    hold_ns: u64,
}

#[derive(Deserialize)]
struct Process {
    mode: String,
    /// A word, or an object with a detail.
    ending: serde_json::Value,
}

#[derive(Deserialize)]
struct LockLine {
    name: String,
    wait: Times,
    hold: Times,
}

#[derive(Deserialize)]
struct Times {
    count: u64,
    total_ns: u64,
}

#[derive(Deserialize)]
struct Site {
    lock: usize,
    kind: String,
    stack: Option<usize>,
    count: u64,
    total_ns: u64,
}

#[derive(Deserialize)]
struct Stack {
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Frame {
    functions: Vec<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report;
    use flate2::{Compression, write::GzEncoder};
    use hdrhistogram::serialization::V2DeflateSerializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
    use std::io::Write;

    /// Two locks that were waited for once and twice; held as often.
    fn document() -> Document {
        let lock = |name: &str, count: u64| {
            serde_json::json!({
                "name": name,
                "wait": {"count": count, "total_ns": 10 * count},
                "hold": {"count": count, "total_ns": 10 * count},
            })
        };
        let site = |lock: usize, kind: &str| {
            serde_json::json!({
                "lock": lock, "kind": kind, "stack": 0, "count": lock + 1, "total_ns": 10 * (lock + 1),
            })
        };
        let sites = [
            site(0, "wait"),
            site(0, "hold"),
            site(1, "wait"),
            site(1, "hold"),
        ];
        serde_json::from_value(serde_json::json!({
            "totals": {"acquisitions": 5000, "contended": 3, "wait_ns": 30, "holds": 3, "hold_ns": 30},
            "process": {"mode": "sampled", "ending": "exit"},
            "locks": [lock("a+0x1", 1), lock("b+0x2", 2)],
            "sites": sites,
            "stacks": [{"frames": [{"functions": [{"name": "f"}]}]}],
            "dropped": {"operations": 0},
        }))
        .expect("a document")
    }

    /// The files that belong to it.
    fn files() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for measure in [Measure::Wait, Measure::Hold] {
            let sample = [1, 2].map(|count| PprofSample {
                value: vec![count, 10 * count],
            });
            let message = PprofProfile {
                sample: sample.into(),
            }
            .encode_to_vec();
            let file = File::create(folder.path().join(measure.profile())).expect("created");
            let mut gzip = GzEncoder::new(file, Compression::fast());
            gzip.write_all(&message)
                .and_then(|()| gzip.finish())
                .expect("written");

            let mut log = Vec::new();
            let mut serializer = V2DeflateSerializer::new();
            let mut writer = IntervalLogWriterBuilder::new()
                .begin_log_with(&mut log, &mut serializer)
                .expect("begun");
            for (tag, count) in [(None, 3), (Some("a"), 1), (Some("b"), 2)] {
                let mut histogram = Histogram::<u64>::new(2).expect("digits");
                histogram.record_n(10, count).expect("recorded");
                let tag = tag.and_then(Tag::new);
                writer
                    .write_histogram(&histogram, Duration::ZERO, Duration::ZERO, tag)
                    .expect("written");
            }
            drop(writer);
            let name = format!("{}.hlog", measure.name());
            fs::write(folder.path().join(name), log).expect("written");
        }
        folder
    }

    fn findings(document: &Document, run: &Run, files: &Path) -> Vec<String> {
        let mut findings = Findings::default();
        let lock = Lock::Profiled { full: false };
        findings.known(document, Path::new("/x.lockprof"), &lock, run);
        for measure in [Measure::Wait, Measure::Hold] {
            findings.agree(document, measure, files).expect("read");
        }
        findings.named(document, &hottest(document));
        findings.0
    }

    #[test]
    fn what_does_not_agree_is_told() {
        let files = files();
        let run = || Run {
            said: "autolock report /x.lockprof".to_string(),
            ..report::tests::run(Lock::Profiled { full: false }, 1, 100.0)
        };
        let tell = |document: Document, run: Run| findings(&document, &run, files.path());
        assert_eq!(tell(document(), run()), Vec::<String>::new());
        type Spoil = fn(&mut Document, &mut Run);
        let cases: [(&str, Spoil); 9] = [
            ("the locks have (2, 20)", |d, _| drop(d.locks.remove(0))),
            ("hold: the sites have", |d, _| d.sites[1].total_ns += 1),
            ("the pprof file have", |d, _| d.totals.wait_ns += 1),
            ("the log have 3 values, the totals 4", |d, _| {
                d.totals.holds += 1
            }),
            ("recorded in full mode", |d, _| {
                d.process.mode = "full".into()
            }),
            ("ends by \"none\"", |d, _| d.process.ending = "none".into()),
            ("999 acquisitions for 1000", |d, _| {
                d.totals.acquisitions = 999
            }),
            ("things were dropped", |d, _| {
                *d.dropped.entry("sites".into()).or_default() += 1;
            }),
            ("does not name the capture", |_, r| r.said.clear()),
        ];
        for (says, spoil) in cases {
            let (mut document, mut run) = (document(), run());
            spoil(&mut document, &mut run);
            let told = tell(document, run).join("\n");
            assert!(told.contains(says), "{says}: {told}");
        }
        let mut nameless = document();
        nameless.locks[1].name = "0x7f00".into();
        nameless.sites[2].stack = None;
        assert_eq!(tell(nameless, run()).len(), 2);
    }

    #[test]
    fn the_hottest_lock_stands_first_with_its_waiter() {
        let mut document = document();
        let hot = hottest(&document);
        assert_eq!((hot[0].name.as_str(), hot[0].wait_ns), ("b+0x2", 20));
        assert_eq!(hot[0].waiter, "f");
        document.locks[0].name = "b+0x2".into();
        let hot = hottest(&document);
        assert_eq!(
            (hot.len(), hot[0].contended),
            (1, 3),
            "locks of one name are one"
        );
    }
}
