//! The client that knows what every answer must be. It runs beside the load generator, on the same
//! keys from several threads, and checks:
//!
//! - every byte of every value read (see [`value`]);
//! - that a value read is no older than the last one stored before the read was sent, and no newer
//!   than the last one sent before its answer came (each key has one writer, any thread reads it);
//! - that no counter update is lost: all threads add to the same counters, and the sums must agree.
//!
//! It also measures the latency of its own requests. It touches memcached through [`Connection`] only.

mod value;

use crate::client::Connection;
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use value::Random;

/// Threads, with a connection each. More would take the machine from memcached and its load.
const THREADS: usize = 2;
const KEYS: usize = 256;
const COUNTERS: usize = 4;

/// Out of ten requests; the rest are reads.
const SETS_IN_TEN: u64 = 2;
const INCREMENTS_IN_TEN: u64 = 1;

/// How fast each thread sends.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// One request per interval, so that the verifier does not decide the throughput it watches.
    Every(Duration),
    /// The next request as soon as the last is answered.
    Unpaced,
}

/// The pace beside a measured load: 2,000 requests a second in all.
pub const MEASURING: Pace = Pace::Every(Duration::from_millis(1));

/// A latency histogram in nanoseconds, from 1 ns to a minute, to three digits.
pub type Latencies = Histogram<u64>;

const LONGEST_NS: u64 = 60_000_000_000;

pub fn latencies() -> Latencies {
    Latencies::new_with_bounds(1, LONGEST_NS, 3).expect("constant bounds are valid")
}

/// What one run of the verifier saw.
pub struct Verified {
    /// Latency of the requests sent while [`Control::record`] was on.
    pub latencies: Latencies,
    pub requests: u64,
    /// Values that were not what they had to be, updates lost.
    wrong: u64,
    /// Values that memcached did not have.
    missing: u64,
    /// The first fault, in words.
    pub first_fault: Option<String>,
}

impl Verified {
    fn new() -> Self {
        Self {
            latencies: latencies(),
            requests: 0,
            wrong: 0,
            missing: 0,
            first_fault: None,
        }
    }

    /// How many answers were wrong, given how many values memcached threw out for want of memory. A
    /// missing value is as wrong as a false one unless memcached had to throw some out.
    pub fn wrong(&self, evictions: u64) -> u64 {
        if evictions == 0 {
            self.wrong + self.missing
        } else {
            self.wrong
        }
    }

    fn fault(&mut self, text: impl FnOnce() -> String) {
        self.wrong += 1;
        self.first_fault.get_or_insert_with(text);
    }

    fn miss(&mut self, key: &str) {
        self.missing += 1;
        self.first_fault
            .get_or_insert_with(|| format!("{key} is missing"));
    }

    fn add(&mut self, other: Self) -> Result<()> {
        self.latencies
            .add(&other.latencies)
            .context("histograms differ")?;
        self.requests += other.requests;
        self.wrong += other.wrong;
        self.missing += other.missing;
        self.first_fault = self.first_fault.take().or(other.first_fault);
        Ok(())
    }
}

/// The running verifier, as seen by whoever runs the load beside it.
#[derive(Default)]
pub struct Control {
    stop: AtomicBool,
    recording: AtomicBool,
    requests: AtomicU64,
}

// Relaxed throughout: none of the three publishes other data, and a sample more or less at the edge
// of a window changes nothing.
impl Control {
    /// Says whether latencies count from now on: at the start and the end of a load they do not.
    pub fn record(&self, on: bool) {
        self.recording.store(on, Ordering::Relaxed);
    }

    /// Waits until the threads have sent `count` requests in all.
    pub fn wait_for(&self, count: u64, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.requests.load(Ordering::Relaxed) < count {
            ensure!(
                Instant::now() < deadline,
                "fewer than {count} verified requests within {} s",
                limit.as_secs()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Verifies `address` while `meanwhile` runs, then reads everything back once more.
pub fn run(
    address: SocketAddr,
    pace: Pace,
    meanwhile: impl FnOnce(&Control) -> Result<()>,
) -> Result<Verified> {
    let book = Book::new();
    let mut first = Connection::open(address)?;
    book.prepare(&mut first)?;

    let control = Control::default();
    let (outcome, threads) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|me| {
                let worker = Worker {
                    book: &book,
                    me,
                    control: &control,
                };
                scope.spawn(move || worker.run(address, pace))
            })
            .collect();
        let outcome = meanwhile(&control);
        control.stop.store(true, Ordering::Relaxed);
        let threads: Vec<Result<Verified>> = workers
            .into_iter()
            .map(|worker| worker.join().expect("a verifying thread panicked"))
            .collect();
        (outcome, threads)
    });

    let mut verified = Verified::new();
    for thread in threads {
        verified.add(thread?)?;
    }
    outcome?;
    book.read_back(&mut first, &mut verified)?;
    Ok(verified)
}

/// What has been sent to memcached and what it has confirmed.
struct Book {
    keys: Vec<Entry>,
    counters: Vec<Counter>,
}

struct Entry {
    key: String,
    /// Last version whose set was sent. Only the key's writer stores it, before sending.
    sent: AtomicU64,
    /// Last version whose set was confirmed. Only the key's writer stores it, after the answer.
    stored: AtomicU64,
}

struct Counter {
    key: String,
    /// Confirmed increments of all threads.
    added: AtomicU64,
}

impl Book {
    fn new() -> Self {
        // A prefix that the load generators' keys cannot have: theirs are random or numbers.
        let keys = (0..KEYS).map(|n| Entry {
            key: format!("verify-{n}"),
            sent: AtomicU64::new(1),
            stored: AtomicU64::new(1),
        });
        let counters = (0..COUNTERS).map(|n| Counter {
            key: format!("verify-counter-{n}"),
            added: AtomicU64::new(0),
        });
        Self {
            keys: keys.collect(),
            counters: counters.collect(),
        }
    }

    /// Stores version 1 of every key and zero in every counter.
    fn prepare(&self, connection: &mut Connection) -> Result<()> {
        let mut value = Vec::new();
        for entry in &self.keys {
            value::fill(&entry.key, 1, &mut value);
            connection.set(&entry.key, &value)?;
        }
        for counter in &self.counters {
            connection.set(&counter.key, b"0")?;
        }
        Ok(())
    }

    /// Reads everything once, when nobody writes any more.
    fn read_back(&self, connection: &mut Connection, verified: &mut Verified) -> Result<()> {
        let (mut value, mut scratch) = (Vec::new(), Vec::new());
        for entry in &self.keys {
            entry.check(connection, &mut value, &mut scratch, verified)?;
        }
        for Counter { key, added } in &self.counters {
            let expected = added.load(Ordering::Acquire);
            if !connection.get(key, &mut value)? {
                verified.miss(key);
                continue;
            }
            // memcached pads a counter with blanks where it once was longer.
            let text = String::from_utf8_lossy(&value);
            if text.trim_end().parse() != Ok(expected) {
                verified.fault(|| {
                    format!("{key} is {text} after {expected} confirmed increments from 0")
                });
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Reads the key and checks the answer against what may stand there.
    fn check(
        &self,
        connection: &mut Connection,
        value: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
        verified: &mut Verified,
    ) -> Result<()> {
        // Acquire, with the writer's Release in `Worker::set`: a version that a writer had confirmed
        // before our request is seen here.
        let oldest = self.stored.load(Ordering::Acquire);
        verified.requests += 1;
        if !connection.get(&self.key, value)? {
            verified.miss(&self.key);
            return Ok(());
        }
        // SeqCst, with the writer's SeqCst store: memcached's answer can carry a version only after
        // its writer stored `sent`, and the sockets between us and memcached order the two.
        let newest = self.sent.load(Ordering::SeqCst);
        let key = &self.key;
        match value::version_of(key, value, scratch) {
            Some(version) if (oldest..=newest).contains(&version) => {}
            Some(version) => verified
                .fault(|| format!("{key} has version {version}, not one of {oldest} to {newest}")),
            None => verified.fault(|| {
                format!(
                    "{key} has a value of {} bytes that was never stored",
                    value.len()
                )
            }),
        }
        Ok(())
    }
}

/// One verifying thread.
struct Worker<'a> {
    book: &'a Book,
    me: usize,
    control: &'a Control,
}

impl Worker<'_> {
    fn run(&self, address: SocketAddr, pace: Pace) -> Result<Verified> {
        let mut connection = Connection::open(address)?;
        let mut verified = Verified::new();
        let mut random = Random::new(0x5eed ^ (self.me as u64 + 1) << 32);
        let (mut value, mut scratch) = (Vec::new(), Vec::new());
        let mut highest = [0; COUNTERS];
        let mut due = Instant::now();
        while !self.control.stop.load(Ordering::Relaxed) {
            if let Pace::Every(interval) = pace {
                due = (due + interval).max(Instant::now());
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let begin = Instant::now();
            match random.below(10) {
                n if n < SETS_IN_TEN => {
                    self.set(&mut connection, &mut random, &mut value, &mut verified)?
                }
                n if n < SETS_IN_TEN + INCREMENTS_IN_TEN => {
                    self.increment(&mut connection, &mut random, &mut highest, &mut verified)?
                }
                _ => {
                    let entry = &self.book.keys[random.below(KEYS as u64) as usize];
                    entry.check(&mut connection, &mut value, &mut scratch, &mut verified)?;
                }
            }
            self.control.requests.fetch_add(1, Ordering::Relaxed);
            if self.control.recording.load(Ordering::Relaxed) {
                record(&mut verified.latencies, begin.elapsed(), pace);
            }
        }
        Ok(verified)
    }

    /// Stores the next version of one of this thread's own keys.
    fn set(
        &self,
        connection: &mut Connection,
        random: &mut Random,
        value: &mut Vec<u8>,
        verified: &mut Verified,
    ) -> Result<()> {
        let mine = random.below((KEYS / THREADS) as u64) as usize * THREADS + self.me;
        let entry = &self.book.keys[mine];
        // Relaxed: this thread is the only one that writes it.
        let version = entry.sent.load(Ordering::Relaxed) + 1;
        value::fill(&entry.key, version, value);
        // SeqCst: partner of the load in `Entry::check`.
        entry.sent.store(version, Ordering::SeqCst);
        verified.requests += 1;
        connection.set(&entry.key, value)?;
        // Release: partner of the Acquire in `Entry::check`.
        entry.stored.store(version, Ordering::Release);
        Ok(())
    }

    /// Adds one to a shared counter. What this thread is told must grow with each call.
    fn increment(
        &self,
        connection: &mut Connection,
        random: &mut Random,
        highest: &mut [u64; COUNTERS],
        verified: &mut Verified,
    ) -> Result<()> {
        let which = random.below(COUNTERS as u64) as usize;
        let counter = &self.book.counters[which];
        verified.requests += 1;
        match connection.incr(&counter.key)? {
            None => verified.miss(&counter.key),
            Some(now) => {
                let before = std::mem::replace(&mut highest[which], now);
                if now <= before {
                    verified.fault(|| {
                        format!(
                            "{} went from {before} to {now} by an increment",
                            counter.key
                        )
                    });
                }
                // Release: partner of the Acquire in `Book::read_back`.
                counter.added.fetch_add(1, Ordering::Release);
            }
        }
        Ok(())
    }
}

/// Records one latency. A slow answer holds up the requests that were due meanwhile: they count with
/// the time they would have taken, so that one long stall is not one sample among thousands.
fn record(latencies: &mut Latencies, latency: Duration, pace: Pace) {
    let nanoseconds = |time: Duration| {
        u64::try_from(time.as_nanos())
            .unwrap_or(u64::MAX)
            .min(LONGEST_NS)
    };
    let interval = match pace {
        Pace::Every(interval) => nanoseconds(interval),
        // No correction.
        Pace::Unpaced => 0,
    };
    latencies
        .record_correct(nanoseconds(latency), interval)
        .expect("the value is within the histogram's bounds");
}

#[cfg(test)]
mod tests;
