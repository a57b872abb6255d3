//! HdrHistogram's interval log (`.hlog`), version 1.3: all locks together without a tag, then the locks of each identity under a tag, over the whole capture.
//!
//! Facts after the Java and Python readers: a tag has no comma and no white space; `Interval_Max` is in milliseconds, the histograms are in
//! nanoseconds.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::{Measure, names};
use crate::report::model::{Distribution, Report};
use crate::report::rows::Row;

/// Nanoseconds in what `Interval_Max` counts.
const MAX_DIVISOR: f64 = 1e6;

/// The file's bytes.
pub(crate) fn log(report: &Report, rows: &[Row<'_>], measure: Measure) -> Result<Vec<u8>> {
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
    for (row, name) in rows.iter().zip(tags(rows)) {
        let times = measure.of(row);
        if times.histogram.is_empty() {
            continue;
        }
        let mut tag = format!("{}:{name}", measure.name());
        // It has values of locks of another identity, for lack of memory.
        if times.shared && times.histogram.len() > times.count {
            tag.push_str("+others");
        }
        let tag = Tag::new(&tag).with_context(|| format!("not a tag: {tag}"))?;
        log.write_histogram(&times.histogram, Duration::ZERO, length, Some(tag))
            .context("cannot encode a histogram")?;
    }
    drop(log);
    Ok(bytes)
}

/// What the tags of the rows say behind the colon.
pub(crate) fn tags(rows: &[Row<'_>]) -> Vec<String> {
    names::unique(rows, names::LONGEST, |_, c| {
        c != ',' && !c.is_whitespace() && !c.is_control()
    })
}

/// All locks' histograms in one; one that locks of the same first use share once.
pub(crate) fn together(report: &Report, measure: Measure) -> Result<Histogram<u64>> {
    let mut sum = Histogram::clone(&Distribution::empty().histogram);
    let mut shared = HashSet::new();
    for lock in &report.locks {
        let times = match measure {
            Measure::Wait => &lock.wait,
            Measure::Hold => &lock.hold,
        };
        let first = !times.shared || shared.insert(lock.first_use);
        if first && !times.histogram.is_empty() {
            sum.add(&*times.histogram)
                .context("cannot add up histograms")?;
        }
    }
    Ok(sum)
}
