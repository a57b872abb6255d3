//! The order of a build: stock glibc first, then our patches on the same tree, each compiled as it is applied.
//!
//! Works in a [`Work`] folder alone, and leaves there `stock` and `patched`, each a whole prefix, and the record of the new tests.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::new_tests;
use super::recipe;
use super::source::{self, Archive};
use super::{complete, sums};
use crate::project::make_folder;
use crate::shell;
use crate::sources::{self, Patch, remove};
use crate::work::Work;

/// Lines that a build writes, for the bar.
const MAKE_LINES: u64 = 20_000;
const INSTALL_LINES: u64 = 3_200;
const CHECK_LINES: u64 = 5_000;

pub struct Build<'a> {
    pub work: &'a Work,
    /// The final place, which configure compiles in.
    pub prefix: &'a Path,
    pub jobs: usize,
    /// Run glibc's own `make check` too.
    pub check: bool,
}

impl Build<'_> {
    pub fn run(&self, archive: &Archive, patches: &[Patch]) -> Result<()> {
        let work = self.work;
        work.stage("unpacked", || {
            eprintln!(
                "   unpacking {} {}",
                archive.path.display(),
                archive.version
            );
            sources::unpack(&archive.path, &self.tree())
        })?;
        work.stage("configured", || self.configure(archive))?;
        work.stage("stock-built", || {
            work.run(
                "unpatched glibc: make",
                Some(MAKE_LINES),
                &mut self.make("", &["all".into()]),
            )
        })?;
        work.stage("stock-installed", || self.install("stock"))?;
        work.stage("stock-tests-listed", || {
            new_tests::list_stock(self, patches)
        })?;
        if self.check {
            work.stage("stock-checked", || self.make_check("stock"))?;
        }
        for (number, patch) in patches.iter().enumerate() {
            self.patch(number, patch)
                .with_context(|| format!("patch {}", patch.name))?;
        }
        work.stage("patched-built", || {
            work.run(
                "patched glibc: make",
                None,
                &mut self.make("", &["all".into()]),
            )
        })?;
        work.stage("patched-installed", || self.install("patched"))?;
        work.stage("new-tests-run", || new_tests::run(self, patches))?;
        if self.check {
            work.stage("patched-checked", || self.make_check("patched"))?;
        }
        Ok(())
    }

    pub fn tree(&self) -> PathBuf {
        self.work.path("src")
    }

    pub fn objects(&self) -> PathBuf {
        self.work.path("build")
    }

    fn configure(&self, archive: &Archive) -> Result<()> {
        let objects = self.objects();
        remove(&objects)?;
        make_folder(&objects)?;
        let parms = objects.join("configparms");
        std::fs::write(&parms, recipe::CONFIGPARMS)
            .with_context(|| format!("cannot write {}", parms.display()))?;
        let mut command = Command::new(self.tree().join("configure"));
        command
            .current_dir(&objects)
            .args(recipe::CONFIGURE)
            .arg(prefixed("--prefix=", self.prefix))
            .arg(format!(
                "--with-pkgversion=built by autolock from Debian {}",
                archive.version
            ))
            .envs(recipe::CONFIGURE_ENV.iter().copied());
        self.work.run("configure", None, &mut command)
    }

    /// `make` in glibc's top folder or in a subfolder, as its own makefiles call it.
    pub fn make(&self, subdir: &str, targets: &[OsString]) -> Command {
        let mut make = Command::new("make");
        make.arg("-r")
            .arg(format!("-j{}", self.jobs))
            .arg("-C")
            .arg(self.tree().join(subdir))
            .arg(prefixed("objdir=", &self.objects()));
        if !subdir.is_empty() {
            make.arg(format!("subdir={subdir}")).arg("..=../");
        }
        make.args(targets);
        make
    }

    /// Installs below a folder of its own and puts the prefix into the work folder as `name`, whole.
    fn install(&self, name: &str) -> Result<()> {
        let (stage, kept) = (self.work.path("stage"), self.work.path(name));
        remove(&stage)?;
        remove(&kept)?;
        let mut make = self.make("", &["install".into(), prefixed("DESTDIR=", &stage)]);
        let what = format!("{name} glibc: make install");
        self.work.run(&what, Some(INSTALL_LINES), &mut make)?;
        let below = self.prefix.strip_prefix("/").unwrap_or(self.prefix);
        let installed = stage.join(below);
        strip(&installed)?;
        complete::check(&installed)
            .with_context(|| format!("the {name} glibc was not installed completely"))?;
        std::fs::rename(&installed, &kept)
            .with_context(|| format!("cannot make {}", kept.display()))?;
        remove(&stage)
    }

    /// One patch, and the objects that it changes compiled before the next one comes.
    fn patch(&self, number: usize, patch: &Patch) -> Result<()> {
        let name = format!("patch-{:02}", number + 1);
        let undo = self.work.path(&format!("before-{name}"));
        self.work.stage(&name, || {
            patch.apply(&self.tree(), &undo)?;
            for subdir in source::subdirs(patch, &self.tree()) {
                let what = format!("{}: compile {subdir}", patch.name);
                let library = format!("{subdir}/subdir_lib");
                let mut make = self.make("", &[library.into()]);
                self.work.run(&what, None, &mut make)?;
                let tests = new_tests::objects(self, patch, &subdir)?;
                if !tests.is_empty() {
                    let what = format!("{}: compile its tests", patch.name);
                    self.work
                        .run(&what, None, &mut self.make(&subdir, &tests))?;
                }
            }
            Ok(())
        })?;
        patch.settle(&undo)
    }

    /// glibc's own tests of nptl and sysdeps/pthread. That some fail is for the comparison to judge.
    fn make_check(&self, name: &str) -> Result<()> {
        let mut clean = self.make("nptl", &["do-tests-clean".into()]);
        self.work.run("remove old test results", None, &mut clean)?;
        let mut make = self.make("", &["-k".into(), "check".into(), "subdirs=nptl".into()]);
        make.env("TIMEOUTFACTOR", "4");
        let what = format!("{name} glibc: make check subdirs=nptl");
        let outcome = self.work.run(&what, Some(CHECK_LINES), &mut make);
        sums::keep(&self.objects(), &self.work.path(&format!("{name}.sum"))).map_err(|error| {
            match outcome {
                Err(why) => why,
                Ok(()) => error,
            }
        })
    }
}

pub fn prefixed(text: &str, path: &Path) -> OsString {
    let mut word = OsString::from(text);
    word.push(path);
    word
}

/// Takes the debug information out of all but the few where a debugger wants it.
fn strip(prefix: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["bin", "sbin", "libexec", "lib"] {
        strippable(&prefix.join(folder), &mut files)?;
    }
    for some in files.chunks(200) {
        shell::output(Command::new("strip").arg("--strip-debug").args(some))?;
    }
    Ok(())
}

fn strippable(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let unstripped = recipe::UNSTRIPPED.iter().any(|name| path.ends_with(name));
        if kind.is_dir() {
            strippable(&path, files)?;
        } else if kind.is_file() && !unstripped && is_object(&path)? {
            // One link of several is enough, and no other file is written through it.
            files.push(path);
        }
    }
    Ok(())
}

/// An ELF file or an archive of some.
fn is_object(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(8).read_to_end(&mut start))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let writable = std::fs::metadata(path)?.permissions().mode() & 0o200 != 0;
    // The empty stubs of libpthread.a and its like hold nothing to strip.
    let archive = start.starts_with(b"!<arch>") && std::fs::metadata(path)?.len() > 8;
    Ok(writable && (start.starts_with(b"\x7fELF") || archive))
}
