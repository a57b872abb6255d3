//! `autolockd`: keeps a table of the threads that are on a CPU, by eBPF, and hands it to programs that run on `libautolock.so`.

fn main() {}
