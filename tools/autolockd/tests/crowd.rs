//! Crowds of clients of every kind at once: hasty, slow, rude, short of descriptors; and a daemon that is killed or stopped under them.
//!
//! No client waits for longer than it has said, and the daemon goes on. Needs root and BPF; says `SKIPPED` where it cannot run.

mod support;

use std::env;
use std::fs;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::thread;
use std::time::Duration;

use autolock_oncpu::greeting::{Answer, Greeting, PATIENCE_MS};
use autolock_oncpu::table::{self, Table};
use autolockd::client::{self, NoReply, Reply};
use autolockd::mapping::Mapping;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    socket,
};
use support::{Daemon, Place, eventually};

/// What a client that must be served waits.
const PATIENT: Duration = support::DEADLINE;
/// What `libautolock.so` waits.
const HASTY: Duration = Duration::from_millis(PATIENCE_MS.unsigned_abs() as u64);

const SOCKET: &str = "AUTOLOCKD_TEST_SOCKET";

fn ask(place: &Path, patience: Duration) -> anyhow::Result<Reply> {
    client::ask(place, patience)
}

fn table_of(place: &Place) -> Mapping {
    ask(place.socket(), PATIENT)
        .and_then(|reply| reply.table())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", place.log()))
}

/// Connects; never waits. An error where the daemon's queue is full.
fn connected(path: &Path) -> nix::Result<OwnedFd> {
    let client = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    connect(
        client.as_raw_fd(),
        &UnixAddr::new(path).expect("a short path"),
    )?;
    Ok(client)
}

/// As [`connected`], again while the queue is full.
fn connected_at_last(path: &Path) -> OwnedFd {
    let mut client = None;
    eventually("the daemon has room", || match connected(path) {
        Ok(connected) => {
            client = Some(connected);
            true
        }
        Err(Errno::EAGAIN) => false,
        Err(error) => panic!("{error}"),
    });
    client.expect("it has just been made")
}

/// The message's length, once there is one.
fn receive(client: &OwnedFd) -> usize {
    let mut events = [PollFd::new(
        std::os::fd::AsFd::as_fd(client),
        PollFlags::POLLIN,
    )];
    let limit = PollTimeout::try_from(PATIENT).expect("not too long");
    assert_eq!(poll(&mut events, limit), Ok(1), "the daemon answers");
    let read = || recv(client.as_raw_fd(), &mut [0; 256], MsgFlags::empty());
    // Who has sent what the daemon did not read is told of that first.
    read()
        .or_else(|error| match error {
            Errno::ECONNRESET => read(),
            error => Err(error),
        })
        .expect("a message")
}

/// Sends what nobody asked for, with descriptors, until there is no more room.
fn be_rude(client: &OwnedFd) {
    let gift = [client.as_raw_fd(); 4];
    let rights = [ControlMessage::ScmRights(&gift)];
    for length in [1, size_of::<Greeting>(), 4096, 100_000] {
        let message = vec![0xFF; length];
        // Refused as soon as the daemon has closed its end.
        let _ = sendmsg::<()>(
            client.as_raw_fd(),
            &[IoSlice::new(&message)],
            &rights,
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            None,
        );
    }
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.id()))
        .expect("it runs")
        .count()
}

fn assert_it_goes_on(place: &Place, table: &Table) {
    let heartbeat = table.heartbeat.load(Relaxed);
    eventually("it beats on", || table.heartbeat.load(Relaxed) > heartbeat);
    let reply = ask(place.socket(), PATIENT).expect("it answers");
    assert_eq!(reply.greeting.answer, Answer::Granted as u32);
}

#[test]
fn thousands_of_every_kind_at_once_are_served() {
    const THREADS: usize = 16;
    const TURNS: usize = 60;
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    let before = descriptors(&daemon);
    let granted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut slow = Vec::new();
                for _ in 0..TURNS {
                    // Gone before the daemon looks.
                    drop(connected_at_last(place.socket()));
                    slow.push(connected_at_last(place.socket()));
                    let rude = connected_at_last(place.socket());
                    be_rude(&rude);
                    slow.push(rude);
                    let reply = ask(place.socket(), PATIENT).expect("it answers");
                    assert_eq!(reply.greeting.answer, Answer::Granted as u32);
                    reply.table().expect("granted");
                    granted.fetch_add(1, Relaxed);
                }
                // Who reads late finds the message, though its daemon has long closed.
                for client in slow {
                    assert_eq!(receive(&client), size_of::<Greeting>());
                }
            });
        }
    });
    assert_eq!(granted.load(Relaxed), THREADS * TURNS);
    assert_it_goes_on(&place, &table);
    // The first client's may have been open still.
    eventually("nothing of them is left", || descriptors(&daemon) <= before);
    assert_eq!(daemon.stop().code(), Some(0), "{}", place.log());
}

/// A client that came before the kill has the message and the table; the next daemon brings it to life.
#[test]
fn who_reads_after_the_daemons_death_has_a_table_that_comes_to_life() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let slow = connected(place.socket()).expect("the daemon listens");
    // The daemon takes clients in turn: the slow one has been answered.
    let table = table_of(&place);
    daemon.kill();
    assert_eq!(receive(&slow), size_of::<Greeting>());
    eventually("it is stale", || !table.is_fresh(autolockd::now_ns()));
    let daemon = place.start();
    assert!(table.is_fresh(autolockd::now_ns()));
    assert_it_goes_on(&place, &table);
    daemon.stop();
}

/// What clients may be told while daemons come and go; another error fails the test.
fn is_expected(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NoReply>().is_some_and(|error| {
        matches!(
            error.kind,
            // No socket, nobody behind it, killed before or while answering, too busy.
            ErrorKind::NotFound
                | ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::WouldBlock
        )
    }) || error.to_string().contains("an answer of 0 bytes")
}

#[test]
fn killed_under_load_it_leaves_no_client_waiting_and_the_next_one_serves() {
    const ROUNDS: usize = 5;
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    let over = AtomicBool::new(false);
    let (granted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let daemon = thread::scope(|scope| {
        let mut daemon = daemon;
        let _finish = Finally(|| over.store(true, Release));
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Acquire) {
                    drop(connected(place.socket()));
                    match ask(place.socket(), HASTY) {
                        Ok(_) => granted.fetch_add(1, Relaxed),
                        Err(error) => {
                            assert!(is_expected(&error), "{error:#}");
                            refused.fetch_add(1, Relaxed)
                        }
                    };
                }
            });
        }
        for _ in 0..ROUNDS {
            let then = granted.load(Relaxed);
            eventually("they are served", || granted.load(Relaxed) > then + 100);
            daemon.kill();
            let then = refused.load(Relaxed);
            eventually("nobody hangs", || refused.load(Relaxed) > then + 100);
            daemon = place.start();
        }
        let then = granted.load(Relaxed);
        eventually("they are served again", || {
            granted.load(Relaxed) > then + 100
        });
        daemon
    });
    println!(
        "{} served, {} told that there is nobody",
        granted.load(Relaxed),
        refused.load(Relaxed)
    );
    // The same table all the while.
    assert!(table.is_fresh(autolockd::now_ns()));
    assert_it_goes_on(&place, &table);
    assert_eq!(daemon.stop().code(), Some(0), "{}", place.log());
}

/// Stopped, it lets its queue fill up: who comes then waits as long as he has said, and is told.
#[test]
fn a_daemon_that_does_not_run_makes_nobody_wait() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    daemon.signal(libc::SIGSTOP);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("it may be raised");
    let mut queue = Vec::new();
    let most: usize = fs::read_to_string("/proc/sys/net/core/somaxconn")
        .expect("/proc is mounted")
        .trim()
        .parse()
        .expect("a number");
    // One more than the limit fits; a signal takes its time.
    while queue.len() <= most {
        match connected(place.socket()) {
            Ok(client) => queue.push(client),
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN);
                break;
            }
        }
    }
    for _ in 0..10 {
        let error = ask(place.socket(), HASTY).expect_err("nobody answers");
        assert!(is_expected(&error), "{error:#}");
    }
    daemon.signal(libc::SIGCONT);
    assert_it_goes_on(&place, &table);
    for client in &queue {
        assert_eq!(receive(client), size_of::<Greeting>());
    }
    drop(queue);
    assert_eq!(daemon.stop().code(), Some(0), "{}", place.log());
}

/// Not a test by itself: a client without a descriptor to spare, in a process of its own.
#[test]
#[ignore = "another test runs it"]
fn client_out_of_descriptors() {
    let Some(path) = env::var_os(SOCKET).map(PathBuf::from) else {
        return;
    };
    let slow = connected(&path).expect("the daemon listens");
    assert_eq!(
        ask(&path, PATIENT).expect("it answers").greeting.answer,
        Answer::Granted as u32
    );
    // One socket more, and nothing for what comes by it.
    let next = slow.as_raw_fd() + 1;
    let limit = libc::rlimit {
        rlim_cur: libc::rlim_t::try_from(next + 1).expect("a number"),
        rlim_max: libc::rlim_t::try_from(next + 1).expect("a number"),
    };
    // SAFETY: a limit to read.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0);
    let error = ask(&path, PATIENT).expect_err("there is no room for the table");
    assert_eq!(error.downcast_ref(), Some(&Errno::ENOBUFS), "{error:#}");
}

#[test]
fn a_client_without_room_for_the_table_gets_none() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    let output = Command::new(env::current_exe().expect("/proc is mounted"))
        .args(["client_out_of_descriptors", "--exact", "--ignored"])
        .arg("--test-threads=1")
        .env(SOCKET, place.socket())
        .output()
        .expect("this test starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_it_goes_on(&place, &table);
    daemon.stop();
}

/// The daemon's descriptors run out again and again while clients come: each gets an answer.
#[test]
fn descriptor_exhaustion_under_load_leaves_nobody_without_an_answer() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = table_of(&place);
    let limits = |soft: libc::rlim_t| {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let none = std::ptr::null();
        // SAFETY: room for the answer; nothing is set.
        unsafe { libc::prlimit(daemon.id(), libc::RLIMIT_NOFILE, none, &raw mut limit) };
        limit.rlim_cur = soft.min(limit.rlim_max);
        let nothing = std::ptr::null_mut();
        // SAFETY: a limit to read; no answer is wanted.
        let set =
            unsafe { libc::prlimit(daemon.id(), libc::RLIMIT_NOFILE, &raw const limit, nothing) };
        assert_eq!(set, 0);
    };
    let open = libc::rlim_t::try_from(descriptors(&daemon)).expect("few");
    let over = AtomicBool::new(false);
    let (granted, unsure) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _finish = Finally(|| over.store(true, Release));
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Acquire) {
                    let reply = ask(place.socket(), PATIENT).expect("it answers");
                    match reply.greeting.answer {
                        answer if answer == Answer::Granted as u32 => &granted,
                        answer if answer == Answer::Unsure as u32 => &unsure,
                        answer => panic!("answer {answer}"),
                    }
                    .fetch_add(1, Relaxed);
                }
            });
        }
        for _ in 0..5 {
            limits(open);
            let then = unsure.load(Relaxed);
            eventually("they are told", || unsure.load(Relaxed) > then + 20);
            limits(libc::rlim_t::MAX);
            let then = granted.load(Relaxed);
            eventually("they are served", || granted.load(Relaxed) > then + 20);
        }
    });
    assert_it_goes_on(&place, &table);
    assert!(table.is_fresh(autolockd::now_ns()));
    assert_eq!(table.magic.load(Relaxed), table::MAGIC);
    assert_eq!(daemon.stop().code(), Some(0), "{}", place.log());
}

/// Lets threads go that a failed test would wait for.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
