//! `autolockd`: keeps a table of the threads that are on a CPU, by eBPF, and hands it to programs that run on `libautolock.so`.
//!
//! One process, one thread: a timer (heartbeat), a signal descriptor (stop) and a listening socket in one poll loop. A client gets one
//! message and is done; nothing of it is kept and nothing is read from it.
//!
//! | module | what | may touch |
//! |---|---|---|
//! | [`requirements`] | what must hold here before anything is loaded, and the refusals | /proc, /sys to read |
//! | [`kernel`] | the programs and the pinned table: taken over, loaded, attached, written, removed | bpf(2), the BPF file system |
//! | [`mapping`] | the table in a client's memory | mmap |
//! | [`instance`] | that there is one daemon | lock files |
//! | [`server`] | the socket and the poll loop | the socket's folder |
//! | [`peer`] | which PID namespace a client is in | /proc/self/fdinfo |
//! | [`privileges`] | everything given up after loading | capabilities, limits |
//! | [`client`] | the other end: `--status`, and the tests | the socket |
//!
//! What the two ends share stands in `autolock-oncpu`.

pub mod client;
pub mod instance;
pub mod kernel;
pub mod mapping;
pub mod peer;
pub mod privileges;
pub mod requirements;
pub mod server;

/// `CLOCK_MONOTONIC`, nanoseconds: the heartbeat's clock.
#[must_use]
pub fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("every Linux has this clock");
    u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000
        + u64::try_from(now.tv_nsec()).unwrap_or(0)
}
