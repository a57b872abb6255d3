//! Variables that give a program under another glibc the data of the system's: locales, character sets, time zones.
//!
//! A glibc looks for its data where it was configured to, mostly below its prefix. These paths are strings in its `libc.so.6`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::prefix::Prefix;

/// One variable to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    pub value: PathBuf,
    /// One line.
    pub reason: String,
}

/// What to set, and what else to know, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    pub settings: Vec<Setting>,
    pub warnings: Vec<String>,
}

/// For programs that use this prefix; empty if it finds all by itself. `system` is the glibc whose data is borrowed.
pub fn of(prefix: &Prefix, system: &Prefix) -> Result<Environment> {
    let here = Data::of(prefix)?;
    let there = Data::of(system)?;
    let same = prefix.version == system.version;
    let mut settings = Vec::new();
    let mut warnings = Vec::new();
    let mut set = |name, value: PathBuf, reason| {
        settings.push(Setting {
            name,
            value,
            reason,
        });
    };
    // Files of another glibc's locale may not be understood.
    if let (Some(own), Some(other)) = (&here.locale, &there.locale)
        && same
        && !filled(own)
        && filled(other)
    {
        let missing = format!(
            "the prefix looks for locales in {}, where there are none",
            own.display()
        );
        if locales(other) {
            set("LOCPATH", other.clone(), missing);
        } else {
            // Once it is set only folders count, not the archive (locale(7)).
            warnings.push(format!(
                "{missing}, and LOCPATH does not reach the system's, which are in one archive: ln -s {} {}",
                other.display(),
                own.display()
            ));
        }
    }
    // Modules are libraries of the glibc that they were built with.
    if let Some(own) = &here.gconv
        && !modules(own)
    {
        let moved = prefix.lib.join("gconv");
        let other = there.gconv.filter(|other| same && modules(other));
        if let Some(value) = Some(moved).filter(|moved| modules(moved)).or(other) {
            let reason = format!(
                "the prefix looks for character sets in {}, where there are none",
                own.display()
            );
            set("GCONV_PATH", value, reason);
        }
    }
    // The format of time zones is everybody's (RFC 8536).
    if let (Some(own), Some(other)) = (&here.zones, &there.zones)
        && !filled(own)
        && filled(other)
    {
        let reason = format!(
            "the prefix looks for time zones in {}, where there are none",
            own.display()
        );
        set("TZDIR", other.clone(), reason);
    }
    if let (Some(own), Some(other)) = (&here.local_time, &there.local_time)
        && !own.exists()
        && other.exists()
    {
        let reason = format!(
            "the prefix takes the local time zone from {}, which is not there",
            own.display()
        );
        // The colon says that what follows is a file (tzset(3)).
        let mut value = OsString::from(":");
        value.push(other);
        set("TZ", value.into(), reason);
    }
    Ok(Environment { settings, warnings })
}

/// Where a glibc looks.
#[derive(Debug)]
struct Data {
    locale: Option<PathBuf>,
    gconv: Option<PathBuf>,
    zones: Option<PathBuf>,
    local_time: Option<PathBuf>,
}

impl Data {
    fn of(prefix: &Prefix) -> Result<Self> {
        let libc = prefix.lib.join("libc.so.6");
        let bytes = std::fs::read(&libc)
            .map_err(|error| Error::Io(format!("{}: {error}", libc.display())))?;
        let archive = path_ending(&bytes, "/locale-archive");
        Ok(Self {
            locale: archive.and_then(|archive| archive.parent().map(Path::to_path_buf)),
            gconv: path_ending(&bytes, "/gconv"),
            zones: path_ending(&bytes, "/zoneinfo"),
            local_time: path_ending(&bytes, "/localtime"),
        })
    }
}

/// The first string of a file that is an absolute path and ends so.
fn path_ending(bytes: &[u8], end: &str) -> Option<PathBuf> {
    let mut strings = bytes.split(|&byte| byte == 0);
    let found = strings.find(|text| text.starts_with(b"/") && text.ends_with(end.as_bytes()))?;
    Some(String::from_utf8_lossy(found).into_owned().into())
}

/// Whether a folder has anything in it.
fn filled(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Whether a folder has locales that are folders themselves.
fn locales(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.path().join("LC_CTYPE").is_file())
    })
}

fn modules(folder: &Path) -> bool {
    ["gconv-modules", "gconv-modules.cache"]
        .iter()
        .any(|name| folder.join(name).is_file())
}
