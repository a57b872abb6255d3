//! The other end of the socket: what `--status` and the tests use. (`libautolock.so` has its own, without an allocator.)

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use autolock_oncpu::greeting::{Answer, Greeting};
use autolock_oncpu::table::{self, Table};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{PeerCredentials, ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect,
    getsockopt, recvmsg, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use crate::mapping::Mapping;

/// What the daemon sent.
#[derive(Debug)]
pub struct Reply {
    pub greeting: Greeting,
    /// The table, where it is granted.
    pub map: Option<OwnedFd>,
    /// The daemon's process id.
    pub daemon: i32,
}

/// The kernel's error, on the way to a message.
#[derive(Debug)]
pub struct NoReply {
    pub kind: std::io::ErrorKind,
    why: String,
}

impl std::fmt::Display for NoReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for NoReply {}

/// Connects and reads the daemon's message, each within `patience`.
///
/// # Errors
/// One line that says what to do; [`NoReply`] where it is the kernel's.
pub fn ask(path: &Path, patience: Duration) -> Result<Reply> {
    let stream = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let patience = TimeVal::new(
        i64::try_from(patience.as_secs())?,
        i64::from(patience.subsec_micros()),
    );
    setsockopt(&stream, SendTimeout, &patience)?;
    setsockopt(&stream, ReceiveTimeout, &patience)?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?).map_err(|error| explain(error, path))?;

    let mut message = [0_u8; size_of::<Greeting>()];
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(&mut message)];
    let received = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .map_err(|error| explain(error, path))?;
    let mut map = None;
    // The kernel cuts off what it finds no free descriptor for.
    let items = received
        .cmsgs()
        .context("the table did not arrive: this process has no free descriptor (ulimit -n)")?;
    for item in items {
        if let ControlMessageOwned::ScmRights(descriptors) = item {
            for descriptor in descriptors {
                // SAFETY: the kernel has just made this descriptor for us.
                map = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
    if received.bytes != size_of::<Greeting>() {
        bail!(
            "{}: an answer of {} bytes: this is not autolockd",
            path.display(),
            received.bytes
        );
    }
    // SAFETY: as many bytes as it has, in an array of it; integers throughout.
    let greeting = unsafe { message.as_ptr().cast::<Greeting>().read_unaligned() };
    Ok(Reply {
        greeting,
        map,
        daemon: getsockopt(&stream, PeerCredentials)?.pid(),
    })
}

fn explain(error: Errno, path: &Path) -> anyhow::Error {
    let path = path.display();
    let why = match error {
        Errno::ENOENT => format!("no autolockd: {path} is missing (systemctl start autolockd)"),
        Errno::ECONNREFUSED => {
            format!("no autolockd: nobody listens at {path} (systemctl restart autolockd)")
        }
        Errno::EACCES => {
            format!("{path}: this user may not connect: see autolockd's --mode and --group")
        }
        Errno::EAGAIN => {
            format!("autolockd does not answer at {path} (systemctl restart autolockd)")
        }
        _ => format!("{path}: {}", error.desc()),
    };
    NoReply {
        kind: std::io::Error::from(error).kind(),
        why,
    }
    .into()
}

impl Reply {
    /// Maps the table.
    ///
    /// # Errors
    /// The daemon's refusal, in words.
    pub fn table(&self) -> Result<Mapping> {
        let greeting = &self.greeting;
        if greeting.magic != table::MAGIC || greeting.version != table::VERSION {
            bail!(
                "an autolockd of another version answers (table {}, not {}): restart it after the upgrade",
                greeting.version,
                table::VERSION
            );
        }
        if greeting.answer == Answer::ForeignPidNamespace as u32 {
            bail!(
                "refused: this process is in a PID namespace of its own (a container), where thread ids are not the kernel's"
            );
        }
        match &self.map {
            Some(map) if greeting.grants(std::process::id()) => {
                Mapping::new(map).context("cannot map the table")
            }
            _ => bail!(
                "refused: autolockd could not find out who asks, or is short of descriptors; try again"
            ),
        }
    }
}

/// How many threads the table has on a CPU, at one time: those that were while the whole table was read are looked at once more.
#[must_use]
pub fn running(table: &Table) -> usize {
    let is_running = |tid: &i32| table.thread(*tid) == table::RUNNING;
    let candidates: Vec<i32> = (0..table::THREADS)
        .filter_map(|tid| i32::try_from(tid).ok())
        .filter(is_running)
        .collect();
    candidates.iter().filter(|tid| is_running(tid)).count()
}
