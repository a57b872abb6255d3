//! What came of the tests, as text: a line for each failure, and a table of locks and tests.

use super::Request;
use super::child::Verdict;
use super::trials::Test;
use crate::lock::Source;
use anyhow::{Result, bail};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use std::fmt;
use std::time::Duration;

/// One lock failed one test.
#[derive(Clone, Debug)]
pub struct Failure {
    lock: String,
    test: &'static str,
    threads: usize,
    seed: u64,
    duration: Duration,
    fault: String,
}

impl fmt::Display for Failure {
    /// One line, with the command that does it again.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Failure {
            lock,
            test,
            threads,
            seed,
            duration,
            fault,
        } = self;
        write!(
            f,
            "FAIL {lock}: {test} with {threads} threads: {fault}; again: driver --test {lock} --only {test} \
             --threads {threads} --duration {}ms --seed {seed}",
            duration.as_millis()
        )
    }
}

/// How remarks end, and what they mean.
const REMARKS: [(char, &str); 2] = [
    (
        '%',
        "PASS N%: the lock promises no order; the unluckiest thread got N% of a fair share",
    ),
    (
        '*',
        "PASS *: the lock says that it looks at itself after its release, so it was not destroyed right after the last unlock",
    ),
];

/// The outcome of a run.
pub struct Report {
    tests: Vec<&'static str>,
    threads: Vec<usize>,
    seed: u64,
    duration: Duration,
    /// What the self-check should have seen and did not.
    unnoticed: Vec<String>,
    self_checked: bool,
    rows: Vec<Row>,
    failures: Vec<Failure>,
}

struct Row {
    lock: String,
    cells: Vec<Cell>,
}

#[derive(Clone, Default)]
struct Cell {
    /// Thread counts.
    failed: Vec<usize>,
    run: usize,
    remark: String,
}

impl Report {
    pub(super) fn new(
        tests: &[&'static Test],
        request: &Request,
        unnoticed: Vec<String>,
    ) -> Report {
        Report {
            tests: tests.iter().map(|test| test.name).collect(),
            threads: request.threads.clone(),
            seed: request.seed,
            duration: request.duration,
            unnoticed,
            self_checked: request.self_check,
            rows: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Takes a case's outcome, and returns it if it is a failure.
    pub(super) fn add(
        &mut self,
        source: &Source,
        test: &Test,
        threads: usize,
        verdict: Verdict,
    ) -> Option<&Failure> {
        if self.rows.last().is_none_or(|row| row.lock != source.name) {
            self.rows.push(Row {
                lock: source.name.clone(),
                cells: vec![Cell::default(); self.tests.len()],
            });
        }
        let column = self.tests.iter().position(|&name| name == test.name)?;
        let cell = self.rows.last_mut()?.cells.get_mut(column)?;
        cell.run += 1;
        match verdict {
            // The last one's, with the most threads.
            Verdict::Pass(remark) => {
                cell.remark = remark;
                None
            }
            Verdict::Fail(fault) => {
                cell.failed.push(threads);
                self.failures.push(Failure {
                    lock: source.name.clone(),
                    test: test.name,
                    threads,
                    seed: self.seed,
                    duration: self.duration,
                    fault,
                });
                self.failures.last()
            }
        }
    }

    /// No lock failed, and the tests noticed every lock that is broken on purpose.
    pub fn verdict(&self) -> Result<()> {
        if !self.unnoticed.is_empty() {
            bail!("the tests do not notice a lock that is broken on purpose: trust none of them");
        }
        let mut failed: Vec<_> = self.failures.iter().map(|f| f.lock.as_str()).collect();
        failed.dedup();
        match failed[..] {
            [] => Ok(()),
            [lock] => bail!("'{lock}' failed"),
            _ => bail!("{} locks failed: {}", failed.len(), failed.join(", ")),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN);
        table.set_header([&["lock"], &self.tests[..]].concat());
        for row in &self.rows {
            let cells = row.cells.iter().map(Cell::to_string);
            table.add_row([row.lock.clone()].into_iter().chain(cells));
        }
        let list = |numbers: &[usize]| {
            let texts: Vec<_> = numbers.iter().map(usize::to_string).collect();
            texts.join(",")
        };
        writeln!(
            f,
            "threads {}; {:?} a phase; seed {}\n\n{table}\n",
            list(&self.threads),
            self.duration,
            self.seed
        )?;
        for (mark, meaning) in REMARKS {
            let mut cells = self.rows.iter().flat_map(|row| &row.cells);
            if cells.any(|cell| cell.remark.ends_with(mark)) {
                writeln!(f, "{meaning}")?;
            }
        }
        for unnoticed in &self.unnoticed {
            writeln!(f, "FAIL self-check: {unnoticed}")?;
        }
        if self.self_checked && self.unnoticed.is_empty() {
            writeln!(
                f,
                "self-check: every lock that is broken on purpose was noticed"
            )?;
        }
        let cases: usize = self
            .rows
            .iter()
            .flat_map(|row| &row.cells)
            .map(|cell| cell.run)
            .sum();
        let failed = self.failures.len();
        writeln!(f, "{} passed, {failed} failed", cases - failed)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (self.failed.len(), self.remark.as_str()) {
            (0, "") => write!(f, "PASS"),
            (0, remark) => write!(f, "PASS {remark}"),
            (n, _) if n == self.run => write!(f, "FAIL"),
            _ => {
                let threads: Vec<_> = self.failed.iter().map(usize::to_string).collect();
                write!(f, "FAIL at {}", threads.join(","))
            }
        }
    }
}
