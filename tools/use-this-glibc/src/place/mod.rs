//! Where the result goes. The only module that writes files.
//!
//! A file is made whole under a temporary name in the folder where it will stand ([`temp`]), gets the old one's attributes
//! ([`attributes`]), is synced and verified there, and takes the old one's name in one rename. Whatever stops the program
//! before the rename leaves the old file; whatever stops it after, the new one.
//!
//! - [`source`]: reading, and whether the file is still the one that was read.
//! - [`attributes`]: owner, mode, extended attributes.
//! - [`temp`]: the temporary file, which is also the lock against another run on the same file.

pub mod attributes;
pub mod source;
pub mod temp;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub use source::Source;
use temp::Temp;
pub use temp::remove_on_signals;

/// What becomes of the old file when another takes its name.
#[derive(Debug, Clone, Copy)]
pub struct Replacing<'a> {
    /// None: no backup.
    pub backup: Option<Backup<'a>>,
    /// The file has more names, and they may stay with the old contents.
    pub break_hard_links: bool,
}

/// The file as it was before any change, kept beside it.
#[derive(Debug, Clone, Copy)]
pub struct Backup<'a> {
    /// Comes after the file's name.
    pub suffix: &'a OsStr,
    pub original: &'a [u8],
}

/// What was done beyond the file itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Where the file's original stands now.
    pub backup: Option<PathBuf>,
    /// One line each.
    pub warnings: Vec<String>,
}

/// A look at the finished file under its temporary name; an error takes everything back.
pub type Verify<'a> = &'a dyn Fn(&Path) -> Result<()>;

/// What speaks against [`replace`], as far as it can be known before.
pub fn may_replace(source: &Source, how: Replacing) -> Result<()> {
    let path = &source.path;
    let kept = match how.backup {
        Some(backup) => existing_backup(source, backup)?,
        None => Kept::None,
    };
    // A run that was killed after its backup leaves the file with two names.
    let names = source.links() - u64::from(kept == Kept::SameFile);
    if names > 1 && !how.break_hard_links {
        return Err(Error::Unsupported(format!(
            "{}: the file has {names} names (hard links), and the others would stay as they are: give --break-hard-links if they may, or --output FILE",
            path.display()
        )));
    }
    Ok(())
}

/// Puts `bytes` in the place of `source`'s file.
pub fn replace(source: &Source, bytes: &[u8], how: Replacing, verify: Verify) -> Result<Placed> {
    may_replace(source, how)?;
    let path = &source.path;
    let temp = Temp::create(path)?;
    temp.fill(bytes)?;
    let mut warnings = attributes::keep(source, temp.file(), attributes::Strict(true))?;
    temp.sync()?;
    verify(temp.path())?;
    source.still_the_same()?;
    let backup = how.backup.map(|backup| keep_original(source, backup));
    let backup = backup.transpose()?;
    if let Err(error) = temp.rename_over(path) {
        // The backup alone would be in the way of the next run's.
        if let Some((backup, true)) = &backup {
            let _ = fs::remove_file(backup);
        }
        return Err(error);
    }
    sync_folder(path, &mut warnings);
    Ok(Placed {
        backup: backup.map(|(path, _)| path),
        warnings,
    })
}

/// What speaks against [`create`]. True: `to` is there already, with these bytes.
pub fn may_create(source: &Source, bytes: &[u8], to: &Path) -> Result<bool> {
    let shown = to.display();
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::Io(format!("cannot look at {shown}: {error}"))),
        Ok(_) if to == source.path => Err(Error::Usage(format!(
            "--output {shown} is the program itself: use --in-place"
        ))),
        Ok(there) if there.is_dir() => Err(Error::Usage(format!(
            "--output {shown} is a folder: name the file in it"
        ))),
        Ok(there) if there.is_file() && has_bytes(to, bytes) => Ok(true),
        Ok(_) => Err(Error::Usage(format!(
            "--output {shown} exists and is another file: remove it first, or name another"
        ))),
    }
}

/// Makes `to`, with `bytes` and the attributes of `source`'s file. Never overwrites.
pub fn create(source: &Source, bytes: &[u8], to: &Path, verify: Verify) -> Result<Placed> {
    if may_create(source, bytes, to)? {
        return Ok(Placed::default());
    }
    let mut warnings = create_beside(source, bytes, to, attributes::Strict(false), verify)?;
    sync_folder(to, &mut warnings);
    Ok(Placed {
        backup: None,
        warnings,
    })
}

fn create_beside(
    source: &Source,
    bytes: &[u8],
    to: &Path,
    strict: attributes::Strict,
    verify: Verify,
) -> Result<Vec<String>> {
    let temp = Temp::create(to)?;
    temp.fill(bytes)?;
    let warnings = attributes::keep(source, temp.file(), strict)?;
    temp.sync()?;
    verify(temp.path())?;
    source.still_the_same()?;
    temp.rename_to_new(to)?;
    Ok(warnings)
}

/// The absolute path of a file to be made: its folder must be there.
pub fn absolute(to: &Path) -> Result<PathBuf> {
    let shown = to.display();
    let Some(name) = to.file_name() else {
        return Err(Error::Usage(format!("--output {shown} names no file")));
    };
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match folder.canonicalize() {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) => Err(Error::Io(format!(
            "--output {shown}: cannot use the folder {}: {error}",
            folder.display()
        ))),
    }
}

/// The name of `path`'s backup.
pub fn backup_path(path: &Path, suffix: &OsStr) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// What stands under the backup's name.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    None,
    /// A file with the original's bytes.
    Original,
    /// The file itself, under a second name.
    SameFile,
}

fn existing_backup(source: &Source, backup: Backup) -> Result<Kept> {
    let path = backup_path(&source.path, backup.suffix);
    let there = match fs::symlink_metadata(&path) {
        Ok(there) => there,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::None),
        Err(error) => {
            return Err(Error::Io(format!(
                "cannot look at {}: {error}",
                path.display()
            )));
        }
    };
    // Of a changed file a second name is no backup.
    if source.is(&there) && source.bytes == backup.original {
        return Ok(Kept::SameFile);
    }
    if there.is_file() && has_bytes(&path, backup.original) {
        return Ok(Kept::Original);
    }
    Err(Error::Io(format!(
        "{} exists and is not this program's original: move it away, or give --backup-suffix or --no-backup",
        path.display()
    )))
}

/// The backup, and whether it was made now.
fn keep_original(source: &Source, backup: Backup) -> Result<(PathBuf, bool)> {
    let path = backup_path(&source.path, backup.suffix);
    if existing_backup(source, backup)? != Kept::None {
        return Ok((path, false));
    }
    // A second name costs no space and keeps everything, the time too. Not every file system has them.
    let linked = source.bytes == backup.original && fs::hard_link(&source.path, &path).is_ok();
    if !linked {
        let strict = attributes::Strict(true);
        create_beside(source, backup.original, &path, strict, &|_| Ok(()))?;
    }
    Ok((path, true))
}

fn has_bytes(path: &Path, bytes: &[u8]) -> bool {
    let same_size = fs::metadata(path).is_ok_and(|file| file.len() == bytes.len() as u64);
    same_size && fs::read(path).is_ok_and(|there| there == bytes)
}

/// Makes the rename last. It is done by now: an error can only be told.
fn sync_folder(path: &Path, warnings: &mut Vec<String>) {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        warnings.push(format!(
            "cannot sync {}: {error}; a crash of the machine may bring the old file back",
            folder.display()
        ));
    }
}
