//! The small languages of the command line: times, counts, lists of counts, lists of CPUs, work between
//! critical sections. Pure functions from text; every error is a phrase without a full stop.

use std::time::Duration;

/// `10ns`, `1us`, `1.5s`; a bare `0` is fine, a bare other number is not.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let value: f64 = number.parse().map_err(|_| not_a_duration(text))?;
    let ns = match unit {
        "ns" => value,
        "us" | "µs" => value * 1e3,
        "ms" => value * 1e6,
        "s" => value * 1e9,
        "" if value == 0.0 => 0.0,
        _ => return Err(not_a_duration(text)),
    };
    if ns > 86_400e9 {
        return Err("longer than a day".into());
    }
    Ok(Duration::from_nanos(ns.round() as u64))
}

fn not_a_duration(text: &str) -> String {
    format!("'{text}' is not a time such as 10ns, 1us, 20ms or 1.5s")
}

/// A duration that is not 0.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".into()),
        positive => Ok(positive),
    }
}

/// What a thread does between unlock and the next lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Cycles of the TSC.
    Cycles(u64),
    /// A time, made into cycles when the TSC's rate is known.
    Time(Duration),
}

/// Cycles as a bare number, or a time with its unit.
pub fn extra(text: &str) -> Result<Extra, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let cycles = text.parse().ok().filter(|&cycles| cycles <= 1 << 46);
        return cycles
            .map(Extra::Cycles)
            .ok_or_else(|| format!("'{text}' is not a number of TSC cycles"));
    }
    duration(text)
        .map(Extra::Time)
        .map_err(|_| format!("'{text}' is neither TSC cycles such as 100 nor a time such as 1us"))
}

/// A number from 1 to a million.
pub fn count(text: &str) -> Result<usize, String> {
    number(text, 1_000_000)
}

/// A number from 1 to 10^15, or with a suffix: `10k`, `5M`, `1G`.
pub fn operations(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    whole(digits)
        .and_then(|n| n.checked_mul(unit))
        .filter(|n| (1..=1_000_000_000_000_000).contains(n))
        .ok_or_else(|| format!("'{text}' is not a number of operations such as 5000, 10k or 2M"))
}

/// One element of a list of thread counts, see [`counts`]; up to 10 000.
pub fn threads(text: &str) -> Result<Counts, String> {
    counts(text, 10_000)
}

/// One element of a list of numbers of locks, see [`counts`]; up to a million.
pub fn locks(text: &str) -> Result<Counts, String> {
    counts(text, 1_000_000)
}

/// One element of a list of counts: a number or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(pub Vec<usize>);

/// The elements' numbers in their order, each once.
pub fn flatten(list: &[Counts]) -> Vec<usize> {
    let mut all = Vec::new();
    for &n in list.iter().flat_map(|counts| &counts.0) {
        if !all.contains(&n) {
            all.push(n);
        }
    }
    all
}

/// `4`; `1-8` all of them; `2-16:2` every second; `1..16` doubling: 1, 2, 4, 8, 16. The last number is always
/// one of them in a doubling range.
fn counts(text: &str, most: usize) -> Result<Counts, String> {
    let bad = |_| {
        format!(
            "'{text}' is none of a number up to {most}, 1-8, 2-16:2 (every second) and 1..16 (doubling)"
        )
    };
    let number = |text: &str| number(text, most).map_err(bad);
    let (first, last, list): (usize, usize, Vec<usize>) =
        if let Some((first, last)) = text.split_once("..") {
            let (first, last) = (number(first)?, number(last)?);
            let doubling = std::iter::successors(Some(first), |n| Some(n * 2));
            let mut list: Vec<_> = doubling.take_while(|&n| n < last).collect();
            list.push(last);
            (first, last, list)
        } else if let Some((first, rest)) = text.split_once('-') {
            let (last, step) = rest.split_once(':').unwrap_or((rest, "1"));
            let (first, last, step) = (number(first)?, number(last)?, number(step)?);
            (first, last, (first..=last).step_by(step).collect())
        } else {
            let one = number(text)?;
            (one, one, vec![one])
        };
    if first > last {
        return Err(format!("'{text}' runs backwards"));
    }
    if list.len() > 1000 {
        return Err(format!("'{text}' has more than 1000 numbers"));
    }
    Ok(Counts(list))
}

/// A list of CPUs as the kernel writes it: `0-3,8`. In rising order, each once.
pub fn cpus(text: &str) -> Result<Cpus, String> {
    let bad = || format!("'{text}' is not a list of CPUs such as 0-3,8");
    let cpu = |text: &str| whole(text).filter(|&n| n < 1024).ok_or_else(bad);
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (cpu(first)?, cpu(last)?);
        if first > last {
            return Err(format!("'{part}' runs backwards"));
        }
        list.extend((first..=last).map(|n| n as usize));
    }
    list.sort_unstable();
    list.dedup();
    Ok(Cpus(list))
}

/// Numbers of CPUs, rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

fn number(text: &str, most: usize) -> Result<usize, String> {
    whole(text)
        .map(|n| n as usize)
        .filter(|n| (1..=most).contains(n))
        .ok_or_else(|| format!("not a number from 1 to {most}"))
}

/// Digits alone: `+1` is no number here.
fn whole(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_every_unit() {
        let ns = |text| duration(text).map(|d| d.as_nanos());
        assert_eq!(ns("10ns"), Ok(10));
        assert_eq!(ns("1us"), Ok(1000));
        assert_eq!(ns("1.5µs"), Ok(1500));
        assert_eq!(ns("20ms"), Ok(20_000_000));
        assert_eq!(ns("1.5s"), Ok(1_500_000_000));
        assert_eq!(ns("0"), Ok(0));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "ns",
            "-1us",
            "1.2.3s",
            "1h",
            "1 us",
            "NaNs",
            "99999999s",
        ] {
            assert!(duration(text).is_err(), "'{text}' was taken");
        }
    }

    #[test]
    fn extra_work_is_cycles_or_a_time() {
        assert_eq!(extra("0"), Ok(Extra::Cycles(0)));
        assert_eq!(extra("100"), Ok(Extra::Cycles(100)));
        assert_eq!(extra("1us"), Ok(Extra::Time(Duration::from_micros(1))));
        for text in ["", "-1", "1.5", "us", "99999999999999999999"] {
            assert!(extra(text).is_err(), "'{text}' was taken");
        }
    }

    #[test]
    fn counts_are_numbers_ranges_steps_and_doublings() {
        let list = |text| threads(text).map(|Counts(list)| list);
        assert_eq!(list("4"), Ok(vec![4]));
        assert_eq!(list("1-4"), Ok(vec![1, 2, 3, 4]));
        assert_eq!(list("2-9:3"), Ok(vec![2, 5, 8]));
        assert_eq!(list("1..16"), Ok(vec![1, 2, 4, 8, 16]));
        assert_eq!(list("3..20"), Ok(vec![3, 6, 12, 20]));
        assert_eq!(list("5..5"), Ok(vec![5]));
        for text in [
            "", "0", "x", "-1", "+1", "4-", "-4", "4-2", "4..2", "1..", "1-4:0", "1-4:", "0..4",
            "1...4", "10001", "1-9999",
        ] {
            assert!(list(text).is_err(), "'{text}' was taken: {:?}", list(text));
        }
    }

    #[test]
    fn lists_join_without_repeats() {
        let list = ["1..4", "3", "2-4"].map(|text| locks(text).expect("valid"));
        assert_eq!(flatten(&list), [1, 2, 4, 3]);
    }

    #[test]
    fn operations_have_suffixes() {
        assert_eq!(operations("5000"), Ok(5000));
        assert_eq!(operations("10k"), Ok(10_000));
        assert_eq!(operations("2M"), Ok(2_000_000));
        for text in ["", "0", "k", "1.5M", "-1", "1T", "99999999999G"] {
            assert!(operations(text).is_err(), "'{text}' was taken");
        }
    }

    #[test]
    fn cpu_lists_are_sorted_sets() {
        assert_eq!(cpus("0"), Ok(Cpus(vec![0])));
        assert_eq!(cpus("8,0-2,1"), Ok(Cpus(vec![0, 1, 2, 8])));
        for text in ["", ",", "0,", "3-1", "x", "-1", "1-", "1024"] {
            assert!(cpus(text).is_err(), "'{text}' was taken");
        }
    }
}
