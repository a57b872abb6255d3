//! ELF files as bytes: what the dynamic loader reads of them, and the one change that we make.
//!
//! Works from the program headers and the dynamic section alone, as the kernel and the dynamic loader do: a file without
//! section headers is as good as any. Touches no file and never panics, whatever the bytes.
//!
//! - [`image`]: reading: headers and dynamic section.
//! - [`symbols`]: reading: symbols and their versions.
//! - [`edit`]: interpreter, run path and needed libraries changed, by one more `PT_LOAD` at the end of the file.
//! - `segment`: that `PT_LOAD`: what is in it, where it goes, what points there.
//! - [`undo`]: the record at the end of a changed file, by which the original comes back to the byte.

pub mod edit;
pub mod image;
mod segment;
pub mod symbols;
pub mod undo;

pub use edit::{Change, RunPath, apply};
pub use image::{Image, Kind};
pub use symbols::{NeededVersion, Symbol};
