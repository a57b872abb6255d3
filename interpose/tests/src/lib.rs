//! Helpers for the tests beside it.
