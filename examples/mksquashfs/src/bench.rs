//! The interleaved rounds. Each packs the tree, compares the image with one that a single processor made on glibc's mutex, unpacks it,
//! and checks every file: both programs on the lock, each with its proof.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use example_common::figures::command_line;
use example_common::lock::{Lock, in_round};
use example_common::machine::Machine;
use example_common::screen::Screen;
use serde::Serialize;

use crate::cli::Options;
use crate::program::{Ended, Programs, Took};
use crate::report::{self, Report};
use crate::tree::Tree;

/// What stands before each line on stderr.
pub const PROGRAM: &str = "mksquashfs-example";

/// One lock, one round.
#[derive(Serialize, Clone)]
pub struct Run {
    pub round: u16,
    pub lock: Lock,
    /// None if it failed.
    pub pack: Option<Took>,
    /// None if it failed, or there was nothing to unpack.
    pub unpack: Option<Took>,
    /// The library's lines that show that both ran on this lock.
    pub proof: Vec<String>,
    /// Whatever must not be, a line each.
    pub problems: Vec<String>,
}

/// Where a run works.
struct Folders {
    tree: PathBuf,
    image: PathBuf,
    unpacked: PathBuf,
}

/// Runs everything that `options` ask for and prints the comparison; gives what went wrong, a line each.
pub fn run(options: &Options) -> Result<Vec<String>> {
    let programs = Programs::find(options.lib.as_deref(), options.limit)?;
    let screen = Screen::new(PROGRAM);
    let locks = Lock::list(options.lib.is_some(), &options.algorithms);
    if let Some(library) = &options.lib {
        for lock in &locks {
            lock.check(library)?;
        }
    }
    let machine = Machine::here();
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let folders = Folders {
        tree: scratch.path().join("tree"),
        image: scratch.path().join("image"),
        unpacked: scratch.path().join("unpacked"),
    };
    let tree = Tree {
        files: options.files,
    };
    screen.step("writing the files and packing them once, with one processor");
    fs::create_dir(&folders.tree)?;
    tree.write(&folders.tree)?;
    let reference = reference(&programs, &folders)?;

    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for lock in in_round(&locks, round) {
            screen.step(&format!("round {round} of {}, {lock}", options.rounds));
            let run = one(&programs, options, &folders, tree, &reference, round, lock)?;
            if round == 1 {
                run.proof.iter().for_each(|line| screen.note(line));
            }
            runs.push(run);
        }
    }
    screen.clear();
    let report = Report {
        command: command_line(),
        machine,
        version: programs.version(),
        files: options.files,
        processors: options.processors,
        rounds: options.rounds,
        summary: report::summarise(&runs, &locks),
        locks,
        runs,
    };
    println!("{}", report.text());
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    let problems = report.runs.iter().flat_map(|run| {
        let place = format!("{}, round {}", run.lock, run.round);
        run.problems
            .iter()
            .map(move |text| format!("{text} ({place})"))
    });
    Ok(problems.collect())
}

/// The image's bytes, made by one processor on glibc's mutex.
fn reference(programs: &Programs, folders: &Folders) -> Result<Vec<u8>> {
    let packed = programs.pack(&Lock::Glibc, 1, &folders.tree, &folders.image)?;
    packed.outcome.context("without the library")?;
    fs::read(&folders.image).context("cannot read the image")
}

fn one(
    programs: &Programs,
    options: &Options,
    folders: &Folders,
    tree: Tree,
    reference: &[u8],
    round: u16,
    lock: &Lock,
) -> Result<Run> {
    let mut run = Run {
        round,
        lock: lock.clone(),
        pack: None,
        unpack: None,
        proof: Vec::new(),
        problems: Vec::new(),
    };
    remove(&folders.image)?;
    remove(&folders.unpacked)?;
    let processors = options.processors;
    let packed = programs.pack(lock, processors, &folders.tree, &folders.image)?;
    run.pack = run.judge("mksquashfs", packed);
    if run.pack.is_none() {
        return Ok(run);
    }
    let image = fs::read(&folders.image).context("cannot read the image")?;
    run.problems.extend(difference(&image, reference));

    let unpacked = programs.unpack(lock, processors, &folders.image, &folders.unpacked)?;
    run.unpack = run.judge("unsquashfs", unpacked);
    if run.unpack.is_some() {
        let faults = tree.check(&folders.unpacked);
        if let Some(first) = faults.first {
            let count = faults.count;
            run.problems
                .push(format!("{count} wrong files came back: {first}"));
        }
    }
    Ok(run)
}

impl Run {
    /// Takes over what a program's end shows: what it took, if it went well, and the proof that it ran on the lock.
    fn judge(&mut self, name: &str, ended: Ended) -> Option<Took> {
        match ended.outcome {
            Ok(took) => {
                match self.lock.proof(&ended.stderr) {
                    Ok(line) => self
                        .proof
                        .extend(line.map(|line| format!("{name}: {line}"))),
                    Err(problem) => self.problems.push(format!("{name}: {problem}")),
                }
                Some(took)
            }
            Err(error) => {
                self.problems.push(format!("{error:#}"));
                None
            }
        }
    }
}

/// Says where an image is not the expected one.
fn difference(image: &[u8], reference: &[u8]) -> Option<String> {
    if image == reference {
        return None;
    }
    let same = image.iter().zip(reference).take_while(|(a, b)| a == b);
    Some(format!(
        "the image is wrong: it differs from byte {} on ({} bytes, expected {})",
        same.count(),
        image.len(),
        reference.len()
    ))
}

/// Removes a file or a folder with all that is in it, if it is there.
fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() {
        fs::remove_dir_all(path)
    } else if path.exists() {
        fs::remove_file(path)
    } else {
        Ok(())
    };
    result.map_err(|error| anyhow!("cannot remove {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_right_to_the_last_byte_or_wrong() {
        assert_eq!(difference(b"image", b"image"), None);
        for (image, at) in [
            (&b"imagf"[..], "byte 4"),
            (b"imag", "byte 4"),
            (b"", "byte 0"),
            (b"images", "byte 5"),
        ] {
            let text = difference(image, b"image").expect("noticed");
            assert!(text.contains(at), "{text}");
        }
    }
}
