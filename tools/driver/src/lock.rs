//! The locks under test: five function pointers and a name each.
//!
//! This is the seam for further locks: whoever can fill `MutexOps` can be measured.
//! Every lock, glibc's included, is called through such pointers, so all pay the same
//! for the call. Libraries are opened once and stay open until the process ends.

use anyhow::{Result, anyhow, bail, ensure};
use libc::{c_char, c_int, c_void, pthread_mutex_t, pthread_mutexattr_t};
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub type InitFn = unsafe extern "C" fn(*mut pthread_mutex_t, *const pthread_mutexattr_t) -> c_int;
pub type MutexFn = unsafe extern "C" fn(*mut pthread_mutex_t) -> c_int;

/// A lock's functions, with POSIX's contracts.
#[derive(Clone, Copy)]
pub struct MutexOps {
    pub init: InitFn,
    pub destroy: MutexFn,
    pub lock: MutexFn,
    pub trylock: MutexFn,
    pub unlock: MutexFn,
}

/// A lock that can be measured.
#[derive(Clone)]
pub struct Lock {
    pub name: String,
    /// The library that it came from, as given to the loader.
    pub library: PathBuf,
    pub ops: MutexOps,
}

/// glibc is always in the process; its soname is its path.
pub const GLIBC: &str = "glibc";
pub const AUTOLOCK: &str = "autolock";
const GLIBC_SONAME: &str = "libc.so.6";

/// A lock by name and library, not opened yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub name: String,
    pub library: PathBuf,
}

impl Source {
    pub fn glibc() -> Source {
        Source {
            name: GLIBC.into(),
            library: GLIBC_SONAME.into(),
        }
    }

    pub fn exists(&self) -> bool {
        self.name == GLIBC || self.library.is_file()
    }

    /// Opens the library, finds the functions.
    pub fn open(&self) -> Result<Lock> {
        let advice = match self.name.as_str() {
            AUTOLOCK => "; build it (cargo build --release -p autolock) or name it with --lib PATH",
            _ => "",
        };
        ensure!(
            self.exists(),
            "lock '{}': there is no {}{advice}",
            self.name,
            self.library.display(),
        );
        let ops = load(&self.library)?;
        if self.name != GLIBC {
            // dlsym also searches what the library depends on: a library without these
            // functions would silently be glibc once more.
            let glibc = load(Path::new(GLIBC_SONAME))?;
            ensure!(
                ops.lock as usize != glibc.lock as usize
                    && ops.unlock as usize != glibc.unlock as usize,
                "{}: has no pthread_mutex_lock and pthread_mutex_unlock of its own",
                self.library.display()
            );
        }
        Ok(Lock {
            name: self.name.clone(),
            library: self.library.clone(),
            ops,
        })
    }
}

/// Where libautolock.so is, seen from the executable: installed, or just built.
pub fn default_autolock(executable: &Path) -> PathBuf {
    let folder = executable.parent().unwrap_or(Path::new("."));
    let installed = folder.join("../lib/libautolock.so");
    if installed.is_file() {
        installed
    } else {
        folder.join("libautolock.so")
    }
}

fn load(library: &Path) -> Result<MutexOps> {
    let path = CString::new(library.as_os_str().as_bytes())?;
    // SAFETY: opens a library whose constructors the user asked to run; the path is a C
    // string. The handle is never closed, so the functions stay valid.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        bail!("cannot load {}: {}", library.display(), dl_error());
    }
    let find = |name: &CStr| -> Result<*mut c_void> {
        // SAFETY: a live handle and a C string.
        let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
        if symbol.is_null() {
            Err(anyhow!("{}: {}", library.display(), dl_error()))
        } else {
            Ok(symbol)
        }
    };
    let function = |name: &CStr| -> Result<MutexFn> {
        let symbol = find(name)?;
        // SAFETY: the symbol is not null, and POSIX gives the functions asked for here
        // this type.
        Ok(unsafe { std::mem::transmute::<*mut c_void, MutexFn>(symbol) })
    };
    let init = find(c"pthread_mutex_init")?;
    Ok(MutexOps {
        // SAFETY: not null, and pthread_mutex_init has this type.
        init: unsafe { std::mem::transmute::<*mut c_void, InitFn>(init) },
        destroy: function(c"pthread_mutex_destroy")?,
        lock: function(c"pthread_mutex_lock")?,
        trylock: function(c"pthread_mutex_trylock")?,
        unlock: function(c"pthread_mutex_unlock")?,
    })
}

fn dl_error() -> String {
    // SAFETY: returns null or a C string that lives until the next dl* call in this thread.
    let message: *const c_char = unsafe { libc::dlerror() };
    if message.is_null() {
        return "unknown loader error".into();
    }
    // SAFETY: not null, hence a C string, and it is copied before any further dl* call.
    unsafe { CStr::from_ptr(message) }
        .to_string_lossy()
        .into_owned()
}

/// A mutex in a cache-line pair of its own.
#[repr(align(128))]
pub struct Slot(UnsafeCell<pthread_mutex_t>);

// SAFETY: a pthread mutex may be used by any thread, and `Slot` only hands out a raw
// pointer to it.
unsafe impl Sync for Slot {}
// SAFETY: as above; a slot is moved only before its mutex is initialised.
unsafe impl Send for Slot {}

impl Slot {
    pub fn new() -> Slot {
        Slot(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER))
    }

    #[inline(always)]
    pub fn mutex(&self) -> *mut pthread_mutex_t {
        self.0.get()
    }

    /// Initialises the mutex for `ops`. Nobody may be using it.
    pub fn init(&self, ops: &MutexOps) -> c_int {
        // SAFETY: the slot is alive and, as the caller promises, unused; a null attribute
        // means the default kind.
        unsafe { (ops.init)(self.mutex(), std::ptr::null()) }
    }

    /// Destroys the mutex. Nobody may be using it.
    pub fn destroy(&self, ops: &MutexOps) -> c_int {
        // SAFETY: the slot is alive and its mutex was initialised by the same `ops`.
        unsafe { (ops.destroy)(self.mutex()) }
    }
}

/// One pass through the functions in one thread: a library that cannot do this would
/// only give nonsense later.
pub fn try_out(lock: &Lock) -> Result<()> {
    let slot = Slot::new();
    let call = |f: MutexFn| {
        // SAFETY: the mutex is alive, initialised by the same library, and the sequence
        // below unlocks only what this thread has locked.
        unsafe { f(slot.mutex()) }
    };
    let ops = &lock.ops;
    let steps = [
        ("pthread_mutex_init", slot.init(ops), 0),
        ("pthread_mutex_lock", call(ops.lock), 0),
        (
            "pthread_mutex_trylock (held)",
            call(ops.trylock),
            libc::EBUSY,
        ),
        ("pthread_mutex_unlock", call(ops.unlock), 0),
        ("pthread_mutex_trylock (free)", call(ops.trylock), 0),
        ("pthread_mutex_unlock", call(ops.unlock), 0),
        ("pthread_mutex_destroy", slot.destroy(ops), 0),
    ];
    for (function, got, wanted) in steps {
        ensure!(
            got == wanted,
            "BROKEN LOCK: '{}': {function} returned {got}, not {wanted}",
            lock.name
        );
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    unsafe extern "C" fn nothing(_: *mut pthread_mutex_t) -> c_int {
        0
    }

    /// A lock that excludes nobody: the harness must notice.
    pub fn busted() -> Lock {
        let mut lock = Source::glibc().open().expect("glibc");
        lock.name = "busted".into();
        lock.ops.lock = nothing;
        lock.ops.unlock = nothing;
        lock
    }

    #[test]
    fn glibc_is_found_and_works() {
        let lock = Source::glibc().open().expect("glibc");
        try_out(&lock).expect("works");
    }

    #[test]
    fn a_lock_that_does_not_lock_is_refused() {
        let error = try_out(&busted()).expect_err("trylock of a held mutex succeeded");
        assert!(error.to_string().contains("trylock"), "{error}");
    }

    #[test]
    fn a_missing_library_says_what_to_do() {
        let source = Source {
            name: AUTOLOCK.into(),
            library: "/nowhere/libautolock.so".into(),
        };
        let error = source.open().err().expect("no such file").to_string();
        assert!(error.contains("--lib") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_library_without_mutex_functions_is_not_taken_for_a_lock() {
        // Any library that is there with glibc and depends on it.
        let source = Source {
            name: "maths".into(),
            library: "/lib/x86_64-linux-gnu/libm.so.6".into(),
        };
        if !source.exists() {
            eprintln!("SKIPPED: no libm.so.6 in Debian's place");
            assert!(
                std::env::var_os("CI").is_none(),
                "libm.so.6 is missing in CI"
            );
            return;
        }
        let error = source.open().err().expect("libm has no mutex").to_string();
        assert!(error.contains("of its own"), "{error}");
    }
}
