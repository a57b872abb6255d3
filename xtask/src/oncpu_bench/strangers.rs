//! How much of the CPUs went to processes that are no part of the benchmark. A measurement that they disturbed is made again.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::cpus;
use super::load::Processes;

/// More than this share of the CPUs disturbs: ticks are 10 ms, and kernel threads and autolockd itself need a little.
const LIMIT: f64 = 0.03;
/// A machine that is never quiet is measured all the same.
const ATTEMPTS: u32 = 3;
/// /proc counts in these, on every machine that this project runs on (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A measurement that is to be kept.
pub struct Kept<T> {
    pub value: T,
    /// Share of the CPUs that strangers had meanwhile.
    pub strangers: f64,
    /// How many were thrown away before it.
    pub repeated: u32,
}

impl<T> Kept<T> {
    pub fn is_disturbed(&self) -> bool {
        self.strangers > LIMIT
    }
}

/// Measures until strangers leave it alone, [`ATTEMPTS`] times at most.
pub fn undisturbed<T>(
    load: Option<&Processes>,
    mut measure: impl FnMut() -> Result<T>,
) -> Result<Kept<T>> {
    let mut repeated = 0;
    loop {
        let (before, begin) = (Times::now(load)?, Instant::now());
        let value = measure()?;
        let after = Times::now(load)?;
        let all = begin.elapsed().as_secs_f64() * cpus()?.len() as f64;
        let strangers = ((after.busy - before.busy) - (after.ours - before.ours)).max(0.0) / all;
        if strangers <= LIMIT || repeated + 1 == ATTEMPTS {
            return Ok(Kept {
                value,
                strangers,
                repeated,
            });
        }
        repeated += 1;
    }
}

/// CPU time so far, in seconds.
struct Times {
    /// Of everybody.
    busy: f64,
    /// Of our children that have ended, and of the outside load.
    ours: f64,
}

impl Times {
    fn now(load: Option<&Processes>) -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
        let ended = usage.user_time() + usage.system_time();
        let mut ours = ended.num_microseconds() as f64 / 1e6;
        for pid in load.into_iter().flat_map(Processes::ids) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
                .context("a process of the outside load has ended")?;
            ours += of_process(&stat).context("/proc/PID/stat is not as expected")?;
        }
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let busy = busy(&stat).context("/proc/stat is not as expected")?;
        Ok(Self { busy, ours })
    }
}

/// The first line: user nice system idle iowait irq softirq steal, and guests' time that is within user's.
fn busy(stat: &str) -> Option<f64> {
    let fields = stat.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map_while(|word| word.parse().ok()).collect();
    let of = |at: &usize| ticks.get(*at).copied();
    let busy: f64 = [0, 1, 2, 5, 6].iter().map_while(of).sum();
    (ticks.len() >= 7).then_some(busy / TICKS_PER_SECOND)
}

/// utime and stime: fields 14 and 15, counted behind the name, which may contain anything.
fn of_process(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found() {
        let stat = "cpu  100 20 30 999 888 4 6 777 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), Some(1.6));
        assert_eq!(busy("cpu  1 2\n"), None);
        let stat = "77 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(of_process(stat), Some(2.0));
    }

    #[test]
    fn what_is_undisturbed_is_measured_once_and_what_never_is_is_kept_in_the_end() {
        let mut calls = 0;
        let kept = undisturbed(None, || {
            calls += 1;
            Ok(calls)
        });
        let kept = kept.expect("measured");
        assert_eq!(kept.value, kept.repeated + 1);
        assert!(kept.repeated < ATTEMPTS);
        assert!(!kept.is_disturbed() || kept.repeated + 1 == ATTEMPTS);
    }
}
