//! One name to one file.
