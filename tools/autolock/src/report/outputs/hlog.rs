//! HdrHistogram's interval log (`.hlog`), version 1.3: all locks together without a tag, then each lock under its tag, over the whole capture.
//!
//! Facts after the Java and Python readers: a tag has no comma and no white space; `Interval_Max` is in milliseconds, the histograms are in
//! nanoseconds.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::{Measure, names};
use crate::report::model::{Distribution, Report};

/// Nanoseconds in what `Interval_Max` counts.
const MAX_DIVISOR: f64 = 1e6;

/// The file's bytes.
pub(crate) fn log(report: &Report, measure: Measure) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let started = Duration::from_nanos(u64::try_from(report.process.started_ns).unwrap_or(0));
    write!(
        bytes,
        "#[Histogram log format version 1.3]\n\
         #[StartTime: {:.3} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        started.as_secs_f64()
    )?;
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(MAX_DIVISOR)
        .begin_log_with(&mut bytes, &mut serializer)?;
    let length = Duration::from_nanos(report.process.duration_ns);
    log.write_histogram(&together(report, measure)?, Duration::ZERO, length, None)
        .context("cannot encode a histogram")?;
    let names = tags(report);
    for (index, distribution) in distributions(report, measure) {
        let mut tag = format!("{}:{}", measure.name(), names[index]);
        if distribution.shared {
            write!(tag, "+others")?;
        }
        let tag = Tag::new(&tag).with_context(|| format!("not a tag: {tag}"))?;
        log.write_histogram(&distribution.histogram, Duration::ZERO, length, Some(tag))
            .context("cannot encode a histogram")?;
    }
    drop(log);
    Ok(bytes)
}

/// What the tags of the locks say behind the colon.
pub(crate) fn tags(report: &Report) -> Vec<String> {
    names::unique(report, names::LONGEST, |_, c| {
        c != ',' && !c.is_whitespace() && !c.is_control()
    })
}

/// The histograms with something in them, each once: one that locks of the same first use share comes with the first of them.
pub(crate) fn distributions(
    report: &Report,
    measure: Measure,
) -> impl Iterator<Item = (usize, &Distribution)> {
    let mut shared = std::collections::HashSet::new();
    report
        .locks
        .iter()
        .enumerate()
        .filter_map(move |(index, lock)| {
            let distribution = measure.of(lock);
            let first = !distribution.shared || shared.insert(lock.first_use);
            (first && !distribution.histogram.is_empty()).then_some((index, distribution))
        })
}

/// All locks' histograms in one.
pub(crate) fn together(report: &Report, measure: Measure) -> Result<Histogram<u64>> {
    let mut sum = Histogram::clone(&Distribution::empty().histogram);
    for (_, distribution) in distributions(report, measure) {
        sum.add(&*distribution.histogram)
            .context("cannot add up histograms")?;
    }
    Ok(sum)
}
