//! The one place that knows `driver`'s command line, its list of locks and its JSON.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::Usage;
use crate::project::Project;

/// One call of driver in the guest.
#[derive(Debug, Clone)]
pub struct Job {
    pub lock: String,
    pub threads: usize,
    pub section: String,
    pub gap: String,
    pub duration: String,
    pub rounds: usize,
}

impl Job {
    /// One lock a boot, so that its figures do not depend on which others were asked for.
    pub fn args(&self) -> Vec<String> {
        let (threads, rounds) = (self.threads.to_string(), self.rounds.to_string());
        let lock = ["--bench", &self.lock, "--baseline", &self.lock];
        let size = ["--threads", &threads, "--rounds", &rounds];
        // The tracepoint would make each call slower.
        let rest = ["--warm-up", "10ms", "--futex-calls", "own"];
        let words = [&lock[..], &size, &self.knobs(), &rest].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    /// What the user wrote and only driver can judge.
    fn knobs(&self) -> [&str; 6] {
        let (section, gap, duration) = (&self.section, &self.gap, &self.duration);
        ["--cs", section, "--extra", gap, "--duration", duration]
    }
}

/// The locks that `patterns` mean, by driver's own judgement, which is on the job's knobs as well.
pub fn locks(project: &Project, patterns: &[String], job: &Job) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for pattern in patterns {
        let mut command = Command::new(project.program("driver"));
        command.arg("--list").arg(pattern).args(job.knobs());
        let output = command.output().context("cannot run driver --list")?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let complaint = complaint.trim().trim_start_matches("driver: ");
            return Err(Usage(complaint.to_owned()).into());
        }
        for name in listed(&String::from_utf8_lossy(&output.stdout)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// First column of a tab-separated list with a header.
fn listed(text: &str) -> Vec<String> {
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| line.split('\t').next())
        .map(str::to_owned)
        .collect()
}

/// What the guest sent: driver's JSON, and its exit code on a line of its own.
#[derive(Debug)]
pub struct Answer {
    pub run: Value,
    pub figures: Figures,
}

/// In virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    pub ops_per_s_median: f64,
    pub ops_per_s_min: f64,
    pub ops_per_s_max: f64,
    /// Jain's index of the threads' operations: median of the rounds.
    pub jain_median: f64,
}

pub fn answer(sent: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(sent);
    let (json, code) = match text.trim_end().rsplit_once("exit ") {
        Some((json, code)) => (json.trim(), code.trim()),
        None => bail!("the guest ended before driver did"),
    };
    if code != "0" {
        bail!("driver ended with {code} in the guest");
    }
    let run: Value = serde_json::from_str(json).context("driver's output is no JSON")?;
    let figures = figures(&run).context("driver's JSON is not as expected")?;
    Ok(Answer { run, figures })
}

fn figures(run: &Value) -> Option<Figures> {
    let mut rates = Vec::new();
    let mut fairness = Vec::new();
    for round in run["cells"].get(0)?["rounds"].as_array()? {
        let shares = round["thread_ops"].as_array()?.iter();
        let shares: Vec<f64> = shares.map(Value::as_f64).collect::<Option<_>>()?;
        let total: f64 = shares.iter().sum();
        let squares: f64 = shares.iter().map(|share| share * share).sum();
        rates.push(total / round["elapsed_s"].as_f64()?);
        fairness.push(if squares > 0.0 {
            total * total / (shares.len() as f64 * squares)
        } else {
            0.0
        });
    }
    rates.sort_by(f64::total_cmp);
    Some(Figures {
        ops_per_s_median: median(&mut rates)?,
        ops_per_s_min: *rates.first()?,
        ops_per_s_max: *rates.last()?,
        jain_median: median(&mut fairness)?,
    })
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = r#"{"cells":[{"cell":{},"rounds":[
        {"elapsed_s":0.5,"thread_ops":[10,30]},
        {"elapsed_s":0.5,"thread_ops":[50,50]},
        {"elapsed_s":0.5,"thread_ops":[0,20]}]}]}"#;

    #[test]
    fn figures_are_medians_over_the_rounds() {
        let answer = answer(format!("{RUN}\nexit 0\n").as_bytes()).expect("an answer");
        let expected = Figures {
            ops_per_s_median: 80.0,
            ops_per_s_min: 40.0,
            ops_per_s_max: 200.0,
            jain_median: 0.8,
        };
        assert_eq!(answer.figures, expected);
    }

    #[test]
    fn an_even_number_of_rounds_has_a_median_between_two() {
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn a_failure_in_the_guest_is_not_a_result() {
        for sent in ["", "exit 1\n", "{}\nexit 0\n", RUN] {
            assert!(answer(sent.as_bytes()).is_err(), "{sent:?} was taken");
        }
        assert!(answer(format!("{RUN}\nexit 1\n").as_bytes()).is_err());
    }

    #[test]
    fn names_are_the_list_without_its_header() {
        assert_eq!(
            listed("name\torder\nglibc\tunfair\nmcs\tFIFO\n"),
            ["glibc", "mcs"]
        );
    }
}
