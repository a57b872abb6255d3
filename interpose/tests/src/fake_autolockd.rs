//! Stands in for `autolockd`: the same socket and the same message, and a table that is a file, in which the test or the program under
//! test writes what it likes. Needs no eBPF and no privilege.

use autolock_oncpu::greeting::{Answer, Greeting};
use autolock_oncpu::table;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recv, sendmsg,
    shutdown, socket_with, sockopt,
};
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the daemon says to whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Grants,
    ForeignPidNamespace,
    Unsure,
    /// Another table, with a descriptor all the same.
    OtherVersion,
    NotAutolockd,
    AnotherPid,
    TooShort,
    TooLong,
    WithoutDescriptor,
    TwoDescriptors,
    /// The file is smaller than a table.
    ShortTable,
    /// The file is none.
    NoTable,
    /// Closes without a word.
    HangsUp,
    /// Accepts, and says nothing while the program runs.
    Silent,
    /// Accepts nobody, and its queue is full.
    Full,
    /// Another kind of socket.
    Stream,
}

/// What stands in the table of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Whatever the program writes.
    AsWritten,
    All(u8),
    /// Even ids run, odd ones do not.
    EveryOther,
    /// Anything, and something else all the time.
    Random,
}

/// Gone when it is dropped.
pub struct FakeAutolockd {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    listener: Arc<OwnedFd>,
    server: Option<JoinHandle<()>>,
    scribe: Option<JoinHandle<()>>,
    /// Connections that fill the queue.
    _queue: Vec<OwnedFd>,
}

struct Shared {
    table: File,
    connections: AtomicU32,
    /// Where the clients' thread ids begin.
    client: AtomicU32,
    over: AtomicBool,
}

impl FakeAutolockd {
    /// Listens. The table beats unless the threads are [`Threads::AsWritten`].
    pub fn new(manner: Manner, threads: Threads) -> Self {
        let folder = must("tempdir", tempfile::tempdir());
        // A program that has become nobody may look.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        must("chmod", std::fs::set_permissions(folder.path(), mode));
        let shared = Arc::new(Shared {
            table: must("table", make_table(&folder.path().join("table"), manner)),
            connections: AtomicU32::new(0),
            client: AtomicU32::new(0),
            over: AtomicBool::new(false),
        });
        let kind = if manner == Manner::Stream {
            SocketType::STREAM
        } else {
            SocketType::SEQPACKET
        };
        let new_socket = || {
            let flags = SocketFlags::CLOEXEC;
            must(
                "socket",
                socket_with(AddressFamily::UNIX, kind, flags, None),
            )
        };
        let listener = Arc::new(new_socket());
        let path = folder.path().join("socket");
        let address = must("address", SocketAddrUnix::new(&path));
        must("bind", bind(&*listener, &address));
        let full = manner == Manner::Full;
        must("listen", listen(&*listener, if full { 0 } else { 64 }));
        let mut queue = Vec::new();
        if full {
            queue.push(new_socket());
            for client in &queue {
                must("connect", connect(client, &address));
            }
        }
        let server = (!full).then(|| {
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            std::thread::spawn(move || serve(&listener, &shared, manner))
        });
        let scribe = (threads != Threads::AsWritten).then(|| {
            let shared = Arc::clone(&shared);
            write_all(&shared.table, threads);
            beat(&shared.table);
            std::thread::spawn(move || scribble(&shared, threads))
        });
        Self {
            folder,
            shared,
            listener,
            server,
            scribe,
            _queue: queue,
        }
    }

    /// For `AUTOLOCK_SOCKET`.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// For a program that writes its own table.
    pub fn table(&self) -> PathBuf {
        self.folder.path().join("table")
    }

    /// How many asked.
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Relaxed)
    }
}

impl Drop for FakeAutolockd {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        // Ends the server's accept.
        let _ = shutdown(&*self.listener, Shutdown::Both);
        for thread in [self.server.take(), self.scribe.take()]
            .into_iter()
            .flatten()
        {
            let _ = thread.join();
        }
    }
}

fn make_table(path: &Path, manner: Manner) -> std::io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    let size = table::SIZE as u64;
    file.set_len(if manner == Manner::ShortTable {
        size - 1
    } else {
        size
    })?;
    if manner != Manner::NoTable {
        file.write_all_at(&table::MAGIC.to_ne_bytes(), 0)?;
        file.write_all_at(&table::VERSION.to_ne_bytes(), 8)?;
    }
    Ok(file)
}

fn beat(table: &File) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let ns = now.tv_sec * 1_000_000_000 + now.tv_nsec;
    must("beat", table.write_all_at(&ns.to_ne_bytes(), 16));
}

fn write_all(table: &File, threads: Threads) {
    let byte = |tid: usize| match threads {
        Threads::All(byte) => byte,
        Threads::EveryOther if tid.is_multiple_of(2) => table::RUNNING,
        Threads::EveryOther => table::NOT_RUNNING,
        _ => table::UNKNOWN,
    };
    let mut bytes = vec![table::UNKNOWN; table::THREADS];
    for tid in 0..table::THREADS {
        bytes[table::place(tid)] = byte(tid);
    }
    let at = table::HEADER_SIZE as u64;
    must("table", table.write_all_at(&bytes, at));
}

const PAGE: usize = 4096;

/// Beats, and changes its mind about the last client's threads.
fn scribble(shared: &Shared, threads: Threads) {
    let mut random = 88_172_645_463_325_252_u64;
    // A thread's place is on the page of its id.
    let mut pages = || -> [u8; 2 * PAGE] {
        std::array::from_fn(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 16 {
                0 => table::UNKNOWN,
                1 => 255,
                2..9 => table::RUNNING,
                _ => table::NOT_RUNNING,
            }
        })
    };
    while !shared.over.load(Relaxed) {
        beat(&shared.table);
        if threads == Threads::Random {
            let client = u64::from(shared.client.load(Relaxed));
            let at = table::HEADER_SIZE as u64 + client - client % PAGE as u64;
            must("table", shared.table.write_all_at(&pages(), at));
        }
        // How often it beats and lies, no synchronisation.
        std::thread::sleep(Duration::from_millis(if threads == Threads::Random {
            1
        } else {
            50
        }));
    }
}

fn serve(listener: &OwnedFd, shared: &Shared, manner: Manner) {
    while let Ok(client) = accept_with(listener, SocketFlags::CLOEXEC) {
        if shared.over.load(Relaxed) {
            return;
        }
        let pid = must("peer", sockopt::socket_peercred(&client)).pid;
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        shared.client.store(pid, Relaxed);
        shared.connections.fetch_add(1, Relaxed);
        answer(&client, manner, pid, shared.table.as_fd());
        if manner == Manner::Silent {
            // Until the client has given up and hung up.
            let _ = recv(&client, &mut [0; 1], RecvFlags::empty());
        }
    }
}

fn answer(client: &OwnedFd, manner: Manner, pid: u32, table: BorrowedFd<'_>) {
    let refusal = match manner {
        Manner::ForeignPidNamespace => Answer::ForeignPidNamespace,
        Manner::Unsure => Answer::Unsure,
        _ => Answer::Granted,
    };
    let mut greeting = Greeting::new(refusal, pid);
    match manner {
        Manner::HangsUp | Manner::Silent => return,
        Manner::OtherVersion => greeting.version += 1,
        Manner::NotAutolockd => greeting.magic ^= 1,
        Manner::AnotherPid => greeting.pid += 1,
        _ => {}
    }
    let mut bytes = [
        &greeting.magic.to_ne_bytes()[..],
        &greeting.version.to_ne_bytes(),
        &greeting.answer.to_ne_bytes(),
        &greeting.size.to_ne_bytes(),
        &greeting.pid.to_ne_bytes(),
        &[0; 4],
    ]
    .concat();
    assert_eq!(bytes.len(), size_of::<Greeting>());
    match manner {
        Manner::TooShort => bytes.truncate(bytes.len() - 1),
        Manner::TooLong => bytes.push(0),
        _ => {}
    }
    let descriptors = [table, table];
    let descriptors = match manner {
        Manner::WithoutDescriptor => &descriptors[..0],
        Manner::TwoDescriptors => &descriptors[..],
        _ => &descriptors[..1],
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    // A client that has gone has its reasons.
    let _ = sendmsg(
        client,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
}

fn must<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("fake autolockd: {what}: {error}"),
    }
}
