//! Numbers as people read them: units by magnitude.

/// `1.234 M`: three significant digits with a decimal prefix.
pub fn magnitude(value: f64) -> String {
    let (value, prefix) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    format!("{}{prefix}", three_digits(value))
}

/// Three significant digits however small: `0.00654`.
pub fn significant(value: f64) -> String {
    let digits = match value.abs() {
        v if v > 0.0 && v < 1.0 => (2 - v.log10().floor() as i32).min(9) as usize,
        _ => return three_digits(value),
    };
    format!("{value:.digits$}")
}

/// `1.23 us`.
pub fn nanoseconds(ns: f64) -> String {
    let (value, unit) = match ns {
        v if v >= 1e9 => (v / 1e9, "s"),
        v if v >= 1e6 => (v / 1e6, "ms"),
        v if v >= 1e3 => (v / 1e3, "us"),
        v => (v, "ns"),
    };
    format!("{} {unit}", three_digits(value))
}

/// `1.23`, `12.3`, `123`.
pub fn three_digits(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
