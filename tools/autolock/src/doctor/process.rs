//! A process that runs: what has it got? Reads /proc/PID.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use autolock_oncpu::{greeting, table};

use super::daemon::{self, Daemon};
use super::finding::{Name, Obstacle, Subject};
use super::glibc;
use super::machine;
use super::places::Places;
use super::program::{self, Backend};
use super::status::Status;
use crate::launch::inspect::{self, Seen};
use crate::launch::library;

/// The name of a BPF map's mapping.
const MAP: &str = "anon_inode:bpf-map";
/// The name of the area with the kernel's slots.
const SLOTS: &str = "[auto_lock]";
/// What the kernel appends to the name of a file that was removed or replaced.
const DELETED: &str = " (deleted)";
/// getauxval(3): whether the program was started with rights that its caller had not.
const AT_SECURE: u64 = 23;

/// What is mapped, as far as it matters here.
#[derive(Debug, Default)]
struct Maps {
    library: bool,
    slots: bool,
    table: bool,
    libc: Option<PathBuf>,
}

/// The process, and what it gets.
///
/// # Errors
/// There is no such process, or this user may not look into it.
pub fn look(places: &Places, pid: u32, daemon: &Daemon) -> Result<Subject> {
    let process = places.at(format!("/proc/{pid}"));
    let read = |name: &str| match std::fs::read(process.join(name)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("this user may not look into process {pid}: try as its user, or as root")
        }
        other => other.with_context(|| format!("no process {pid}")),
    };
    let status = Status::parse(&String::from_utf8_lossy(&read("status")?));
    let maps = maps(&String::from_utf8_lossy(&read("maps")?));
    let secure = is_secure(&read("auxv")?);
    let environment = read("environ")?;
    let Ok(program) = process.join("exe").read_link() else {
        bail!("process {pid} has no program: it is the kernel's, or has ended");
    };
    let shown = program.display().to_string();

    let mut subject = Subject {
        name: format!("process {pid} ({shown})"),
        runs: true,
        gets: None,
        obstacles: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(libc) = &maps.libc {
        let root = process.join("root");
        let libc = root.join(libc.strip_prefix("/").unwrap_or(libc));
        subject.notes.extend(glibc::note(&libc, &program));
    }
    if !maps.library {
        subject.obstacles = not_loaded(&process, secure);
        return Ok(subject);
    }
    let backend = Backend::parse(variable(&environment, b"AUTOLOCK_BACKEND="));
    subject.notes.extend(backend.note());
    subject.gets = Some(match (maps.table, daemon) {
        _ if maps.slots => Name::Kernel,
        (true, Daemon::Keeps) => Name::Ebpf,
        (true, Daemon::NotForUs(_)) => {
            subject.notes.push(Obstacle::new(
                "table",
                "the process has the table; whether that is kept, autolockd does not tell this user",
            ));
            Name::Ebpf
        }
        // It comes back by itself.
        (true, Daemon::Broken(_) | Daemon::Gone(_)) => Name::User,
        (false, _) => {
            subject.obstacles = not_mapped(places, &process, &status, secure, &backend);
            Name::User
        }
    });
    Ok(subject)
}

fn maps(text: &str) -> Maps {
    let mut found = Maps::default();
    for line in text.lines() {
        // address, permissions, offset, device, inode, then the name, which may have spaces.
        let mut words = line.splitn(6, ' ');
        let (Some(range), Some(permissions), Some(name)) =
            (words.next(), words.next(), words.nth(3))
        else {
            continue;
        };
        let name = name.trim_start();
        let path = Path::new(name.strip_suffix(DELETED).unwrap_or(name));
        found.library |= path
            .file_name()
            .is_some_and(|name| name == library::AUTOLOCK);
        found.slots |= name == SLOTS;
        // Another map of the program's own is of another size, or writable.
        found.table |=
            name == MAP && permissions == "r--s" && length(range) == Some(table::SIZE as u64);
        if inspect::is_libc(path) {
            found.libc = Some(path.into());
        }
    }
    found
}

fn length(range: &str) -> Option<u64> {
    let (from, to) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    number(to)?.checked_sub(number(from)?)
}

/// Pairs of a kind and a value, of the machine's word.
fn is_secure(auxv: &[u8]) -> bool {
    let (words, _) = auxv.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs
        .iter()
        .any(|[kind, value]| u64::from_ne_bytes(*kind) == AT_SECURE && *value != [0; 8])
}

fn variable<'a>(environment: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name))
}

/// Why the library is not in the process.
fn not_loaded(process: &Path, secure: bool) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let spots = inspect::blind_spots(process.join("exe").as_os_str(), Seen::Mutexes);
    for spot in spots.into_iter().filter(|spot| !spot.loaded) {
        found.push(Obstacle::new("program", spot.line));
    }
    if secure && found.is_empty() {
        found.push(Obstacle::new(
            "program",
            "it was started with rights that its caller had not: the loader ignores preloads then",
        ));
    }
    if found.is_empty() {
        found.push(
            Obstacle::new("library", format!("{} is not in it", library::AUTOLOCK))
                .fix("start it again by autolock run COMMAND"),
        );
    }
    found
}

/// Why the library has no table.
fn not_mapped(
    places: &Places,
    process: &Path,
    status: &Status,
    secure: bool,
    backend: &Backend,
) -> Vec<Obstacle> {
    let secure = secure.then(|| {
        Obstacle::new(
            "program",
            "it was started with rights that its caller had not: the library asks nobody then",
        )
    });
    let nested = status.nested.then(|| machine::pid_namespace("it is"));
    let seccomp = program::seccomp(status, backend, "it is");
    let socket = process
        .join("root")
        .join(greeting::SOCKET.trim_start_matches('/'));
    let unseen = (places.socket().exists() && !socket.exists()).then(|| {
        Obstacle::new(
            "root",
            format!("{} is not in its root directory", greeting::SOCKET),
        )
        .fix("mount /run/autolock there (mount --bind), then start it again")
    });
    let permission = daemon::not_permitted(places, &places.socket(), status, "its user");
    let known = [
        secure,
        nested,
        backend.obstacle(),
        seccomp,
        unseen,
        permission,
    ];
    let mut found: Vec<Obstacle> = known.into_iter().flatten().collect();
    if found.is_empty() {
        found.push(
            Obstacle::new(
                "table",
                "autolockd was not there, or did not answer, when it started",
            )
            .fix("start it again once autolockd runs"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shared_read_only_map_of_the_size_is_the_table() {
        let line = |range: &str, permissions: &str, name: &str| {
            maps(&format!(
                "{range} {permissions} 00000000 00:0e 1035       {name}\n"
            ))
        };
        let (whole, half) = ("7f0000000000-7f0000400000", "7f0000000000-7f0000200000");
        assert!(line(whole, "r--s", MAP).table);
        assert!(!line(half, "r--s", MAP).table);
        assert!(!line(whole, "rw-s", MAP).table);
        assert!(!line(whole, "r--s", "/tmp/anon_inode:bpf-map").table);
        assert!(line(whole, "rw-s", SLOTS).slots && !line(whole, "rw-s", "/[auto_lock]").slots);
        assert!(line(half, "r-xp", "/a b/libautolock.so").library);
        assert!(line(half, "r-xp", "/a/libautolock.so (deleted)").library);
        assert!(!line(half, "r-xp", "/a/libautolock.so.txt").library);
        assert!(!line(whole, "rw-p", "").library);
        let libc = line(half, "r-xp", "/x/libc.so.6").libc;
        assert_eq!(libc.as_deref(), Some(Path::new("/x/libc.so.6")));
    }

    #[test]
    fn reads_the_auxiliary_vector_and_the_environment() {
        let pair = |kind: u64, value: u64| [kind.to_ne_bytes(), value.to_ne_bytes()].concat();
        let vector = |value| [pair(6, 4096), pair(AT_SECURE, value), pair(0, 0)].concat();
        assert!(is_secure(&vector(1)) && !is_secure(&vector(0)) && !is_secure(&[]));
        let found = variable(b"A=1\0AUTOLOCK_BACKEND=user\0", b"AUTOLOCK_BACKEND=");
        assert_eq!(found, Some(b"user".as_slice()));
        assert_eq!(variable(b"XA=1\0", b"A="), None);
    }
}
