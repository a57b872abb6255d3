//! `AUTOLOCK_*`: the one place where they are read.
//!
//! | variable | values | default | meaning |
//! |---|---|---|---|
//! | `AUTOLOCK_STATS` | `0`, `1` | `0` | print at exit what the library did |
//! | `AUTOLOCK_ALGORITHM` | `autolock`, or a lock of the collection (`driver --list`) | `autolock` | the lock under each private mutex |
//! | `AUTOLOCK_BACKEND` | `auto`, `kernel`, `ebpf`, `user` | `auto` | where on-CPU knowledge comes from: a patched kernel's slots, autolockd's table or user space alone; `auto` takes the first of them that is to be had; `kernel` and `ebpf` say so if theirs is not, and leave it to user space |
//! | `AUTOLOCK_SOCKET` | a path | `/run/autolock/autolockd.sock` | where autolockd listens |
//!
//! A bad value or an unknown `AUTOLOCK_` name gives one line on stderr and the default; `AUTOLOCK_PROFILE*` is the profiler's, `AUTOLOCK_LIB*` the tools'. In secure-execution mode (set-user-ID programs,
//! getauxval(3) `AT_SECURE`) the environment is not ours to believe: nothing is read.

use core::ffi::CStr;
use core::fmt::Write as _;

use autolock_lock::{algorithm::Entry, locks::Collection};

use crate::{linux::Linux, slots, stats::Line};

/// What the environment asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print statistics at exit.
    pub stats: bool,
    /// Where on-CPU knowledge comes from.
    pub backend: Backend,
    /// Where autolockd listens, if not at the usual place. The environment's own bytes: for the constructor alone.
    pub socket: Option<&'static [u8]>,
    /// The lock to run all private mutexes on; none for the default algorithm.
    pub algorithm: Option<&'static Entry>,
}

/// Where on-CPU knowledge comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Backend {
    /// The best source there is.
    #[default]
    Auto,
    /// A patched kernel's slots.
    Kernel,
    /// autolockd's table.
    Ebpf,
    /// User space alone.
    User,
}

const PREFIX: &[u8] = b"AUTOLOCK_";
/// Names that begin so are others' to read: `libpthread-mutex-profile.so`'s, which complains for itself, and where our tools find the libraries.
const OTHERS: [&[u8]; 2] = [b"PROFILE", b"LIB"];
/// The longest path of a socket (unix(7)).
const SOCKET_MAX: usize = 107;
const DEFAULT_ALGORITHM: &[u8] = b"autolock";

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    /// This.
    Text(&'static str),
    /// `AUTOLOCK_ALGORITHM` names no lock: the line lists those that there are.
    UnknownAlgorithm,
}

/// Reads the environment. Called once, from the preload's constructor.
#[must_use]
pub fn from_environment() -> Options {
    let mut options = Options::default();
    // SAFETY: getauxval takes a number and cannot fail.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        // Whoever started it chose its PID namespace, its descriptors and its limits: as little as possible is done there.
        options.backend = Backend::User;
        return options;
    }
    unsafe extern "C" {
        static environ: *const *const core::ffi::c_char;
    }
    // SAFETY: libc's own variable; no thread changes it before `main`.
    let mut next = unsafe { environ };
    if next.is_null() {
        return options;
    }
    loop {
        // SAFETY: `environ` is an array that ends with a null pointer.
        let entry = unsafe { next.read() };
        if entry.is_null() {
            return options;
        }
        // SAFETY: each entry is a NUL-terminated string.
        let entry: &'static [u8] = unsafe { CStr::from_ptr(entry) }.to_bytes();
        if let Some(rest) = entry.strip_prefix(PREFIX)
            && let Err(problem) = apply(&mut options, rest)
        {
            complain(entry, problem);
        }
        // SAFETY: not yet at the null pointer.
        next = unsafe { next.add(1) };
    }
}

/// Applies `NAME=value`, without the prefix.
fn apply(options: &mut Options, entry: &'static [u8]) -> Result<(), Problem> {
    let mut parts = entry.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let value = parts.next().unwrap_or_default();
    match name {
        b"STATS" => match value {
            b"0" | b"" => options.stats = false,
            b"1" => options.stats = true,
            _ => return Err(Problem::Text("takes 0 or 1; using 0")),
        },
        b"BACKEND" => match value {
            b"auto" | b"" => options.backend = Backend::Auto,
            b"kernel" => options.backend = Backend::Kernel,
            b"ebpf" => options.backend = Backend::Ebpf,
            b"user" => options.backend = Backend::User,
            _ => {
                return Err(Problem::Text(
                    "takes auto, kernel, ebpf or user; using auto",
                ));
            }
        },
        b"SOCKET" => match value {
            b"" => options.socket = None,
            _ if value.len() <= SOCKET_MAX => options.socket = Some(value),
            _ => {
                return Err(Problem::Text(
                    "takes a path of at most 107 bytes; using /run/autolock/autolockd.sock",
                ));
            }
        },
        b"ALGORITHM" => match value {
            DEFAULT_ALGORITHM | b"" => options.algorithm = None,
            _ => options.algorithm = Some(slots::find(value).ok_or(Problem::UnknownAlgorithm)?),
        },
        _ if OTHERS.iter().any(|other| name.starts_with(other)) => {}
        _ => {
            return Err(Problem::Text(
                "is not an option of this library (they are AUTOLOCK_STATS, AUTOLOCK_ALGORITHM, AUTOLOCK_BACKEND, AUTOLOCK_SOCKET); ignored",
            ));
        }
    }
    Ok(())
}

fn complain(entry: &[u8], problem: Problem) {
    let mut line = Line::default();
    let _ = line.write_str("autolock: ");
    for byte in entry.iter().take(100) {
        let shown = if byte.is_ascii_graphic() || *byte == b' ' {
            char::from(*byte)
        } else {
            '?'
        };
        let _ = line.write_char(shown);
    }
    match problem {
        Problem::Text(text) => _ = writeln!(line, ": {text}"),
        Problem::UnknownAlgorithm => {
            let _ = line.write_str(": no lock of this name; using autolock; known are autolock");
            for entry in Collection::<Linux>::ENTRIES {
                let _ = write!(line, ", {}", entry.info.name);
            }
            let _ = line.write_char('\n');
        }
    }
    line.print();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(entry: &'static [u8]) -> Result<Options, Problem> {
        let mut options = Options::default();
        apply(&mut options, entry).map(|()| options)
    }

    #[test]
    fn good_values_are_taken() {
        assert!(parsed(b"STATS=1").expect("good").stats);
        assert_eq!(
            parsed(b"BACKEND=user").expect("good").backend,
            Backend::User
        );
        assert_eq!(
            parsed(b"BACKEND=ebpf").expect("good").backend,
            Backend::Ebpf
        );
        assert_eq!(parsed(b"SOCKET=/s").expect("good").socket, Some(&b"/s"[..]));
        assert_eq!(parsed(b"SOCKET=").expect("good").socket, None);
        let algorithm = |entry| parsed(entry).expect("good").algorithm.map(|e| e.info.name);
        assert_eq!(algorithm(b"ALGORITHM=mcs"), Some("mcs"));
        assert_eq!(algorithm(b"ALGORITHM=autolock"), None);
        assert_eq!(algorithm(b"ALGORITHM="), None);
    }

    #[test]
    fn the_profilers_names_are_left_to_it() {
        for entry in [&b"PROFILE=full"[..], b"PROFILE_FILE=none", b"PROFILE_X=1"] {
            assert!(parsed(entry).is_ok(), "{}", String::from_utf8_lossy(entry));
        }
        assert!(parsed(b"PROFIL=full").is_err());
    }

    #[test]
    fn bad_values_and_unknown_names_are_refused() {
        for entry in [
            &b"STATS=yes"[..],
            b"BACKEND=magic",
            b"ALGORITHM=nonesuch",
            b"NONSENSE=1",
            b"=",
            b"",
        ] {
            assert!(parsed(entry).is_err(), "{}", String::from_utf8_lossy(entry));
        }
        let path = [&b"SOCKET="[..], &[b'x'; SOCKET_MAX + 1]].concat();
        let path: &'static [u8] = path.leak();
        assert!(parsed(path).is_err());
        assert!(parsed(&path[..path.len() - 1]).is_ok());
    }
}
