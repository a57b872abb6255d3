//! What the figures were measured on: a figure without its machine and its versions is worth little.

use crate::process::{bounded, output};
use serde::Serialize;
use std::fs;
use std::time::Duration;

#[derive(Serialize, Debug)]
pub struct Machine {
    pub cpu: String,
    pub cpus: usize,
    pub memory_mib: u64,
    pub kernel: String,
    pub system: String,
    pub glibc: String,
    /// Load average over a minute, before the first measurement: other work blurs the figures.
    pub load_before: f64,
}

impl Machine {
    /// Reads what there is; what cannot be read is `unknown`, not an error.
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo, release) = (
            read("/proc/cpuinfo"),
            read("/proc/meminfo"),
            read("/etc/os-release"),
        );
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_string());
        let glibc = output(
            bounded(Duration::from_secs(5), "getconf").arg("GNU_LIBC_VERSION"),
            "getconf",
        );
        Self {
            cpu: or_unknown(field(&cpuinfo, "model name", ':')),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field(&meminfo, "MemTotal", ':')
                .and_then(|text| {
                    text.split(' ')
                        .next()
                        .and_then(|kib| kib.parse::<u64>().ok())
                })
                .map_or(0, |kib| kib / 1024),
            kernel: or_unknown(
                Some(read("/proc/sys/kernel/osrelease").trim().to_string())
                    .filter(|text| !text.is_empty()),
            ),
            system: or_unknown(
                field(&release, "PRETTY_NAME", '=').map(|text| text.trim_matches('"').to_string()),
            ),
            glibc: or_unknown(glibc.ok().map(|text| text.trim().to_string())),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// The value of the first line `name <separator> value`.
fn field(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(found, _)| found.trim() == name)
        .map(|(_, value)| value.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 6\nmodel name\t: A CPU @ 2.0GHz: fast\nMemTotal:       1024 kB\n";
        assert_eq!(
            field(text, "model name", ':').as_deref(),
            Some("A CPU @ 2.0GHz: fast")
        );
        assert_eq!(field(text, "MemTotal", ':').as_deref(), Some("1024 kB"));
        assert_eq!(field(text, "name", ':'), None);
    }

    #[test]
    fn this_machine_has_processors_and_a_kernel() {
        let machine = Machine::here();
        assert!(machine.cpus > 0 && machine.memory_mib > 0, "{machine:?}");
        assert!(machine.kernel.contains('.'), "{machine:?}");
    }
}
