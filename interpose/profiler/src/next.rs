//! The next function of a name in the chain, for signals and endings: libc's, or another preload's.
//!
//! Looked up in the constructor; a call that comes earlier looks up itself. Afterwards a load, in signal handlers too.

use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// One function of the next object in the chain.
#[derive(Debug)]
pub struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    /// A function of this name.
    #[must_use]
    pub const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            address: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Its address; null if no object has it.
    // Never inlined into a tail call: `dlsym` takes its caller's address to know which object "next" counts from.
    #[inline(never)]
    pub fn get(&self) -> *mut c_void {
        // Relaxed: every thread that finds null computes the same address.
        let known = self.address.load(Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: a NUL-terminated name.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(found, Relaxed);
        found
    }
}

/// Calls a function of the next object; `$missing` where none has it.
macro_rules! call_next {
    ($next:expr, fn($($type:ty),*) -> $result:ty, $missing:expr, $($argument:expr),*) => {{
        let address = $next.get();
        if address.is_null() {
            $missing
        } else {
            // SAFETY: the next object's function of this name, which has this signature.
            let function = unsafe { core::mem::transmute::<*mut core::ffi::c_void, unsafe extern "C" fn($($type),*) -> $result>(address) };
            // SAFETY: the caller's own arguments.
            unsafe { function($($argument),*) }
        }
    }};
}
pub(crate) use call_next;
