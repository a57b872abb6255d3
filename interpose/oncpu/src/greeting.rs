//! The one message of the socket (`SOCK_SEQPACKET`): the daemon sends it to whoever connects, with the table's descriptor (`SCM_RIGHTS`)
//! if it agrees, and closes. The table's map is frozen: by this descriptor it can be mapped to read (`PROT_READ`, `MAP_SHARED`), and nothing else. It reads nothing, so that no client can say anything wrong.

use crate::table;

/// Where the daemon listens.
pub const SOCKET: &str = "/run/autolock/autolockd.sock";
/// The longest that a client waits for the message, in milliseconds.
pub const PATIENCE_MS: i32 = 50;

/// The daemon's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Answer {
    /// The descriptor is with this message.
    Granted = 0,
    /// The client is in another PID namespace: its thread ids are not the kernel's.
    ForeignPidNamespace = 1,
    /// The daemon could not find out.
    Unsure = 2,
}

/// The message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Greeting {
    /// [`table::MAGIC`].
    pub magic: u64,
    /// [`table::VERSION`] of the daemon.
    pub version: u32,
    /// An [`Answer`].
    pub answer: u32,
    /// [`table::SIZE`]: what to map.
    pub size: u64,
    /// The client's process id as the daemon sees it (`SO_PEERCRED`): not the client's own in a foreign PID namespace.
    pub pid: u32,
    _reserved: u32,
}

impl Greeting {
    #[must_use]
    pub fn new(answer: Answer, pid: u32) -> Self {
        Self {
            magic: table::MAGIC,
            version: table::VERSION,
            answer: answer as u32,
            size: table::SIZE as u64,
            pid,
            _reserved: 0,
        }
    }

    /// Whether a client of this version, with this process id, may map the descriptor that came along.
    #[must_use]
    pub fn grants(&self, pid: u32) -> bool {
        *self == Self::new(Answer::Granted, pid)
    }
}
