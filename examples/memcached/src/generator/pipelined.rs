//! A load of our own, for machines on which a request costs much more than a lock: each connection sends requests by the hundred without waiting for
//! answers in between, half of them updates of the same few counters and half of them sets, so that memcached's threads do little but lock. What the
//! counters say at the end must be what was sent.

use super::parse::Load;
use crate::client::Connection;
use anyhow::{Context, Result, anyhow, ensure};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const COUNTERS: u64 = 4;
const VALUES: u64 = 7;
/// Updates, and as many sets, before each answer; a multiple of [`COUNTERS`].
const PAIRS: u64 = 100;

/// Keeps so many connections busy for `duration`.
pub fn load(address: SocketAddr, connections: u16, duration: Duration) -> Result<Load> {
    let mut control = Connection::open(address)?;
    for counter in 0..COUNTERS {
        // Wide enough to be counted up in place.
        control.set(&name(counter), b"00000000000000000000")?;
    }
    let batch = batch();
    let begin = Instant::now();
    let sent = std::thread::scope(|scope| {
        let send = || send(address, &batch, begin + duration);
        let senders: Vec<_> = (0..connections).map(|_| scope.spawn(send)).collect();
        let batches = senders.into_iter().map(|sender| {
            let batches = sender.join();
            batches.map_err(|_| anyhow!("a thread of the load panicked"))?
        });
        batches.sum::<Result<u64>>()
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut verify_failed = 0;
    for counter in 0..COUNTERS {
        let mut value = Vec::new();
        ensure!(
            control.get(&name(counter), &mut value)?,
            "memcached has lost a counter"
        );
        verify_failed += u64::from(!counts(&value, sent * PAIRS / COUNTERS));
    }
    let operations = sent * 2 * PAIRS;
    Ok(Load {
        operations,
        seconds,
        tps: operations as f64 / seconds,
        average_us: None,
        max_us: None,
        p99_below_us: None,
        verify_failed,
    })
}

/// How many batches were sent and answered.
fn send(address: SocketAddr, batch: &str, end: Instant) -> Result<u64> {
    let mut connection = Connection::open(address)?;
    let mut batches = 0;
    while batches == 0 || Instant::now() < end {
        let answered = connection.unanswered(batch.as_bytes());
        answered.context("the pipelined load")?;
        batches += 1;
    }
    Ok(batches)
}

fn name(counter: u64) -> String {
    format!("pipelined-{counter}")
}

fn batch() -> String {
    let mut batch = String::new();
    for pair in 0..PAIRS {
        let counter = name(pair % COUNTERS);
        let value = pair % VALUES;
        // To a String: cannot fail.
        let _ = write!(
            batch,
            "incr {counter} 1 noreply\r\nset pipelined-value-{value} 0 0 8 noreply\r\nautolock\r\n"
        );
    }
    batch
}

/// memcached fills a shorter number up with spaces.
fn counts(value: &[u8], expected: u64) -> bool {
    let text = String::from_utf8_lossy(value);
    text.trim_end().parse() == Ok(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_updates_each_counter_as_often() {
        let batch = batch();
        for counter in 0..COUNTERS {
            let update = format!("incr {} 1 noreply\r\n", name(counter));
            assert_eq!(batch.matches(&update).count() as u64, PAIRS / COUNTERS);
        }
    }

    #[test]
    fn a_lost_update_is_noticed() {
        assert!(counts(b"00000000000000000025", 25));
        assert!(counts(b"25                  ", 25));
        assert!(!counts(b"24                  ", 25));
        assert!(!counts(b"", 25));
    }
}
