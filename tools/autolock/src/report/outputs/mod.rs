//! A report as files in a folder, for public readers.
//!
//! | file | reader | module |
//! |---|---|---|
//! | `contention.pb.gz`, `blame.pb.gz`, `hold.pb.gz` | `pprof`, `go tool pprof` | [`pprof`] |
//! | `wait.hlog`, `hold.hlog` | HdrHistogram's log readers; one tag a lock | [`hlog`] |
//! | `wait.hgrm`, `hold.hgrm`, `hgrm/LOCK-*.hgrm` | HdrHistogram's plotters; microseconds; all locks together, and the hottest | [`hgrm`] |
//! | `wait.folded`, `blame.folded`, `hold.folded` | flame graph tools; nanoseconds | [`folded`] |
//! | `wait.svg`, `blame.svg`, `hold.svg` | a browser | [`flame`] |
//! | `index.html` | a browser, with nothing beside it | [`page`] |
//!
//! May touch: the folder. Everything is made from the report alone, in a fixed order: equal reports give equal bytes.

mod flame;
mod folded;
mod hgrm;
mod hlog;
mod names;
mod page;
mod pprof;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::model::{Distribution, Report, Site, SiteKind};
use super::rows::{self, Row, Sort};

/// Writes all files into `dir`, which is made if need be; their paths. Each file appears as a whole or not at all.
///
/// # Errors
/// The folder or a file cannot be written.
pub fn write_all(report: &Report, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut folder = Folder::new(dir)?;
    let rows = hottest(report);
    for view in View::ALL {
        folder.write(
            &format!("{}.pb.gz", view.profile()),
            &pprof::profile(report, view)?,
        )?;
        let stacks = folded::stacks(report, view);
        folder.write(&format!("{}.folded", view.name()), &folded::text(&stacks))?;
        folder.write(
            &format!("{}.svg", view.name()),
            &flame::file(report, view, &stacks)?,
        )?;
    }
    for measure in Measure::ALL {
        folder.write(
            &format!("{}.hlog", measure.name()),
            &hlog::log(report, &rows, measure)?,
        )?;
        for (name, text) in hgrm::files(report, &rows, measure)? {
            folder.write(&name, text.as_bytes())?;
        }
    }
    folder.write("index.html", page::render(report, &rows)?.as_bytes())?;
    Ok(folder.written)
}

/// What a stack is charged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Time waited, charged to who waited.
    Wait,
    /// The same, charged to who held the lock.
    Blame,
    /// Time held, charged to who held.
    Hold,
}

impl View {
    const ALL: [Self; 3] = [Self::Wait, Self::Blame, Self::Hold];

    const fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Blame => "blame",
            Self::Hold => "hold",
        }
    }

    /// Readers know a profile of waits as a contention profile.
    const fn profile(self) -> &'static str {
        match self {
            Self::Wait => "contention",
            other => other.name(),
        }
    }

    /// The stack to charge, and the other one.
    fn stacks(self, site: &Site) -> (Option<usize>, Option<usize>) {
        match self {
            Self::Wait => (site.stack, site.holder),
            Self::Blame => (site.holder, site.stack),
            Self::Hold => (site.stack, None),
        }
    }

    fn sites(self, report: &Report) -> impl Iterator<Item = &Site> {
        let kind = match self {
            Self::Wait | Self::Blame => SiteKind::Wait,
            Self::Hold => SiteKind::Hold,
        };
        report.sites.iter().filter(move |site| site.kind == kind)
    }
}

/// What is distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Wait,
    Hold,
}

impl Measure {
    const ALL: [Self; 2] = [Self::Wait, Self::Hold];

    const fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Hold => "hold",
        }
    }

    const fn of<'a>(self, row: &'a Row<'_>) -> &'a Distribution {
        match self {
            Self::Wait => &row.wait,
            Self::Hold => &row.hold,
        }
    }
}

/// The locks, those of one identity together, the most waited for first: the rows of the table that is printed.
pub(crate) fn hottest(report: &Report) -> Vec<Row<'_>> {
    let mut rows = rows::rows(report, false);
    rows::sort(&mut rows, Sort::Wait);
    rows
}

/// Where files go.
struct Folder<'a> {
    dir: &'a Path,
    written: Vec<PathBuf>,
}

impl<'a> Folder<'a> {
    fn new(dir: &'a Path) -> Result<Self> {
        let hgrm = dir.join("hgrm");
        fs::create_dir_all(&hgrm)
            .with_context(|| format!("cannot make the folder {}", hgrm.display()))?;
        Ok(Self {
            dir,
            written: Vec::new(),
        })
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        replace(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        self.written.push(path);
        Ok(())
    }
}

/// Whoever opens the file sees the old bytes or the new, never a part.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let done = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path));
    if done.is_err() {
        // Nothing more can be done about it if this fails too.
        let _ = fs::remove_file(&beside);
    }
    done
}
