//! Outside load: threads of other processes that want the CPUs as well.

use std::fmt;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::{cpus, guarded};
use crate::project::Project;

/// What runs beside the measured program, all the time.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing
    None,
    /// A CPU hog pinned to each CPU
    Hogs,
    /// A second contending process: four threads on one mutex of glibc's
    Neighbour,
    /// Hogs and a second contending process
    Both,
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::None => "none",
            Self::Hogs => "hogs",
            Self::Neighbour => "neighbour",
            Self::Both => "both",
        })
    }
}

/// The processes of a load; killed when dropped.
pub struct Processes(Vec<Child>);

impl Processes {
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(Child::id)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Load {
    pub fn start(self, project: &Project) -> Result<Processes> {
        let mut processes = Processes(Vec::new());
        if matches!(self, Self::Hogs | Self::Both) {
            for cpu in cpus()? {
                let mut hog = guarded("taskset");
                hog.args(["-c", &cpu.to_string(), "sh", "-c", "while :; do :; done"]);
                processes.0.push(hog.spawn().context("cannot start a hog")?);
            }
        }
        if matches!(self, Self::Neighbour | Self::Both) {
            let mut driver = guarded(project.program("driver"));
            driver.args(["--bench", "glibc", "--threads", "4", "--rounds", "1"]);
            driver.args(["--duration", "2h", "--no-latency", "--futex-calls", "off"]);
            driver.stdout(Stdio::null()).stderr(Stdio::null());
            let driver = driver.spawn().context("cannot start a second driver")?;
            processes.0.push(driver);
        }
        Ok(processes)
    }
}
