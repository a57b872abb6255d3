//! The tests that our patches add to glibc's own suite: built and run by glibc's makefiles on the patched tree, and then the same
//! programs on the unpatched glibc. The two outcomes are the record that is kept with the build.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use wait_timeout::ChildExt;

use super::build::Build;
use crate::shell;
use crate::sources::Patch;

/// In the work folder and in the kept build.
pub const RECORD: &str = "new-tests.txt";
/// A check of the whole library that the patches must not upset.
const LOCAL_CALLS: &str = "elf/check-localplt";
/// Ours in place of check-abi-libc, which fails for any prefix whose name is not as long as /usr.
const EXPORTS: &str = "exported symbols of libc.so.6";
/// Longer than any test's own limit.
const LIMIT: Duration = Duration::from_secs(300);
/// A check of the patched glibc alone.
const NOT_RUN: &str = "-";
/// What a static program would show on the unpatched glibc: nothing.
const NOT_APPLICABLE: &str = "static";

/// One line of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTest {
    pub name: String,
    pub patched: String,
    pub stock: String,
}

impl NewTest {
    pub fn passes(&self) -> bool {
        self.patched == "passed"
    }

    /// Shows what the patches are for.
    pub fn fails_on_stock(&self) -> bool {
        self.stock == "failed"
    }
}

impl fmt::Display for NewTest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.name, self.patched)?;
        if self.stock != NOT_RUN {
            write!(
                out,
                " on the patched glibc, {} on the unpatched one",
                self.stock
            )?;
        }
        Ok(())
    }
}

pub fn read(file: &Path) -> Result<Vec<NewTest>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<NewTest> {
    let line = |line: &str| {
        let mut words = line.split('\t').map(str::to_owned);
        Some(NewTest {
            name: words.next().filter(|name| !name.starts_with('#'))?,
            patched: words.next()?,
            stock: words.next()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Writes down which tests there are before the patches.
pub fn list_stock(build: &Build, patches: &[Patch]) -> Result<()> {
    for subdir in subdirs(build, patches) {
        let names = Listed::of(build, &subdir)?.all;
        let names: Vec<String> = names.into_iter().collect();
        let file = list_file(build, &subdir);
        std::fs::write(&file, names.join("\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn list_file(build: &Build, subdir: &str) -> PathBuf {
    build.work.path(&format!("stock-tests-{subdir}"))
}

fn subdirs(build: &Build, patches: &[Patch]) -> BTreeSet<String> {
    let of = |patch: &Patch| super::source::subdirs(patch, &build.tree());
    patches.iter().flat_map(of).collect()
}

/// The object files of the tests and modules that one patch adds or changes, so that they are compiled with it.
pub fn objects(build: &Build, patch: &Patch, subdir: &str) -> Result<Vec<OsString>> {
    let is_test = |name: &str| name.starts_with("tst-");
    let stems = patch
        .files
        .iter()
        .filter(|file| file.extension().is_some_and(|it| it == "c"));
    let stems: Vec<&str> = stems
        .filter_map(|file| file.file_stem()?.to_str())
        .filter(|name| is_test(name))
        .collect();
    if stems.is_empty() {
        return Ok(Vec::new());
    }
    // What make does not know is included by others.
    let listed = Listed::of(build, subdir)?;
    let object = |name: &str| {
        let kind = if listed.all.contains(name) {
            "o"
        } else if listed.modules.contains(name) {
            "os"
        } else {
            return None;
        };
        let path = build.objects().join(subdir).join(format!("{name}.{kind}"));
        Some(path.into_os_string())
    };
    Ok(stems.into_iter().filter_map(object).collect())
}

/// What make knows of a subfolder's tests.
struct Listed {
    all: BTreeSet<String>,
    fixed: BTreeSet<String>,
    modules: BTreeSet<String>,
}

impl Listed {
    fn of(build: &Build, subdir: &str) -> Result<Self> {
        let [all, fixed, modules] = ask(
            build,
            subdir,
            [
                "$(tests) $(tests-internal) $(xtests)",
                "$(tests-static) $(xtests-static)",
                "$(modules-names)",
            ],
        )?;
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        Ok(Self {
            all: words(all),
            fixed: words(fixed),
            modules: words(modules),
        })
    }
}

/// What expressions of glibc's makefiles come to; make reads them for some seconds.
fn ask<const N: usize>(build: &Build, subdir: &str, questions: [&str; N]) -> Result<[String; N]> {
    const BEGIN: &str = "xtask-answer: ";
    let infos: String = questions
        .iter()
        .map(|question| format!("$(info {BEGIN}{question})"))
        .collect();
    let rule = format!("xtask-print: ; @: {infos}");
    let mut make = build.make(
        subdir,
        &["--eval".into(), rule.into(), "xtask-print".into()],
    );
    for name in super::recipe::FOREIGN_ENV {
        make.env_remove(name);
    }
    let text = shell::output(&mut make)?;
    let answers: Vec<String> = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix(BEGIN)?.to_owned()))
        .collect();
    let wrong = |_| anyhow!("glibc's makefile of {subdir} does not answer: {questions:?}");
    answers.try_into().map_err(wrong)
}

/// Runs the new tests on both and writes the record.
pub fn run(build: &Build, patches: &[Patch]) -> Result<()> {
    let mut record = String::from("# test, on the patched glibc, on the unpatched one\n");
    for subdir in subdirs(build, patches) {
        let before = std::fs::read_to_string(list_file(build, &subdir))
            .context("cannot read which tests there were")?;
        let before: BTreeSet<&str> = before.split_whitespace().collect();
        let after = Listed::of(build, &subdir)?;
        let new: Vec<&String> = after
            .all
            .iter()
            .filter(|name| !before.contains(name.as_str()))
            .collect();
        if new.is_empty() {
            continue;
        }
        let folder = build.objects().join(&subdir);
        let outputs: Vec<OsString> = new
            .iter()
            .map(|name| folder.join(format!("{name}.out")).into_os_string())
            .collect();
        outcomes(build, &subdir, &outputs)?;
        for name in new {
            let patched = outcome(&folder.join(format!("{name}.test-result")))?;
            let stock = if after.fixed.contains(name) {
                NOT_APPLICABLE.to_owned()
            } else {
                on_stock(build, &subdir, name)?
            };
            record.push_str(&format!("{subdir}/{name}\t{patched}\t{stock}\n"));
        }
    }
    let file = |kind: &str| build.objects().join(format!("{LOCAL_CALLS}.{kind}"));
    outcomes(build, "elf", &[file("out").into_os_string()])?;
    let patched = outcome(&file("test-result"))?;
    record.push_str(&format!("{LOCAL_CALLS}\t{patched}\t{NOT_RUN}\n"));
    let same = exports(build, "patched")? == exports(build, "stock")?;
    let patched = if same { "passed" } else { "failed" };
    record.push_str(&format!("{EXPORTS}\t{patched}\t{NOT_RUN}\n"));
    let file = build.work.path(RECORD);
    std::fs::write(&file, record).with_context(|| format!("cannot write {}", file.display()))
}

/// Names, versions and kinds of what libc exports.
fn exports(build: &Build, name: &str) -> Result<BTreeSet<String>> {
    let lib = build.work.path(name).join("lib/libc.so.6");
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "--with-symbol-versions"])
        .arg(&lib);
    let text = shell::output(&mut nm)?;
    let symbol = |line: &str| Some(line.split_once(' ')?.1.to_owned());
    let symbols: BTreeSet<String> = text.lines().filter_map(symbol).collect();
    ensure!(
        symbols.iter().any(|it| it.contains("pthread_cond_wait@@")),
        "nm finds no pthread_cond_wait in {}",
        lib.display()
    );
    Ok(symbols)
}

/// Has make produce these outputs; a failing test is no error.
fn outcomes(build: &Build, subdir: &str, outputs: &[OsString]) -> Result<()> {
    for output in outputs {
        // An earlier try's.
        std::fs::remove_file(output).ok();
    }
    let mut targets: Vec<OsString> = vec!["-k".into()];
    targets.extend_from_slice(outputs);
    let mut make = build.make(subdir, &targets);
    make.env("TIMEOUTFACTOR", "4");
    build.work.run("patched glibc: its tests", None, &mut make)
}

/// Once more with the machine to itself: some tests are about timing.
pub fn passes_alone(build: &Build, name: &str) -> Result<bool> {
    let subdir = name.split('/').next().unwrap_or_default();
    let file = |kind: &str| build.objects().join(format!("{name}.{kind}"));
    outcomes(build, subdir, &[file("out").into_os_string()])?;
    Ok(outcome(&file("test-result"))? == "passed")
}

/// What make's record of a test says: `PASS: nptl/tst-x`.
fn outcome(result: &Path) -> Result<String> {
    let text = std::fs::read_to_string(result)
        .with_context(|| format!("a new test left no {}", result.display()))?;
    Ok(match text.split(':').next().unwrap_or_default() {
        "PASS" => "passed".to_owned(),
        "FAIL" => "failed".to_owned(),
        other => other.to_lowercase(),
    })
}

/// The program that was built on the patched tree, with the environment and the arguments that make gives it, by the unpatched loader.
fn on_stock(build: &Build, subdir: &str, name: &str) -> Result<String> {
    let stock = build.work.path("stock/lib");
    let folder = build.objects().join(subdir);
    let questions = [format!("$({name}-ENV)"), format!("$({name}-ARGS)")];
    let [env, args] = ask(build, subdir, questions.each_ref().map(String::as_str))?;
    // Both are shell text, and the folders' names are fit for it.
    let line = format!(
        "exec env {env} {lib}/ld-linux-x86-64.so.2 --library-path {lib}:{folder} {folder}/{name} {args}",
        lib = stock.display(),
        folder = folder.display(),
    );
    let log = std::fs::File::create(folder.join(format!("{name}.stock-out")))
        .context("cannot write a test's output")?;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(&line)
        .current_dir(build.tree().join(subdir))
        .env("TIMEOUTFACTOR", "4")
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let Some(status) = child.wait_timeout(LIMIT)? else {
        // The test's own limit did not end it; its children end with its process group or are the driver's to reap.
        child.kill().ok();
        child.wait()?;
        return Ok("failed".to_owned());
    };
    Ok(match status.code() {
        Some(0) => "passed",
        Some(77) => "unsupported",
        _ => "failed",
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_read_and_its_heading_is_not() {
        let tests = parse("# heading\ta\tb\nnptl/tst-a\tpassed\tfailed\nelf/check\tpassed\t-\n");
        assert_eq!(tests.len(), 2);
        assert!(tests[0].passes() && tests[0].fails_on_stock());
        assert!(tests[1].passes() && !tests[1].fails_on_stock());
    }
}
