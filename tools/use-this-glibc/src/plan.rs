//! A program and a prefix to a [`Change`], and what speaks against it.
//!
//! - The run path is the prefix's libraries, the program's own path, the system's directories. A prefix's loader knows the latter
//!   neither by default nor from a cache.
//! - A library with a run path of its own is searched for by that alone. What it needs and would not find, or would find outside of the prefix although the
//!   prefix has it, is added to what the program needs: the program's needs are loaded first, and found by name afterwards.
//! - A library of the prefix that is not glibc's proper (libcrypt, libnsl) takes the place of the system's. If it has every version that is needed this is a
//!   warning, otherwise an error: which one to use is for whoever made the prefix to say, and they say it by leaving the library there or not.
//!
//! What a program opens itself (`dlopen`) is not seen.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::elf::{Change, Image, Kind, RunPath};
use crate::error::{Error, Result};
use crate::loader::closure::PROGRAM;
use crate::loader::{Closure, Loader, Object, search, versions};
use crate::prefix::Prefix;

/// Where every x86-64 system has its loader (System V ABI, AMD64 supplement).
const SYSTEM_LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Libraries that share their insides with libc. The rest of what a glibc installs stands on its own.
const GLIBC: [&str; 13] = [
    "ld-linux-x86-64.so.2",
    "libBrokenLocale.so.1",
    "libanl.so.1",
    "libc.so.6",
    "libc_malloc_debug.so.0",
    "libdl.so.2",
    "libm.so.6",
    "libmvec.so.1",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libthread_db.so.1",
    "libutil.so.1",
];

/// What the user asked for besides the prefix.
#[derive(Debug, Clone)]
pub struct Wishes {
    pub run_path: RunPath,
    /// `--add-needed`.
    pub add_needed: Vec<Vec<u8>>,
}

/// What would be done to one program.
#[derive(Debug, Clone)]
pub struct Plan {
    pub change: Change,
    /// Names among `change.add_needed` that nobody asked for, with the library on whose account they are there: the library has a
    /// run path of its own, for which the program's does not count.
    pub added_for: Vec<(String, String)>,
    /// One line each: what the user should know (a libcrypt of the prefix shadows the system's, a weak version is missing ...).
    pub warnings: Vec<String>,
}

/// `original` is the program's file before any change of ours; `path` is where it stands, or will stand (for `$ORIGIN`).
/// Needed versions that the closure lacks are [`crate::error::Error::Check`], libraries that nothing finds too: all of them, one line each.
pub fn plan(original: &[u8], path: &Path, prefix: &Prefix, wishes: &Wishes) -> Result<Plan> {
    let image = Image::parse(original)?;
    let interpreter = interpreter(&image)?;
    let path = real(path)?;
    let bytes: Arc<[u8]> = original.into();
    let system = Loader::open(Path::new(SYSTEM_LOADER)).ok();
    let today = match &interpreter {
        // The usual case, already asked.
        today if today == Path::new(SYSTEM_LOADER) => system.clone(),
        today => Loader::open(today).ok(),
    };
    let mut warnings = Vec::new();
    let before = match &today {
        Some(today) => Some(Closure::of(Object::program(&bytes, &path)?, today)?),
        None => {
            warnings.push(format!(
                "the program's loader {} does not run here: cannot compare what is found now with what will be",
                interpreter.display()
            ));
            None
        }
    };

    let old = image.runpath().or(image.rpath());
    let folders = system.as_ref().or(today.as_ref()).map(Loader::folders);
    let run_path = run_path(prefix, old, &folders.unwrap_or_default());
    let mut added: Vec<(Vec<u8>, usize)> = Vec::new();
    let mut added_for = Vec::new();
    let after = loop {
        let mut program = Object::program(&bytes, &path)?;
        let new = Some(run_path.clone());
        (program.rpath, program.runpath) = match wishes.run_path {
            RunPath::Rpath => (new, None),
            RunPath::Runpath => (None, new),
        };
        program.needed.extend(wishes.add_needed.iter().cloned());
        program
            .needed
            .extend(added.iter().map(|(name, _)| name.clone()));
        let closure = Closure::of(program, &prefix.search)?;
        let known = added.len();
        for (name, library) in wanted(&closure, prefix) {
            if !added.iter().any(|(added, _)| *added == name) {
                added_for.push((text(&name), shown(&closure, library)));
                added.push((name, library));
            }
        }
        if added.len() == known {
            break closure;
        }
    };

    let mut problems = missing(&after, before.as_ref());
    problems.extend(outside(&after, prefix, &mut warnings));
    problems.extend(lacks(&after, before.as_ref(), prefix, &mut warnings)?);
    if !problems.is_empty() {
        return Err(Error::Check(problems.join("\n")));
    }
    warnings.extend(unwinder(&after, prefix));
    warnings.extend(
        before
            .iter()
            .flat_map(|before| moved(before, &after, prefix)),
    );

    let mut add_needed = wishes.add_needed.clone();
    add_needed.extend(added.into_iter().map(|(name, _)| name));
    Ok(Plan {
        change: Change {
            interpreter: Some(prefix.loader.as_os_str().as_bytes().to_vec()),
            run_path: Some((wishes.run_path, run_path)),
            add_needed,
        },
        added_for,
        warnings,
    })
}

fn interpreter(image: &Image<'_>) -> Result<PathBuf> {
    let refuse = |why: &str| Err(Error::Unsupported(why.into()));
    match (image.kind(), image.interpreter()) {
        (Kind::Program | Kind::PositionIndependent, Some(path)) => {
            Ok(Path::new(OsStr::from_bytes(path)).to_path_buf())
        }
        (Kind::Library, _) => {
            refuse("is a library: it uses the glibc of whatever program loads it; name the program")
        }
        _ => {
            refuse("is statically linked: it has its libc inside, and cannot be given another one")
        }
    }
}

/// Without links, as the kernel tells the loader; the file itself may not be there yet.
fn real(path: &Path) -> Result<PathBuf> {
    if let Ok(real) = std::fs::canonicalize(path) {
        return Ok(real);
    }
    let io = |error| Error::Io(format!("{}: {error}", path.display()));
    let path = std::path::absolute(path).map_err(io)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = std::fs::canonicalize(folder).map_err(io)?;
    Ok(folder.join(path.file_name().unwrap_or_default()))
}

/// The prefix's libraries, the old path, the system's directories, each once.
fn run_path(prefix: &Prefix, old: Option<&[u8]>, system: &[PathBuf]) -> Vec<u8> {
    let old = old.filter(|old| !old.is_empty());
    let mut seen = HashSet::new();
    let folders = std::iter::once(prefix.lib.as_os_str().as_bytes())
        .chain(
            old.into_iter()
                .flat_map(|old| old.split(|&byte| byte == b':')),
        )
        .chain(
            system
                .iter()
                .map(|folder| folder.as_os_str().as_bytes())
                .filter(|folder| !folder.iter().any(|byte| b":$".contains(byte))),
        )
        .filter(|folder| seen.insert(*folder));
    folders.collect::<Vec<_>>().join(&b':')
}

/// Names that the program has to need itself, each with the library on whose account.
fn wanted(closure: &Closure, prefix: &Prefix) -> Vec<(Vec<u8>, usize)> {
    let program = [&closure.objects[PROGRAM]];
    let finds = |name: &[u8]| match search::find(&prefix.search, name, &program) {
        search::Found::Object(object) => Some(object.path),
        _ => None,
    };
    let mut wanted = Vec::new();
    for missing in &closure.missing {
        if missing.requester != PROGRAM
            && !missing.name.contains(&b'/')
            && finds(&missing.name).is_some()
        {
            wanted.push((missing.name.clone(), missing.requester));
        }
    }
    for &at in &closure.order {
        let object = &closure.objects[at];
        let (Some(name), Some(requester)) = (object.names.first(), object.requester) else {
            continue;
        };
        if requester != PROGRAM
            && !name.contains(&b'/')
            && !prefix.holds(&object.path)
            && finds(name).is_some_and(|path| prefix.holds(&path))
        {
            wanted.push((name.clone(), requester));
        }
    }
    wanted
}

/// Libraries that nothing finds.
fn missing(closure: &Closure, before: Option<&Closure>) -> Vec<String> {
    let today = |name: &[u8]| {
        before.is_some_and(|before| before.missing.iter().any(|missing| missing.name == name))
    };
    let lines = closure.missing.iter().map(|missing| {
        let user = shown(closure, missing.requester);
        let name = text(&missing.name);
        match &missing.broken {
            Some((path, why)) => format!(
                "{user} needs {name}; {}, which the new loader finds, cannot be loaded: {why}",
                path.display()
            ),
            None if today(&missing.name) => format!(
                "{user} needs {name}, which the new loader does not find, nor today's: LD_LIBRARY_PATH is not looked at"
            ),
            None => format!("{user} needs {name}, which the new loader does not find"),
        }
    });
    lines.collect()
}

/// libc loads the unwinder when a thread is cancelled or exits (`pthread_exit`), and ends the program if it cannot.
fn unwinder(closure: &Closure, prefix: &Prefix) -> Option<String> {
    const NAME: &str = "libgcc_s.so.1";
    let libc = closure.called(b"libc.so.6")?;
    if closure.called(NAME.as_bytes()).is_some() {
        return None;
    }
    let chain = closure.chain(libc);
    match search::find(&prefix.search, NAME.as_bytes(), &chain) {
        search::Found::Object(_) => None,
        _ => Some(format!(
            "libc will not find {NAME}, without which a thread that is cancelled ends the program: if it has threads, use --add-needed {NAME}"
        )),
    }
}

/// Libraries from elsewhere although the prefix has them.
fn outside(closure: &Closure, prefix: &Prefix, warnings: &mut Vec<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut libc = false;
    for &at in &closure.order {
        let object = &closure.objects[at];
        let mut names = object
            .names
            .iter()
            .chain(&object.soname)
            .map(|name| text(name));
        let proper = names.find(|name| GLIBC.contains(&base(name)));
        libc |= proper.as_deref().map(base) == Some("libc.so.6");
        if at == PROGRAM || prefix.holds(&object.path) {
            continue;
        }
        let user = object.requester.map(|user| shown(closure, user));
        let user = user.unwrap_or_default();
        if let Some(name) = proper {
            problems.push(format!(
                "{user} loads {}, another glibc's {}, beside {}",
                object.path.display(),
                base(&name),
                prefix.lib.display()
            ));
        } else if prefix.provides(&object.path) {
            warnings.push(format!(
                "{user} loads {}, although {} has a library of this name",
                object.path.display(),
                prefix.lib.display()
            ));
        }
    }
    if !libc && closure.missing.is_empty() {
        problems.push(format!(
            "{} does not use libc.so.6: another glibc would change nothing",
            shown(closure, PROGRAM)
        ));
    }
    problems
}

/// Versions and symbols.
fn lacks(
    after: &Closure,
    before: Option<&Closure>,
    prefix: &Prefix,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let ours = |object: usize| prefix.holds(&after.objects[object].path);
    for lack in versions::check(after, ours)? {
        let mut line = lack.line(after);
        // The system's library of that name may have it.
        let shadowed = before.and_then(|before| {
            let other = &before.objects[before.called(lack.library.as_bytes())?];
            let taken = &after.objects[lack.provider?];
            let proper = GLIBC.contains(&lack.library.as_str());
            (!proper && ours(lack.provider?) && other.identity != taken.identity).then_some(other)
        });
        if let Some(other) = shadowed {
            line = format!(
                "{line}; it takes the place of {}: if programs should go on using that one, remove {} from the prefix",
                other.path.display(),
                lack.library
            );
        }
        match lack.kind {
            versions::Kind::WeakVersion | versions::Kind::Unversioned => warnings.push(line),
            _ => problems.push(line),
        }
    }
    for &at in &after.order {
        if at == PROGRAM || ours(at) {
            continue;
        }
        let object = &after.objects[at];
        let private = object.image()?.needed_versions()?.into_iter().find(|need| {
            need.version == b"GLIBC_PRIVATE" && after.called(need.library).is_some_and(ours)
        });
        if let Some(need) = private {
            warnings.push(format!(
                "{} uses private parts of {}, which may differ in the prefix's ({})",
                object.path.display(),
                text(need.library),
                prefix.version
            ));
        }
    }
    Ok(problems)
}

/// Libraries, glibc's proper aside, that are found elsewhere than today.
fn moved(before: &Closure, after: &Closure, prefix: &Prefix) -> Vec<String> {
    let mut warnings = Vec::new();
    for &at in &after.order {
        let object = &after.objects[at];
        let Some(name) = object.names.first() else {
            continue;
        };
        let Some(was) = before.called(name).map(|at| &before.objects[at]) else {
            continue;
        };
        if at == PROGRAM || was.identity == object.identity || GLIBC.contains(&base(&text(name))) {
            continue;
        }
        let (now, was) = (object.path.display(), was.path.display());
        warnings.push(if prefix.holds(&object.path) {
            format!("{now} of the prefix takes the place of {was}")
        } else {
            format!("{now} is loaded instead of {was}")
        });
    }
    warnings
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn shown(closure: &Closure, object: usize) -> String {
    closure.objects[object].path.display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
