//! A distribution as a line on a percentile axis.

use hdrhistogram::Histogram;

/// Places between two points: 20 per nine.
const STEP: f64 = 0.05;

/// Quantiles from 0 up, and the value of each, at least 1; the last is the maximum's. None without values.
pub fn points(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let end = (histogram.len() as f64).log10();
    let places = (0..).map(|i| f64::from(i) * STEP);
    let before = places.take_while(|place| *place < end).map(|place| {
        let quantile = 1.0 - 10f64.powf(-place);
        (quantile, histogram.value_at_quantile(quantile))
    });
    let last = (1.0 - 10f64.powf(-end), histogram.max());
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (quantile, value) in before.chain([last]) {
        // The logarithm of 0 has no place; nothing is faster than that anyway.
        let value = value.max(1) as f64;
        // On a level stretch the ends are enough.
        if let [.., (_, a), (_, b)] = points[..]
            && a == b
            && b == value
        {
            points.pop();
        }
        points.push((quantile, value));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_stretches_are_two_points_and_the_last_is_the_maximum() {
        let mut histogram = Histogram::<u64>::new(2).expect("histogram");
        assert_eq!(points(&histogram), []);
        histogram.record_n(100, 90).expect("fits");
        histogram.record_n(5_000, 9).expect("fits");
        histogram.record(70_000).expect("fits");
        let points = points(&histogram);
        assert!(points.len() <= 6, "{points:?}");
        let (last, value) = points[points.len() - 1];
        assert!((last - 0.99).abs() < 1e-9, "{points:?}");
        assert_eq!(value as u64, histogram.max());
        assert!((points[0].1 / 100.0 - 1.0).abs() < 0.01, "{points:?}");
    }
}
