//! Numbers as axes and tips show them. Pure.

use crate::axis::percentile_place;
use crate::units::{magnitude, nanoseconds};

/// `1.5 M`, without zeros at the end.
pub fn short_magnitude(value: f64) -> String {
    shorten(&magnitude(value))
}

/// `1.5 us`, likewise.
pub fn nanoseconds_label(ns: f64) -> String {
    shorten(&nanoseconds(ns))
}

/// Three significant digits at most.
pub fn plain(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 || v == 0.0 => shorten(&magnitude(value)),
        v => {
            let digits = (2 - v.log10().floor() as i32).clamp(0, 9) as usize;
            shorten(&format!("{value:.digits$}"))
        }
    }
}

/// `2.50 M` becomes `2.5 M`.
fn shorten(text: &str) -> String {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    match unit {
        "" => number.into(),
        unit => format!("{number} {unit}"),
    }
}

/// `99.99%`, as many nines as the quantile has.
pub fn percent(quantile: f64) -> String {
    let nines = (percentile_place(quantile) - 1e-6).ceil();
    let digits = (nines - 2.0).clamp(0.0, 12.0) as usize;
    format!("{:.digits$}%", quantile * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_a_unit_and_no_zeros_at_the_end() {
        let shown = [1.5e6, 2e6, 1e3, 30.0, 0.0].map(short_magnitude);
        assert_eq!(shown, ["1.5 M", "2 M", "1 k", "30", "0"]);
        let shown = [100.0, 1e3, 2.5e6].map(nanoseconds_label);
        assert_eq!(shown, ["100 ns", "1 us", "2.5 ms"]);
        let shown = [1.0, 0.25, 12.34, 123.4, 0.001234, 2500.0, 0.0].map(plain);
        assert_eq!(shown, ["1", "0.25", "12.3", "123", "0.00123", "2.5 k", "0"]);
    }

    #[test]
    fn percentiles_show_their_nines() {
        let shown = [0.0, 0.5, 0.9, 0.99, 0.999, 0.999999].map(percent);
        assert_eq!(shown, ["0%", "50%", "90%", "99%", "99.9%", "99.9999%"]);
    }
}
