//! Scripts have no loader; their interpreter has.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use use_this_glibc::error::{Error, Result};
use use_this_glibc::place::Source;

/// The kernel reads no more of the first line.
const LINE: usize = 256;

/// Refuses a script, and says which program to rewrite instead.
pub fn refuse(source: &Source) -> Result<()> {
    let Some(interpreter) = interpreter(&source.bytes) else {
        return Ok(());
    };
    let shown = source.given.display();
    let interpreter = interpreter.display();
    Err(Error::Unsupported(format!(
        "{shown} is a script: rewrite its interpreter {interpreter}, with --output, and run the script with that"
    )))
}

fn interpreter(bytes: &[u8]) -> Option<PathBuf> {
    let line = bytes.strip_prefix(b"#!")?;
    let line = &line[..line.len().min(LINE)];
    let line = line.split(|&byte| byte == b'\n').next()?;
    let mut words = line
        .split(|byte| b" \t".contains(byte))
        .filter(|word| !word.is_empty());
    let first = Path::new(OsStr::from_bytes(words.next()?));
    if first.file_name() != Some(OsStr::new("env")) {
        return Some(first.into());
    }
    // `env -S NAME=VALUE program`
    let mut words = words.filter(|word| !word.starts_with(b"-") && !word.contains(&b'='));
    let Some(name) = words.next().map(OsStr::from_bytes) else {
        return Some(first.into());
    };
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    Some(found.unwrap_or(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script() {
        let of = |line: &str| interpreter(line.as_bytes());
        assert_eq!(of("#!/bin/sh\necho"), Some("/bin/sh".into()));
        assert_eq!(of("#! /bin/sh -e"), Some("/bin/sh".into()));
        assert_eq!(
            of("#!/usr/bin/env no-such-program\n"),
            Some("no-such-program".into())
        );
        assert_eq!(
            of("#!/usr/bin/env -S A=1 no-such-program -x\n"),
            Some("no-such-program".into())
        );
        let found = of("#!/usr/bin/env sh\n").expect("a script");
        assert!(found.is_absolute() && found.ends_with("sh"), "{found:?}");
        assert_eq!(of("#!"), None);
        assert_eq!(of("\x7fELF"), None);
    }
}
