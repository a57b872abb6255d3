//! A program that does not run yet: what would it get? Reads its file and the environment.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Result, bail};

use super::finding::{Name, Obstacle, Subject};
use super::glibc;
use super::status::Status;
use crate::launch::inspect::{self, Seen};
use crate::launch::{library, program};

const BACKEND: &str = "AUTOLOCK_BACKEND";

/// What the environment asks of the library.
#[derive(Debug, PartialEq, Eq)]
pub enum Backend {
    Auto,
    Kernel,
    Ebpf,
    User,
    Unknown(String),
}

impl Backend {
    pub fn parse(value: Option<&[u8]>) -> Self {
        match value.unwrap_or_default() {
            b"" | b"auto" => Self::Auto,
            b"kernel" => Self::Kernel,
            b"ebpf" => Self::Ebpf,
            b"user" => Self::User,
            other => Self::Unknown(String::from_utf8_lossy(other).into_owned()),
        }
    }

    /// What the library takes where these sources are there, best first.
    fn chosen(&self, available: &[Name]) -> Name {
        let wanted = |name: &Name| match self {
            Self::Auto | Self::Unknown(_) => true,
            Self::Kernel => *name == Name::Kernel,
            Self::Ebpf => *name == Name::Ebpf,
            Self::User => false,
        };
        available.iter().copied().find(wanted).unwrap_or(Name::User)
    }

    /// Why it keeps the library from the table.
    pub fn obstacle(&self) -> Option<Obstacle> {
        (*self == Self::User).then(|| {
            Obstacle::new("environment", format!("{BACKEND}=user asks for it"))
                .fix(format!("unset {BACKEND}"))
        })
    }

    pub fn note(&self) -> Option<Obstacle> {
        let Self::Unknown(value) = self else {
            return None;
        };
        Some(
            Obstacle::new(
                "environment",
                format!(
                    "{BACKEND}={value} is none of auto, kernel, ebpf, user: the library takes auto"
                ),
            )
            .fix(format!("unset {BACKEND}")),
        )
    }
}

/// A system call filter may kill whoever connects: the library asks the daemon only if it is told to.
pub fn seccomp(status: &Status, backend: &Backend, what: &str) -> Option<Obstacle> {
    let by_name = matches!(backend, Backend::Kernel | Backend::Ebpf);
    (status.seccomp != 0 && !by_name).then(|| {
        let mode = if status.seccomp == 1 {
            "strict mode"
        } else {
            "a filter"
        };
        let obstacle = Obstacle::new(
            "seccomp",
            format!("{what} under seccomp ({mode}), where the library does not try to connect"),
        );
        match status.seccomp {
            1 => obstacle,
            _ => obstacle.fix(format!(
                "{BACKEND}=ebpf, if the filter lets socket, connect and recvmsg through"
            )),
        }
    })
}

/// The subject, and what it would get where these sources are there, best first. Without a name it is any program.
///
/// # Errors
/// There is no such program.
pub fn look(
    name: Option<&OsStr>,
    lib: Option<&Path>,
    me: &Status,
    available: &[Name],
) -> Result<Subject> {
    let mut subject = Subject {
        name: "a program".into(),
        runs: false,
        gets: None,
        obstacles: Vec::new(),
        notes: Vec::new(),
    };
    let mut loaded = true;
    if let Err(error) = library::find(library::AUTOLOCK, lib) {
        loaded = false;
        subject
            .obstacles
            .push(Obstacle::new("library", format!("{error:#}")));
    }
    if let Some(name) = name {
        let Some(found) = program::find(name) else {
            bail!("no program {}", name.display());
        };
        subject.name = found.file.display().to_string();
        for spot in inspect::blind_spots(name, Seen::Mutexes) {
            let line = Obstacle::new("program", spot.line);
            if spot.loaded {
                subject.notes.push(line);
            } else {
                loaded = false;
                subject.obstacles.push(line);
            }
        }
        let libc = inspect::libc(name);
        let note = libc.and_then(|libc| glibc::note(&libc, &found.file));
        subject.notes.extend(note);
    }
    let backend = std::env::var_os(BACKEND);
    let backend = Backend::parse(backend.as_deref().map(OsStr::as_encoded_bytes));
    subject.notes.extend(backend.note());
    if !loaded {
        return Ok(subject);
    }
    let own = [
        backend.obstacle(),
        seccomp(me, &backend, "programs that are started here are"),
    ];
    subject.obstacles.extend(own.into_iter().flatten());
    subject.gets = Some(if subject.obstacles.is_empty() {
        backend.chosen(available)
    } else {
        Name::User
    });
    Ok(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_tried_only_on_demand() {
        let filtered = Status {
            seccomp: 2,
            ..Status::default()
        };
        assert!(seccomp(&filtered, &Backend::Auto, "x").is_some());
        assert!(seccomp(&filtered, &Backend::Ebpf, "x").is_none());
        assert!(seccomp(&Status::default(), &Backend::Auto, "x").is_none());
    }

    #[test]
    fn only_user_keeps_the_library_from_the_table() {
        let backend = |value: &str| Backend::parse(Some(value.as_bytes()));
        assert!(backend("user").obstacle().is_some());
        for other in ["", "auto", "ebpf", "kernel"] {
            assert!(backend(other).obstacle().is_none(), "{other}");
        }
        assert!(backend("kerne1").note().is_some() && backend("kernel").note().is_none());
        let all = [Name::Kernel, Name::Ebpf, Name::User];
        assert_eq!(backend("auto").chosen(&all), Name::Kernel);
        assert_eq!(backend("ebpf").chosen(&all), Name::Ebpf);
        assert_eq!(backend("kernel").chosen(&all[1..]), Name::User);
        assert_eq!(backend("user").chosen(&all), Name::User);
        assert_eq!(Backend::parse(None), Backend::Auto);
    }
}
