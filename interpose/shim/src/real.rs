//! The next symbol in the chain, for what we delegate: robust, priority-inheriting, priority-protecting and destroyed mutexes.
//!
//! All are looked up in the constructor. A call that comes earlier looks its symbol up itself; only delegated kinds and
//! attributes ever need one, so a `dlsym` that locks, or that allocates with a malloc that locks, finds the handled kinds working.

use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// One function of the next object in the chain.
#[derive(Debug)]
pub struct Next {
    name: &'static CStr,
    /// The version to ask for, where the one without a version would be an old one; falls back on any.
    version: Option<&'static CStr>,
    address: AtomicPtr<c_void>,
}

impl Next {
    /// The function of this name, not looked up yet; of this version, where one without would be an old one.
    #[must_use]
    pub const fn new(name: &'static CStr, version: Option<&'static CStr>) -> Self {
        Self {
            name,
            version,
            address: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// The function's address; null if no object has it.
    #[inline]
    #[must_use]
    pub fn get(&self) -> *mut c_void {
        // Relaxed: every thread that finds null computes the same address.
        let known = self.address.load(Relaxed);
        if known.is_null() { self.find() } else { known }
    }

    /// From here on it is this one.
    pub fn set(&self, address: *mut c_void) {
        self.address.store(address, Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn find(&self) -> *mut c_void {
        let found = match self.version {
            Some(version) => newest(self.name, version),
            None => symbol(self.name),
        };
        self.address.store(found, Relaxed);
        found
    }
}

/// Looks a symbol up behind this object in the search order.
///
/// Never inlined into a tail call: `dlsym` takes its caller's address to know which object "next" counts from.
#[inline(never)]
#[must_use]
pub fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: a NUL-terminated name; dlsym has no other requirement.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    core::hint::black_box(found)
}

/// The same, where `version` is not libc's oldest: another preload's function has no version and counts for all, but is passed over by a search for one.
fn newest(name: &CStr, version: &CStr) -> *mut c_void {
    let any = symbol(name);
    let of_version = versioned(name, version);
    if of_version.is_null() || object_of(any) != object_of(of_version) {
        any
    } else {
        of_version
    }
}

/// The address at which the object of a function is loaded; null if that is unknown.
fn object_of(function: *mut c_void) -> *mut c_void {
    let mut found = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: any address will do, and there is room for the answer.
    if unsafe { libc::dladdr(function, found.as_mut_ptr()) } == 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: filled in.
    unsafe { found.assume_init() }.dli_fbase
}

/// The next function of one version.
#[inline(never)]
fn versioned(name: &CStr, version: &CStr) -> *mut c_void {
    // SAFETY: two NUL-terminated strings.
    let found = unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), version.as_ptr()) };
    core::hint::black_box(found)
}

/// A list of functions of the next object, `NAME = c"symbol";` or `NAME = c"symbol" @ c"VERSION";`, and `start`, which looks them all up.
#[macro_export]
macro_rules! next {
    (@version) => { None };
    (@version $version:literal) => { Some($version) };
    ($($name:ident = $symbol:literal $(@ $version:literal)?;)*) => {
        $(#[doc = concat!("`", stringify!($symbol), "`")] pub static $name: $crate::real::Next = $crate::real::Next::new($symbol, $crate::next!(@version $($version)?));)*
        /// Looks all of them up. Called once, from the preload's constructor.
        pub fn start() {
            $(let _ = $name.get();)*
        }
    };
}

next! {
    INIT = c"pthread_mutex_init";
    DESTROY = c"pthread_mutex_destroy";
    LOCK = c"pthread_mutex_lock";
    TRYLOCK = c"pthread_mutex_trylock";
    TIMEDLOCK = c"pthread_mutex_timedlock";
    CLOCKLOCK = c"pthread_mutex_clocklock";
    UNLOCK = c"pthread_mutex_unlock";
    CONSISTENT = c"pthread_mutex_consistent";
    GETPRIOCEILING = c"pthread_mutex_getprioceiling";
    SETPRIOCEILING = c"pthread_mutex_setprioceiling";
    // Since glibc 2.3.2 a condition variable is the object itself; x86-64 programs older than that do not exist.
    COND_WAIT = c"pthread_cond_wait" @ c"GLIBC_2.3.2";
    COND_TIMEDWAIT = c"pthread_cond_timedwait" @ c"GLIBC_2.3.2";
    COND_CLOCKWAIT = c"pthread_cond_clockwait";
    CND_WAIT = c"cnd_wait";
    CND_TIMEDWAIT = c"cnd_timedwait";
}

/// Calls a function of glibc's on an object that is glibc's.
macro_rules! delegate {
    ($next:ident, fn($($type:ty),*), $($argument:expr),*) => {{
        $crate::stats::note_delegated();
        let address = $crate::real::$next.get();
        if address.is_null() {
            libc::EINVAL
        } else {
            // SAFETY: the next object's function of this name, which has this signature.
            let function = unsafe { core::mem::transmute::<*mut core::ffi::c_void, unsafe extern "C" fn($($type),*) -> core::ffi::c_int>(address) };
            // SAFETY: the caller's own arguments.
            unsafe { function($($argument),*) }
        }
    }};
}
pub(crate) use delegate;
