//! What a preload cannot see in a program: a line each. Reads its file and those of its libraries; the loader lists these, which is
//! all that is started.
//!
//! What is said with "probably" is a guess from strings; nothing is said of what a program loads or starts later.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use memchr::memmem;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::read::{Object, ObjectSection, ObjectSymbol, ReadCache};

use super::program;

/// Which locks the preload takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// `libautolock.so`: mutexes.
    Mutexes,
    /// The profiler: read-write and spin locks as well.
    AllLocks,
}

/// Something that the preload will not see.
#[derive(Debug)]
pub struct BlindSpot {
    /// One line.
    pub line: String,
    /// Whether the preload is in the program at all.
    pub loaded: bool,
}

/// What the preload will not see; nothing if nothing speaks against it, or the program cannot be read.
pub fn blind_spots(name: &OsStr, seen: Seen) -> Vec<BlindSpot> {
    let Some(program) = program::find(name) else {
        // execvp(3) will say why.
        return Vec::new();
    };
    let shown = program.file.display().to_string();
    let mut spots = Vec::new();
    let mut not_loaded = |line| {
        spots.push(BlindSpot {
            line,
            loaded: false,
        });
    };
    if let Some(how) = secure(&program.file) {
        not_loaded(format!(
            "{shown} {how}: the loader ignores preloads that its caller asks for; nothing will be seen"
        ));
    }
    match look(&program.file) {
        None => {}
        Some(Kind::Foreign(what)) => not_loaded(format!(
            "{shown} is {what}: the preload is for x86-64; nothing will be seen"
        )),
        Some(Kind::Static { go: false }) => {
            not_loaded(format!(
                "{shown} is statically linked: no loader, no preload; nothing will be seen but in dynamically linked programs that it starts"
            ));
        }
        Some(Kind::Static { go: true }) => {
            not_loaded(format!(
                "{shown} is a static Go program: its locks are in Go's own runtime; nothing will be seen"
            ));
        }
        Some(Kind::Musl) => {
            not_loaded(format!(
                "{shown} is linked with musl: the preload is for glibc, and cannot be loaded"
            ));
        }
        Some(Kind::Glibc(contents)) => {
            let mut partly = |line| spots.push(BlindSpot { line, loaded: true });
            if contents.go {
                partly(format!(
                    "{shown} is a Go program: Go's own locks are not seen, those of its C libraries are"
                ));
            } else if let Some(locks) = contents.rust {
                partly(format!(
                    "{shown} probably has Rust code: {locks} wait on futexes of their own and are not seen, those of C and C++ libraries are"
                ));
            }
            // An interpreter is there for what it loads and starts.
            let quiet = program.interpreter || contents.imports(seen);
            if !quiet && !any_library_imports(&contents.interpreter, &program.file, seen) {
                partly(format!(
                    "neither {shown} nor its libraries call lock functions of libc: nothing will be seen but in what it loads or starts"
                ));
            }
        }
    }
    spots
}

/// How the program gets rights that its caller has not, if it does: the loader drops preloads then (`AT_SECURE`, ld.so(8)).
fn secure(file: &Path) -> Option<&'static str> {
    let metadata = file.metadata().ok()?;
    // SAFETY: only tells.
    let user = unsafe { libc::getuid() };
    // SAFETY: as above.
    let group = unsafe { libc::getgid() };
    if metadata.mode() & libc::S_ISUID != 0 && metadata.uid() != user {
        return Some("is set-user-ID");
    }
    // Without the group's execution bit it means mandatory locking.
    let set_group = libc::S_ISGID | libc::S_IXGRP;
    if metadata.mode() & set_group == set_group && metadata.gid() != group {
        return Some("is set-group-ID");
    }
    // Root has the capabilities already.
    (user != 0 && has_capabilities(file)).then_some("has file capabilities")
}

fn has_capabilities(file: &Path) -> bool {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
        return false;
    };
    let name = c"security.capability";
    // SAFETY: C strings, and a size of 0: nothing is written.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    size > 0
}

/// What sort of program it is.
#[derive(Debug)]
enum Kind {
    /// Not for this processor, or not for 64 bits.
    Foreign(&'static str),
    Static {
        go: bool,
    },
    Musl,
    /// Any dynamic program but musl's.
    Glibc(Contents),
}

/// What is in a dynamic program.
#[derive(Debug)]
struct Contents {
    interpreter: PathBuf,
    go: bool,
    /// Whose locks are in its Rust code, if it seems to have any.
    rust: Option<&'static str>,
    imports: Imports,
}

/// Which lock functions a file wants from others.
#[derive(Clone, Copy, Debug, Default)]
struct Imports {
    mutex: bool,
    other: bool,
}

impl Imports {
    fn any(self, seen: Seen) -> bool {
        self.mutex || self.other && seen == Seen::AllLocks
    }
}

impl Contents {
    fn imports(&self, seen: Seen) -> bool {
        self.imports.any(seen)
    }
}

type Elf<'a> = ElfFile64<'a, object::Endianness, &'a ReadCache<File>>;

/// None of what is no ELF file, or a damaged one.
fn look(file: &Path) -> Option<Kind> {
    if let Some(what) = foreign(file)? {
        return Some(Kind::Foreign(what));
    }
    let cache = ReadCache::new(File::open(file).ok()?);
    let elf = Elf::parse(&cache).ok()?;
    let go = [".go.buildinfo", ".note.go.buildid"]
        .iter()
        .any(|name| elf.section_by_name(name).is_some());
    let Some(interpreter) = interpreter(&elf) else {
        // The loader, called by its name, is static only at first sight.
        let loader = file.file_name()?.as_bytes().starts_with(b"ld-linux");
        return (!loader).then_some(Kind::Static { go });
    };
    if interpreter.to_string_lossy().contains("ld-musl") {
        return Some(Kind::Musl);
    }
    Some(Kind::Glibc(Contents {
        interpreter,
        go,
        rust: rust(&elf),
        imports: imports(&elf),
    }))
}

/// What it is instead, if it is not for x86-64. From the first 20 bytes, which are the same for all (elf(5)).
fn foreign(file: &Path) -> Option<Option<&'static str>> {
    let mut head = [0; 20];
    File::open(file).ok()?.read_exact(&mut head).ok()?;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    Some(match (head[4], object::elf::Machine(machine)) {
        (1, _) => Some("a 32-bit program"),
        (_, object::elf::EM_X86_64) => None,
        _ => Some("for another processor"),
    })
}

fn interpreter(elf: &Elf) -> Option<PathBuf> {
    let (endian, data) = (elf.endian(), elf.data());
    let path = elf
        .elf_program_headers()
        .iter()
        .find_map(|header| header.interpreter(endian, data).ok()?)?;
    Some(OsStr::from_bytes(path).into())
}

/// Rust's standard library leaves the paths of its sources in the messages of its panics.
fn rust(elf: &Elf) -> Option<&'static str> {
    let strings = elf.section_by_name(".rodata")?;
    let strings = strings.data().ok()?;
    let has = |text: &str| memmem::find(strings, text.as_bytes()).is_some();
    match (has("library/std/src/"), has("parking_lot_core-")) {
        (false, false) => None,
        (_, false) => Some("std::sync's locks"),
        (_, true) => Some("std::sync's and parking_lot's locks"),
    }
}

fn imports(elf: &Elf) -> Imports {
    let mut found = Imports::default();
    for symbol in elf.dynamic_symbols().filter(|symbol| symbol.is_undefined()) {
        let name = symbol.name().unwrap_or_default();
        found.mutex |= acquires(name, &["pthread_mutex_", "mtx_"]);
        found.other |= acquires(name, &["pthread_rwlock_", "pthread_spin_"]);
    }
    found
}

/// `pthread_mutex_timedlock`, and so on; not `pthread_mutex_unlock` or `pthread_mutex_init`.
fn acquires(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|verb| verb.ends_with("lock") && verb != "unlock")
    })
}

/// The libc that the loader would give the program; none if it gives no list.
pub fn libc(name: &OsStr) -> Option<PathBuf> {
    let program = program::find(name)?;
    let Some(Kind::Glibc(contents)) = look(&program.file) else {
        return None;
    };
    libraries(&contents.interpreter, &program.file)?
        .into_iter()
        .find(|path| is_libc(path))
}

pub fn is_libc(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "libc.so.6")
}

/// Whether a library that the program is linked with takes locks. True if the loader gives no list: then nothing can be said.
fn any_library_imports(interpreter: &Path, file: &Path, seen: Seen) -> bool {
    let Some(libraries) = libraries(interpreter, file) else {
        return true;
    };
    // Nobody's locks: these call none of libc's from outside.
    let mut others = libraries.iter().filter(|path| !is_libc(path));
    others.any(|path| imports_of(path).is_some_and(|imports| imports.any(seen)))
}

/// What the loader would load with the program.
fn libraries(interpreter: &Path, file: &Path) -> Option<Vec<PathBuf>> {
    // `--list` maps the libraries and runs nothing of them (ld.so(8)).
    let mut list = Command::new(interpreter);
    list.arg("--list")
        .arg(file)
        .env_remove("LD_PRELOAD")
        .env_remove("LD_DEBUG");
    let output = list.output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let libraries = text.lines().filter_map(|line| {
        let (_, path) = line.split_once("=> ")?;
        Some(PathBuf::from(path.rsplit_once(" (")?.0))
    });
    Some(libraries.collect())
}

fn imports_of(file: &Path) -> Option<Imports> {
    let cache = ReadCache::new(File::open(file).ok()?);
    Some(imports(&Elf::parse(&cache).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_a_lock_counts() {
        let mutex = |name| acquires(name, &["pthread_mutex_", "mtx_"]);
        for name in [
            "pthread_mutex_lock",
            "pthread_mutex_trylock",
            "pthread_mutex_clocklock",
            "mtx_timedlock",
        ] {
            assert!(mutex(name), "{name}");
        }
        for name in [
            "pthread_mutex_unlock",
            "mtx_unlock",
            "pthread_mutex_init",
            "lock",
            "pthread_spin_lock",
        ] {
            assert!(!mutex(name), "{name}");
        }
        let spin = Imports {
            mutex: false,
            other: true,
        };
        assert!(spin.any(Seen::AllLocks) && !spin.any(Seen::Mutexes));
    }

    #[test]
    fn this_very_program_is_rust_on_glibc() {
        let Some(Kind::Glibc(contents)) = look(Path::new("/proc/self/exe")) else {
            panic!("not taken for a dynamic program");
        };
        assert!(contents.rust.is_some() && !contents.go);
    }

    #[test]
    fn what_is_no_program_is_no_surprise() {
        assert!(look(Path::new("/etc/passwd")).is_none());
        assert!(look(Path::new("/nowhere")).is_none());
        assert!(look(Path::new("/dev/null")).is_none());
    }
}
