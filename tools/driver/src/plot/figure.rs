//! From runs to figures: which there are, their axes and their points. Pure functions of
//! `Run`; knows nothing of SVG.
//!
//! A group is what differs in the number of threads alone; each figure shows one measure
//! of one group. A figure may show two runs, the second dashed.

use super::{latency, measure};
use crate::run::{Cell, CellRun, Run};
use anyhow::Result;
use figures::axis::Axis;

/// A name from a run and what it looks like everywhere.
pub type LockIndex = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Marks joined by a line, with a band around it.
    Line,
    /// A line alone.
    Curve,
    /// A mark in a row of its own, with a whisker.
    Row,
}

/// Places on the figure's axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Least and greatest of the rounds: of y, in rows of x.
    pub spread: Option<(f64, f64)>,
    /// In words.
    pub tip: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub lock: LockIndex,
    /// Of the run that the first is compared with.
    pub second: bool,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug)]
pub struct Figure {
    /// File name without extension, unique in a page.
    pub file: String,
    pub title: String,
    /// The group, and the thread count where the figure shows one.
    pub subtitle: String,
    pub x: Axis,
    pub y: Axis,
    pub shape: Shape,
    /// A reference: where the value is 1.
    pub rule: Option<f64>,
    pub series: Vec<Series>,
}

/// The cells of one run or two that differ in the number of threads alone.
pub struct Group<'a> {
    pub title: String,
    pub threads: Vec<usize>,
    /// The second is empty when there is no second run.
    pub cells: [Vec<&'a CellRun>; 2],
}

/// One run or two, and all the names in them.
pub struct Subject<'a> {
    pub runs: Vec<&'a Run>,
    pub locks: Vec<String>,
}

impl<'a> Subject<'a> {
    pub fn new(run: &'a Run, against: Option<&'a Run>) -> Subject<'a> {
        let runs: Vec<&Run> = [Some(run), against].into_iter().flatten().collect();
        let mut locks: Vec<String> = Vec::new();
        for lock in runs.iter().flat_map(|run| &run.locks) {
            if !locks.contains(&lock.name) {
                locks.push(lock.name.clone());
            }
        }
        Subject { runs, locks }
    }

    /// In the order of the first run, then what only the second has.
    pub fn groups(&self) -> Vec<Group<'a>> {
        let mut groups: Vec<(Cell, Group)> = Vec::new();
        for (side, run) in self.runs.iter().enumerate() {
            for cell in &run.cells {
                let key = Cell {
                    threads: 0,
                    ..cell.cell
                };
                let at = groups.iter().position(|(k, _)| *k == key);
                let at = at.unwrap_or_else(|| {
                    let title = without_threads(&cell.cell);
                    let cells = [Vec::new(), Vec::new()];
                    let threads = Vec::new();
                    groups.push((
                        key,
                        Group {
                            title,
                            threads,
                            cells,
                        },
                    ));
                    groups.len() - 1
                });
                let group = &mut groups[at].1;
                group.cells[side].push(cell);
                group.threads.push(cell.cell.threads);
            }
        }
        let mut groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
        for group in &mut groups {
            group.threads.sort_unstable();
            group.threads.dedup();
        }
        groups
    }

    /// All figures of a group.
    pub fn figures(&self, group: &Group) -> Result<Vec<Figure>> {
        let mut figures = measure::figures(self, group);
        for &threads in &group.threads {
            figures.extend(latency::figure(self, group, threads)?);
        }
        Ok(figures)
    }

    /// Of a point's run, where there are two.
    pub fn side(&self, second: bool) -> &'static str {
        match (self.runs.len(), second) {
            (2, false) => ", solid",
            (2, true) => ", dashed",
            _ => "",
        }
    }
}

/// The cell's own words, less those about threads.
pub fn without_threads(cell: &Cell) -> String {
    let text = cell.to_string();
    match text.split_once(", ") {
        Some((first, rest)) if first.starts_with("threads ") => rest.into(),
        _ => text,
    }
}

pub fn threads_in_words(threads: usize) -> String {
    match threads {
        1 => "1 thread".into(),
        n => format!("{n} threads"),
    }
}

/// A part of a file name.
pub fn slug(text: &str) -> String {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let parts: Vec<&str> = parts.filter(|p| !p.is_empty()).collect();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;

    #[test]
    fn a_group_is_what_differs_in_threads_alone() {
        let mut run = sample();
        let mut other = run.cells[0].clone();
        other.cell.gap_cycles += 1;
        run.cells.push(other);
        let subject = Subject::new(&run, None);
        let groups = subject.groups();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].threads, [2, 16]);
        assert_eq!(groups[1].threads, [2]);
        assert!(!groups[0].title.contains("threads"), "{}", groups[0].title);
        assert_ne!(groups[0].title, groups[1].title);
    }

    #[test]
    fn two_runs_share_groups_and_locks_by_name() {
        let (a, mut b) = (sample(), sample());
        b.locks[1].name = "mcs".into();
        b.cells[1].cell.threads = 32;
        let subject = Subject::new(&a, Some(&b));
        assert_eq!(subject.locks, ["glibc", "autolock", "mcs"]);
        let groups = subject.groups();
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].threads, [2, 16, 32]);
        assert_eq!(groups[0].cells.each_ref().map(Vec::len), [2, 2]);
    }

    #[test]
    fn file_names_hold_nothing_odd() {
        assert_eq!(
            slug("locks 1, gap 100 cycles/../x"),
            "locks-1-gap-100-cycles-..-x"
        );
        assert_eq!(slug("a <b> 1.5 us"), "a-b-1.5-us");
    }
}
