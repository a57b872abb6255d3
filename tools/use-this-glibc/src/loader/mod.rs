//! How the dynamic loader finds libraries (ld.so(8)), and which symbol versions are asked of them. Reads files, writes none.
//!
//! - [`search`]: one name to one file: run paths with `$ORIGIN`, `$LIB`, `$PLATFORM`; `ld.so.cache`; default directories; hwcaps folders.
//! - [`closure`]: a program and everything that it needs, breadth first as the loader goes.
//! - [`versions`]: each needed version and versioned symbol of the closure against what resolves it.

pub mod closure;
pub mod search;
pub mod versions;
