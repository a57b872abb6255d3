//! A daemon that says what it is told to say, by the socket that the real one has.

use std::fs::File;
use std::io::IoSlice;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use autolock_oncpu::greeting::{Answer, Greeting};
use autolock_oncpu::table::{self, Table};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr,
    accept, bind, getsockopt, listen, sendmsg, shutdown, socket,
};
use nix::time::{ClockId, clock_gettime};

/// What it does with each client.
#[derive(Clone, Copy)]
pub enum Says {
    /// Gives the table: each thread's byte, and how much older than now its heartbeat is, or none.
    Table {
        byte: u8,
        age_ns: Option<i64>,
    },
    Answer(Answer),
    Version(u32),
    Bytes(&'static [u8]),
    Nothing,
}

/// As the real one.
pub const KEEPS: Says = Says::Table {
    byte: table::RUNNING,
    // A heartbeat may be ahead: the test machine has longer to be slow.
    age_ns: Some(-500_000_000),
};

pub struct Fake {
    socket: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// A socket that is bound, and no more: what a killed daemon leaves.
pub fn bound(path: &Path) -> OwnedFd {
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    let address = UnixAddr::new(path).expect("short enough");
    bind(socket.as_raw_fd(), &address).expect("bound");
    socket
}

impl Fake {
    pub fn start(path: &Path, says: Says) -> Self {
        let socket = Arc::new(bound(path));
        listen(&socket, Backlog::MAXCONN).expect("listens");
        let thread = std::thread::spawn({
            let socket = Arc::clone(&socket);
            move || {
                let mut silent = Vec::new();
                // Until `drop` shuts the socket down.
                while let Ok(client) = accept(socket.as_raw_fd()) {
                    // SAFETY: the kernel has just made this descriptor for us.
                    let client = unsafe { OwnedFd::from_raw_fd(client) };
                    answer(&client, says);
                    if matches!(says, Says::Nothing) {
                        silent.push(client);
                    }
                }
            }
        });
        Self {
            socket,
            thread: Some(thread),
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(client: &OwnedFd, says: Says) {
    let pid = getsockopt(client, PeerCredentials).expect("known").pid();
    let greeting = |answer| Greeting::new(answer, pid.unsigned_abs());
    match says {
        Says::Table { byte, age_ns } => {
            send(
                client,
                &bytes(greeting(Answer::Granted)),
                Some(table(byte, age_ns)),
            );
        }
        Says::Answer(answer) => send(client, &bytes(greeting(answer)), None),
        Says::Version(version) => {
            let mut greeting = greeting(Answer::Granted);
            greeting.version = version;
            send(client, &bytes(greeting), None);
        }
        Says::Bytes(bytes) => send(client, bytes, None),
        Says::Nothing => {}
    }
}

fn bytes(greeting: Greeting) -> [u8; size_of::<Greeting>()] {
    // SAFETY: integers without padding, of this size.
    unsafe { std::mem::transmute(greeting) }
}

fn table(byte: u8, age_ns: Option<i64>) -> File {
    let file = File::from(memfd_create(c"table", MFdFlags::MFD_CLOEXEC).expect("a file"));
    file.set_len(table::SIZE as u64).expect("of this size");
    let store = |offset: usize, bytes: &[u8]| {
        file.write_all_at(bytes, offset as u64).expect("written");
    };
    store(offset_of!(Table, threads), &vec![byte; table::THREADS]);
    if let Some(age) = age_ns {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
        let heartbeat = now.tv_sec() * 1_000_000_000 + now.tv_nsec() - age;
        store(offset_of!(Table, heartbeat), &heartbeat.to_ne_bytes());
    }
    file
}

fn send(client: &OwnedFd, bytes: &[u8], file: Option<File>) {
    let descriptors = file.as_ref().map(|file| [file.as_raw_fd()]);
    let rights = descriptors
        .as_ref()
        .map(|descriptors| ControlMessage::ScmRights(descriptors));
    sendmsg::<()>(
        client.as_raw_fd(),
        &[IoSlice::new(bytes)],
        rights.as_slice(),
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .expect("sent");
}
