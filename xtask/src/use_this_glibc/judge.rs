//! One input: what becomes of it under use-this-glibc, and of a copy of it under patchelf.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::made::Expect;
use super::observe::{Bench, End, Seen, last_line};
use crate::shell;

/// What all inputs have in common.
pub struct Tools {
    pub tool: PathBuf,
    pub patchelf: PathBuf,
    /// Absolute, without links in it.
    pub prefix: PathBuf,
    /// A library that nothing needs, for `--add-needed`.
    pub extra: PathBuf,
    /// Names of what the prefix's library folder holds.
    pub libraries: BTreeSet<String>,
}

/// A copy that may be changed, and what to run it with.
pub struct Subject {
    pub name: String,
    pub file: PathBuf,
    pub commands: Vec<Vec<String>>,
    pub expect: Expect,
    /// How the original must end, where that is known.
    pub ends: Option<&'static [i32]>,
    /// gdb has to stop the changed program at `main` and to know its libraries.
    pub debug: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Runs as before.
    Works,
    /// Nothing written; the exit status and the line.
    Refused(i32, String),
    Failed(String),
}

/// What is known of one input.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub size: u64,
    pub commands: usize,
    pub ours: Outcome,
    pub patchelf: Outcome,
    /// With a needed library added; none where the plain change already did not work.
    pub ours_added: Option<Outcome>,
    pub patchelf_added: Option<Outcome>,
    /// New complaints of readelf and eu-elflint about the changed file: ours, patchelf's.
    pub complaints: (Vec<String>, Vec<String>),
    /// The headers are where kernels before 5.18 tell the program that they are.
    pub old_kernels: bool,
    /// Bytes that the change added: ours, patchelf's.
    pub growth: (i64, i64),
}

/// None: its output is never the same, so that nothing can be told.
pub fn judge(subject: &Subject, tools: &Tools, bench: &Bench) -> Result<Option<Row>> {
    let file = &subject.file;
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut known = Vec::new();
    if subject.expect != Expect::Refused {
        for words in &subject.commands {
            let (first, second) = (bench.run(file, words)?, bench.run(file, words)?);
            let as_meant = subject
                .ends
                .is_none_or(|ends| ends.iter().any(|status| first.end == End::Exit(*status)));
            if !as_meant {
                bail!(
                    "the original does not run: {}, {}",
                    first.end,
                    last_line(&first.complaints)
                );
            }
            if first == second && first.ended_by_itself() {
                known.push((words.clone(), first));
            }
        }
        if known.is_empty() {
            return Ok(None);
        }
    }
    let before = complaints(file);
    let mut row = Row {
        name: subject.name.clone(),
        size: bytes.len() as u64,
        commands: known.len(),
        ours: Outcome::Works,
        patchelf: Outcome::Works,
        ours_added: None,
        patchelf_added: None,
        complaints: (Vec::new(), Vec::new()),
        old_kernels: true,
        growth: (0, 0),
    };
    let size_now =
        || Ok::<_, std::io::Error>(file.metadata()?.len().cast_signed() - bytes.len() as i64);
    row.ours = ours(file, &bytes, &known, tools, bench, &[])?;
    if row.ours == Outcome::Works {
        row.complaints.0 = complaints(file)
            .into_iter()
            .filter(|line| !before.contains(line))
            .collect();
        row.old_kernels = headers_where_old_kernels_say(&std::fs::read(file)?).unwrap_or(false);
        row.growth.0 = size_now()?;
        if subject.debug
            && let Some(problem) = under_gdb(file, tools, bench)?
        {
            row.ours = Outcome::Failed(problem);
            return Ok(Some(row));
        }
        row.ours = again_and_back(file, &bytes, tools, bench)?;
    }
    let run_path = ours_run_path(file, &bytes, tools, bench)?;
    if row.ours == Outcome::Works {
        let added: [&OsStr; 2] = ["--add-needed".as_ref(), tools.extra.as_ref()];
        let outcome = ours(file, &bytes, &known, tools, bench, &added)?;
        row.ours_added = Some(match outcome {
            Outcome::Works => again_and_back_with(file, &bytes, tools, bench, &added)?,
            other => other,
        });
    }
    if row.ours == Outcome::Works && subject.expect == Expect::Refused {
        row.ours = Outcome::Failed("changed, though it has to be refused".to_owned());
    }
    put(file, &bytes)?;
    row.patchelf = patchelf(file, &known, tools, bench, &run_path, false)?;
    if row.patchelf == Outcome::Works {
        row.complaints.1 = complaints(file)
            .into_iter()
            .filter(|line| !before.contains(line))
            .collect();
        row.growth.1 = size_now()?;
        put(file, &bytes)?;
        row.patchelf_added = Some(patchelf(file, &known, tools, bench, &run_path, true)?);
    }
    put(file, &bytes)?;
    Ok(Some(row))
}

type Known = [(Vec<String>, Seen)];

/// Changes the file in place and runs it. A refusal must have left it as it was.
fn ours(
    file: &Path,
    bytes: &[u8],
    known: &Known,
    tools: &Tools,
    bench: &Bench,
    options: &[&OsStr],
) -> Result<Outcome> {
    let mode = file.metadata()?.permissions().mode();
    let beside = names_beside(file)?;
    let seen = call(
        tools,
        bench,
        file,
        &[options, &["--in-place".as_ref()]].concat(),
    )?;
    match seen.end {
        End::Exit(0) => {}
        End::Exit(status @ (1 | 3 | 4)) => {
            let line = String::from_utf8_lossy(&seen.complaints).trim().to_owned();
            let problem = if line.lines().count() != 1 {
                Some(format!(
                    "{} lines instead of one: {line:?}",
                    line.lines().count()
                ))
            } else if std::fs::read(file)? != bytes {
                Some(format!("refused ({line}), and changed all the same"))
            } else if names_beside(file)? != beside {
                Some(format!("refused ({line}), and left a file behind"))
            } else {
                None
            };
            return Ok(problem.map_or(Outcome::Refused(status, line), Outcome::Failed));
        }
        end => {
            return Ok(Outcome::Failed(format!(
                "use-this-glibc: {end}: {}",
                last_line(&seen.complaints)
            )));
        }
    }
    if std::fs::read(file)? == bytes {
        return Ok(Outcome::Failed(
            "exit 0, and nothing was changed".to_owned(),
        ));
    }
    if file.metadata()?.permissions().mode() != mode {
        return Ok(Outcome::Failed("the mode is another".to_owned()));
    }
    let extra = options.iter().any(|option| *option == "--add-needed");
    held_against(file, known, tools, bench, extra)
}

/// Runs the changed program and requires what was seen of the original, and that no part of the system's glibc is in the process.
fn held_against(
    file: &Path,
    known: &Known,
    tools: &Tools,
    bench: &Bench,
    extra: bool,
) -> Result<Outcome> {
    for (words, was) in known {
        let is = bench.run(file, words)?;
        if let Some(difference) = was.difference(&is) {
            return Ok(Outcome::Failed(format!(
                "`{}`: {difference}",
                words.join(" ")
            )));
        }
        let loaded = bench.loaded(file, words)?;
        let of_glibc = |path: &&PathBuf| {
            path.file_name()
                .is_some_and(|name| tools.libraries.contains(&*name.to_string_lossy()))
        };
        if let Some(other) = loaded
            .iter()
            .filter(of_glibc)
            .find(|path| !path.starts_with(&tools.prefix))
        {
            return Ok(Outcome::Failed(format!(
                "`{}` loaded {}",
                words.join(" "),
                other.display()
            )));
        }
        if !loaded.iter().any(|path| path.ends_with("libc.so.6")) {
            return Ok(Outcome::Failed(format!(
                "`{}` loaded no libc",
                words.join(" ")
            )));
        }
        if extra && !loaded.contains(&tools.extra) {
            return Ok(Outcome::Failed(format!(
                "`{}` did not load the added library",
                words.join(" ")
            )));
        }
    }
    Ok(Outcome::Works)
}

fn again_and_back(file: &Path, bytes: &[u8], tools: &Tools, bench: &Bench) -> Result<Outcome> {
    again_and_back_with(file, bytes, tools, bench, &[])
}

/// gdb finds `main`, the dynamic section and by it the libraries, all of the glibc's in the prefix.
fn under_gdb(file: &Path, tools: &Tools, bench: &Bench) -> Result<Option<String>> {
    let words = [
        "-nx",
        "-batch",
        "-iex",
        "set auto-load off",
        "-ex",
        "break main",
        "-ex",
        "run",
        "-ex",
        "info sharedlibrary",
        "-ex",
        "kill",
    ];
    let mut words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    words.push(file.as_os_str());
    let seen = bench.run(Path::new("/usr/bin/gdb"), &words)?;
    let text = String::from_utf8_lossy(&seen.out);
    let libc = tools.prefix.join("lib/libc.so.6");
    let fine = text.contains("Breakpoint 1, main") && text.contains(&*libc.to_string_lossy());
    Ok((!fine).then(|| format!("gdb: {}: {}", seen.end, last_line(&seen.complaints))))
}

/// A second run changes nothing, and the original comes back to the byte.
fn again_and_back_with(
    file: &Path,
    bytes: &[u8],
    tools: &Tools,
    bench: &Bench,
    options: &[&OsStr],
) -> Result<Outcome> {
    let mode = file.metadata()?.permissions().mode();
    let changed = std::fs::read(file)?;
    let again = call(
        tools,
        bench,
        file,
        &[options, &["--in-place".as_ref()]].concat(),
    )?;
    if again.end != End::Exit(0) || std::fs::read(file)? != changed {
        return Ok(Outcome::Failed(format!(
            "the second run: {}, {}",
            again.end,
            last_line(&again.complaints)
        )));
    }
    let restored = bench.run(&tools.tool, &["--restore".as_ref(), file.as_os_str()])?;
    if restored.end != End::Exit(0) {
        return Ok(Outcome::Failed(format!(
            "--restore: {}, {}",
            restored.end,
            last_line(&restored.complaints)
        )));
    }
    if std::fs::read(file)? != bytes {
        return Ok(Outcome::Failed(
            "--restore gave other bytes than the original's".to_owned(),
        ));
    }
    if file.metadata()?.permissions().mode() != mode {
        return Ok(Outcome::Failed("--restore gave another mode".to_owned()));
    }
    Ok(Outcome::Works)
}

fn call(tools: &Tools, bench: &Bench, file: &Path, options: &[&OsStr]) -> Result<Seen> {
    let words = [options, &[tools.prefix.as_os_str(), file.as_os_str()]].concat();
    bench.run(&tools.tool, &words)
}

/// The run path that both get: the prefix, the old one, the system's directories.
fn ours_run_path(file: &Path, bytes: &[u8], tools: &Tools, bench: &Bench) -> Result<String> {
    put(file, bytes)?;
    let old = bench.run(
        &tools.patchelf,
        &["--print-rpath".as_ref(), file.as_os_str()],
    )?;
    let old = String::from_utf8_lossy(&old.out).trim().to_owned();
    let mut parts = vec![tools.prefix.join("lib").display().to_string()];
    if !old.is_empty() {
        parts.push(old);
    }
    parts.extend(
        [
            "/lib/x86_64-linux-gnu",
            "/usr/lib/x86_64-linux-gnu",
            "/lib",
            "/usr/lib",
        ]
        .map(str::to_owned),
    );
    Ok(parts.join(":"))
}

/// In two calls where a library is added: in one, patchelf 0.14 puts the library's name where the run path should be.
fn patchelf(
    file: &Path,
    known: &Known,
    tools: &Tools,
    bench: &Bench,
    run_path: &str,
    added: bool,
) -> Result<Outcome> {
    let loader = tools.prefix.join("lib/ld-linux-x86-64.so.2");
    let mut calls: Vec<Vec<&OsStr>> = vec![vec![
        "--set-interpreter".as_ref(),
        loader.as_ref(),
        "--force-rpath".as_ref(),
        "--set-rpath".as_ref(),
        run_path.as_ref(),
    ]];
    if added {
        calls.push(vec!["--add-needed".as_ref(), tools.extra.as_os_str()]);
    }
    for mut words in calls {
        words.push(file.as_ref());
        let seen = bench.run(&tools.patchelf, &words)?;
        match seen.end {
            End::Exit(0) => {}
            End::Exit(status) => return Ok(Outcome::Refused(status, last_line(&seen.complaints))),
            end => {
                return Ok(Outcome::Failed(format!(
                    "patchelf: {end}: {}",
                    last_line(&seen.complaints)
                )));
            }
        }
    }
    held_against(file, known, tools, bench, added)
}

/// The file with these bytes, under the same mode.
fn put(file: &Path, bytes: &[u8]) -> Result<()> {
    // Not over the file itself: it may be read-only, and a process may still have it mapped.
    let mode = file.metadata()?.permissions();
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, bytes)?;
    std::fs::set_permissions(&fresh, mode)?;
    std::fs::rename(&fresh, file).with_context(|| format!("cannot write {}", file.display()))
}

fn names_beside(file: &Path) -> Result<BTreeSet<std::ffi::OsString>> {
    let folder = file.parent().context("a file in no folder")?;
    Ok(std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect())
}

/// What readelf and eu-elflint find wrong, each kind once: numbers differ between two files of the same fault.
fn complaints(file: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut ask = |program: &str, words: &[&str], complaint: fn(&str) -> bool| {
        let output = Command::new(program).args(words).arg(file).output();
        let Ok(output) = output else { return };
        let text = [output.stdout, output.stderr].concat();
        for line in String::from_utf8_lossy(&text)
            .lines()
            .filter(|line| complaint(line))
        {
            let line = line.replace(&file.display().to_string(), "FILE");
            let kind: String = line
                .trim()
                .chars()
                .map(|c| if c.is_ascii_digit() { '0' } else { c })
                .collect();
            found.insert(format!("{program}: {kind}"));
        }
    };
    ask(
        "readelf",
        &["-W", "-l", "-d", "-S", "-r", "-V", "--dyn-syms", "-n"],
        |line| {
            line.starts_with("readelf: ") || line.contains("Warning") || line.contains("<corrupt")
        },
    );
    ask("eu-elflint", &["--gnu-ld"], |line| line != "No errors");
    found
}

/// Kernels before 5.18 tell the program its headers' address as that of the first segment plus `e_phoff`.
fn headers_where_old_kernels_say(bytes: &[u8]) -> Option<bool> {
    let number = |at: usize, size: usize| -> Option<u64> {
        let part = bytes.get(at..at + size)?;
        Some(
            part.iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    };
    let table = number(0x20, 8)?;
    let mut first = None;
    let mut says = None;
    for index in 0..number(0x38, 2)? {
        let at = usize::try_from(table + index * 56).ok()?;
        let address = number(at + 16, 8)?;
        match number(at, 4)? {
            1 if first.is_none() => first = Some(address.wrapping_sub(number(at + 8, 8)?)),
            6 => says = Some(address),
            _ => {}
        }
    }
    // Where nobody says otherwise, the table has to be in a segment: the kernel's answer is then the only one.
    Some(says.is_none_or(|says| first.map(|first| first.wrapping_add(table)) == Some(says)))
}

/// A library that does nothing, to be added.
pub fn extra_library(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("extra.c");
    std::fs::write(&source, "int nobody_needs_this = 1;\n")?;
    let library = folder.join("libnobody-needs-this.so");
    shell::output(
        Command::new("gcc")
            .args(["-shared", "-o"])
            .arg(&library)
            .arg(&source),
    )?;
    if !library.is_file() {
        bail!("gcc made no {}", library.display());
    }
    Ok(library)
}
