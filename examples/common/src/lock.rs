//! Whose mutex a program is to run on, how it is told, and the proof that it did.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Serialize, Serializer};

use crate::failure::missing;
use crate::process::bounded;

/// Whose mutex a program runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    Glibc,
    /// libautolock.so as it is by default.
    Autolock,
    /// libautolock.so as it is by default, with this `AUTOLOCK_BACKEND`.
    Knowing(Backend),
    /// libautolock.so with this `AUTOLOCK_ALGORITHM`.
    Algorithm(String),
    /// glibc's, under libpthread-mutex-profile.so; with every hold timed if `full`.
    Profiled {
        full: bool,
    },
}

/// Where libautolock.so is to know from whether a holder runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    User,
    Ebpf,
    /// A patched kernel's slots.
    Kernel,
}

impl Backend {
    /// As the library reads it.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let all = [Self::User, Self::Ebpf, Self::Kernel];
        all.into_iter().find(|backend| backend.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Ebpf => "ebpf",
            Self::Kernel => "kernel",
        }
    }
}

/// What the library prints before each of its lines.
const OURS: &str = "autolock: ";
/// A start of `true` takes milliseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

impl Lock {
    /// The locks of a comparison, each once: glibc, and with a library autolock and the algorithms named.
    #[must_use]
    pub fn list(with_library: bool, algorithms: &[String]) -> Vec<Self> {
        let mut list = vec![Self::Glibc];
        if with_library {
            list.push(Self::Autolock);
            for name in algorithms {
                let lock = Self::Algorithm(name.clone());
                // By name: `autolock` is a value of AUTOLOCK_ALGORITHM as well.
                if list.iter().all(|other| other.name() != lock.name()) {
                    list.push(lock);
                }
            }
        }
        list
    }

    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Glibc => "glibc",
            Self::Autolock => "autolock",
            Self::Knowing(Backend::User) => "autolock-user",
            Self::Knowing(Backend::Ebpf) => "autolock-ebpf",
            Self::Knowing(Backend::Kernel) => "autolock-kernel",
            Self::Algorithm(name) => name,
            Self::Profiled { full: false } => "profiled",
            Self::Profiled { full: true } => "profiled-full",
        }
    }

    /// Makes `command` run on this lock. Whatever the user's own environment says of preloads and algorithms does not count.
    pub fn apply(&self, command: &mut Command, library: Option<&Path>) {
        for variable in ["LD_PRELOAD", "AUTOLOCK_STATS", "AUTOLOCK_ALGORITHM"] {
            command.env_remove(variable);
        }
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("AUTOLOCK_PROFILE") {
                command.env_remove(variable);
            }
        }
        if let (Some(library), false) = (library, *self == Self::Glibc) {
            command.env("LD_PRELOAD", library);
        }
        if let Self::Knowing(backend) = self {
            command.env("AUTOLOCK_BACKEND", backend.name());
        }
        if *self == Self::Knowing(Backend::Kernel) {
            // Without it there is no proof. It counts on slow paths.
            command.env("AUTOLOCK_STATS", "1");
        }
        if let Self::Algorithm(name) = self {
            command.env("AUTOLOCK_ALGORITHM", name);
            // Without it there is no proof. It counts nothing on these locks' paths.
            command.env("AUTOLOCK_STATS", "1");
        }
        if let Self::Profiled { full: true } = self {
            command.env("AUTOLOCK_PROFILE", "full");
        }
    }

    /// Whether a program that was started with [`Self::apply`] and `AUTOLOCK_STATS=1` ran on this lock, from what it wrote to stderr:
    /// the library's line that shows it (none for glibc), or what speaks against it.
    pub fn proof(&self, stderr: &str) -> Result<Option<String>, String> {
        let lines = statistics(stderr);
        let line_of = |start: &str| {
            lines
                .iter()
                .find(|line| line[OURS.len()..].starts_with(start))
        };
        let (counts, chosen) = (line_of("acquired="), line_of("algorithm="));
        match (self, counts, chosen) {
            (Self::Glibc | Self::Profiled { .. }, None, None) => Ok(None),
            (Self::Glibc | Self::Profiled { .. }, line, other) => Err(format!(
                "the library was at work under glibc's run: {}",
                line.or(other).map_or("", String::as_str)
            )),
            (_, None, _) => Err("the library printed no statistics".to_string()),
            (Self::Knowing(Backend::Kernel), Some(_), None) => {
                slots_used(line_of("source="), line_of("kernel ")).map(Some)
            }
            (Self::Autolock | Self::Knowing(_), Some(line), None) => Ok(Some(line.clone())),
            (Self::Autolock | Self::Knowing(_), _, Some(line)) => {
                Err(format!("not the default algorithm: {line}"))
            }
            (Self::Algorithm(_), _, None) => {
                Err("the library's statistics name no algorithm".to_string())
            }
            (Self::Algorithm(name), _, Some(line)) => {
                let value = |key: &str| {
                    line.split(' ')
                        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
                };
                let number = |key| value(key).and_then(|text| text.parse::<u64>().ok());
                if value("algorithm") != Some(name) {
                    Err(format!("another algorithm: {line}"))
                } else if number("mutexes").is_none_or(|count| count == 0) {
                    Err(format!("no mutex got a lock of it: {line}"))
                } else if number("unserved") != Some(0) {
                    Err(format!("some lock calls did without it: {line}"))
                } else {
                    Ok(Some(line.clone()))
                }
            }
        }
    }

    /// Checks that the library knows this lock, in a start of `true`: a wrong name is found before anything is measured.
    pub fn check(&self, library: &Path) -> Result<()> {
        let Self::Algorithm(name) = self else {
            return Ok(());
        };
        // `bounded` starts timeout(1), which hands its environment on.
        let mut command = bounded(PROBE_LIMIT, "true");
        self.apply(&mut command, Some(library));
        let output = command.output().context("cannot run true(1)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if let Some(line) = said
            .lines()
            .find(|line| line.contains("AUTOLOCK_ALGORITHM="))
        {
            return Err(missing(line.strip_prefix(OURS).unwrap_or(line)));
        }
        ensure!(
            said.contains(&format!("algorithm={name} ")),
            "{} does not say that it uses the algorithm {name}: is it libautolock.so?",
            library.display()
        );
        Ok(())
    }
}

/// The kernel's line, if it shows that other threads than the main one had slots.
fn slots_used(source: Option<&String>, kernel: Option<&String>) -> Result<String, String> {
    let source = source.map_or("", String::as_str);
    let Some(kernel) = kernel else {
        return Err(format!("no slot of the kernel's: {source}"));
    };
    if !source.contains(" source=kernel ") || figure(kernel, "creates").is_none_or(|it| it < 2) {
        return Err(format!(
            "the kernel's slots were not used: {source} {kernel}"
        ));
    }
    Ok(kernel.clone())
}

/// The number after `key=` in one of the library's lines.
#[must_use]
pub fn figure(line: &str, key: &str) -> Option<u64> {
    let mut words = line.split(' ');
    words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Lock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The locks in words: `glibc, autolock and mcs`.
#[must_use]
pub fn names(locks: &[Lock]) -> String {
    let names: Vec<&str> = locks.iter().map(Lock::name).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The locks in the order of a round: each goes first and last in turn with its opposite, so that a drifting machine favours none.
pub fn in_round(locks: &[Lock], round: u16) -> impl Iterator<Item = &Lock> {
    let forward = round % 2 == 1;
    let count = locks.len();
    (0..count).map(move |n| &locks[if forward { n } else { count - 1 - n }])
}

/// The lines that `AUTOLOCK_STATS=1` makes the library print at exit.
#[must_use]
pub fn statistics(stderr: &str) -> Vec<String> {
    stderr
        .lines()
        .filter(|line| line.starts_with(OURS))
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Lock {
        Lock::Algorithm(name.to_string())
    }

    #[test]
    fn each_lock_is_listed_once() {
        let names = |with| {
            let wanted = ["mcs", "autolock", "mcs"].map(str::to_string);
            let list = Lock::list(with, &wanted);
            super::names(&list)
        };
        assert_eq!(names(true), "glibc, autolock and mcs");
        assert_eq!(names(false), "glibc");
    }

    #[test]
    fn every_other_round_goes_backwards() {
        let locks = [Lock::Glibc, Lock::Autolock, named("mcs")];
        let order = |round| {
            in_round(&locks, round)
                .map(Lock::name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(order(1), "glibc autolock mcs");
        assert_eq!(order(2), "mcs autolock glibc");
        assert_eq!(order(3), order(1));
    }

    #[test]
    fn only_the_librarys_own_lines_are_statistics() {
        let stderr = "Signal handled: Terminated.\nautolock: contended 12\nnot autolock: x\nautolock: parked 3\n";
        assert_eq!(
            statistics(stderr),
            ["autolock: contended 12", "autolock: parked 3"]
        );
    }

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let line = "autolock: kernel creates=5 parks=17 wakes=x";
        assert_eq!(figure(line, "parks"), Some(17));
        assert_eq!(figure(line, "park"), None);
        assert_eq!(figure(line, "wakes"), None);
    }

    #[test]
    fn each_backend_has_the_librarys_name() {
        for name in ["user", "ebpf", "kernel"] {
            assert_eq!(Backend::by_name(name).map(Backend::name), Some(name));
        }
        assert_eq!(Backend::by_name("auto"), None);
    }

    #[test]
    fn a_proof_holds_for_its_own_lock_alone() {
        let plain = "autolock: acquired=9 contended=1 (derived)\n".to_string();
        let mcs = format!("{plain}autolock: algorithm=mcs mutexes=7 unserved=0 (alone)\n");
        let slots = |source, creates| {
            format!(
                "{plain}autolock: source={source} slots=9\nautolock: kernel creates={creates} parks=2 (as counted)\n"
            )
        };
        let kernel = || Lock::Knowing(Backend::Kernel);
        for (lock, stderr, holds) in [
            (kernel(), &*slots("kernel", 5), true),
            (kernel(), &slots("kernel", 1), false),
            (kernel(), &slots("user", 5), false),
            (kernel(), &plain, false),
            (Lock::Glibc, "", true),
            (Lock::Glibc, "autolockd: a line of somebody else's\n", true),
            (Lock::Glibc, &plain, false),
            (Lock::Autolock, &plain, true),
            (Lock::Autolock, "", false),
            (Lock::Autolock, &mcs, false),
            (named("mcs"), &mcs, true),
            (named("mcs_stp"), &mcs, false),
            (named("mc"), &mcs, false),
            (named("mcs"), &plain, false),
            (named("mcs"), &mcs.replace("mutexes=7", "mutexes=0"), false),
            (
                named("mcs"),
                &mcs.replace("unserved=0", "unserved=3"),
                false,
            ),
        ] {
            let proof = lock.proof(stderr);
            assert_eq!(proof.is_ok(), holds, "{lock} after {stderr}: {proof:?}");
        }
    }
}
