//! What would be run: a name looked up as execvp(3) does, a script followed to its interpreter. Reads files, starts nothing.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many interpreters the kernel follows.
const DEEPEST: usize = 5;
/// Bytes of a script that the kernel looks at.
const FIRST_LINE: u64 = 256;
/// What execvp(3) searches without a `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A program that can be executed.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// The file that the kernel loads.
    pub file: PathBuf,
    /// Whether it is there to interpret a script.
    pub interpreter: bool,
}

/// The file behind the name; none if execvp(3) would find none. What cannot be known is left to it.
pub fn find(name: &OsStr) -> Option<Program> {
    let mut program = Program {
        file: look_up(name)?,
        interpreter: false,
    };
    for _ in 0..DEEPEST {
        let Some(next) = interpreter(&program.file) else {
            return Some(program);
        };
        program = Program {
            file: next,
            interpreter: true,
        };
    }
    None
}

/// Where execvp(3) finds the name.
fn look_up(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return executable(Path::new(name)).then(|| name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    // An empty part is the working directory: `join` makes it a bare name.
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: a C string; the call only looks.
    let may =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    may == 0 && file.is_file()
}

/// What executes the file; none if the kernel does by itself, or nobody can tell.
fn interpreter(file: &Path) -> Option<PathBuf> {
    let mut first = Vec::new();
    File::open(file)
        .ok()?
        .take(FIRST_LINE)
        .read_to_end(&mut first)
        .ok()?;
    if first.starts_with(b"\x7fELF") {
        return None;
    }
    let Some(line) = first.strip_prefix(b"#!") else {
        // Of an unknown format: execvp(3) gives it to the shell.
        return Some("/bin/sh".into());
    };
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = line
        .split(|byte| b" \t".contains(byte))
        .filter(|word| !word.is_empty());
    let program = Path::new(OsStr::from_bytes(words.next()?));
    if program.file_name() != Some(OsStr::new("env")) {
        return Some(program.into());
    }
    // `env [-S] [NAME=VALUE] program`: what counts is what it starts.
    let started = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='));
    look_up(OsStr::from_bytes(started?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("script");
        std::fs::write(&file, text).expect("written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&file, mode).expect("made executable");
        (folder, file)
    }

    #[test]
    fn scripts_are_followed_to_what_executes_them() {
        let shell = look_up(OsStr::new("sh")).expect("there is a shell");
        for (text, wanted) in [
            ("#!/bin/cat\n", Some("/bin/cat".into())),
            ("#! /bin/cat -n\nx", Some("/bin/cat".into())),
            ("#!/usr/bin/env sh\n", Some(shell.clone())),
            ("#!/usr/bin/env -S A=1 sh -e\n", Some(shell)),
            ("echo no first line\n", Some("/bin/sh".into())),
            ("#!\n", None),
        ] {
            let (_folder, file) = script(text);
            assert_eq!(interpreter(&file), wanted, "{text}");
        }
        let (_folder, file) = script("#!/bin/cat\n");
        let found = find(file.as_os_str()).expect("executable");
        assert!(
            found.interpreter && found.file == Path::new("/bin/cat"),
            "{found:?}"
        );
    }

    #[test]
    fn a_script_that_interprets_itself_is_given_up() {
        let (_folder, file) = script("");
        std::fs::write(&file, format!("#!{}\n", file.display())).expect("written");
        assert_eq!(find(file.as_os_str()), None);
    }

    #[test]
    fn only_what_may_be_executed_is_found() {
        let (_folder, file) = script("#!/bin/cat\n");
        assert!(executable(&file));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(!executable(&file));
        assert!(!executable(Path::new("/usr/bin")), "a folder");
        assert_eq!(look_up(OsStr::new("no-such-program-here")), None);
    }
}
