//! More threads than CPUs: beside a SCHED_IDLE competitor on each CPU, and all on one CPU. Every thread must get in; nobody
//! says how fast. The lock runs as it is, its spinners keep their CPUs.

use super::exclusion::hammer;
use crate::torture::child::trouble;
use crate::torture::crew::spawn;
use crate::torture::ground::{Ground, Guarded, Phase, work};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Threads of a spinning FIFO lock, at most: with n threads on a CPU a hand-over may take n time slices.
const TURNS: usize = 16;

pub fn run(ground: &Ground) -> Option<String> {
    let guarded = ground.plain();
    let most = if ground.subject.needs_turns() {
        TURNS
    } else {
        usize::MAX
    };
    let threads = ground.threads.clamp(2, most);
    let cpus = allowed_cpus();
    ground.phase(Phase::Competitor);
    let mut passes = beside_competitors(ground, &guarded, threads, cpus.len());
    ground.phase(Phase::OneCpu);
    let chosen = ground.random("cpu").below(cpus.len() as u64) as usize;
    run_only_on(cpus[chosen]);
    passes += hammer_all(ground, &guarded, threads);
    guarded.settle(passes);
    None
}

fn hammer_all(ground: &Ground, guarded: &Guarded, threads: usize) -> u64 {
    let passes = AtomicU64::new(0);
    ground.together(threads, |worker| {
        passes.fetch_add(hammer(guarded, worker, 8), Relaxed);
    });
    passes.into_inner()
}

fn beside_competitors(ground: &Ground, guarded: &Guarded, threads: usize, cpus: usize) -> u64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..cpus {
            spawn(scope, || {
                be_idle();
                while !over.load(Relaxed) {
                    work(1000);
                }
            });
        }
        let passes = hammer_all(ground, guarded, threads);
        over.store(true, Relaxed);
        passes
    })
}

/// Runs when nobody else wants to; where that is forbidden, as everybody.
fn be_idle() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the calling thread, valid parameters. A refusal makes the competitor a stronger one.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

fn allowed_cpus() -> Vec<usize> {
    // SAFETY: all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the calling thread, a set of the size that is said.
    let rc = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if rc != 0 {
        trouble("sched_getaffinity fails: more CPUs than a cpu_set_t has?");
    }
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: within the set.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// This thread and those that it starts from now on.
fn run_only_on(cpu: usize) {
    // SAFETY: all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a CPU of the machine, so within the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the calling thread, a set of the size that is said.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        trouble("sched_setaffinity refuses a CPU that is allowed");
    }
}
