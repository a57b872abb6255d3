//! The result of a run: rows, the table, the JSON.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::driver::Figures;

/// How the run was made.
#[derive(Debug, Serialize)]
pub struct Setup {
    pub qemu: String,
    pub kernel: String,
    /// Of the first row; the others differ in CPUs, threads and lock.
    pub command: String,
    pub section: String,
    pub gap: String,
    pub duration: String,
    pub rounds: usize,
}

/// One lock on one machine, booted twice.
#[derive(Debug, Serialize)]
pub struct Row {
    pub cpus: usize,
    pub threads: usize,
    pub lock: String,
    /// Both boots gave the same bytes.
    pub identical: bool,
    /// Where they part, or why there is no result.
    pub complaint: Option<String>,
    #[serde(flatten)]
    pub figures: Option<Figures>,
    /// Over the first lock's median at as many CPUs.
    pub ratio: Option<f64>,
    /// Real time for both boots.
    pub host_s: f64,
    /// Everything that driver measured.
    pub run: Option<Value>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub setup: Setup,
    pub rows: Vec<Row>,
}

impl Report {
    /// Adds the row; the first lock's rows come first.
    pub fn push(&mut self, mut row: Row) {
        let first = self.rows.first().map_or(&row.lock, |first| &first.lock);
        let base = self
            .rows
            .iter()
            .chain([&row])
            .find(|it| it.cpus == row.cpus && it.lock == *first);
        let base = base.and_then(|it| it.figures).map(|it| it.ops_per_s_median);
        row.ratio = row
            .figures
            .zip(base.filter(|base| *base > 0.0))
            .map(|(figures, base)| figures.ops_per_s_median / base);
        self.rows.push(row);
    }

    /// Every configuration gave the same twice.
    pub fn holds(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(Row::holds)
    }
}

impl Row {
    pub fn holds(&self) -> bool {
        self.identical && self.complaint.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setup = &self.setup;
        let baseline = self.rows.first().map_or("", |row| row.lock.as_str());
        writeln!(
            out,
            "virtual time; {}, {}\nsection {}, {} outside, {} rounds of {}; medians (min..max)\n",
            setup.qemu, setup.kernel, setup.section, setup.gap, setup.rounds, setup.duration
        )?;
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header([
            "vCPUs",
            "threads",
            "lock",
            "1000 ops/s",
            &format!("ratio to {baseline}"),
            "Jain",
            "two boots",
        ]);
        for row in &self.rows {
            let figure =
                |show: fn(&Figures) -> String| row.figures.as_ref().map_or("-".into(), show);
            table.add_row([
                row.cpus.to_string(),
                row.threads.to_string(),
                row.lock.clone(),
                figure(|it| {
                    let [median, min, max] =
                        [it.ops_per_s_median, it.ops_per_s_min, it.ops_per_s_max]
                            .map(|it| it / 1e3);
                    format!("{median:.1} ({min:.1}..{max:.1})")
                }),
                row.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
                figure(|it| format!("{:.3}", it.jain_median)),
                row.verdict().to_owned(),
            ]);
        }
        writeln!(out, "{table}")?;
        for row in &self.rows {
            if let Some(complaint) = &row.complaint {
                writeln!(out, "{} on {} vCPUs: {complaint}", row.lock, row.cpus)?;
            }
        }
        Ok(())
    }
}

impl Row {
    fn verdict(&self) -> &'static str {
        match (self.identical, self.figures.is_some()) {
            (true, true) => "identical",
            (false, true) => "DIFFERENT",
            (_, false) => "FAILED",
        }
    }
}

/// The verdict, and the reason if it is a bad one.
impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.verdict())?;
        match &self.complaint {
            Some(complaint) => write!(out, ": {complaint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lock: &str, cpus: usize, ops: Option<f64>) -> Row {
        Row {
            cpus,
            threads: 2 * cpus,
            lock: lock.to_owned(),
            identical: ops.is_some(),
            complaint: None,
            figures: ops.map(|ops| Figures {
                ops_per_s_median: ops,
                ops_per_s_min: ops,
                ops_per_s_max: ops,
                jain_median: 1.0,
            }),
            ratio: None,
            host_s: 1.0,
            run: None,
        }
    }

    fn report(rows: impl IntoIterator<Item = Row>) -> Report {
        let mut report = Report {
            setup: Setup {
                qemu: String::new(),
                kernel: String::new(),
                command: String::new(),
                section: String::new(),
                gap: String::new(),
                duration: String::new(),
                rounds: 3,
            },
            rows: Vec::new(),
        };
        rows.into_iter().for_each(|row| report.push(row));
        report
    }

    #[test]
    fn ratios_are_to_the_first_lock_with_as_many_cpus() {
        let rows = [
            row("a", 2, Some(100.0)),
            row("a", 4, Some(50.0)),
            row("b", 2, Some(150.0)),
            row("b", 4, Some(25.0)),
        ];
        let ratios: Vec<_> = report(rows).rows.iter().map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(1.0), Some(1.0), Some(1.5), Some(0.5)]);
    }

    #[test]
    fn without_a_baseline_there_is_no_ratio() {
        let rows = [row("a", 2, None), row("b", 2, Some(150.0))];
        assert_eq!(report(rows).rows[1].ratio, None);
    }

    #[test]
    fn a_difference_a_failure_and_an_empty_run_do_not_hold() {
        assert!(report([row("a", 2, Some(1.0))]).holds());
        assert!(!report([]).holds());
        let different = Row {
            identical: false,
            complaint: Some("byte 1".into()),
            ..row("a", 2, Some(1.0))
        };
        let text = {
            let report = report([row("b", 2, Some(1.0)), different]);
            assert!(!report.holds());
            report.to_string()
        };
        assert!(
            text.contains("DIFFERENT") && text.contains("byte 1"),
            "{text}"
        );
        let failed = report([row("a", 2, None)]);
        assert!(!failed.holds() && failed.to_string().contains("FAILED"));
    }
}
