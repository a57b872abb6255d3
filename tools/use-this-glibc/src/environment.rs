//! `--print-env`: what a glibc looks for below its own prefix and does not find there.
//!
//! Where it looks is compiled into `libc.so.6`, and read from there as text.

use std::fs;
use std::path::{Path, PathBuf};

use use_this_glibc::error::{Error, Result};
use use_this_glibc::prefix::Prefix;

/// One variable.
struct Variable {
    name: &'static str,
    /// In `libc.so.6`: a path that ends like this ...
    ending: &'static str,
    /// ... lies so many folders below the one that counts.
    below: usize,
    /// Where systems have it.
    system: &'static [&'static str],
}

const VARIABLES: [Variable; 3] = [
    Variable {
        name: "LOCPATH",
        ending: "/locale-archive",
        below: 1,
        system: &["/usr/lib/locale"],
    },
    Variable {
        name: "GCONV_PATH",
        ending: "/gconv",
        below: 0,
        system: &[
            "/usr/lib/x86_64-linux-gnu/gconv",
            "/usr/lib64/gconv",
            "/usr/lib/gconv",
        ],
    },
    Variable {
        name: "TZDIR",
        ending: "/zoneinfo",
        below: 0,
        system: &["/usr/share/zoneinfo"],
    },
];

/// What to set, and what else to know.
#[derive(Debug, Default)]
pub struct Environment {
    pub variables: Vec<(&'static str, String)>,
    pub warnings: Vec<String>,
}

pub fn of(prefix: &Prefix) -> Result<Environment> {
    let libc = prefix.lib.join("libc.so.6");
    let bytes = fs::read(&libc)
        .map_err(|error| Error::Io(format!("cannot read {}: {error}", libc.display())))?;
    let mut environment = Environment::default();
    for variable in &VARIABLES {
        let Some(own) = compiled_in(&bytes, variable) else {
            let line = format!("{}: no path for {} in it", libc.display(), variable.name);
            environment.warnings.push(line);
            continue;
        };
        if has_entries(&own) {
            continue;
        }
        let mut system = variable
            .system
            .iter()
            .filter(|folder| has_entries(Path::new(folder)));
        match system.next() {
            None => environment.warnings.push(format!(
                "{} is missing, and so is the system's own",
                own.display()
            )),
            // Set, it turns the archive off: only folders count.
            Some(folder) if variable.name == "LOCPATH" && !has_locales(folder) => {
                environment.warnings.push(format!(
                    "{} is missing, and LOCPATH does not reach the system's locales, which are in one archive: ln -s {folder} {}",
                    own.display(),
                    own.display()
                ));
            }
            Some(folder) => environment
                .variables
                .push((variable.name, (*folder).to_string())),
        }
    }
    Ok(environment)
}

fn compiled_in(libc: &[u8], variable: &Variable) -> Option<PathBuf> {
    let ending = variable.ending.as_bytes();
    let path = libc
        .split(|&byte| byte == 0)
        .find(|text| text.starts_with(b"/") && text.len() < 4096 && text.ends_with(ending))?;
    let path = PathBuf::from(String::from_utf8(path.to_vec()).ok()?);
    path.ancestors().nth(variable.below).map(Path::to_path_buf)
}

fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

fn has_locales(folder: &str) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.path().join("LC_CTYPE").is_file())
    })
}
