//! glibc with our patches, and the same glibc without them, each installed in a prefix of its own.
//!
//! Debian's source (package glibc-source) is verified, unpacked, configured, built and installed; then the series of
//! `glibc-patches/2.36` is applied to the same tree, patch by patch, each compiled as it comes, and the result installed beside
//! it. What is kept is named after all that went into it, lives under the user's cache folder (without one, under the target
//! folder) and is only ever put there whole.
//!
//! [`recipe`] says how, [`source`] verifies, [`build`] has the
//! order, [`complete`] looks at what was installed, [`new_tests`] runs the tests that the patches add, [`sums`] compares
//! glibc's own summaries, [`step`] is the step of `cargo xtask test`.

mod build;
mod complete;
mod new_tests;
pub mod recipe;
mod source;
pub mod step;
mod sums;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Usage;
use crate::project::{Project, make_folder};
use crate::shell;
use crate::sources::{self, Patch};
use crate::work::{self, Work};
use build::Build;
use new_tests::NewTest;
use source::Archive;

/// Everything whose text decides what is built.
const RECIPE: &[&str] = &[include_str!("recipe.rs")];
/// In a prefix that the user named: the key of what is there.
const MARK: &str = ".built-by-autolock";

#[derive(clap::Args, Default)]
pub struct Options {
    /// Install the patched glibc here, and not in the cache; replaces only what an earlier run put there
    #[arg(long, value_name = "DIR", conflicts_with = "stock")]
    pub prefix: Option<PathBuf>,
    /// Jobs of make at a time; one for each CPU if left out
    #[arg(long)]
    pub jobs: Option<NonZeroUsize>,
    /// Print where the unpatched glibc is, which was built the same way, and not the patched one
    #[arg(long)]
    pub stock: bool,
    /// Run glibc's own `make check subdirs=nptl` before and after the patches and compare (an hour; builds anew)
    #[arg(long)]
    pub check: bool,
    /// Forget an interrupted build and begin again
    #[arg(long)]
    pub fresh: bool,
    /// Keep source, objects and log of the build (about 1 GB) and say where
    #[arg(long)]
    pub keep: bool,
}

/// A finished build.
pub struct Kept {
    pub patched: PathBuf,
    pub stock: PathBuf,
    pub new_tests: Vec<NewTest>,
}

/// The verb: all but the prefix goes to standard error.
pub fn run(project: &Project, options: &Options) -> Result<bool> {
    if options.check {
        return check(project, options);
    }
    let kept = prepare(project, options)?;
    for test in &kept.new_tests {
        eprintln!("   {test}");
    }
    let prefix = if options.stock {
        &kept.stock
    } else {
        &kept.patched
    };
    println!("{}", prefix.display());
    Ok(true)
}

/// What goes into a build and where it goes.
struct Plan {
    archive: Archive,
    patches: Vec<Patch>,
    key: String,
    home: PathBuf,
    /// Compiled in.
    prefix: PathBuf,
    /// The user's, and not ours.
    named: bool,
}

impl Plan {
    fn new(project: &Project, options: &Options) -> Result<Self> {
        let series = project.root.join("glibc-patches").join(recipe::VERSION);
        let patches = sources::series(&series)?;
        if patches.is_empty() {
            bail!("{}/series names no patch", series.display());
        }
        let archive = Archive::verified()?;
        let named = options.prefix.as_deref().map(absolute).transpose()?;
        let key = key(&archive, &patches, named.as_deref())?;
        let home = project.cache("glibc")?;
        for folder in named.iter().chain([&home]) {
            work::fit_for_make(folder)?;
        }
        let prefix = match &named {
            Some(prefix) => prefix.clone(),
            None => home.join(kept_name(&key)).join("patched"),
        };
        Ok(Self {
            archive,
            patches,
            key,
            home,
            named: named.is_some(),
            prefix,
        })
    }

    fn folder(&self) -> PathBuf {
        self.home.join(kept_name(&self.key))
    }

    /// The finished build, if it is there.
    fn kept(&self) -> Result<Option<Kept>> {
        let folder = self.folder();
        let mark = std::fs::read_to_string(self.prefix.join(MARK));
        if !folder.is_dir() || (self.named && mark.ok().as_ref() != Some(&self.key)) {
            return Ok(None);
        }
        Ok(Some(Kept {
            patched: self.prefix.clone(),
            stock: folder.join("stock"),
            new_tests: new_tests::read(&folder.join(new_tests::RECORD))?,
        }))
    }

    /// Puts what was built in its place.
    fn publish(&self, work: &Work) -> Result<()> {
        // Part of this may have happened in a run that was interrupted.
        let (folder, half) = (self.folder(), work.path("kept"));
        make_folder(&half)?;
        let patched = work.path("patched");
        if self.named {
            let mark = patched.join(MARK);
            std::fs::write(&mark, &self.key)
                .with_context(|| format!("cannot write {}", mark.display()))?;
            replace(&patched, &self.prefix)?;
        } else {
            gather(&patched, &half.join("patched"))?;
        }
        gather(&work.path("stock"), &half.join("stock"))?;
        gather(&work.path(new_tests::RECORD), &half.join(new_tests::RECORD))?;
        sources::remove(&folder)?;
        rename(&half, &folder)
    }
}

fn kept_name(key: &str) -> String {
    format!("glibc-{}-{key}", recipe::VERSION)
}

/// From the cache, or built now.
pub fn prepare(project: &Project, options: &Options) -> Result<Kept> {
    let plan = Plan::new(project, options)?;
    if let Some(kept) = plan.kept()? {
        return Ok(kept);
    }
    if plan.named {
        may_replace(&plan.prefix)?;
    }
    let work = open(&plan, "work", options)?;
    // Whoever had the lock may have been at just this.
    if let Some(kept) = plan.kept()? {
        work.remove()?;
        return Ok(kept);
    }
    let build = Build {
        work: &work,
        prefix: &plan.prefix,
        jobs: options.jobs.map_or_else(work::cpus, NonZeroUsize::get),
        check: false,
    };
    build.run(&plan.archive, &plan.patches)?;
    plan.publish(&work)?;
    complete::check(&plan.prefix)?;
    tidy(work, options)?;
    old_builds(&plan);
    plan.kept()?
        .with_context(|| format!("{} is gone again", plan.folder().display()))
}

/// A build of its own, whose object tree both runs of `make check` need.
fn check(project: &Project, options: &Options) -> Result<bool> {
    let plan = Plan::new(project, options)?;
    let work = open(&plan, "check", options)?;
    let build = Build {
        work: &work,
        prefix: &plan.prefix,
        jobs: options.jobs.map_or_else(work::cpus, NonZeroUsize::get),
        check: true,
    };
    build.run(&plan.archive, &plan.patches)?;
    let stock = sums::read(&work.path("stock.sum"))?;
    let patched = sums::read(&work.path("patched.sum"))?;
    let mut lost = sums::lost(&stock, &patched);
    for name in std::mem::take(&mut lost) {
        println!(
            "   {name} passes on the unpatched glibc and not on the patched one, once more alone"
        );
        if !new_tests::passes_alone(&build, name)? {
            println!("   FAILED: {name}");
            lost.push(name);
        }
    }
    println!(
        "glibc's make check subdirs=nptl: {} of {} pass unpatched, {} of {} patched; {} of the unpatched glibc's passes are lost",
        sums::passes(&stock),
        stock.len(),
        sums::passes(&patched),
        patched.len(),
        lost.len()
    );
    let records = project.work_folder("glibc")?;
    for name in ["stock.sum", "patched.sum"] {
        let to = records.join(name);
        std::fs::copy(work.path(name), &to)
            .with_context(|| format!("cannot write {}", to.display()))?;
    }
    println!("   every test's outcome: {}/*.sum", records.display());
    let holds = lost.is_empty();
    tidy(work, options)?;
    Ok(holds)
}

fn open(plan: &Plan, kind: &str, options: &Options) -> Result<Work> {
    let work = Work::open(plan.home.join(format!("glibc-{kind}-{}", plan.key)))?;
    if options.fresh {
        work.clear()?;
    }
    if work.is_done("unpacked") {
        eprintln!(
            "   going on with the build in {} (--fresh begins again)",
            work.folder.display()
        );
    } else {
        eprintln!(
            "   building glibc {} twice, about ten minutes on two CPUs; log: {}",
            recipe::VERSION,
            work.log.display()
        );
    }
    Ok(work)
}

fn tidy(work: Work, options: &Options) -> Result<()> {
    if options.keep {
        eprintln!("   kept: {}", work.folder.display());
        return Ok(());
    }
    work.remove()
}

/// Says what builds of other patches are left, and how to be rid of them.
fn old_builds(plan: &Plan) {
    let Ok(entries) = std::fs::read_dir(&plan.home) else {
        return;
    };
    let mut old: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_build(name) && !name.ends_with(&plan.key))
        .collect();
    old.sort();
    if !old.is_empty() {
        eprintln!(
            "   builds of other patches or prefixes, 0.2 to 1.2 GB each, may go: cd {} && rm -r {}",
            plan.home.display(),
            old.join(" ")
        );
    }
}

fn is_build(name: &str) -> bool {
    ["glibc-work-", "glibc-check-"]
        .iter()
        .any(|start| name.starts_with(start))
        || name.starts_with(&kept_name(""))
}

fn key(archive: &Archive, patches: &[Patch], prefix: Option<&Path>) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(&archive.path)
        .with_context(|| format!("cannot read {}", archive.path.display()))?
        .hash(&mut hasher);
    archive.version.hash(&mut hasher);
    for patch in patches {
        patch.text.hash(&mut hasher);
    }
    prefix.hash(&mut hasher);
    RECIPE.hash(&mut hasher);
    for tool in ["gcc", "ld"] {
        shell::output(Command::new(tool).arg("--version"))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(folder)
        .with_context(|| format!("{} is no folder", folder.display()))?;
    if path.parent().is_none() {
        return Err(Usage("--prefix / would replace everything".to_owned()).into());
    }
    Ok(path)
}

/// An empty folder, or one of ours.
fn may_replace(prefix: &Path) -> Result<()> {
    if !prefix.exists() || prefix.join(MARK).is_file() {
        return Ok(());
    }
    let empty = std::fs::read_dir(prefix).is_ok_and(|mut entries| entries.next().is_none());
    if !empty {
        let text = format!(
            "{} is there and was not put there by this command; name another folder",
            prefix.display()
        );
        return Err(Usage(text).into());
    }
    Ok(())
}

/// Puts a copy of `from` in the place of `to`, which may be on another file system, at once.
fn replace(from: &Path, to: &Path) -> Result<()> {
    may_replace(to)?;
    let parent = to.parent().unwrap_or(to);
    make_folder(parent)?;
    let scratch = tempfile::Builder::new()
        .prefix(".glibc-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    let (new, old) = (scratch.path().join("new"), scratch.path().join("old"));
    shell::output(Command::new("cp").arg("-a").arg(from).arg(&new))?;
    if to.exists() {
        rename(to, &old)?;
    }
    rename(&new, to)
}

/// Moves unless an earlier run did.
fn gather(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() && to.exists() {
        return Ok(());
    }
    rename(from, to)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to)
        .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_ours_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let prefix = folder.path().join("prefix");
        assert!(may_replace(&prefix).is_ok());
        make_folder(&prefix).expect("a folder");
        assert!(may_replace(&prefix).is_ok());
        std::fs::write(prefix.join("file"), "").expect("a file");
        assert!(may_replace(&prefix).is_err());
        std::fs::write(prefix.join(MARK), "").expect("a file");
        assert!(may_replace(&prefix).is_ok());
    }

    #[test]
    fn old_builds_are_told_from_what_else_is_cached() {
        assert!(is_build("glibc-2.36-00ff"));
        assert!(is_build("glibc-work-00ff"));
        assert!(!is_build("glibc-suite-00ff"));
    }
}
