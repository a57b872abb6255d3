//! Compiles glibc's support library, the tests and their modules against the installed glibc.
//!
//! What does not compile is listed with the compiler's first complaint and left out; whether
//! enough is left is for the caller to judge.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use super::catalogue::{Catalogue, Entry};
use super::lock;
use crate::project::make_folder;
use crate::shell;

/// In the bin folder: the tests that compiled, a line each.
pub const BUILT: &str = "BUILT";
/// In the bin folder: the tests that did not, with the reason.
pub const UNBUILT: &str = "UNBUILT";

/// Headers of glibc's own that stand alone and that the tests use.
const BORROWED: &[&str] = &[
    "array_length.h",
    "dso_handle.h",
    "intprops.h",
    "libc-diag.h",
    "libc-pointer-arith.h",
    "scratch_buffer.h",
];
/// Files of support/ that are programs or are included by others.
const NOT_SUPPORT: &[&str] = &[
    "README-testing",
    "links-dso-program",
    "echo-container",
    "shell-container",
    "true-container",
    "test-",
    "tst-",
    "support_quote_blob_main",
    "support_test_compare_string_main",
];
/// Paths that glibc's build compiles into its support library.
const PATH_MACROS: &[(&str, &str)] = &[
    ("SRCDIR_PATH", "/nonexistent"),
    ("OBJDIR_PATH", "/nonexistent"),
    ("OBJDIR_ELF_LDSO_PATH", "/lib64/ld-linux-x86-64.so.2"),
    ("INSTDIR_PATH", "/usr"),
    ("LIBDIR_PATH", "/usr/lib"),
    ("BINDIR_PATH", "/usr/bin"),
    ("SBINDIR_PATH", "/usr/sbin"),
    ("SLIBDIR_PATH", "/lib"),
    ("ROOTSBINDIR_PATH", "/sbin"),
    ("COMPLOCALEDIR_PATH", "/usr/lib/locale"),
];
/// Tests made of two source files, and tests linked against a module.
const SECOND_SOURCE: &[(&str, &str)] = &[
    ("tst-cleanup4", "tst-cleanup4aux"),
    ("tst-cleanupx4", "tst-cleanupx4aux"),
];
const LINKED_MODULE: &[(&str, &str)] = &[("tst-fini1", "tst-fini1mod")];

/// Where things are while we compile.
struct Kitchen<'a> {
    tree: &'a Path,
    bin: &'a Path,
    glue: &'a Path,
    borrowed: PathBuf,
    objects: PathBuf,
    catalogue: Catalogue,
}

pub fn all(tree: &Path, glue: &Path, bin: &Path) -> Result<()> {
    let read = |file: PathBuf| {
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let makefiles = [
        read(tree.join("nptl/Makefile"))?,
        read(tree.join("sysdeps/pthread/Makefile"))?,
    ];
    let catalogue = Catalogue::read(&makefiles, &read(glue.join("excluded.txt"))?);
    let kitchen = Kitchen {
        tree,
        bin,
        glue,
        borrowed: tree.join("borrowed"),
        objects: tree.join("objects"),
        catalogue,
    };
    for folder in [bin, &kitchen.borrowed, &kitchen.objects] {
        make_folder(folder)?;
    }
    for header in BORROWED {
        std::fs::copy(
            tree.join("include").join(header),
            kitchen.borrowed.join(header),
        )
        .with_context(|| format!("cannot borrow {header}"))?;
    }
    kitchen.support_library()?;
    let unbuilt = kitchen.modules();
    kitchen.tests(unbuilt)
}

impl Kitchen<'_> {
    fn support_library(&self) -> Result<()> {
        let mut sources: Vec<PathBuf> = std::fs::read_dir(self.tree.join("support"))
            .context("cannot list glibc's support folder")?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
            .filter(|path| {
                !NOT_SUPPORT
                    .iter()
                    .any(|prefix| stem(path).starts_with(prefix))
            })
            .collect();
        sources.sort();
        let failures = in_parallel(&sources, |source| {
            let mut cc = self.compiler(source);
            cc.arg("-c")
                .arg(source)
                .arg("-o")
                .arg(self.objects.join(stem(source) + ".o"));
            for (name, path) in PATH_MACROS {
                cc.arg(format!("-D{name}=\"{path}\""));
            }
            shell::output(&mut cc)
        });
        if failures.len() == sources.len() {
            let (_, reason) = &failures[0];
            bail!("no file of glibc's support library compiles: {reason}");
        }
        let mut ar = Command::new("ar");
        ar.arg("rcs").arg(self.archive());
        for source in &sources {
            let object = self.objects.join(stem(source) + ".o");
            if object.is_file() {
                ar.arg(object);
            }
        }
        shell::output(&mut ar).map(drop)
    }

    fn archive(&self) -> PathBuf {
        self.objects.join("libsupport.a")
    }

    /// A module that does not compile fails the tests that load it; they are then not counted.
    /// Returns a line for each of those.
    fn modules(&self) -> Vec<String> {
        let failures = in_parallel(&self.catalogue.modules, |module| {
            let source = self.source(&module.name)?;
            let output = self.bin.join(format!("{}.so", module.name));
            let mut cc = self.compiler(&source);
            cc.args(["-shared", "-fPIC"])
                .args(&module.cflags)
                .arg(&source);
            cc.arg("-o").arg(output).args(&module.ldflags);
            shell::output(&mut cc)
        });
        let line = |(module, reason): &(&Entry, String)| {
            format!("# module {} {}", module.name, first_complaint(reason))
        };
        failures.iter().map(line).collect()
    }

    fn tests(&self, mut unbuilt: Vec<String>) -> Result<()> {
        let failures = in_parallel(&self.catalogue.tests, |test| self.test(test));
        let line = |(test, reason): &(&Entry, String)| {
            format!("{} {}", test.name, first_complaint(reason))
        };
        unbuilt.extend(failures.iter().map(line));
        let built: Vec<&str> = self
            .catalogue
            .tests
            .iter()
            .filter(|test| !failures.iter().any(|(failed, _)| failed.name == test.name))
            .map(|test| test.name.as_str())
            .collect();
        std::fs::write(self.bin.join(BUILT), built.join("\n"))
            .and_then(|()| std::fs::write(self.bin.join(UNBUILT), unbuilt.join("\n")))
            .with_context(|| format!("cannot write to {}", self.bin.display()))
    }

    fn test(&self, test: &Entry) -> Result<String> {
        let source = self.source(&test.name)?;
        let mut cc = self.compiler(&source);
        cc.args(&test.cflags).arg(&source);
        if let Some(second) = partner(SECOND_SOURCE, &test.name) {
            cc.arg(self.source(second)?);
        }
        cc.arg(self.archive());
        if let Some(module) = partner(LINKED_MODULE, &test.name) {
            // By name: a path would be recorded in the program, and the folder moves.
            cc.arg("-L").arg(self.bin).arg(format!("-l:{module}.so"));
        }
        cc.arg("-o")
            .arg(self.bin.join(&test.name))
            .args(&test.ldflags);
        // Modules are looked for beside the program, wherever the folder ends up.
        cc.args(["-Wl,-rpath,$ORIGIN", "-ldl", "-lrt", "-lpthread"]);
        shell::output(&mut cc)
    }

    fn source(&self, name: &str) -> Result<PathBuf> {
        ["nptl", "sysdeps/pthread"]
            .iter()
            .flat_map(|folder| ["c", "cc"].map(|kind| (folder, kind)))
            .map(|(folder, kind)| self.tree.join(folder).join(format!("{name}.{kind}")))
            .find(|path| path.is_file())
            .with_context(|| format!("no source file for {name}"))
    }

    /// The compiler with our headers before the system's and glibc's tree after them: the tests
    /// have to see the installed glibc, not the one that is being built in that tree.
    fn compiler(&self, source: &Path) -> Command {
        let plus_plus = source
            .extension()
            .is_some_and(|extension| extension == "cc");
        let mut cc = Command::new(if plus_plus { "c++" } else { "cc" });
        if !plus_plus {
            cc.args(["-std=gnu11", "-fgnu89-inline"]);
        }
        cc.args(["-O2", "-w", "-include"])
            .arg(self.glue.join("glue.h"));
        for folder in [&self.glue.join("stub"), &self.borrowed] {
            cc.arg("-I").arg(folder);
        }
        for folder in ["nptl", "sysdeps/pthread", "support"] {
            cc.arg("-I").arg(self.tree.join(folder));
        }
        for folder in [
            "sysdeps/nptl",
            "sysdeps/unix/sysv/linux",
            "sysdeps/x86",
            "sysdeps/generic",
            "",
        ] {
            cc.arg("-idirafter").arg(self.tree.join(folder));
        }
        cc
    }
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn partner<'a>(table: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    table
        .iter()
        .find(|(test, _)| *test == name)
        .map(|(_, partner)| *partner)
}

fn first_complaint(text: &str) -> &str {
    let telling = |line: &&str| line.contains("error:") || line.contains("undefined reference");
    text.lines()
        .find(telling)
        .or_else(|| text.lines().next())
        .unwrap_or_default()
}

/// Runs `make` over the items on all cores; returns the items that failed and why.
fn in_parallel<T: Sync>(
    items: &[T],
    make: impl Fn(&T) -> Result<String> + Sync,
) -> Vec<(&T, String)> {
    let queue: Mutex<VecDeque<&T>> = Mutex::new(items.iter().collect());
    let failures = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let Some(item) = lock(&queue).pop_front() else {
                        return;
                    };
                    if let Err(error) = make(item) {
                        lock(&failures).push((item, format!("{error:#}")));
                    }
                }
            });
        }
    });
    failures
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner())
}
