//! What memaslap and memcslap print, read into figures. Pure text in, figures out.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

/// What a generator reported about one load.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct Load {
    pub operations: u64,
    pub seconds: f64,
    /// Operations per second, as the generator counts them.
    pub tps: f64,
    pub average_us: Option<f64>,
    pub max_us: Option<u64>,
    /// The end of the power-of-two bucket that holds the 99th percentile.
    pub p99_below_us: Option<u64>,
    /// Values that the generator's own check found wrong.
    pub verify_failed: u64,
}

/// Reads memaslap's report: `Run time: 5.0s Ops: 972755 TPS: 194453 Net_rate: 46.0M/s` and the
/// statistics of all requests before it.
pub fn memaslap(text: &str) -> Result<Load> {
    let line = text
        .lines()
        .find(|line| line.starts_with("Run time:"))
        .context("memaslap printed no result")?;
    let field = |name: &str| -> Result<f64> {
        let (_, rest) = line
            .split_once(name)
            .with_context(|| format!("memaslap's result has no {name}"))?;
        let number: String = rest
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        number
            .parse()
            .with_context(|| format!("memaslap's result has no number after {name}"))
    };
    let verify_failed = text
        .lines()
        .find_map(|line| line.strip_prefix("verify_failed:"))
        .context("memaslap printed no verify_failed")?
        .trim()
        .parse()
        .context("memaslap's verify_failed is no number")?;
    let statistics = Statistics::parse(text);
    let load = Load {
        operations: field("Ops:")? as u64,
        seconds: field("Run time:")?,
        tps: field("TPS:")?,
        average_us: statistics.as_ref().map(|s| s.average_us),
        max_us: statistics.as_ref().map(|s| s.max_us),
        p99_below_us: statistics.as_ref().and_then(|s| s.below(0.99)),
        verify_failed,
    };
    ensure!(load.operations > 0, "memaslap sent no request");
    Ok(load)
}

/// memaslap's last `Total Statistics` block.
struct Statistics {
    average_us: f64,
    max_us: u64,
    /// Requests that took more than 2^(n-1) and up to 2^n microseconds.
    buckets: Vec<u64>,
}

impl Statistics {
    fn parse(text: &str) -> Option<Self> {
        let start = text.rfind("Total Statistics (")?;
        let mut lines = text[start..].lines().skip(1);
        let (mut average_us, mut max_us) = (None, None);
        for line in lines.by_ref() {
            match line.trim().split_once(':')? {
                ("Avg", number) => average_us = number.trim().parse().ok(),
                ("Max", number) => max_us = number.trim().parse().ok(),
                ("Log2 Dist", _) => break,
                _ => {}
            }
        }
        let mut buckets = Vec::new();
        // Rows of four; the first row may start above zero: `4:    35152   341755    82594   229919`.
        for line in lines.take_while(|line| !line.trim().is_empty()) {
            let (first, counts) = line.split_once(':')?;
            buckets.resize(
                first
                    .trim()
                    .parse::<usize>()
                    .ok()
                    .filter(|first| *first < 64)?,
                0,
            );
            for count in counts.split_whitespace() {
                buckets.push(count.parse().ok()?);
            }
        }
        Some(Self {
            average_us: average_us?,
            max_us: max_us?,
            buckets,
        })
    }

    /// The end of the bucket in which `share` of all requests is reached.
    fn below(&self, share: f64) -> Option<u64> {
        let wanted = self.buckets.iter().sum::<u64>() as f64 * share;
        let mut seen = 0;
        for (power, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return Some(1 << power);
            }
        }
        None
    }
}

/// Adds up memcslap's reports: `Time to get           80000 keys by    4 threads:     0.635 seconds.`
pub fn memcslap(text: &str) -> Result<Load> {
    let (mut operations, mut seconds, mut thread_seconds) = (0, 0.0, 0.0);
    for line in text
        .lines()
        .filter_map(|line| line.strip_prefix("Time to get"))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [keys, "keys", "by", threads, "threads:", time, "seconds."] = words[..] else {
            bail!("memcslap printed `{}`", line.trim());
        };
        let (keys, threads, time): (u64, f64, f64) =
            (keys.parse()?, threads.parse()?, time.parse()?);
        operations += keys;
        seconds += time;
        thread_seconds += time * threads;
    }
    ensure!(
        operations > 0 && seconds > 0.0,
        "memcslap printed no result"
    );
    Ok(Load {
        operations,
        seconds,
        tps: operations as f64 / seconds,
        average_us: Some(thread_seconds / operations as f64 * 1e6),
        max_us: None,
        p99_below_us: None,
        verify_failed: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMASLAP: &str = include_str!("../../tests/data/memaslap.txt");
    const MEMCSLAP: &str = include_str!("../../tests/data/memcslap.txt");

    #[test]
    fn memaslaps_report_is_read_from_its_last_block() {
        let load = memaslap(MEMASLAP).expect("a report");
        let expected = Load {
            operations: 219_067,
            seconds: 2.0,
            tps: 109_527.0,
            average_us: Some(291.0),
            max_us: Some(16_513),
            p99_below_us: Some(2_048),
            verify_failed: 0,
        };
        assert_eq!(load, expected);
    }

    #[test]
    fn memaslaps_own_failed_check_is_seen() {
        let text = MEMASLAP.replace("verify_failed: 0", "verify_failed: 3");
        assert_eq!(memaslap(&text).expect("a report").verify_failed, 3);
    }

    #[test]
    fn a_report_without_a_result_is_an_error() {
        assert!(memaslap("").is_err());
        assert!(
            memaslap("Run time: 2.0s Ops: 0 TPS: 0 Net_rate: 0.0M/s\nverify_failed: 0\n").is_err()
        );
        let (cut, _) = MEMASLAP.split_once("verify_failed").expect("the line");
        assert!(memaslap(cut).is_err());
        assert!(memcslap("").is_err());
        assert!(memcslap("Time to get lost\n").is_err());
    }

    #[test]
    fn percentiles_are_the_end_of_their_bucket() {
        let statistics = Statistics {
            average_us: 0.0,
            max_us: 0,
            buckets: vec![0, 0, 90, 9, 1],
        };
        assert_eq!(statistics.below(0.5), Some(4));
        assert_eq!(statistics.below(0.99), Some(8));
        assert_eq!(statistics.below(1.0), Some(16));
        let none = Statistics {
            average_us: 0.0,
            max_us: 0,
            buckets: Vec::new(),
        };
        assert_eq!(none.below(0.5), None);
    }

    #[test]
    fn memcslaps_reports_are_added_up() {
        let load = memcslap(MEMCSLAP).expect("two reports");
        assert_eq!(load.operations, 8_000);
        assert!((load.seconds - 0.073).abs() < 1e-9, "{load:?}");
        assert!((load.tps - 8_000.0 / 0.073).abs() < 1e-3, "{load:?}");
        assert_eq!(load.average_us.map(f64::round), Some(73.0));
    }
}
