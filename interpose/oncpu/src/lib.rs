//! What `autolockd` and `libautolock.so` share: the table of threads on a CPU, and the message that hands its descriptor over.
//!
//! - [`table`]: the memory that the eBPF program writes and every client maps read-only.
//! - [`greeting`]: the one message of the socket.
//!
//! `no_std`, no system calls: layouts, constants and pure functions. `tools/autolockd/bpf/oncpu.bpf.c` is compiled for these numbers.
#![cfg_attr(not(test), no_std)]

pub mod greeting;
pub mod table;
