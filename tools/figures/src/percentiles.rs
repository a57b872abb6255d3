//! A distribution as a line on a percentile axis.

use hdrhistogram::Histogram;

/// Places between two points: 20 per nine.
const STEP: f64 = 0.05;

/// Quantiles from 0 up, and the value of each, at least 1; the last is the maximum's. None without values.
pub fn points(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let count = histogram.len() as f64;
    let steps = (count.log10() / STEP) as usize;
    let places = (0..=steps).map(|i| i as f64 * STEP).chain([count.log10()]);
    let mut points: Vec<(f64, f64)> = Vec::new();
    for place in places {
        let quantile = 1.0 - 10f64.powf(-place);
        // The logarithm of 0 has no place; nothing is faster than that anyway.
        let value = histogram.value_at_quantile(quantile).max(1) as f64;
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
        histogram.record_n(5_000, 10).expect("fits");
        let points = points(&histogram);
        assert!(points.len() <= 5, "{points:?}");
        let (last, value) = points[points.len() - 1];
        assert!((last - 0.99).abs() < 1e-9, "{points:?}");
        assert_eq!(value as u64, histogram.max());
        assert!((points[0].1 / 100.0 - 1.0).abs() < 0.01, "{points:?}");
    }
}
