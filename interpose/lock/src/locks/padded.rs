//! A value alone on its cache lines.

/// On a pair of cache lines of its own: the prefetcher fetches pairs.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Padded<T>(pub(super) T);
