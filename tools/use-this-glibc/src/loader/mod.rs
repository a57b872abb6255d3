//! How the dynamic loader finds libraries (ld.so(8)), and which symbol versions are asked of them. Reads files, writes none.
//!
//! - [`system`]: one loader: where it searches by itself. Asks it.
//! - [`cache`]: reads `ld.so.cache`.
//! - [`object`]: one file as the loader sees it.
//! - [`search`]: one name to one file: run paths with `$ORIGIN`, `$LIB`, `$PLATFORM`; `ld.so.cache`; default directories; hwcaps folders.
//! - [`closure`]: a program and everything that it needs, breadth first as the loader goes.
//! - [`versions`]: each needed version and versioned symbol of the closure against what resolves it.
//!
//! Not modelled: `LD_LIBRARY_PATH`, `LD_PRELOAD` and `/etc/ld.so.preload`, which may be other ones when the program runs; filters
//! (`DT_FILTER`, `DT_AUXILIARY`); what the program opens itself (`dlopen`).

pub mod cache;
pub mod closure;
pub mod object;
pub mod search;
pub mod system;
pub mod versions;

pub use closure::{Closure, Missing};
pub use object::Object;
pub use system::Loader;
