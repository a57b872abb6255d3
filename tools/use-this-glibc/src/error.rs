//! What can go wrong, with what to do about it, and an exit status.

use std::fmt;

/// Why nothing was written. The text is one line, of a failed check one line a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A check before or after the change failed, and nothing was written: exit status 1.
    Check(String),
    /// Wrong usage: exit status 2.
    Usage(String),
    /// The input is of a kind that is not rewritten, or is damaged: exit status 3.
    Unsupported(String),
    /// A file could not be read or written: exit status 4.
    Io(String),
}

impl Error {
    /// The exit status; 0 is success.
    pub fn status(&self) -> u8 {
        match self {
            Self::Check(_) => 1,
            Self::Usage(_) => 2,
            Self::Unsupported(_) => 3,
            Self::Io(_) => 4,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(line) | Self::Usage(line) | Self::Unsupported(line) | Self::Io(line) => {
                out.write_str(line)
            }
        }
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;
