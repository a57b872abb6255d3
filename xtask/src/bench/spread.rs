//! A figure over the rounds of a benchmark, by order statistics.

use std::fmt;

use serde::Serialize;

/// A figure over the rounds.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    /// Contains the true median with a confidence of 95 %; smallest and largest with fewer than six rounds.
    pub low: f64,
    pub high: f64,
    pub min: f64,
    pub max: f64,
}

/// Median and the interval that contains it with a confidence of at least 95 %, by order statistics: nothing is assumed of how rounds scatter.
pub fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let (&min, &max) = (values.first()?, values.last()?);
    let median = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
    // The number of values below the median is binomial: how many may be left out at each end?
    let (mut out, mut below, mut probability) = (0, 0.0, 0.5_f64.powi(count as i32));
    for k in 0..count / 2 {
        below += probability;
        if 2.0 * below > 0.05 {
            break;
        }
        out = k;
        probability *= (count - k) as f64 / (k + 1) as f64;
    }
    Some(Spread {
        median,
        low: values[out],
        high: values[count - 1 - out],
        min,
        max,
    })
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread {
            median,
            low,
            high,
            min,
            max,
        } = self;
        write!(
            out,
            "{median:.3} ({low:.3}..{high:.3}) [{min:.2}..{max:.2}]"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_median_has_the_textbook_ranks() {
        // Order statistics for 95 %: n = 6: 1 and 6; n = 9: 2 and 8; n = 16: 4 and 13; n = 20: 6 and 15.
        for (count, low, high) in [
            (1, 1, 1),
            (5, 1, 5),
            (6, 1, 6),
            (9, 2, 8),
            (16, 4, 13),
            (20, 6, 15),
        ] {
            let values = (1..=count).rev().map(f64::from).collect();
            let spread = spread(values).expect("values");
            let wanted = (f64::from(low), f64::from(high));
            assert_eq!((spread.low, spread.high), wanted, "of {count}");
            assert_eq!(spread.median, f64::from(count + 1) / 2.0);
        }
        assert_eq!(spread(Vec::new()), None);
    }
}
