//! The socket, and the poll loop that is the daemon's life.
//!
//! A turn's work is bounded: the heartbeat comes first, then at most [`CROWD`] clients. A client costs a message that is sent without waiting;
//! then it is forgotten. Out of descriptors, the daemon gives up its reserve to answer "unsure"; where that fails too it leaves the
//! listeners' queue alone until the next heartbeat.

use std::fs::{self, File, Permissions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use autolock_oncpu::greeting::{Answer, Greeting};
use autolock_oncpu::table::HEARTBEAT_NS;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    getsockopt, listen, sendmsg, socket,
};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{Gid, chown};
use tracing::{debug, info, warn};

use crate::kernel::Keeper;
use crate::peer;

/// How many clients are answered before the loop looks at the clock again.
const CROWD: usize = 64;

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Listens, with nobody let in before mode and group are set. The caller holds the socket's lock: a socket that is there is stale.
    ///
    /// # Errors
    /// Names the path.
    pub fn new(path: &Path, mode: u32, group: Option<Gid>) -> Result<Self> {
        let name = path.display();
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(path).with_context(|| format!("cannot remove the stale {name}"))?;
            }
            Ok(_) => bail!("{name} is there and no socket: remove it, or name another --socket"),
            Err(_) => {}
        }
        let socket = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .context("cannot make a socket")?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)
            .with_context(|| format!("cannot listen at {name}"))?;
        let listener = Self {
            socket,
            path: path.to_owned(),
        };
        // Connections are refused until `listen`.
        fs::set_permissions(path, Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {name}"))?;
        if let Some(group) = group {
            chown(path, None, Some(group)).with_context(|| {
                format!("cannot give {name} to group {group}: as a unit, name it in SupplementaryGroups= too")
            })?;
        }
        listen(&listener.socket, Backlog::MAXCONN)
            .with_context(|| format!("cannot listen at {name}"))?;
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The socket's folder, made where only it is missing.
///
/// # Errors
/// Names the folder.
pub fn make_folder(socket: &Path) -> Result<()> {
    match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            match fs::DirBuilder::new().mode(0o755).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(error).with_context(|| format!("cannot create {}", folder.display()))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Signals that stop the daemon, as a descriptor; from here on they do nothing else.
///
/// # Errors
/// The kernel's.
pub fn stop_signals() -> Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot make a signal descriptor")
}

/// Everything that the loop needs.
#[derive(Debug)]
pub struct Server {
    table: Keeper,
    listener: Listener,
    signals: SignalFd,
    timer: TimerFd,
    /// A descriptor to give up when there are no more.
    reserve: Option<File>,
    /// Whether this heartbeat has warned of what clients can bring about as often as they like.
    warned: bool,
}

impl Server {
    /// # Errors
    /// The kernel's.
    pub fn new(table: Keeper, listener: Listener, signals: SignalFd) -> Result<Self> {
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
        )
        .context("cannot make a timer")?;
        timer.set(
            Expiration::Interval(TimeSpec::from_duration(Duration::from_nanos(HEARTBEAT_NS))),
            TimerSetTimeFlags::empty(),
        )?;
        Ok(Self {
            table,
            listener,
            signals,
            timer,
            reserve: Some(reserve()?),
            warned: false,
        })
    }

    /// Runs until a signal.
    ///
    /// # Errors
    /// The kernel's; not a client's.
    pub fn run(mut self) -> Result<()> {
        let mut accepting = true;
        loop {
            let mut events = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener.socket.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if accepting { 3 } else { 2 };
            match poll(&mut events[..watched], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("poll"),
            }
            let [_, ticked, called] = events.map(|event| event.any().unwrap_or(false));
            if let Some(signal) = self.signals.read_signal().context("signalfd")? {
                info!(signal = signal.ssi_signo, "stopping");
                return Ok(());
            }
            if ticked {
                let _ = self.timer.wait();
                self.table.beat()?;
                self.restock();
                self.warned = false;
                accepting = true;
            }
            if called && accepting {
                accepting = self.answer_crowd();
            }
        }
    }

    /// Answers those who wait, [`CROWD`] at most. Returns whether to listen on before the next heartbeat.
    fn answer_crowd(&mut self) -> bool {
        for _ in 0..CROWD {
            match self.accept() {
                Ok(client) => self.answer(&client),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(error) => {
                    if !self.answer_by_reserve() {
                        self.warn(error, "cannot accept for now");
                        return false;
                    }
                }
            }
        }
        true
    }

    fn accept(&self) -> nix::Result<OwnedFd> {
        let client = accept4(
            self.listener.socket.as_raw_fd(),
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(client) })
    }

    fn warn(&mut self, error: Errno, what: &str) {
        if !self.warned {
            warn!(error = error.desc(), "{what}");
            self.warned = true;
        }
    }

    fn answer(&mut self, client: &OwnedFd) {
        let pid = client_pid(client);
        let answer = peer::answer(pid);
        let sent = match answer {
            Answer::Granted => match send(client, answer, pid, self.table.map().ok()) {
                // Too many descriptors are on their way to clients that do not read.
                Err(Errno::ETOOMANYREFS) => {
                    self.warn(Errno::ETOOMANYREFS, "clients do not read");
                    send(client, Answer::Unsure, pid, None)
                }
                sent => sent,
            },
            Answer::ForeignPidNamespace | Answer::Unsure => send(client, answer, pid, None),
        };
        debug!(pid, ?answer, ?sent, "client");
    }

    /// Without a descriptor left: the reserve makes room for one client, who learns that there is nothing for him.
    fn answer_by_reserve(&mut self) -> bool {
        if self.reserve.take().is_none() {
            return false;
        }
        let answered = match self.accept() {
            Ok(client) => {
                let _ = send(&client, Answer::Unsure, client_pid(&client), None);
                true
            }
            Err(_) => false,
        };
        self.restock();
        answered
    }

    fn restock(&mut self) {
        if self.reserve.is_none() {
            self.reserve = reserve().ok();
        }
    }
}

fn reserve() -> Result<File> {
    File::open("/dev/null").context("cannot open /dev/null")
}

/// In the daemon's PID namespace.
fn client_pid(client: &OwnedFd) -> libc::pid_t {
    getsockopt(client, PeerCredentials).map_or(0, |credentials| credentials.pid())
}

/// Never waits: an unread connection has room for one message.
fn send(
    client: &OwnedFd,
    answer: Answer,
    pid: libc::pid_t,
    map: Option<BorrowedFd<'_>>,
) -> nix::Result<()> {
    let greeting = Greeting::new(answer, pid.unsigned_abs());
    // SAFETY: integers without padding, of this size, alive through the call.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const greeting).cast::<u8>(), size_of::<Greeting>())
    };
    let descriptors = map.map(|map| [map.as_raw_fd()]);
    let rights = descriptors
        .as_ref()
        .map(|descriptors| ControlMessage::ScmRights(descriptors));
    sendmsg::<()>(
        client.as_raw_fd(),
        &[IoSlice::new(bytes)],
        rights.as_slice(),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map(drop)
}
