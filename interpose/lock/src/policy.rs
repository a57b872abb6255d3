//! How an attendant waits: how often it looks, when it takes a free mutex, when it gives up.
use autolock_abi::{
    sync::Ordering::{Acquire, Relaxed},
    word::{ATTENDED, CONTENDED, HUNGRY, UNLOCKED, acquired},
};

use crate::{
    Mutex,
    contended::{Waiter, try_acquire},
    oncpu::{HolderState, OnCpu},
    platform::Platform,
    seat,
};

/// How an attendant's spinning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// It holds the mutex.
    Acquired,
    /// A woken waiter has taken the seat.
    Evicted,
    /// Spinning is not worth it: sleep.
    Sleep,
    /// The deadline passed.
    TimedOut,
}

const PATIENCE_NS: u64 = 2_000;
const LONG_PATIENCE_NS: u64 = 50_000;
const NEWCOMER_NS: u64 = 4_000;
const SLICE_NS: u64 = 200_000;
const SHARE_SLICE_NS: u64 = 200_000;
const POLL_NS: u64 = 2_000;
const PROBE_POLL_NS: u64 = 1_200;
const CONFIRM_NS: u64 = 150;
const HANDOVER_NS: u64 = 290;

fn delay<P: Platform>(ns: u64) -> u64 {
    let start = P::now_ns();
    loop {
        P::pause();
        let now = P::now_ns();
        if now.wrapping_sub(start) >= ns {
            return now;
        }
    }
}

/// After a release that a hungry attendant asked for.
pub(crate) fn step_back<P: Platform>() {
    delay::<P>(1000);
}

/// Spins a little on a process-shared mutex.
pub(crate) fn spin_shared<P: Platform>(mutex: &Mutex, waiter: &Waiter<'_>) -> bool {
    for _ in 0..30 {
        if try_acquire(mutex, waiter.duty) {
            return true;
        }
        P::pause();
    }
    false
}

/// Spins a little while somebody else attends.
pub(crate) fn spin_as_newcomer<P: Platform>(mutex: &Mutex, waiter: &Waiter<'_>) -> bool {
    if mutex.policy.load(Relaxed) & 1 != 0 {
        return false;
    }
    let my_cpu = P::cpu();
    let start = P::now_ns();
    loop {
        for _ in 0..8 {
            if try_acquire(mutex, waiter.duty) {
                return true;
            }
            P::pause();
        }
        if P::now_ns().wrapping_sub(start) > NEWCOMER_NS
            || P::OnCpu::holder(mutex, my_cpu) == HolderState::NotRunning
        {
            return false;
        }
    }
}

/// Waits as the attendant.
pub(crate) fn spin_as_attendant<P: Platform>(mutex: &Mutex, waiter: &mut Waiter<'_>) -> Advice {
    let policy = mutex.policy.load(Relaxed);
    let streak = policy & 1 != 0;
    let probe_level = (policy >> 1) & 7;
    let every = policy >> 4;
    let mut probing = false;
    if !streak {
        if every == 0 {
            probing = true;
        } else {
            mutex.policy.store(policy - 16, Relaxed);
        }
    }
    let my_cpu = P::cpu();
    let start = P::now_ns();
    let mut now = start;
    let seq0 = mutex.seq.load(Relaxed);
    let (mut polls, mut free) = (0u64, 0u64);
    let mut moved_at = start;
    let mut seq_seen = seq0;
    let mut moved = false;
    loop {
        let v = mutex.word.load(Relaxed);
        let elapsed = now.wrapping_sub(start);
        polls += 1;
        if v == UNLOCKED {
            free += 1;
            let mut take = true;
            if probing && polls < 8 {
                take = false;
            } else if streak && elapsed < SLICE_NS {
                let q = mutex.seq.load(Relaxed);
                delay::<P>(CONFIRM_NS);
                if mutex.word.load(Relaxed) != UNLOCKED || mutex.seq.load(Relaxed) != q {
                    take = false;
                }
            }
            if take {
                if mutex
                    .word
                    .compare_exchange(UNLOCKED, acquired(waiter.duty), Acquire, Relaxed)
                    .is_ok()
                {
                    break;
                }
                continue;
            }
        } else if v == CONTENDED {
            if mutex
                .word
                .compare_exchange(CONTENDED, ATTENDED, Relaxed, Relaxed)
                .is_ok()
            {
                waiter.duty = true;
            }
        } else if v != HUNGRY && elapsed > SLICE_NS + 3_000 && moved {
            _ = mutex.word.compare_exchange(v, HUNGRY, Relaxed, Relaxed);
        }
        if !seat::is_mine(mutex, waiter.me) {
            return Advice::Evicted;
        }
        let q = mutex.seq.load(Relaxed);
        if q != seq_seen {
            seq_seen = q;
            moved_at = now;
            moved = true;
        }
        if polls % 8 == 0 || streak || probing {
            if P::OnCpu::holder(mutex, my_cpu) == HolderState::NotRunning {
                return Advice::Sleep;
            }
            if now.wrapping_sub(moved_at) > (if moved { LONG_PATIENCE_NS } else { PATIENCE_NS }) {
                return Advice::Sleep;
            }
            if let Some(d) = waiter.deadline
                && P::expired(d)
            {
                return Advice::TimedOut;
            }
        }
        if probing {
            now = delay::<P>(PROBE_POLL_NS);
        } else if streak && elapsed < SLICE_NS {
            now = delay::<P>(POLL_NS);
        } else {
            P::pause();
            if polls % 8 == 7 {
                now = P::now_ns();
            }
        }
    }
    if probing || (streak && polls > 4) {
        let el = now.wrapping_sub(start);
        let ds = u64::from(mutex.seq.load(Relaxed).wrapping_sub(seq0));
        // gap = period * share of polls that saw it free
        let m = ds > 4 && el * free < HANDOVER_NS * ds * polls;
        let p = if m {
            1
        } else {
            let pr = if probe_level < 5 { probe_level + 1 } else { 5 };
            (pr << 1) | ((256u32 << pr) << 4)
        };
        mutex.policy.store(p, Relaxed);
    }
    Advice::Acquired
}
