//! Acquisition latencies: a fixed log-linear array that a thread fills inside the
//! measuring loop (no allocation, no call), and its summary after the round.
//!
//! Values are TSC cycles while recorded; `summarise` turns them into nanoseconds.

use crate::clock::Clock;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Linear steps per power of two: a bucket is at most 1/64 of its value wide.
const STEP_BITS: u32 = 6;
const STEPS: usize = 1 << STEP_BITS;
/// Above 2^40 cycles (minutes) everything falls into the last bucket; `max` is exact.
const TOP_BIT: u32 = 40;
const BUCKETS: usize = (TOP_BIT - STEP_BITS + 2) as usize * STEPS;

/// One thread's latencies of one round.
pub struct Recorder {
    counts: Box<[u64; BUCKETS]>,
    max: u64,
}

fn bucket(cycles: u64) -> usize {
    if cycles < STEPS as u64 {
        return cycles as usize;
    }
    let bit = 63 - cycles.leading_zeros();
    if bit > TOP_BIT {
        return BUCKETS - 1;
    }
    let shift = bit - STEP_BITS;
    // The top STEP_BITS + 1 bits, of which the highest is one: STEPS..2 * STEPS.
    shift as usize * STEPS + (cycles >> shift) as usize
}

/// The middle of a bucket.
fn value(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let shift = (bucket / STEPS - 1) as u32;
    let low = ((bucket % STEPS + STEPS) as u64) << shift;
    low + (1 << shift) / 2
}

impl Recorder {
    pub fn new() -> Recorder {
        Recorder {
            counts: Box::new([0; BUCKETS]),
            max: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }

    #[inline(always)]
    pub fn record(&mut self, cycles: u64) {
        // `bucket` is below BUCKETS by construction; the index keeps its check, which
        // predicts perfectly.
        self.counts[bucket(cycles)] += 1;
        self.max = self.max.max(cycles);
    }
}

/// Acquisition latency of one lock in one round, over all threads, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50_ns: f64,
    pub p99_ns: f64,
    pub p999_ns: f64,
    /// Exact, not a bucket's edge.
    pub max_ns: f64,
    /// All of them, in nanoseconds: HdrHistogram's V2 encoding, deflated, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<String>,
}

/// The recorders' buckets are 1/64 wide: more digits would encode nothing.
const ENCODED_DIGITS: u8 = 2;

fn encode(histogram: &Histogram<u64>) -> Result<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .context("cannot encode a latency histogram")?;
    Ok(STANDARD.encode(bytes))
}

/// The histogram of `Latency::histogram`, in nanoseconds.
#[cfg_attr(not(test), allow(dead_code))]
pub fn decode(histogram: &str) -> Result<Histogram<u64>> {
    let broken = "a latency histogram of this run is damaged";
    let bytes = STANDARD.decode(histogram).context(broken)?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .context(broken)
}

/// Merges the threads' recorders.
pub fn summarise<'a>(
    threads: impl IntoIterator<Item = &'a Recorder>,
    clock: Clock,
) -> Result<Latency> {
    let mut merged = Histogram::<u64>::new(3).context("cannot set up the latency histogram")?;
    let mut in_ns =
        Histogram::<u64>::new(ENCODED_DIGITS).context("cannot set up the latency histogram")?;
    let mut max = 0;
    for thread in threads {
        max = max.max(thread.max);
        for (i, &count) in thread.counts.iter().enumerate() {
            if count > 0 {
                merged
                    .record_n(value(i), count)
                    .context("a latency does not fit the histogram")?;
                in_ns
                    .record_n(clock.ns(value(i)).round() as u64, count)
                    .context("a latency does not fit the histogram")?;
            }
        }
    }
    // A bucket's middle may lie above the greatest value in it.
    let at = |q| clock.ns(merged.value_at_quantile(q).min(max));
    Ok(Latency {
        p50_ns: at(0.5),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
        max_ns: clock.ns(max),
        histogram: Some(encode(&in_ns)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_represents_its_values_within_one_percent() {
        for bit in 0..=TOP_BIT {
            for offset in [0, 1, 7, 1000] {
                let cycles = (1u64 << bit) + (offset % (1 << bit));
                let shown = value(bucket(cycles));
                let error = shown.abs_diff(cycles) as f64 / cycles as f64;
                assert!(error < 0.01, "{cycles} is shown as {shown}");
            }
        }
    }

    #[test]
    fn buckets_rise_with_the_value_and_stay_in_the_array() {
        let mut last = 0;
        for cycles in (0..100_000).chain([1 << 39, 1 << 40, 1 << 41, u64::MAX]) {
            let b = bucket(cycles);
            assert!(b >= last && b < BUCKETS, "{cycles} is in {b} after {last}");
            last = b;
        }
    }

    #[test]
    fn quantiles_span_the_threads_and_the_maximum_is_exact() {
        let clock = Clock::calibrate();
        let (mut a, mut b) = (Recorder::new(), Recorder::new());
        (0..990).for_each(|_| a.record(100));
        (0..9).for_each(|_| b.record(10_000));
        b.record(1_234_567);
        let l = summarise([&a, &b], clock).expect("summary");
        let near = |ns: f64, cycles| (ns / clock.ns(cycles) - 1.0).abs() < 0.01;
        assert!(near(l.p50_ns, 100), "{l:?}");
        assert!(near(l.p99_ns, 100), "{l:?}");
        assert!(near(l.p999_ns, 10_000), "{l:?}");
        assert_eq!(l.max_ns, clock.ns(1_234_567));
    }

    #[test]
    fn the_encoded_histogram_reads_back_in_nanoseconds() {
        let clock = Clock::calibrate();
        let mut recorder = Recorder::new();
        (0..99).for_each(|_| recorder.record(10_000));
        recorder.record(1_000_000);
        let l = summarise([&recorder], clock).expect("summary");
        let back = decode(&l.histogram.expect("encoded")).expect("decoded");
        assert_eq!(back.len(), 100);
        let near = |ns: u64, cycles| (ns as f64 / clock.ns(cycles) - 1.0).abs() < 0.02;
        assert!(near(back.value_at_quantile(0.5), 10_000));
        assert!(near(back.max(), 1_000_000));
        assert!(decode("no histogram").is_err());
    }
}
