//! Numbers for people: units by magnitude, three digits.

/// `985ns`, `1.23us`, `45.6ms`, `2.00s`.
pub fn time(ns: u64) -> String {
    time_of(ns as f64)
}

/// The same of a mean.
pub fn time_of(ns: f64) -> String {
    const UNITS: [(&str, f64); 3] = [("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    // 999.6 us are 1.00 ms: the unit is chosen as the digits round.
    let unit = UNITS.iter().rev().find(|(_, size)| ns >= size * 0.9995);
    match unit {
        Some((unit, size)) => format!("{}{unit}", digits(ns / size)),
        None if ns.fract() == 0.0 => format!("{ns:.0}ns"),
        None => format!("{}ns", digits(ns)),
    }
}

/// `9876543`, `12.3M`.
pub fn count(n: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("M", 1e6), ("G", 1e9), ("T", 1e12)];
    if n < 10_000_000 {
        return n.to_string();
    }
    let unit = UNITS
        .iter()
        .rev()
        .find(|(_, size)| n as f64 >= size * 0.9995);
    let (unit, size) = unit.unwrap_or(&UNITS[0]);
    format!("{}{unit}", digits(n as f64 / size))
}

/// `5.12%`; nothing of nothing is `-`.
pub fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => percent(part as f64 / whole as f64),
    }
}

/// `5.12%`.
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent > 0.0 && percent < 0.01 {
        return "<0.01%".to_owned();
    }
    format!("{}%", digits(percent))
}

/// Three digits, none after the point from 100 on; 0 is 0.
pub fn digits(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `1 lock`, `2 locks`.
pub fn plural(n: u64, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", count(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_chosen_by_magnitude_and_after_rounding() {
        for (ns, text) in [
            (0, "0ns"),
            (985, "985ns"),
            (999, "999ns"),
            (1_000, "1.00us"),
            (45_600, "45.6us"),
            (999_600, "1.00ms"),
            (100_000_000, "100ms"),
            (2_000_000_000, "2.00s"),
            (7_200_000_000_000, "7200s"),
        ] {
            assert_eq!(time(ns), text);
        }
        assert_eq!(time_of(12.345), "12.3ns");
        assert_eq!(count(9_999_999), "9999999");
        assert_eq!(count(12_345_678), "12.3M");
        assert_eq!(count(999_999_999), "1.00G");
        assert_eq!(share(1, 0), "-");
        assert_eq!(share(1, 3), "33.3%");
        assert_eq!(percent(0.000_01), "<0.01%");
    }
}
