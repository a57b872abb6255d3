//! The table of a run, and what it comes to.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::judge::{Outcome, Row};
use super::made::Expect;

/// An input and what was seen, or why it says nothing.
pub struct Entry {
    pub name: String,
    pub made: bool,
    pub expect: Expect,
    pub seen: Result<Row, String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub works: usize,
    pub refused: usize,
    pub failed: usize,
}

impl Counts {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        outcomes.fold(Self::default(), |mut counts, outcome| {
            match outcome {
                Outcome::Works => counts.works += 1,
                Outcome::Refused(..) => counts.refused += 1,
                Outcome::Failed(_) => counts.failed += 1,
            }
            counts
        })
    }

    fn cells(self) -> String {
        format!("{} | {} | {}", self.works, self.refused, self.failed)
    }
}

pub struct Report {
    pub entries: Vec<Entry>,
    /// Programs of the list that this machine lacks.
    pub missing: Vec<String>,
}

impl Report {
    fn rows(&self) -> impl Iterator<Item = (&Entry, &Row)> {
        self.entries
            .iter()
            .filter_map(|entry| Some((entry, entry.seen.as_ref().ok()?)))
    }

    /// Inputs that run, or are refused where they have to be.
    pub fn passed(&self) -> usize {
        self.entries.len() - self.silent() - self.failures().len()
    }

    pub fn silent(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.seen.is_err())
            .count()
    }

    pub fn works(&self) -> usize {
        self.rows()
            .filter(|(_, row)| row.ours == Outcome::Works)
            .count()
    }

    pub fn refused(&self) -> usize {
        self.rows()
            .filter(|(_, row)| matches!(row.ours, Outcome::Refused(..)))
            .count()
    }

    /// One line each.
    pub fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (entry, row) in self.rows() {
            let said = match (&row.ours, &row.ours_added) {
                (Outcome::Failed(why), _) => Some(why.clone()),
                (Outcome::Refused(status, line), _)
                    if entry.expect == Expect::Works && entry.made =>
                {
                    Some(format!("refused ({status}), though it has to work: {line}"))
                }
                (Outcome::Refused(status, line), _)
                    if entry.expect == Expect::Refused && *status != 3 =>
                {
                    Some(format!("refused with exit {status} and not 3: {line}"))
                }
                (_, Some(Outcome::Failed(why) | Outcome::Refused(_, why))) => {
                    Some(format!("with --add-needed: {why}"))
                }
                _ => None,
            };
            lines.extend(said.map(|why| format!("{}: {why}", entry.name)));
        }
        lines
    }

    pub fn markdown(&self, heading: &str) -> String {
        let mut text = heading.to_owned();
        text.push_str(
            "\n## Counts\n\n| inputs | by | works | refused | failed |\n|---|---|---|---|---|\n",
        );
        for (made, what) in [
            (false, "programs of the machine"),
            (true, "inputs made for this"),
        ] {
            let rows = || {
                self.rows()
                    .filter(|(entry, _)| entry.made == made)
                    .map(|(_, row)| row)
            };
            let dynamic = || rows().filter(|row| row.commands > 0);
            let mut line = |what: &str, by: &str, counts: Counts| {
                let _ = writeln!(text, "| {what} | {by} | {} |", counts.cells());
            };
            line(
                what,
                "use-this-glibc",
                Counts::of(rows().map(|row| &row.ours)),
            );
            line(
                what,
                "patchelf, where the original runs",
                Counts::of(dynamic().map(|row| &row.patchelf)),
            );
            line(
                &format!("{what}, with a needed library added"),
                "use-this-glibc",
                Counts::of(rows().filter_map(|row| row.ours_added.as_ref())),
            );
            line(
                &format!("{what}, with a needed library added"),
                "patchelf, where the original runs",
                Counts::of(dynamic().filter_map(|row| row.patchelf_added.as_ref())),
            );
        }
        let _ = writeln!(
            text,
            "\nFiles with new complaints of readelf or eu-elflint: {} of {} changed by use-this-glibc, {} of {} by patchelf (a run with each).",
            self.rows()
                .filter(|(_, row)| !row.complaints.0.is_empty())
                .count(),
            self.works(),
            self.rows()
                .filter(|(_, row)| !row.complaints.1.is_empty() && row.commands > 0)
                .count(),
            self.rows()
                .filter(|(_, row)| row.patchelf == Outcome::Works && row.commands > 0)
                .count(),
        );
        let unfit: Vec<_> = self
            .rows()
            .filter(|(_, row)| row.ours == Outcome::Works && !row.old_kernels)
            .map(|(entry, _)| entry.name.as_str())
            .collect();
        let _ = writeln!(
            text,
            "\nChanged files whose program headers only Linux 5.18 and newer find: {}. {}",
            unfit.len(),
            unfit.join("; ")
        );
        self.reasons(&mut text, "Refused by use-this-glibc", |row| {
            match &row.ours {
                Outcome::Refused(status, line) => Some(format!("exit {status}: {}", short(line))),
                _ => None,
            }
        });
        self.reasons(&mut text, "Failed under use-this-glibc", |row| {
            match &row.ours {
                Outcome::Failed(why) => Some(short(why)),
                _ => None,
            }
        });
        self.reasons(
            &mut text,
            "Failed under use-this-glibc with a needed library added",
            |row| match row.ours_added.as_ref()? {
                Outcome::Failed(why) | Outcome::Refused(_, why) => Some(short(why)),
                Outcome::Works => None,
            },
        );
        self.reasons(
            &mut text,
            "Failed or refused by patchelf, where the original runs",
            |row| match &row.patchelf {
                _ if row.commands == 0 => None,
                Outcome::Failed(why) | Outcome::Refused(_, why) => Some(short(why)),
                Outcome::Works => None,
            },
        );
        self.reasons(
            &mut text,
            "Failed under patchelf with a needed library added alone",
            |row| match row.patchelf_added.as_ref()? {
                Outcome::Failed(why) | Outcome::Refused(_, why) => Some(short(why)),
                Outcome::Works => None,
            },
        );
        self.complaints(&mut text, "New complaints after use-this-glibc", |row| {
            &row.complaints.0
        });
        self.complaints(&mut text, "New complaints after patchelf", |row| {
            &row.complaints.1
        });
        for entry in &self.entries {
            if let Err(why) = &entry.seen {
                let _ = writeln!(text, "\nSays nothing: {}: {why}", entry.name);
            }
        }
        if !self.missing.is_empty() {
            let _ = writeln!(text, "\nNot on this machine: {}.", self.missing.join(", "));
        }
        self.table(&mut text);
        text
    }

    fn reasons(&self, text: &mut String, title: &str, of: impl Fn(&Row) -> Option<String>) {
        let lines: Vec<_> = self
            .rows()
            .filter_map(|(entry, row)| Some(format!("- {}: {}", entry.name, of(row)?)))
            .collect();
        if !lines.is_empty() {
            let _ = writeln!(text, "\n## {title}\n\n{}", lines.join("\n"));
        }
    }

    /// By complaint: in how many files.
    fn complaints(&self, text: &mut String, title: &str, of: impl Fn(&Row) -> &Vec<String>) {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, row) in self.rows() {
            for line in of(row) {
                *kinds.entry(line).or_default() += 1;
            }
        }
        if kinds.is_empty() {
            return;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let _ = writeln!(text, "\n## {title}\n\nDigits as 0.\n");
        for (kind, count) in kinds.iter().take(15) {
            let _ = writeln!(text, "- {count} files: {}", short(kind));
        }
        if kinds.len() > 15 {
            let _ = writeln!(text, "- {} more kinds", kinds.len() - 15);
        }
    }

    fn table(&self, text: &mut String) {
        text.push_str("\n## Each\n\n| input | bytes | commands | use-this-glibc | and a library added | bytes more | patchelf | and a library added | bytes more |\n");
        text.push_str("|---|---|---|---|---|---|---|---|---|\n");
        let word = |outcome: &Outcome| match outcome {
            Outcome::Works => "works".to_owned(),
            Outcome::Refused(status, _) => format!("refused, exit {status}"),
            Outcome::Failed(_) => "**failed**".to_owned(),
        };
        let maybe = |outcome: &Option<Outcome>| outcome.as_ref().map(word).unwrap_or_default();
        for (_, row) in self.rows() {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.name,
                row.size,
                row.commands,
                word(&row.ours),
                maybe(&row.ours_added),
                row.growth.0,
                word(&row.patchelf),
                maybe(&row.patchelf_added),
                row.growth.1,
            );
        }
    }
}

/// Fit for a line of the report: scratch folders' names say nothing.
fn short(line: &str) -> String {
    let words = line
        .split(' ')
        .map(|word| match word.find("use-this-glibc-matrix-") {
            Some(at) => {
                let rest = &word[at..];
                rest.splitn(3, '/').nth(2).unwrap_or(rest).to_owned()
            }
            None => word.to_owned(),
        });
    words
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
        .replace('\n', " ")
}
