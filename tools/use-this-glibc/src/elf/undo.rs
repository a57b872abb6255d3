//! The record at the end of a changed file: how long the original was and which of its bytes were overwritten.

use crate::error::Result;

/// The original of a changed file, to the byte (a checksum in the record says so). None: not changed by us.
/// A record that does not fit the file (stripped or edited since) is [`crate::error::Error::Unsupported`].
pub fn original(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let _ = bytes;
    todo!()
}
