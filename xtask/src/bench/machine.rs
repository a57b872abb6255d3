//! What a benchmark's reader wants to know of the machine: hardware, versions, how quiet it was.
//!
//! Reads /proc and asks a few programs for their versions; an answer that cannot be had is left
//! empty and stops nothing.

use std::process::Command;

use anyhow::Result;
use serde::Serialize;

use crate::project::Project;
use crate::shell;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub date: String,
    /// Fit for a folder's name: cores and processor.
    pub name: String,
    processor: String,
    cores: usize,
    memory: String,
    kernel: String,
    distribution: String,
    libc: String,
    rustc: String,
    cc: String,
    /// Revision of the sources, with `-dirty` where they had changes.
    revision: String,
    clock_source: String,
    hypervisor: bool,
}

impl Machine {
    pub fn describe(project: &Project) -> Result<Self> {
        let cpuinfo = read("/proc/cpuinfo");
        let processor = value(&cpuinfo, "model name", ':');
        let cores = std::thread::available_parallelism()?.get();
        Ok(Self {
            date: first_line("date", &["-u", "+%Y-%m-%d"]),
            name: slug(&format!("{cores}-core {processor}")),
            cores,
            memory: value(&read("/proc/meminfo"), "MemTotal", ':'),
            kernel: first_line("uname", &["-srvm"]),
            distribution: value(&read("/etc/os-release"), "PRETTY_NAME", '=').replace('"', ""),
            libc: first_line("getconf", &["GNU_LIBC_VERSION"]),
            rustc: first_line("rustc", &["--version"]),
            cc: first_line("cc", &["--version"]),
            revision: revision(project),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
                .trim()
                .to_owned(),
            hypervisor: value(&cpuinfo, "flags", ':')
                .split(' ')
                .any(|flag| flag == "hypervisor"),
            processor,
        })
    }
}

impl Machine {
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Processor, kernel, distribution and libc in one line.
    pub fn summary(&self) -> String {
        let cores = self.cores;
        format!(
            "{cores} x {}, {}, {}, {}",
            self.processor, self.kernel, self.distribution, self.libc
        )
    }
}

/// The three load averages.
pub fn load() -> String {
    read("/proc/loadavg")
        .split(' ')
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The processors' time counters, to tell how much of a run went to others.
pub struct Ticks(Vec<u64>);

impl Ticks {
    pub fn now() -> Self {
        let stat = read("/proc/stat");
        let line = stat.lines().next().unwrap_or_default();
        Self(
            line.split_whitespace()
                .skip(1)
                .filter_map(|word| word.parse().ok())
                .collect(),
        )
    }

    /// Time taken by the hypervisor for others, in percent of all time since then.
    pub fn since(&self) -> String {
        const STEAL: usize = 7;
        let now = Self::now();
        // user nice system idle iowait irq softirq steal; guest time is within user.
        let spent = |at: usize| {
            now.0
                .get(at)
                .zip(self.0.get(at))
                .map_or(0, |(a, b)| a.saturating_sub(*b))
        };
        let all: u64 = (0..=STEAL).map(spent).sum();
        format!(
            "stolen {:.1} %",
            100.0 * spent(STEAL) as f64 / all.max(1) as f64
        )
    }
}

fn revision(project: &Project) -> String {
    let git = |args: &[&str]| {
        shell::output(Command::new("git").current_dir(&project.root).args(args)).unwrap_or_default()
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"]);
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])
        .trim()
        .is_empty();
    format!("{}{}", head.trim(), if changed { "-dirty" } else { "" })
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

fn value(text: &str, key: &str, separator: char) -> String {
    let pair = text.lines().filter_map(|line| line.split_once(separator));
    pair.filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
        .next()
        .unwrap_or_default()
}

fn first_line(program: &str, args: &[&str]) -> String {
    let text = shell::output(Command::new(program).args(args)).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn slug(text: &str) -> String {
    let text = text.to_lowercase().replace("(r)", "").replace("(tm)", "");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let kept = words.filter(|word| !word.is_empty() && !["cpu", "processor"].contains(word));
    kept.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_names_are_fit_for_a_folder() {
        assert_eq!(
            slug("2-core Intel(R) Xeon(R) CPU @ 2.80GHz"),
            "2-core-intel-xeon-2.80ghz"
        );
    }

    #[test]
    fn values_are_found_by_whole_keys() {
        let text = "model\t: 85\nmodel name\t: Some CPU\n";
        assert_eq!(value(text, "model name", ':'), "Some CPU");
        assert_eq!(value(text, "absent", ':'), "");
    }
}
