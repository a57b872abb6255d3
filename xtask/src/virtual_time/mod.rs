//! `bench-virtual`: locks in QEMU on virtual time, everything twice, with identical results.
//!
//! QEMU without KVM counts instructions and lets each take a nanosecond of the guest's time, one
//! virtual CPU after the other. The host's load and speed change nothing: the same QEMU and image
//! give the same bytes, and two boots in two processes are compared to show it.
//!
//! What it shows: effects of scheduling. Who is preempted while it holds a lock, who is woken and
//! when, what a policy makes of more threads than CPUs.
//!
//! What it does not show, whatever the figures look like:
//! - Cache lines cost nothing, and another CPU's interrupt arrives at once. On real machines
//!   these decide what a hand-over costs.
//! - No scaling: the virtual CPUs share one stream of instructions. Sixteen do no more work in a
//!   virtual second than two, and one that spins takes from the others. Compare locks at the same
//!   number of CPUs and nothing else.
//! - A virtual CPU goes on until it pauses, halts or the next timer is due, and after a timer the
//!   first one goes first. A wait loop without `pause` on it runs alone for ever. The kernel must
//!   keep to that too: Debian's 6.1 does not (it waits for its second CPU so), 6.12 does.
//! - Work between two pauses is atomic: driver pauses only while it waits for the end of a
//!   section or of the gap after it, so both should be long enough to be waited for.
//! - Repeatable is not robust: one instruction more moves every later event. The spread of the
//!   rounds says how much that matters; a ratio within it means nothing.
//!
//! | module | what it is for |
//! |---|---|
//! | `driver` | driver's command line, names and JSON |
//! | `guest` | the kernel and the initramfs |
//! | `machine` | QEMU, twice |
//! | `compare` | are two boots the same |
//! | `report` | rows, table, JSON |

mod compare;
mod driver;
pub mod guest;
pub mod machine;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::bench::{Record, machine::Machine as Host};
use crate::project::{Project, make_folder};
use crate::{Usage, dist, packages, shell};
use driver::{Answer, Job};
use machine::{Machine, Output, Time};
use report::{Report, Row, Setup};

#[derive(clap::Args)]
pub struct Options {
    /// The locks, by driver's names and patterns; the others are compared with the first
    #[arg(
        long,
        value_name = "PATTERNS",
        value_delimiter = ',',
        default_value = "glibc,autolock"
    )]
    locks: Vec<String>,
    /// What the locks whose names match autolock get as AUTOLOCK_BACKEND, each value in turn: kernel, ebpf, user; without it the variable is not set
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = ["kernel", "ebpf", "user"])]
    backends: Vec<String>,
    /// Numbers of virtual CPUs
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "2,4,8,16",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    cpus: Vec<u16>,
    /// Threads for each virtual CPU
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads_per_cpu: u16,
    /// Time inside the critical section
    #[arg(long, value_name = "TIME", default_value = "1us")]
    cs: String,
    /// Time between unlock and the next lock; with 0 no other virtual CPU gets a turn there
    #[arg(long, value_name = "TIME", default_value = "1us")]
    extra: String,
    /// Length of a round, in virtual time
    #[arg(long, value_name = "TIME", default_value = "50ms")]
    duration: String,
    /// Rounds of each lock
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Real time that a pair of boots may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Debian package that depends on the kernel to boot, or an image's path, such as `cargo xtask kernel` prints
    #[arg(long, value_name = "PACKAGE|PATH", default_value = guest::KERNEL)]
    kernel: String,
    /// The preload to measure; the one in target/dist is built if this is left out
    #[arg(long)]
    lib: Option<PathBuf>,
    /// Where to write, in place of bench/runs/DATE-virtual
    #[arg(long)]
    out: Option<PathBuf>,
}

pub fn run(project: &Project, options: &Options) -> Result<bool> {
    packages::require("virtual-time")?;
    dist::build(project)?;
    let lib = match &options.lib {
        None => project.preload(),
        named => project.preload_or_build(named.clone())?,
    };
    let locks = driver::locks(project, &options.locks, &options.job("", 1))?;
    let host = Host::describe(project)?;
    let image = Image::prepare(project, &lib, &options.kernel)?;
    let plan = options.plan(&image, &locks);
    let first = plan
        .first()
        .ok_or_else(|| Usage("no locks or no CPUs".into()))?;
    let record = Record {
        folder: options.out.clone().unwrap_or_else(|| {
            let name = format!("{}-virtual", host.date);
            project.root.join("bench/runs").join(name)
        }),
        root: project.root.clone(),
    };
    make_folder(&record.folder)?;
    record.save(
        "machine.json",
        &(serde_json::to_string_pretty(&host)? + "\n"),
    )?;
    let mut report = Report {
        setup: Setup {
            qemu: qemu_version()?,
            kernel: image.kernel.version.clone(),
            command: image.short(&first.line()),
            section: options.cs.clone(),
            gap: options.extra.clone(),
            duration: options.duration.clone(),
            rounds: usize::from(options.rounds),
        },
        rows: Vec::new(),
    };
    let started = Instant::now();
    let bar = progress(plan.len());
    for step in &plan {
        let what = format!("{} on {} vCPUs", step.name(), step.cpus);
        bar.set_message(what.clone());
        record.note(&image.short(&step.line()))?;
        let row = step.measure(Duration::from_secs(options.timeout));
        let took = row.host_s;
        bar.suspend(|| println!("{what}, {took:.0} s: {row}"));
        report.push(row);
        bar.inc(1);
        record.save(
            "virtual.json",
            &(serde_json::to_string_pretty(&report)? + "\n"),
        )?;
    }
    bar.finish_and_clear();
    let text = report.to_string();
    print!("\n{text}");
    record.save("virtual.txt", &text)?;
    println!(
        "{:.0} s; written to {}",
        started.elapsed().as_secs_f64(),
        record.folder.display()
    );
    Ok(report.holds())
}

/// One row: a job on a machine.
struct Step {
    machine: Machine,
    cpus: usize,
    job: Job,
}

impl Step {
    fn line(&self) -> String {
        self.machine.line(self.cpus, &self.job.args())
    }

    fn name(&self) -> String {
        name(&self.machine, &self.job)
    }

    fn measure(&self, limit: Duration) -> Row {
        measure(&self.machine, self.cpus, &self.job, limit)
    }
}

/// The lock, and where it was told to get its knowledge from.
fn name(machine: &Machine, job: &Job) -> String {
    match &machine.backend {
        Some(backend) => format!("{} ({backend})", job.lock),
        None => job.lock.clone(),
    }
}

impl Options {
    /// By lock, then backend, then CPUs. Locks that ask nobody have one backend: none.
    fn plan(&self, image: &Image, locks: &[String]) -> Vec<Step> {
        let mut plan = Vec::new();
        for lock in locks {
            let asks = lock.contains("autolock") && !self.backends.is_empty();
            let named = self.backends.iter().cloned().map(Some);
            let backends = if asks { named.collect() } else { vec![None] };
            for backend in backends {
                for cpus in self.cpus.iter().copied().map(usize::from) {
                    let mut machine = image.machine(Time::Virtual);
                    machine.backend.clone_from(&backend);
                    let job = self.job(lock, cpus);
                    plan.push(Step { machine, cpus, job });
                }
            }
        }
        plan
    }

    fn job(&self, lock: &str, cpus: usize) -> Job {
        Job {
            lock: lock.to_owned(),
            threads: cpus * usize::from(self.threads_per_cpu),
            section: self.cs.clone(),
            gap: self.extra.clone(),
            duration: self.duration.clone(),
            rounds: usize::from(self.rounds),
        }
    }
}

/// The test's part: what came of each check, in words, and whether it is well.
pub fn check(image: &Image) -> Vec<(String, bool)> {
    /// For all boots together.
    const LIMIT: Duration = Duration::from_secs(170);
    const CPUS: usize = 2;
    let deadline = Instant::now() + LIMIT;
    let twice = |lock: &str, time| {
        let job = Job {
            lock: lock.to_owned(),
            threads: 2 * CPUS,
            section: "1us".into(),
            gap: "1us".into(),
            duration: "20ms".into(),
            rounds: 2,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        measure(&image.machine(time), CPUS, &job, left)
    };
    let mut checks = Vec::new();
    for lock in ["glibc", "autolock"] {
        let row = twice(lock, Time::Virtual);
        checks.push((format!("{lock}, two boots: {row}"), row.holds()));
    }
    // The same on the host's time must not pass.
    let row = twice("glibc", Time::Host);
    let noticed = row.figures.is_some() && !row.identical;
    checks.push((
        format!("glibc on the host's time, two boots: {row}"),
        noticed,
    ));
    checks
}

/// What is booted, for as long as it is needed.
pub struct Image {
    kernel: guest::Kernel,
    folder: TempDir,
}

impl Image {
    /// With the preload in target/dist.
    pub fn of_dist(project: &Project) -> Result<Self> {
        Self::prepare(project, &project.preload(), guest::KERNEL)
    }

    fn prepare(project: &Project, lib: &Path, metapackage: &str) -> Result<Self> {
        let kernel = guest::kernel(project, metapackage)?;
        let folder = tempfile::tempdir().context("cannot make a scratch folder")?;
        let image = Self { kernel, folder };
        guest::initramfs(project, lib, &image.initramfs())?;
        Ok(image)
    }

    fn initramfs(&self) -> PathBuf {
        self.folder.path().join("initramfs")
    }

    fn machine(&self, time: Time) -> Machine {
        Machine {
            kernel: self.kernel.image.clone(),
            initramfs: self.initramfs(),
            time,
            backend: None,
        }
    }

    /// Files by their names alone.
    fn short(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for file in [&self.kernel.image, &self.initramfs()] {
            if let Some(folder) = file.parent() {
                line = line.replace(&format!("{}/", folder.display()), "");
            }
        }
        line
    }
}

fn measure(machine: &Machine, cpus: usize, job: &Job, limit: Duration) -> Row {
    let started = Instant::now();
    let outcome = machine
        .boot_twice(cpus, &job.args(), limit)
        .and_then(|outputs| judge(&outputs));
    let mut row = Row {
        cpus,
        threads: job.threads,
        lock: name(machine, job),
        identical: false,
        complaint: None,
        figures: None,
        ratio: None,
        host_s: started.elapsed().as_secs_f64(),
        run: None,
    };
    match outcome {
        Ok((answer, difference)) => {
            row.identical = difference.is_none();
            row.complaint = difference;
            row.figures = Some(answer.figures);
            row.run = Some(answer.run);
        }
        Err(error) => row.complaint = Some(format!("{error:#}")),
    }
    row
}

/// The first boot's answer, and where the second one's differs.
fn judge([first, second]: &[Output; 2]) -> Result<(Answer, Option<String>)> {
    let answer = |output: &Output| {
        driver::answer(&output.answer)
            .with_context(|| format!("the console says: {}", output.complaint()))
    };
    let answers = [answer(first)?, answer(second)?];
    let difference = compare::difference(first, second);
    let [answer, _] = answers;
    Ok((answer, difference))
}

fn qemu_version() -> Result<String> {
    let banner = shell::output(Command::new(machine::QEMU).arg("--version"))?;
    Ok(banner.lines().next().unwrap_or_default().to_owned())
}

fn progress(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed} (eta {eta})")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
