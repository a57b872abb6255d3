//! How an attendant waits: how often it looks, when it takes a free mutex, when it gives up.
use autolock_abi::{
    sync::Ordering::{Acquire, Relaxed},
    word::{ATTENDED, CONTENDED, UNLOCKED, acquired},
};

use crate::{
    Mutex,
    contended::{Waiter, try_acquire},
    oncpu::{HolderState, OnCpu},
    platform::Platform,
    seat,
};

/// How an attendant's wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds the mutex; `barred` had its slice (0: nobody).
    Acquired {
        /// Thread id of the previous holder.
        barred: u32,
    },
    /// A woken waiter has the seat.
    Evicted,
    /// Spinning is not worth it: park.
    GaveUp,
    /// The deadline passed.
    TimedOut,
}

const SPIN_NS: u64 = 20_000;
const SLICE_NS: u64 = 200_000;
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

/// Spins a little on a process-shared mutex.
pub(crate) fn spin_shared<P: Platform>(mutex: &Mutex, waiter: &Waiter<'_>) -> bool {
    for _ in 0..30 {
        P::pause();
        if try_acquire(mutex, waiter.duty) {
            return true;
        }
    }
    false
}

/// Waits as the attendant.
pub(crate) fn attend<P: Platform>(mutex: &Mutex, waiter: &mut Waiter<'_>) -> Outcome {
    let policy = mutex.policy.load(Relaxed);
    let mut streak = policy & 1 != 0;
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
    let mut last_owner = 0u32;
    let mut moved_at = start;
    let mut seq_seen = seq0;
    loop {
        let elapsed = now.wrapping_sub(start);
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
        polls += 1;
        let v = mutex.word.load(Relaxed);
        if v == UNLOCKED {
            free += 1;
            if probing && polls < 8 {
                continue;
            }
            if streak && elapsed < SLICE_NS {
                let q = mutex.seq.load(Relaxed);
                delay::<P>(CONFIRM_NS);
                if mutex.word.load(Relaxed) != UNLOCKED || mutex.seq.load(Relaxed) != q {
                    continue;
                }
            }
            if mutex
                .word
                .compare_exchange(UNLOCKED, acquired(waiter.duty), Acquire, Relaxed)
                .is_ok()
            {
                break;
            }
            continue;
        }
        if v == CONTENDED
            && mutex
                .word
                .compare_exchange(CONTENDED, ATTENDED, Relaxed, Relaxed)
                .is_ok()
        {
            waiter.duty = true;
        }
        if !seat::is_mine(mutex, waiter.me) {
            return Outcome::Evicted;
        }
        let owner = mutex.owner.load(Relaxed).unsigned_abs();
        if owner != 0 {
            last_owner = owner;
        }
        let q = mutex.seq.load(Relaxed);
        if q != seq_seen {
            seq_seen = q;
            moved_at = now;
        }
        if polls % 8 == 0 || streak || probing {
            if P::OnCpu::holder(mutex, my_cpu) == HolderState::NotRunning {
                return Outcome::GaveUp;
            }
            if now.wrapping_sub(moved_at) > SPIN_NS {
                return Outcome::GaveUp;
            }
            if let Some(d) = waiter.deadline
                && P::expired(d)
            {
                return Outcome::TimedOut;
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
        streak = m;
    }
    Outcome::Acquired {
        barred: if streak { last_owner } else { 0 },
    }
}
