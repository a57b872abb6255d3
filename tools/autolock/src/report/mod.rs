//! `autolock report`: a capture in tables, files and a page.
//!
//! - [`model`]: what a capture says, in names.
pub mod model;
pub mod outputs;
