//! The latency distribution of one lock in one cell: the rounds' histograms merged, or,
//! where a run has none, the percentiles that it has. Pure.

use super::figure::{Figure, Group, Point, Series, Shape, Subject, slug, threads_in_words};
use crate::latency;
use crate::run::Round;
use crate::summary::Spread;
use crate::table::nanoseconds;
use anyhow::{Context, Result};
use figures::axis::{Axis, percentile_place};
use figures::label::{nanoseconds_label, percent};
use figures::percentiles;
use hdrhistogram::Histogram;

/// Quantiles, from 0 up, and the latency of each in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub points: Vec<(f64, f64)>,
    /// How many acquisitions it speaks of: the place of the maximum.
    pub count: f64,
    /// From histograms, not from four percentiles.
    pub exact: bool,
}

/// None without latencies.
pub fn curve(rounds: &[&Round]) -> Result<Option<Curve>> {
    let histograms = rounds
        .iter()
        .map(|r| r.latency.as_ref()?.histogram.as_deref())
        .collect::<Option<Vec<&str>>>();
    match histograms {
        Some(histograms) if !histograms.is_empty() => from_histograms(&histograms),
        _ => Ok(from_percentiles(rounds)),
    }
}

/// The distribution at one number of threads.
pub fn figure(subject: &Subject, group: &Group, threads: usize) -> Result<Option<Figure>> {
    let mut found = Vec::new();
    for side in 0..subject.runs.len() {
        let cell = group.cells[side].iter().find(|c| c.cell.threads == threads);
        for (lock, name) in subject.locks.iter().enumerate() {
            let rounds: Vec<&Round> = cell
                .iter()
                .flat_map(|cell| &cell.rounds)
                .filter(|r| r.lock == *name)
                .collect();
            if let Some(curve) = curve(&rounds)? {
                found.push((lock, side == 1, curve));
            }
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let points = || found.iter().flat_map(|(_, _, curve)| &curve.points);
    let count = found.iter().map(|(_, _, c)| c.count).fold(0.0, f64::max);
    let x = Axis::percentiles(count);
    let positive = || points().map(|p| p.1).filter(|ns| *ns > 0.0);
    let least = positive().fold(f64::INFINITY, f64::min).min(1e9);
    let most = positive().fold(least, f64::max);
    let y = Axis::logarithmic("acquisition latency", nanoseconds_label, least, most);
    let exact = found.iter().all(|(_, _, curve)| curve.exact);
    let series = found.iter().map(|(lock, second, curve)| {
        let at = |&(quantile, ns): &(f64, f64)| {
            let percent = percent(quantile);
            Point {
                x: x.place(quantile),
                y: y.place(ns),
                spread: None,
                tip: format!(
                    "{}{}, {percent}: {}",
                    subject.locks[*lock],
                    subject.side(*second),
                    nanoseconds(ns)
                ),
            }
        };
        Series {
            lock: *lock,
            second: *second,
            points: curve.points.iter().map(at).collect(),
        }
    });
    Ok(Some(Figure {
        file: format!("latency-{}-threads-{threads}", slug(&group.title)),
        title: format!("Acquisition latency, {}", threads_in_words(threads)),
        subtitle: if exact {
            format!("{}, all rounds together", group.title)
        } else {
            format!(
                "{}, p50, p99, p99.9 and maximum: medians over the rounds",
                group.title
            )
        },
        series: series.collect(),
        x,
        y,
        shape: if exact { Shape::Curve } else { Shape::Line },
        rule: None,
    }))
}

fn from_histograms(encoded: &[&str]) -> Result<Option<Curve>> {
    let mut merged = Histogram::<u64>::new(2).context("cannot set up a histogram")?;
    for histogram in encoded {
        merged
            .add(latency::decode(histogram)?)
            .context("cannot merge the latency histograms")?;
    }
    if merged.is_empty() {
        return Ok(None);
    }
    let count = merged.len() as f64;
    let points = percentiles::points(&merged);
    Ok(Some(Curve {
        points,
        count,
        exact: true,
    }))
}

fn from_percentiles(rounds: &[&Round]) -> Option<Curve> {
    let median = |f: fn(&latency::Latency) -> f64| {
        let values = rounds.iter().filter_map(|r| r.latency.as_ref()).map(f);
        Spread::of(values).map(|s| s.median.max(1.0))
    };
    // The maximum of a round is one acquisition of as many as it made.
    let count = Spread::of(rounds.iter().map(|r| r.ops() as f64))?.median;
    let last = 1.0 - 1.0 / count.max(1.0);
    let mut points = vec![
        (0.5, median(|l| l.p50_ns)?),
        (0.99, median(|l| l.p99_ns)?),
        (0.999, median(|l| l.p999_ns)?),
        (last, median(|l| l.max_ns)?),
    ];
    points.sort_by(|a, b| percentile_place(a.0).total_cmp(&percentile_place(b.0)));
    Some(Curve {
        points,
        count,
        exact: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::{Latency, encode};
    use crate::run::tests::sample;

    fn rounds(histograms: &[Option<&[u64]>]) -> Vec<Round> {
        let like = sample().cells[0].rounds[0].clone();
        let with = |values: Option<&[u64]>| {
            let histogram = values.map(|values| {
                let mut histogram = Histogram::<u64>::new(2).expect("histogram");
                values
                    .iter()
                    .for_each(|&v| histogram.record(v).expect("fits"));
                encode(&histogram).expect("encoded")
            });
            let latency = like.latency.clone();
            let latency = latency.map(|l| Latency { histogram, ..l });
            Round {
                latency,
                ..like.clone()
            }
        };
        histograms.iter().map(|h| with(*h)).collect()
    }

    fn curve_of(rounds: &[Round]) -> Result<Option<Curve>> {
        curve(&rounds.iter().collect::<Vec<_>>())
    }

    #[test]
    fn merged_rounds_are_one_distribution_with_its_maximum_at_the_end() {
        let slow = [5_000; 10];
        let curve = curve_of(&rounds(&[Some(&[100; 90]), Some(&slow)]))
            .expect("merges")
            .expect("has latencies");
        assert!(curve.exact);
        assert_eq!(curve.count, 100.0);
        let at = |quantile: f64| {
            let after = curve.points.iter().find(|p| p.0 >= quantile);
            after.expect("a point").1
        };
        // Either round alone would be level.
        assert!((at(0.5) / 100.0 - 1.0).abs() < 0.02, "{curve:?}");
        assert!((at(0.95) / 5000.0 - 1.0).abs() < 0.02, "{curve:?}");
        let last = curve.points.last().expect("a point");
        assert!((last.0 - 0.99).abs() < 1e-9, "{curve:?}");
        assert!(
            curve.points.len() <= 5,
            "level stretches are two points: {curve:?}"
        );
    }

    #[test]
    fn one_round_without_a_histogram_leaves_the_percentiles() {
        let curve = curve_of(&rounds(&[Some(&[100; 90]), None]))
            .expect("no error")
            .expect("has latencies");
        assert!(!curve.exact);
        assert_eq!(curve.points[1], (0.99, 900.0));
        assert_eq!(curve.points.len(), 4);
    }

    #[test]
    fn a_damaged_histogram_is_an_error_and_none_is_none() {
        let mut damaged = rounds(&[Some(&[1])]);
        if let Some(latency) = &mut damaged[0].latency {
            latency.histogram = Some("AAAA".into());
        }
        let error = curve_of(&damaged).expect_err("damaged");
        assert!(error.to_string().contains("damaged"), "{error:#}");
        damaged[0].latency = None;
        assert_eq!(curve_of(&damaged).expect("no error"), None);
    }
}
