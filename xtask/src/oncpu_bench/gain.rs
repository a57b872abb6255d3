//! What locks gain by knowing who runs, where others want the CPUs as well: variants in turns, one process each, beside the same load.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::daemon::Place;
use super::load::Load;
use super::strangers::undisturbed;
use super::{Options, guarded};
use crate::bench::Record;
use crate::bench::machine::{self, Ticks};
use crate::bench::spread::{Spread, spread};
use crate::project::Project;
use crate::shell;

const ROUNDS: u32 = 7;
const DURATION: &str = "600ms";
const MEMCACHED_ROUNDS: u32 = 5;
const MEMCACHED_DURATION: &str = "3s";

/// The bare locks' work: a name, and the options for the driver.
const WORK: &[(&str, &[&str])] = &[
    (
        "two lines, gap 100 cycles",
        &["--gap", "100", "--cs", "10ns"],
    ),
    ("1 us, gap 1 us", &["--gap", "1us", "--cs", "1us"]),
    ("20 us, gap 10 us", &["--gap", "10us", "--cs", "20us"]),
    (
        "1 us, gap 1 us, 16 mutexes",
        &["--gap", "1us", "--cs", "1us", "--locks", "16"],
    ),
];

/// What is compared. The first is the baseline.
struct Variant<'a> {
    name: &'static str,
    /// As the driver calls it.
    lock: &'a str,
    library: PathBuf,
    backend: &'static str,
}

fn variants<'a>(project: &Project, options: &'a Options) -> Result<Vec<Variant<'a>>> {
    let of = |name, lock: &'a str, library: &PathBuf, backend| Variant {
        name,
        lock,
        library: library.clone(),
        backend,
    };
    let ours = project.preload();
    let lock = options.lock();
    let mut variants = vec![
        of("glibc", "glibc", &ours, "user"),
        of("user", lock, &ours, "user"),
        of("ebpf", lock, &ours, "ebpf"),
    ];
    if let Some(other) = &options.other {
        let other = project.preload_or_build(Some(other.clone()))?;
        variants.push(of("other-user", "autolock", &other, "user"));
        variants.push(of("other-ebpf", "autolock", &other, "ebpf"));
    }
    Ok(variants)
}

impl Variant<'_> {
    fn command(&self, project: &Project, place: &Place) -> Command {
        let mut driver = guarded(project.program("driver"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AUTOLOCK_") {
                driver.env_remove(name);
            }
        }
        driver.env_remove("LD_PRELOAD");
        driver.env("AUTOLOCK_BACKEND", self.backend);
        driver.env("AUTOLOCK_SOCKET", place.socket());
        driver.args(["--bench", self.lock, "--baseline", self.lock]);
        driver.arg("--lib").arg(&self.library);
        driver.args(["--rounds", "1", "--futex-calls", "own", "--csv"]);
        driver
    }

    /// That it uses what it is to use, by its own word.
    fn prove(&self, project: &Project, place: &Place) -> Result<()> {
        let mut driver = self.command(project, place);
        driver.args(["--threads", "2", "--duration", "50ms"]);
        driver.env("AUTOLOCK_STATS", "1");
        let output = driver.output().context("cannot start driver")?;
        // The library says it for itself, the driver for the locks of the collection.
        let (said, wanted) = match self.lock {
            "autolock" => (
                &output.stderr,
                format!("autolock: source={} ", self.backend),
            ),
            _ => (&output.stdout, format!("# on-CPU source: {}", self.backend)),
        };
        let said = String::from_utf8_lossy(said);
        ensure!(
            self.lock == "glibc" || said.contains(&wanted),
            "{} does not say `{}`: {}",
            self.name,
            wanted.trim(),
            said.trim()
        );
        Ok(())
    }
}

/// What is read of a row of the driver's CSV.
struct Sample {
    work: usize,
    threads: u32,
    variant: usize,
    round: u32,
    values: Values,
}

type Values = [f64; FIGURES.len()];

/// Column of the driver, name and unit in our table, factor, digits.
const FIGURES: [(&str, &str, f64, usize); 7] = [
    ("ops_per_s", "Mops/s", 1e-6, 3),
    ("cpu_s_per_mop", "CPU us/op", 1.0, 3),
    ("jain", "Jain", 1.0, 3),
    ("p50_ns", "p50 us", 1e-3, 2),
    ("p99_ns", "p99 us", 1e-3, 2),
    ("p999_ns", "p99.9 us", 1e-3, 2),
    ("max_ns", "max ms", 1e-6, 1),
];
const THROUGHPUT: usize = 0;
const CPU: usize = 1;

pub fn driver(
    project: &Project,
    record: &Record,
    place: &Place,
    load: Load,
    options: &Options,
) -> Result<()> {
    let variants = variants(project, options)?;
    for variant in &variants {
        variant.prove(project, place)?;
    }
    let usual = if options.quick { "50ms" } else { DURATION };
    let duration = options.duration.as_deref().unwrap_or(usual);
    let threads = if options.threads.is_empty() {
        &[2, 4, 8, 16][..]
    } else {
        &options.threads
    };
    let rounds = options.rounds(ROUNDS);
    let name = match &options.lock {
        Some(lock) => format!("driver-{load}-{lock}"),
        None => format!("driver-{load}"),
    };
    let outside = load.start(project)?;
    let (before, ticks) = (machine::load(), Ticks::now());
    let mut csv = String::new();
    let mut samples = Vec::new();
    let (mut repeated, mut disturbed) = (0, 0);
    for round in 0..rounds {
        println!("driver beside {load}: round {} of {rounds}", round + 1);
        for (work, (title, args)) in WORK.iter().enumerate() {
            for &threads in threads {
                for variant in in_turn(variants.len(), round) {
                    let chosen = &variants[variant];
                    let mut command = chosen.command(project, place);
                    command.args(*args);
                    command.args(["--threads", &threads.to_string(), "--duration", duration]);
                    if round == 0 {
                        note(record, place, &command)?;
                    }
                    let kept = undisturbed(Some(&outside), || shell::output(&mut command))?;
                    repeated += kept.repeated;
                    disturbed += u32::from(kept.is_disturbed());
                    let (header, row) = last_row(&kept.value)?;
                    if csv.is_empty() {
                        writeln!(csv, "load,work,variant,turn,strangers,{header}")?;
                    }
                    let strangers = kept.strangers;
                    writeln!(
                        csv,
                        "{load},\"{title}\",{},{round},{strangers:.3},{row}",
                        chosen.name
                    )?;
                    samples.push(Sample {
                        work,
                        threads,
                        variant,
                        round,
                        values: values(header, row)?,
                    });
                }
            }
        }
        record.save(&format!("{name}.csv"), &csv)?;
    }
    record.note(&format!(
        "  # {rounds} rounds of {duration} beside {load}, in turns; load before {before}, after {}; {}; {repeated} measurements were disturbed by other processes and repeated, {disturbed} of those kept were disturbed as well",
        machine::load(),
        ticks.since()
    ))?;
    let report = Report {
        load,
        duration,
        rounds,
        variants: &variants,
        samples: &samples,
    };
    println!("\n{report}");
    record.save(&format!("{name}.txt"), &report.to_string())
}

/// Every other round goes backwards, and each variant comes first in some.
fn in_turn(count: usize, round: u32) -> Vec<usize> {
    let round = round as usize;
    let mut order: Vec<usize> = (0..count).map(|n| (n + round / 2) % count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

fn note(record: &Record, place: &Place, command: &Command) -> Result<()> {
    let scratch = place.scratch().display().to_string();
    record.note(&shell::line(command).replace(&scratch, "SCRATCH"))
}

/// Header and only row of the driver's CSV.
fn last_row(csv: &str) -> Result<(&str, &str)> {
    let mut lines = csv.lines().filter(|line| !line.starts_with('#'));
    let header = lines.next().context("driver printed no CSV")?;
    let row = lines.next().context("driver's CSV has no row")?;
    ensure!(lines.next().is_none(), "driver's CSV has several rows");
    Ok((header, row))
}

fn values(header: &str, row: &str) -> Result<Values> {
    let fields: BTreeMap<&str, &str> = header.split(',').zip(row.split(',')).collect();
    let mut values = [0.0; FIGURES.len()];
    for (value, (column, _, factor, _)) in values.iter_mut().zip(FIGURES) {
        let text = fields.get(column).copied().unwrap_or_default();
        let number: f64 = text
            .parse()
            .with_context(|| format!("driver's CSV has no number under {column}"))?;
        *value = number * factor;
    }
    Ok(values)
}

struct Report<'a> {
    load: Load,
    duration: &'a str,
    rounds: u32,
    variants: &'a [Variant<'a>],
    samples: &'a [Sample],
}

impl Report<'_> {
    fn of(&self, cell: (usize, u32), variant: usize) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |s| (s.work, s.threads) == cell && s.variant == variant)
    }

    fn figure(&self, cell: (usize, u32), variant: usize, figure: usize) -> Option<Spread> {
        spread(self.of(cell, variant).map(|s| s.values[figure]).collect())
    }

    /// One variant's figure over another's, round by round.
    fn ratio(&self, cell: (usize, u32), pair: (usize, usize), figure: usize) -> Option<Spread> {
        let ratios = self.of(cell, pair.0).filter_map(|ours| {
            let mut others = self.of(cell, pair.1);
            let theirs = others.find(|theirs| theirs.round == ours.round)?;
            Some(ours.values[figure] / theirs.values[figure])
        });
        spread(ratios.collect())
    }

    fn wins(&self, cell: (usize, u32), pair: (usize, usize)) -> usize {
        let won = |ours: &&Sample| {
            self.of(cell, pair.1).any(|theirs| {
                theirs.round == ours.round && ours.values[THROUGHPUT] > theirs.values[THROUGHPUT]
            })
        };
        self.of(cell, pair.0).filter(won).count()
    }

    fn cells(&self) -> Vec<(usize, u32)> {
        let mut cells: Vec<_> = self.samples.iter().map(|s| (s.work, s.threads)).collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "beside outside load ({}), {} rounds of {}, one process each, in turns; medians\n",
            self.load, self.rounds, self.duration
        )?;
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        let fixed = ["work", "threads", "variant"].map(str::to_owned);
        let names = FIGURES.iter().map(|(_, name, ..)| (*name).to_owned());
        table.set_header(
            fixed
                .into_iter()
                .chain(names)
                .chain(["Mops/s min..max".to_owned()]),
        );
        for cell in self.cells() {
            for (at, variant) in self.variants.iter().enumerate() {
                let fixed = [
                    WORK[cell.0].0.to_owned(),
                    cell.1.to_string(),
                    variant.name.to_owned(),
                ];
                let figures = FIGURES.iter().enumerate().map(|(figure, (.., digits))| {
                    self.figure(cell, at, figure)
                        .map_or_else(String::new, |s| format!("{:.*}", digits, s.median))
                });
                let range = self.figure(cell, at, THROUGHPUT);
                let range =
                    range.map_or_else(String::new, |s| format!("{:.2}..{:.2}", s.min, s.max));
                table.add_row(fixed.into_iter().chain(figures).chain([range]));
            }
        }
        writeln!(out, "{table}\n")?;
        writeln!(
            out,
            "ratios round by round: median (95 % interval of the median; the extremes with fewer than 6 rounds) [min..max]\n"
        )?;
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header([
            "work",
            "threads",
            "",
            "throughput",
            "rounds won",
            "CPU per operation",
        ]);
        let mut pairs = vec![(1, 0), (2, 0), (2, 1)];
        pairs.extend((3..self.variants.len()).map(|other| (other - 2, other)));
        for cell in self.cells() {
            for &pair in &pairs {
                let show =
                    |spread: Option<Spread>| spread.map_or_else(String::new, |s| s.to_string());
                table.add_row([
                    WORK[cell.0].0.to_owned(),
                    cell.1.to_string(),
                    format!(
                        "{} / {}",
                        self.variants[pair.0].name, self.variants[pair.1].name
                    ),
                    show(self.ratio(cell, pair, THROUGHPUT)),
                    format!("{} of {}", self.wins(cell, pair), self.rounds),
                    show(self.ratio(cell, pair, CPU)),
                ]);
            }
        }
        writeln!(out, "{table}")
    }
}

/// The example's own rounds, beside a load that lasts through all of them.
pub fn memcached(
    project: &Project,
    record: &Record,
    place: &Place,
    load: Load,
    options: &Options,
) -> Result<bool> {
    let _load = load.start(project)?;
    let mut command = guarded(project.program("memcached-example"));
    command.env("AUTOLOCK_SOCKET", place.socket());
    command.arg("--backends");
    if options.quick {
        command.arg("--quick");
    } else {
        command.args(["--threads", "4,16", "--duration", MEMCACHED_DURATION]);
        let rounds = options.rounds(MEMCACHED_ROUNDS).to_string();
        command.args(["--rounds", &rounds]);
    }
    let name = format!("memcached-{load}");
    let json = record.folder.join(format!("{name}.json"));
    command.arg("--json").arg(&json);
    command.arg("--lib").arg(project.preload());
    let good = record.run(&name, &mut command)?;
    record.without_root(&json)?;
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_comes_first() {
        let first = |count| {
            let firsts = (0..12).filter_map(|round| in_turn(count, round).first().copied());
            let mut firsts: Vec<usize> = firsts.collect();
            firsts.sort_unstable();
            firsts.dedup();
            firsts.len()
        };
        assert_eq!((first(3), first(5)), (3, 5));
        assert_eq!(in_turn(3, 0), [0, 1, 2]);
        assert_eq!(in_turn(3, 1), [2, 1, 0]);
    }

    #[test]
    fn columns_are_found_by_name() {
        let names: Vec<&str> = FIGURES.iter().map(|(column, ..)| *column).rev().collect();
        let csv = format!(
            "# made: up\nlock,{}\nglibc,7,6,5,4,3,2,1000000\n",
            names.join(",")
        );
        let (header, row) = last_row(&csv).expect("a row");
        let values = values(header, row).expect("numbers");
        assert!((values[THROUGHPUT] - 1.0).abs() < 1e-9 && (values[CPU] - 2.0).abs() < 1e-9);
        assert!(super::values("ops_per_s", "1").is_err());
        assert!(last_row("# nothing\n").is_err());
    }
}
