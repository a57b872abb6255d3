//! One program: read, judged, changed in memory, put into place.

use std::path::{Path, PathBuf};

use use_this_glibc::elf::{self, Change, Image, undo};
use use_this_glibc::error::{Error, Result};
use use_this_glibc::place::{self, Backup, Placed, Replacing, Source};
use use_this_glibc::plan::{self, Wishes};
use use_this_glibc::prefix::Prefix;
use use_this_glibc::trace;

use crate::cli::{Place, To};
use crate::report::{AddedFor, Facts, Outcome, Report};
use crate::script;

/// What is asked for, the prefix opened.
pub enum Task<'a> {
    Change(&'a Prefix, &'a Wishes),
    Check(&'a Prefix, &'a Wishes),
    Restore,
}

/// Handles one program. What goes wrong stands in the report.
pub fn run(task: &Task, program: &Path, to: &To) -> Report {
    let mut report = Report::new(program);
    let result = match task {
        Task::Change(prefix, wishes) => change(&mut report, program, prefix, wishes, to),
        Task::Check(prefix, wishes) => check(&mut report, program, prefix, wishes),
        Task::Restore => restore(&mut report, program, to),
    };
    if let Err(error) = result {
        report.outcome = Outcome::Failed;
        report.failed(&error);
    }
    report
}

/// A program as it is, as it was, and as it is to be.
struct Job {
    source: Source,
    /// Before any change; none if it is not changed yet.
    original: Option<Vec<u8>>,
    result: Vec<u8>,
    /// Where the result is to stand.
    target: PathBuf,
}

impl Job {
    /// Everything but the writing.
    fn change(
        report: &mut Report,
        program: &Path,
        prefix: &Prefix,
        wishes: &Wishes,
        place: &Place,
    ) -> Result<Self> {
        let source = read(report, program)?;
        let target = target(&source, place)?;
        script::refuse(&source)?;
        let named = named(&source.given);
        let before = Image::parse(&source.bytes).map_err(&named)?;
        report.before = Some(Facts::of(&before));
        let original = undo::original(&source.bytes).map_err(&named)?;
        let bytes = original.as_deref().unwrap_or(&source.bytes);
        let image = Image::parse(bytes).map_err(&named)?;
        let plan = plan::plan(bytes, &target, prefix, wishes).map_err(&named)?;
        for (library, needed_by) in plan.added_for {
            report.added_for.push(AddedFor { library, needed_by });
        }
        report.warnings.extend(plan.warnings);
        let result = elf::apply(bytes, &plan.change).map_err(&named)?;
        report.after = Some(reads_back(&image, &result, &plan.change).map_err(|error| {
            Error::Check(format!(
                "{}: the changed program does not read back ({error}); please report it",
                source.given.display()
            ))
        })?);
        if Image::parse(&result).is_ok_and(|after| after.needs_linux_5_18())
            && !image.needs_linux_5_18()
        {
            report.warnings.push(
                "its .bss is so large that the changed program runs on Linux 5.18 and newer only"
                    .into(),
            );
        }
        Ok(Self {
            source,
            original,
            result,
            target,
        })
    }

    fn restore(report: &mut Report, program: &Path, place: &Place) -> Result<Self> {
        let source = read(report, program)?;
        let original = undo::original(&source.bytes).map_err(named(&source.given))?;
        let Some(original) = original else {
            return Err(Error::Unsupported(format!(
                "{} holds no record of a change: it was not changed by use-this-glibc, or was stripped since; nothing to restore",
                source.given.display()
            )));
        };
        // Only to be shown: the record counts by itself.
        let facts = |bytes: &[u8]| Image::parse(bytes).ok().map(|image| Facts::of(&image));
        report.before = facts(&source.bytes);
        report.after = facts(&original);
        Ok(Self {
            target: target(&source, place)?,
            source,
            original: None,
            result: original,
        })
    }

    /// Writes, or sees whether it could. None: the result stands there already.
    fn put(&self, report: &mut Report, to: &To, verify: place::Verify) -> Result<Option<Placed>> {
        let Self { source, result, .. } = self;
        match &to.place {
            Place::File(_) => {
                if place::may_create(source, result, &self.target)? {
                    return Ok(None);
                }
                report.output = Some(self.target.display().to_string());
                if to.dry_run {
                    return Ok(Some(Placed::default()));
                }
                place::create(source, result, &self.target, verify).map(Some)
            }
            _ if source.bytes == *result => Ok(None),
            Place::Nowhere => Ok(Some(Placed::default())),
            Place::Over {
                backup,
                break_hard_links,
            } => {
                let original = self.original.as_deref().unwrap_or(&source.bytes);
                let how = Replacing {
                    backup: backup.as_ref().map(|suffix| Backup { suffix, original }),
                    break_hard_links: *break_hard_links,
                };
                if to.dry_run {
                    place::may_replace(source, how)?;
                    return Ok(Some(Placed::default()));
                }
                place::replace(source, result, how, verify).map(Some)
            }
        }
    }
}

fn change(
    report: &mut Report,
    program: &Path,
    prefix: &Prefix,
    wishes: &Wishes,
    to: &To,
) -> Result<()> {
    let job = Job::change(report, program, prefix, wishes, &to.place)?;
    let verify = |file: &Path| ask_loader(file, prefix, &job);
    match job.put(report, to, &verify)? {
        Some(placed) => done(report, placed, to, Outcome::Changed, Outcome::WouldChange),
        None => {
            if !to.dry_run {
                ask_again(prefix, &job)?;
            }
            report.outcome = Outcome::Unchanged;
        }
    }
    Ok(())
}

fn check(report: &mut Report, program: &Path, prefix: &Prefix, wishes: &Wishes) -> Result<()> {
    let job = Job::change(report, program, prefix, wishes, &Place::Nowhere)?;
    if job.source.bytes != job.result {
        let error = Error::Check(format!(
            "{} is not as it would be made: {}",
            program.display(),
            report.differs()
        ));
        report.failed(&error);
        report.outcome = Outcome::Differs;
        return Ok(());
    }
    ask_again(prefix, &job)?;
    report.outcome = Outcome::Unchanged;
    Ok(())
}

fn restore(report: &mut Report, program: &Path, to: &To) -> Result<()> {
    let job = Job::restore(report, program, &to.place)?;
    match job.put(report, to, &|_| Ok(()))? {
        Some(placed) => done(report, placed, to, Outcome::Restored, Outcome::WouldRestore),
        None => report.outcome = Outcome::Unchanged,
    }
    Ok(())
}

fn done(report: &mut Report, placed: Placed, to: &To, written: Outcome, dry: Outcome) {
    report.backup = placed.backup.map(|path| path.display().to_string());
    report.warnings.extend(placed.warnings);
    report.outcome = if to.dry_run { dry } else { written };
}

fn read(report: &mut Report, program: &Path) -> Result<Source> {
    let source = Source::read(program)?;
    report.path = Some(source.path.display().to_string());
    Ok(source)
}

fn target(source: &Source, place: &Place) -> Result<PathBuf> {
    match place {
        Place::File(file) => place::absolute(file),
        _ => Ok(source.path.clone()),
    }
}

/// Does the changed file say what was asked for, and does the original come back?
fn reads_back(original: &Image, result: &[u8], change: &Change) -> Result<Facts> {
    let after = Image::parse(result)?;
    let interpreter = change.interpreter.as_deref().or(original.interpreter());
    let run_path = match &change.run_path {
        None => (original.rpath(), original.runpath()),
        Some((elf::RunPath::Rpath, path)) => (Some(path.as_slice()), None),
        Some((elf::RunPath::Runpath, path)) => (None, Some(path.as_slice())),
    };
    let kept = after.needed().starts_with(original.needed());
    let has = |name: &Vec<u8>| after.needed().contains(&name.as_slice());
    let wrong = if after.interpreter() != interpreter {
        "the interpreter is not what was asked for"
    } else if (after.rpath(), after.runpath()) != run_path {
        "the run path is not what was asked for"
    } else if !kept || !change.add_needed.iter().all(has) {
        "the needed libraries are not what was asked for"
    } else if undo::original(result)?.as_deref() != Some(original.bytes()) {
        "the original does not come back"
    } else {
        return Ok(Facts::of(&after));
    };
    Err(Error::Check(wrong.into()))
}

/// With the file's final name, should it have a temporary one.
fn ask_loader(file: &Path, prefix: &Prefix, job: &Job) -> Result<()> {
    trace::check(file, prefix).map_err(|error| {
        let temporary = file.display().to_string();
        let target = job.target.display().to_string();
        let line = error.to_string().replace(&temporary, &target);
        named(&job.source.given)(same_kind(&error, line))
    })
}

/// A program that is as it should be may need what has gone since. Should it be another by now, that is what counts.
fn ask_again(prefix: &Prefix, job: &Job) -> Result<()> {
    ask_loader(&job.target, prefix, job).or_else(|error| {
        job.source.still_the_same()?;
        Err(error)
    })
}

/// Puts the program's name before each line that lacks it.
fn named(program: &Path) -> impl Fn(Error) -> Error + use<> {
    let shown = program.display().to_string();
    move |error| {
        let text = error.to_string();
        let lines = text.lines().map(|line| {
            if line.starts_with(&shown) {
                line.to_string()
            } else {
                format!("{shown}: {line}")
            }
        });
        same_kind(&error, lines.collect::<Vec<_>>().join("\n"))
    }
}

fn same_kind(error: &Error, line: String) -> Error {
    match error {
        Error::Check(_) => Error::Check(line),
        Error::Usage(_) => Error::Usage(line),
        Error::Unsupported(_) => Error::Unsupported(line),
        Error::Io(_) => Error::Io(line),
    }
}
