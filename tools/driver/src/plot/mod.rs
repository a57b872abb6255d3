//! `driver plot`: a run, or two side by side, as one HTML page and SVG files. Reads runs
//! and writes files; measures nothing.
//!
//! | module | what it is for |
//! |---|---|
//! | `figure` | what a figure is; cells in groups |
//! | `measure`, `latency` | which figures there are: over threads; distributions |
//! | `chart` | a figure as SVG; axes, grid and backend are the crate `figures`' |
//! | `look` | the colours and marks of locks |
//! | `sheet` | the table of everything |
//! | `page`, `page.css`, `page.js` | the page |
//! | `compare` | what differs between two runs |

mod chart;
mod compare;
mod figure;
mod latency;
mod look;
mod measure;
mod page;
mod sheet;

use crate::run::Run;
use anyhow::{Context, Result, bail, ensure};
use chart::Style;
use figure::Subject;
use look::Looks;
use maud::html;
use page::Page;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Draw a run, or compare two: one HTML page and an SVG file per figure
#[derive(clap::Args, Debug)]
pub struct Plot {
    /// What --bench --json wrote
    #[arg(value_name = "RUN.json")]
    pub run: PathBuf,
    /// A second run to compare the first with
    #[arg(long, value_name = "OTHER.json")]
    pub against: Option<PathBuf>,
    /// The folder to write [default: RUN-plots or RUN-against-OTHER-plots, beside RUN.json]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Locks to show in colour [default: the baseline, autolock and the fastest]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub highlight: Vec<String>,
}

/// Wrong usage: --highlight names a lock that no run has.
#[derive(Debug)]
pub struct NoSuchLock(String);

impl fmt::Display for NoSuchLock {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoSuchLock {}

/// A page and its figures' files: name and contents.
struct Output {
    page: String,
    figures: Vec<(String, String)>,
}

impl Plot {
    /// Writes everything; what to tell the user.
    pub fn perform(&self) -> Result<String> {
        let run = Run::read(&self.run)?;
        let against = self.against.as_deref().map(Run::read).transpose()?;
        let names =
            [Some(&self.run), self.against.as_ref()].map(|p| p.map_or(String::new(), |p| name(p)));
        let output = output(&run, against.as_ref(), &names, &self.highlight)?;
        let folder = self.folder();
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let write = |file: &str, text: &str| {
            let path = folder.join(file);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        for (file, text) in &output.figures {
            write(file, text)?;
        }
        write("index.html", &output.page)?;
        Ok(format!(
            "{}: {} kB\n{}: {} figures\n",
            folder.join("index.html").display(),
            output.page.len().div_ceil(1000),
            folder.join("*.svg").display(),
            output.figures.len()
        ))
    }

    fn folder(&self) -> PathBuf {
        if let Some(out) = &self.out {
            return out.clone();
        }
        let stem = |path: &Path| path.file_stem().unwrap_or(path.as_os_str()).to_owned();
        let mut folder: OsString = stem(&self.run);
        if let Some(against) = &self.against {
            folder.push("-against-");
            folder.push(stem(against));
        }
        folder.push("-plots");
        self.run.with_file_name(folder)
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn output(
    run: &Run,
    against: Option<&Run>,
    names: &[String; 2],
    highlight: &[String],
) -> Result<Output> {
    let subject = Subject::new(run, against);
    ensure!(
        !run.cells.is_empty(),
        "{} has no cells: nothing was measured",
        names[0]
    );
    if let Some(name) = highlight.iter().find(|&n| !subject.locks.contains(n)) {
        let known = subject.locks.join(", ");
        bail!(NoSuchLock(format!(
            "no lock '{name}' in this run; there are {known}"
        )));
    }
    let looks = Looks::choose(&subject, highlight);
    let sides = against.map(|_| [names[0].as_str(), names[1].as_str()]);
    let style = Style {
        locks: &subject.locks,
        looks: &looks,
        sides,
    };
    let mut groups = Vec::new();
    for group in subject.groups() {
        let mut figures = measure::changes(&subject, &group);
        figures.extend(subject.figures(&group)?);
        groups.push((group.title, figures));
    }
    // Words may lose what tells two groups apart on their way to a file name.
    let mut taken = BTreeSet::new();
    for figure in groups.iter_mut().flat_map(|(_, figures)| figures) {
        let plain = figure.file.clone();
        let mut number = 2;
        while !taken.insert(figure.file.clone()) {
            figure.file = format!("{plain}-{number}");
            number += 1;
        }
    }
    let mut source = page::source(run, &names[0]);
    if let Some(against) = against {
        source = format!("{source}; {}", page::source(against, &names[1]));
    }
    let figures = groups
        .iter()
        .flat_map(|(_, figures)| figures)
        .map(|figure| {
            Ok((
                format!("{}.svg", figure.file),
                chart::file(figure, &style, &source)?,
            ))
        })
        .collect::<Result<_>>()?;
    let page = match against {
        None => Page {
            title: names[0].clone(),
            head: html! { (page::facts_list(run)) (page::reading(&looks)) },
            sheet: sheet::of_run(&subject),
            sheet_note: format!(
                "Medians over the rounds, with the least and the greatest round. ratio: throughput over {}'s of the \
                 same round. max: the greatest latency of a round. Mop: million operations. \
                 Click a heading to sort.",
                run.settings.baseline
            ),
            more_text: crate::table::render_shortfalls(run, None),
            groups,
            style,
        },
        Some(other) => Page {
            title: format!("{} against {}", names[0], names[1]),
            head: html! {
                (compare::head(run, other, [&names[0], &names[1]]))
                (page::reading(&looks))
            },
            sheet: compare::sheet(&subject),
            sheet_note: format!(
                "Medians over the rounds: {}, {} (\"other\"), and the first over the second. ratio: throughput over the \
                 baseline's of the same round and run. max: the greatest latency of a round. {} \
                 Click a heading to sort.",
                names[0],
                names[1],
                compare::unmatched(run, other)
            ),
            more_text: String::new(),
            groups,
            style,
        },
    };
    Ok(Output {
        page: page.render()?,
        figures,
    })
}

#[cfg(test)]
pub mod tests;
