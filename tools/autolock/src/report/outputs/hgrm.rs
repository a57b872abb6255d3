//! HdrHistogram's percentile distributions (`.hgrm`), in microseconds: what its plotters read.
//!
//! Columns and footer as the Java library prints them. Each row begins with white space: a plotter that is widely used drops rows that do not.

use std::cmp::Reverse;
use std::fmt::Write as _;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::{Measure, hlog, names};
use crate::report::model::{Distribution, Report};
use crate::report::rows::Row;

/// Locks that get files of their own; all are in the `.hlog`.
const LOCKS: usize = 100;
/// Steps for each halving of the distance to 100 %.
const STEPS: u32 = 5;
/// Nanoseconds in a microsecond.
const SCALE: f64 = 1e3;

/// File names and contents: all locks together, then the hottest.
pub(crate) fn files(
    report: &Report,
    rows: &[Row<'_>],
    measure: Measure,
) -> Result<Vec<(String, String)>> {
    // A leading dot would hide the file, a dash would make it an option.
    let keep =
        |at, c: char| c.is_ascii_alphanumeric() || "_+@".contains(c) || at > 0 && ".-".contains(c);
    let names = names::unique(rows, names::LONGEST, keep);
    let measured = measure.name();
    let all = text(&hlog::together(report, measure)?)?;
    let mut files = vec![(format!("{measured}.hgrm"), all)];
    let mut order: Vec<(&Distribution, String)> =
        rows.iter().map(|row| measure.of(row)).zip(names).collect();
    order.retain(|(times, _)| !times.histogram.is_empty());
    order.sort_by_key(|(times, _)| Reverse(times.total_ns));
    for (times, name) in order.into_iter().take(LOCKS) {
        let name = format!("hgrm/{name}-{measured}.hgrm");
        files.push((name, text(&times.histogram)?));
    }
    Ok(files)
}

/// One distribution.
pub(crate) fn text(histogram: &Histogram<u64>) -> Result<String> {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut seen = 0;
    for step in histogram.iter_quantiles(STEPS) {
        seen += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = format!("{:>12.3}", step.value_iterated_to() as f64 / SCALE);
        // Even where the number fills the column.
        let space = if value.starts_with(' ') { "" } else { " " };
        write!(text, "{space}{value} {quantile:>2.12} {seen:>10}")?;
        if quantile < 1.0 {
            write!(text, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        }
        text.push('\n');
    }
    let (mean, deviation, max) = if histogram.is_empty() {
        (0.0, 0.0, 0.0)
    } else {
        (histogram.mean(), histogram.stdev(), histogram.max() as f64)
    };
    writeln!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n\
         #[Max     = {:>12.3}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]",
        mean / SCALE,
        deviation / SCALE,
        max / SCALE,
        histogram.len(),
        histogram.buckets(),
        sub_buckets(histogram.sigfig()),
    )?;
    Ok(text)
}

/// As the library chooses it: twice `10^digits`, up to a power of two.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10u64.pow(u32::from(digits))).next_power_of_two()
}
