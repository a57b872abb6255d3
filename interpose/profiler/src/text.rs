//! Text for people, made without allocating: a line in a given buffer, numbers in a few characters.
//!
//! May touch: the buffer. Safe in signal handlers. No floating point: its formatting takes kilobytes of stack.

use core::fmt::{self, Write};

/// Text in a given buffer; what does not fit is cut.
#[derive(Debug)]
pub struct Text<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl<'a> Text<'a> {
    /// Empty.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, used: 0 }
    }

    /// What was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// Bytes that were written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Bytes that still fit.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// Empties it.
    pub const fn clear(&mut self) {
        self.used = 0;
    }

    /// Cuts it to `len` bytes, if it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.used = self.used.min(len);
    }

    /// Appends bytes as they are.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let Some(place) = self.bytes.get_mut(self.used) else {
                return;
            };
            *place = *byte;
            self.used += 1;
        }
    }

    /// Appends bytes of unknown origin: what a terminal could take for a command is shown as `?`.
    pub fn push_shown(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let shown = match byte {
                b' '..=b'~' | 0x80.. => *byte,
                _ => b'?',
            };
            self.push(&[shown]);
        }
    }

    /// Appends spaces until it is `column` bytes long.
    pub fn pad_to(&mut self, column: usize) {
        while self.used < column && self.room() > 0 {
            self.push(b" ");
        }
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Formats into a few bytes, then pads as the formatter asks.
fn padded(f: &mut fmt::Formatter<'_>, arguments: fmt::Arguments<'_>) -> fmt::Result {
    let mut bytes = [0; 24];
    let mut text = Text::new(&mut bytes);
    text.write_fmt(arguments)?;
    f.pad(core::str::from_utf8(text.as_bytes()).unwrap_or_default())
}

/// Writes `value / unit` with three significant digits where that takes decimals, and its name.
fn scaled(f: &mut fmt::Formatter<'_>, value: u64, unit: u64, name: &str) -> fmt::Result {
    // All units are thousands. What is cut off here never changes a rounding below.
    let thousandths = value / (unit / 1000);
    let (hundredths, tenths) = ((thousandths + 5) / 10, (thousandths + 50) / 100);
    if hundredths < 1000 {
        padded(
            f,
            format_args!("{}.{:02}{name}", hundredths / 100, hundredths % 100),
        )
    } else if tenths < 1000 {
        padded(f, format_args!("{}.{}{name}", tenths / 10, tenths % 10))
    } else {
        padded(f, format_args!("{}{name}", (thousandths + 500) / 1000))
    }
}

/// A time in nanoseconds, shown in the unit that fits: `87ns`, `1.23us`, `45.6ms`, `2.00s`, `1234s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // From half a unit's last place on it rounds up to the next.
        match self.0 {
            0 => f.pad("0"),
            ns @ ..1000 => padded(f, format_args!("{ns}ns")),
            ns @ ..999_500 => scaled(f, ns, 1000, "us"),
            ns @ ..999_500_000 => scaled(f, ns, 1_000_000, "ms"),
            ns @ ..99_999_000_000_000 => scaled(f, ns, 1_000_000_000, "s"),
            ns => scaled(f, ns, 3_600_000_000_000, "h"),
        }
    }
}

/// A time in picoseconds, where a tenth of a nanosecond matters: `3.1 ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picoseconds(pub u64);

impl fmt::Display for Picoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.saturating_add(50) / 100;
        padded(f, format_args!("{}.{} ns", tenths / 10, tenths % 10))
    }
}

/// A number of things in at most seven characters: `9999999`, `12.3M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            count @ ..10_000_000 => padded(f, format_args!("{count}")),
            count @ ..999_500_000 => scaled(f, count, 1_000_000, "M"),
            count @ ..999_500_000_000 => scaled(f, count, 1_000_000_000, "G"),
            count => scaled(f, count, 1_000_000_000_000, "T"),
        }
    }
}

/// A share in per cent with one decimal: `12.3`; `0` for none at all, `<0.1` for nearly none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u64, pub u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(part, whole) = *self;
        if part == 0 || whole == 0 {
            return f.pad("0");
        }
        let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole);
        match tenths {
            0 => f.pad("<0.1"),
            _ => padded(f, format_args!("{}.{}", tenths / 10, tenths % 10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_the_unit_that_fits() {
        for (ns, shown) in [
            (0, "0"),
            (999, "999ns"),
            (1000, "1.00us"),
            (9994, "9.99us"),
            (9996, "10.0us"),
            (99_960, "100us"),
            (999_499, "999us"),
            (999_500, "1.00ms"),
            (2_000_000_000, "2.00s"),
            (1_234_000_000_000, "1234s"),
            (u64::MAX, "5124096h"),
        ] {
            assert_eq!(Time(ns).to_string(), shown, "{ns}");
        }
    }

    #[test]
    fn counts_and_shares_stay_short() {
        assert_eq!(Count(9_999_999).to_string(), "9999999");
        assert_eq!(Count(12_345_678).to_string(), "12.3M");
        assert_eq!(Count(999_500_000).to_string(), "1.00G");
        assert_eq!(Percent(1, 100_000).to_string(), "<0.1");
        assert_eq!(Percent(1, 3).to_string(), "33.3");
        assert_eq!(Percent(3, 3).to_string(), "100.0");
        assert_eq!(Percent(0, 0).to_string(), "0");
        assert_eq!(Picoseconds(3149).to_string(), "3.1 ns");
        assert_eq!(format!("{:>8}|", Time(1000)), "  1.00us|");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_control_characters_are_not_passed_on() {
        let mut bytes = [0; 8];
        let mut text = Text::new(&mut bytes);
        text.push_shown(b"a\x1b[2J\n");
        assert_eq!(text.as_bytes(), b"a?[2J?");
        let _ = write!(text, "{}", 12345);
        assert_eq!(text.as_bytes(), b"a?[2J?12");
        assert_eq!(text.room(), 0);
    }
}
