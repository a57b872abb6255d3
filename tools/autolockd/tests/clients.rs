//! Clients that ask too much: crowds, clients that never read, a daemon out of descriptors.
//!
//! Needs root and BPF; says `SKIPPED` where it cannot run.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use autolock_oncpu::greeting::Answer;
use autolock_oncpu::table;
use autolockd::client;
use aya::maps::{Array, MapData};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use support::{Daemon, Place, eventually};

fn answer(socket: &Path) -> u32 {
    client::ask(socket, Duration::from_secs(10))
        .unwrap_or_else(|error| panic!("{error:#}"))
        .greeting
        .answer
}

/// Connects and never reads.
fn mute(path: &Path) -> OwnedFd {
    let client = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    connect(
        client.as_raw_fd(),
        &UnixAddr::new(path).expect("a short path"),
    )
    .expect("the daemon listens");
    client
}

/// Sets the daemon's limit of descriptors; returns the old one.
fn limit(daemon: &Daemon, soft: libc::rlim_t) -> libc::rlim_t {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: room for the answer; nothing is set.
    let read = unsafe {
        libc::prlimit(
            daemon.id(),
            libc::RLIMIT_NOFILE,
            std::ptr::null(),
            &raw mut old,
        )
    };
    assert_eq!(read, 0);
    let new = libc::rlimit {
        rlim_cur: soft,
        rlim_max: old.rlim_max,
    };
    // SAFETY: a limit to read; no answer is wanted.
    let set = unsafe {
        libc::prlimit(
            daemon.id(),
            libc::RLIMIT_NOFILE,
            &raw const new,
            std::ptr::null_mut(),
        )
    };
    assert_eq!(set, 0);
    old.rlim_cur
}

/// The number that the daemon's next descriptor would have, once it is done with every client.
fn next_descriptor(daemon: &Daemon) -> u64 {
    let mut open = BTreeMap::new();
    eventually("its only socket listens", || {
        open = descriptors(daemon);
        let sockets = open.values().filter(|what| what.starts_with("socket:"));
        sockets.count() == 1
    });
    (0..)
        .find(|number| !open.contains_key(number))
        .expect("not all are open")
}

/// The daemon's descriptors, and what they are.
fn descriptors(daemon: &Daemon) -> BTreeMap<u64, String> {
    fs::read_dir(format!("/proc/{}/fd", daemon.id()))
        .expect("it runs")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let what = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, what.to_string_lossy().into_owned()))
        })
        .collect()
}

/// Maps `map` as a client might try to, and then wants to write.
fn map_to_write(map: impl AsFd, at_once: bool) -> nix::Result<()> {
    let size = NonZeroUsize::new(table::SIZE).expect("the table is not empty");
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let first = if at_once { both } else { ProtFlags::PROT_READ };
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let memory = unsafe { mmap(None, size, first, MapFlags::MAP_SHARED, map, 0) }?;
    // SAFETY: the mapping that was just made.
    let changed = unsafe { mprotect(memory, table::SIZE, both) };
    // SAFETY: the same; nobody uses it.
    unsafe { munmap(memory, table::SIZE) }?;
    changed
}

/// Not even as root: the map is frozen. A map that is not shows that there is something to refuse.
#[test]
fn nobody_maps_the_table_to_write() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let reply = client::ask(place.socket(), Duration::from_secs(10)).expect("it answers");
    let map = reply.map.expect("granted");
    assert_eq!(map_to_write(&map, true), Err(Errno::EPERM));
    assert_eq!(map_to_write(&map, false), Err(Errno::EACCES));
    drop(daemon);

    let thawed = Array::<_, [u8; table::SIZE]>::create(1, 1 << 10).expect("a map");
    let path = place.bpffs().join("thawed");
    thawed.pin(&path).expect("it can be pinned");
    let thawed = MapData::from_pin(&path).expect("it is pinned");
    assert_eq!(map_to_write(thawed.fd(), true), Ok(()));
}

#[test]
fn thousands_of_clients_that_never_read_harm_nobody() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = client::ask(place.socket(), Duration::from_secs(10))
        .and_then(|reply| reply.table())
        .expect("granted");
    let crowd: Vec<OwnedFd> = (0..2000).map(|_| mute(place.socket())).collect();
    assert_eq!(answer(place.socket()), Answer::Granted as u32);
    let heartbeat = table.heartbeat.load(Relaxed);
    eventually("it beats on", || table.heartbeat.load(Relaxed) > heartbeat);
    drop(crowd);
    assert_eq!(daemon.stop().code(), Some(0));
}

/// The kernel bounds how many descriptors a user may have on their way.
#[test]
fn where_no_more_descriptors_may_be_sent_clients_are_told() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let before = limit(&daemon, 64);
    let crowd: Vec<OwnedFd> = (0..200).map(|_| mute(place.socket())).collect();
    assert_eq!(answer(place.socket()), Answer::Unsure as u32);
    drop(crowd);
    eventually("it grants again", || {
        answer(place.socket()) == Answer::Granted as u32
    });
    limit(&daemon, before);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn out_of_descriptors_it_says_so_and_recovers() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let table = client::ask(place.socket(), Duration::from_secs(10))
        .and_then(|reply| reply.table())
        .expect("granted");
    let before = limit(&daemon, next_descriptor(&daemon));
    for _ in 0..100 {
        assert_eq!(answer(place.socket()), Answer::Unsure as u32);
    }
    let heartbeat = table.heartbeat.load(Relaxed);
    eventually("it beats on", || table.heartbeat.load(Relaxed) > heartbeat);
    limit(&daemon, before);
    assert_eq!(answer(place.socket()), Answer::Granted as u32);
    assert_eq!(daemon.stop().code(), Some(0));
}
