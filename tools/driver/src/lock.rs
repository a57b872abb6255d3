//! The locks under test: five C functions, a size and a name each.
//!
//! This is the seam for further locks: whoever can fill [`Operations`] can be measured. They come from libraries that
//! export the pthread functions (glibc, libautolock.so, any other) and from the collection in `autolock_lock::locks`. All are called
//! through such pointers, so all pay the same for the call. Libraries are opened once and stay open until the process ends.

use crate::foreign;
use crate::futex::Counting;
use anyhow::{Result, anyhow, bail, ensure};
use autolock_lock::algorithm::{Call, Entry, Info, Init, Operations, Order, Waiting};
use autolock_lock::locks::Collection;
use libc::{c_char, c_int, c_void};
use std::alloc::Layout;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A lock that can be measured.
#[derive(Clone)]
pub struct Lock {
    pub name: String,
    /// The library that it came from, as given to the loader; empty if it is the driver's own.
    pub library: PathBuf,
    /// Bytes that it takes.
    pub size: usize,
    pub ops: Operations,
}

/// glibc is always in the process; its soname is its path.
pub const GLIBC: &str = "glibc";
pub const AUTOLOCK: &str = "autolock";
const GLIBC_SONAME: &str = "libc.so.6";

const GLIBC_INFO: Info = Info {
    name: GLIBC,
    about: "pthread_mutex, normal kind: one try, then sleeps on the word; newcomers barge",
    source: "glibc, nptl/lowlevellock",
    order: Order::Unfair,
    waiting: Waiting::Sleeps,
};
const AUTOLOCK_INFO: Info = Info {
    name: AUTOLOCK,
    about: "glibc's word; one waiter attends to it and spins while that pays, the others sleep",
    source: "this project, libautolock.so",
    order: Order::Bounded,
    waiting: Waiting::Sleeps,
};

/// A lock by name, not opened yet.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub origin: Origin,
}

/// Where a lock comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A library that exports the pthread functions.
    Library(PathBuf),
    /// The collection, or a lock of others in the driver.
    Entry(&'static Entry),
}

impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        self.name == other.name && self.library() == other.library()
    }
}

impl Source {
    pub fn library_named(name: &str, library: impl Into<PathBuf>) -> Source {
        Source {
            name: name.into(),
            origin: Origin::Library(library.into()),
        }
    }

    pub fn glibc() -> Source {
        Source::library_named(GLIBC, GLIBC_SONAME)
    }

    /// The locks that the driver has in itself: others' and those of the collection.
    pub fn collection() -> impl Iterator<Item = Source> {
        let all = foreign::ENTRIES
            .iter()
            .chain(Collection::<Counting>::ENTRIES);
        all.map(|entry| Source {
            name: entry.info.name.into(),
            origin: Origin::Entry(entry),
        })
    }

    /// Where the lock's code is; empty if in the driver itself.
    pub fn library(&self) -> &Path {
        match &self.origin {
            Origin::Library(path) => path,
            Origin::Entry(_) => Path::new(""),
        }
    }

    /// What it is, where that is known.
    pub fn info(&self) -> Option<Info> {
        match &self.origin {
            Origin::Entry(entry) => Some(entry.info),
            Origin::Library(_) => match self.name.as_str() {
                GLIBC => Some(GLIBC_INFO),
                AUTOLOCK => Some(AUTOLOCK_INFO),
                _ => None,
            },
        }
    }

    pub fn exists(&self) -> bool {
        match &self.origin {
            Origin::Library(path) => self.name == GLIBC || path.is_file(),
            Origin::Entry(_) => true,
        }
    }

    /// Opens the library, finds the functions.
    pub fn open(&self) -> Result<Lock> {
        match &self.origin {
            Origin::Library(path) => self.open_library(path),
            Origin::Entry(entry) => {
                ensure!(
                    entry.align <= Slot::ALIGN,
                    "lock '{}' wants an alignment of {}",
                    self.name,
                    entry.align
                );
                Ok(Lock {
                    name: self.name.clone(),
                    library: PathBuf::new(),
                    size: entry.size,
                    ops: entry.operations,
                })
            }
        }
    }

    fn open_library(&self, library: &Path) -> Result<Lock> {
        let advice = match self.name.as_str() {
            AUTOLOCK => "; build it (cargo build --release -p autolock) or name it with --lib PATH",
            _ => "",
        };
        ensure!(
            self.exists(),
            "lock '{}': there is no {}{advice}",
            self.name,
            library.display(),
        );
        let ops = load(library)?;
        if self.name != GLIBC {
            // dlsym also searches what the library depends on: a library without these
            // functions would silently be glibc once more.
            let glibc = load(Path::new(GLIBC_SONAME))?;
            ensure!(
                ops.lock as usize != glibc.lock as usize
                    && ops.unlock as usize != glibc.unlock as usize,
                "{}: has no pthread_mutex_lock and pthread_mutex_unlock of its own",
                library.display()
            );
        }
        Ok(Lock {
            name: self.name.clone(),
            library: library.into(),
            size: size_of::<libc::pthread_mutex_t>(),
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

fn load(library: &Path) -> Result<Operations> {
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
    let function = |name: &CStr| -> Result<Call> {
        let symbol = find(name)?;
        // SAFETY: the symbol is not null, and POSIX gives the functions asked for here
        // this type.
        Ok(unsafe { std::mem::transmute::<*mut c_void, Call>(symbol) })
    };
    let init = find(c"pthread_mutex_init")?;
    Ok(Operations {
        // SAFETY: not null, and pthread_mutex_init has this type.
        init: unsafe { std::mem::transmute::<*mut c_void, Init>(init) },
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

/// Memory for a lock, on cache-line pairs of its own.
pub struct Slot {
    memory: *mut c_void,
    layout: Layout,
}

// SAFETY: a lock may be used by any thread, and `Slot` only hands out a raw pointer to it.
unsafe impl Sync for Slot {}
// SAFETY: the memory does not move with the slot.
unsafe impl Send for Slot {}

impl Slot {
    /// A pair of cache lines: the prefetcher fetches pairs.
    pub const ALIGN: usize = 128;

    /// For a lock of up to `size` bytes; all zero.
    pub fn new(size: usize) -> Slot {
        let size = size.max(1).next_multiple_of(Self::ALIGN);
        let Ok(layout) = Layout::from_size_align(size, Self::ALIGN) else {
            panic!("a lock of {size} bytes");
        };
        // SAFETY: the layout's size is not 0.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        if memory.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        Slot {
            memory: memory.cast(),
            layout,
        }
    }

    #[inline(always)]
    pub fn lock(&self) -> *mut c_void {
        self.memory
    }

    /// Initialises the lock for `ops`. Nobody may be using it.
    pub fn init(&self, ops: &Operations) -> c_int {
        // SAFETY: the slot is alive and, as the caller promises, unused; a null attribute
        // means the default kind.
        unsafe { (ops.init)(self.lock(), std::ptr::null()) }
    }

    /// Destroys the lock. Nobody may be using it.
    pub fn destroy(&self, ops: &Operations) -> c_int {
        // SAFETY: the slot is alive and its lock was initialised by the same `ops`.
        unsafe { (ops.destroy)(self.lock()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.memory.cast(), self.layout) };
    }
}

/// One pass through the functions in one thread: a library that cannot do this would
/// only give nonsense later.
pub fn try_out(lock: &Lock) -> Result<()> {
    let slot = Slot::new(lock.size);
    let call = |f: Call| {
        // SAFETY: the lock is alive, initialised by the same functions, and the sequence
        // below unlocks only what this thread has locked.
        unsafe { f(slot.lock()) }
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

    unsafe extern "C" fn nothing(_: *mut c_void) -> c_int {
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
    fn every_lock_of_the_collection_works_in_one_thread() {
        assert!(autolock_shim::nodes::start());
        for source in Source::collection() {
            try_out(&source.open().expect("opens")).expect("works");
        }
    }

    #[test]
    fn a_lock_that_does_not_lock_is_refused() {
        let error = try_out(&busted()).expect_err("trylock of a held mutex succeeded");
        assert!(error.to_string().contains("trylock"), "{error}");
    }

    #[test]
    fn a_missing_library_says_what_to_do() {
        let source = Source::library_named(AUTOLOCK, "/nowhere/libautolock.so");
        let error = source.open().err().expect("no such file").to_string();
        assert!(error.contains("--lib") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_library_without_mutex_functions_is_not_taken_for_a_lock() {
        // Any library that is there with glibc and depends on it.
        let source = Source::library_named("maths", "/lib/x86_64-linux-gnu/libm.so.6");
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
