//! A run as CSV: a row for each round, in the order in which the rounds ran, below lines that begin with `# ` and say
//! where the run was made. (R: `read.csv(file, comment.char = "#")`; pandas: `read_csv(file, comment="#")`.)
//!
//! A figure that was not measured is an empty field.

use crate::run::{CellRun, Round, Run};
use crate::summary::{facts, jain};
use anyhow::Result;

const HEADER: [&str; 28] = [
    "threads",
    "locks",
    "gap_cycles",
    "cs_ns",
    "lines",
    "lock",
    "round",
    "position",
    "elapsed_s",
    "first_s",
    "ops",
    "ops_per_s",
    "ratio",
    "jain",
    "p50_ns",
    "p99_ns",
    "p999_ns",
    "max_ns",
    "handover_ns",
    "changed_hands",
    "user_s",
    "system_s",
    "voluntary_switches",
    "involuntary_switches",
    "futex_calls",
    "cpu_s_per_mop",
    "switches_per_mop",
    "futex_calls_per_mop",
];

/// The whole file.
pub fn csv(run: &Run) -> Result<String> {
    let mut text: String = facts(run)
        .into_iter()
        .map(|(name, value)| format!("# {name}: {}\n", value.replace(['\n', '\r'], " ")))
        .collect();
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER)?;
    for cell in &run.cells {
        for round in &cell.rounds {
            writer.write_record(row(cell, round, &run.settings.baseline))?;
        }
    }
    text += std::str::from_utf8(&writer.into_inner()?)?;
    Ok(text)
}

/// About seven digits: more are noise.
fn number(value: f64) -> String {
    (value as f32).to_string()
}

fn row(cell: &CellRun, round: &Round, baseline: &str) -> [String; 28] {
    let c = &cell.cell;
    let known = |value: Option<f64>| value.map_or_else(String::new, number);
    let latency = |f: fn(&crate::latency::Latency) -> f64| known(round.latency.as_ref().map(f));
    let switches = round.voluntary_switches + round.involuntary_switches;
    [
        c.threads.to_string(),
        c.locks.to_string(),
        c.gap_cycles.to_string(),
        c.cs_ns.to_string(),
        c.lines.to_string(),
        round.lock.clone(),
        round.round.to_string(),
        round.position.to_string(),
        number(round.elapsed_s),
        known(round.first_s()),
        round.ops().to_string(),
        number(round.ops_per_s()),
        known(cell.ratio(round, baseline)),
        number(jain(&round.shares())),
        latency(|l| l.p50_ns),
        latency(|l| l.p99_ns),
        latency(|l| l.p999_ns),
        latency(|l| l.max_ns),
        known(round.handover_ns),
        round
            .changed_hands
            .map_or_else(String::new, |n| n.to_string()),
        number(round.user_s),
        number(round.system_s),
        round.voluntary_switches.to_string(),
        round.involuntary_switches.to_string(),
        round
            .futex_calls
            .map_or_else(String::new, |n| n.to_string()),
        number(round.per_million(round.user_s + round.system_s)),
        number(round.per_million(switches as f64)),
        known(round.futex_calls.map(|n| round.per_million(n as f64))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;

    #[test]
    fn a_row_for_each_round_below_the_facts() {
        let text = csv(&sample()).expect("text");
        let (facts, rows): (Vec<_>, Vec<_>) = text.lines().partition(|l| l.starts_with("# "));
        assert!(facts.contains(&"# Linux: 6.12"), "{text}");
        assert_eq!(rows.len(), 1 + 6 + 2, "{text}");
        assert_eq!(rows[0], HEADER.join(","));
        let mut reader = ::csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .from_reader(text.as_bytes());
        let rounds: Vec<_> = reader.records().map(|r| r.expect("a record")).collect();
        let at = |row: usize, name| {
            let column = HEADER.iter().position(|h| *h == name).expect("a column");
            &rounds[row][column]
        };
        assert_eq!((at(1, "lock"), at(1, "ops")), ("autolock", "4000000"));
        assert_eq!((at(1, "ratio"), at(0, "ratio")), ("2", ""));
        assert_eq!((at(0, "futex_calls"), at(0, "first_s")), ("", ""));
        assert_eq!((at(7, "threads"), at(7, "p999_ns")), ("16", "11000"));
    }
}
