//! u-SCL: lock slices. A thread that gets the lock owns it for a slice of time, in which nobody else takes it; a thread that has used more than its
//! share is kept out for as long as the others need to have theirs.
//!
//! Source: Patel, Yang, Kulkarni, Arpaci-Dusseau, Arpaci-Dusseau and Swift, "Avoiding scheduler subversion using scheduler-cooperative locks",
//! EuroSys 2020.
//!
//! - *Slice*: 2 ms, as in the paper. Its owner acquires by one compare-exchange. The others queue. The first of the queue, the *candidate*, waits
//!   until the slice is over, takes the word, owns the next slice, and makes the thread behind it the candidate. The rest sleep.
//! - *Account*: `banned_until`, in nanoseconds. With n threads using the lock, each use of t ns moves it on by n * t: it is in the future when the
//!   thread has used more than an n-th of the time. A thread that begins a slice sleeps until then first.
//!
//! Ours, not the paper's: an account belongs to a thread id modulo 64, in the lock itself, since nothing here may allocate; threads that
//! share one have one share together. A thread counts as one that uses the lock for a second after its last use, since nothing tells us of its
//! end. All threads weigh the same: no nice values. Unused time is saved up for 200 ms at most, and no ban is longer. `try_lock` takes
//! a free lock even in another's slice, so that it tells the truth; it is charged for it.
//!
//! | word | meaning | transitions |
//! |---|---|---|
//! | `FREE` | free | -> `HELD` by the slice's owner, the candidate, and any `try_lock` |
//! | `HELD` | held | -> `FREE` by the holder; -> `CONTENDED` by the candidate, about to sleep |
//! | `CONTENDED` | held; the candidate may sleep | -> `FREE` by the holder, who wakes it |
//!
//! At most one thread sleeps on the word, so who is woken owes nothing to others.
//!
//! | tail | meaning | transitions |
//! |---|---|---|
//! | null | no queue | -> node by whoever comes |
//! | node | the last in the queue | -> other node by whoever comes; -> null by the candidate that leaves, if it is its own |
//!
//! | a node's state | meaning | transitions |
//! |---|---|---|
//! | `WAITING` | its owner sleeps on it, or is about to | -> `CANDIDATE` by the one before it, which has the lock now and wakes this one |
//! | `CANDIDATE` | its owner is the first in the queue | |
//!
//! Memory orderings: acquisitions of the word are Acquire and pair with the Release exchange of `unlock`. Tail and `next` as in MCS; `CANDIDATE` is
//! stored with Release and loaded with Acquire, which orders the slice's hints for the candidate. Slice and accounts are Relaxed hints: written by the
//! holder only, and nothing but fairness depends on them.
//!
//! Bad at: an owner that does not need the rest of its slice: the lock stands free and the others wait, up to 2 ms. So threads that take several such
//! locks in turn do little but wait for each other's slices. Two looks at the clock in each acquisition.

use core::marker::PhantomData;

use autolock_abi::sync::{
    AtomicPtr, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    hint, store_release,
};

use super::bounded::{FOREVER_NS, spin_for};
use crate::{
    algorithm::{Algorithm, Info, Order, Waiting},
    node::{self, Node},
    platform::Platform,
};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

const WAITING: u32 = 0;
const CANDIDATE: u32 = 1;

const SLICE_NS: u64 = 2_000_000;
/// How long before the slice's end a candidate stops sleeping, since sleeps end late (timer slack: 50 us).
const EARLY_NS: u64 = 60_000;
/// How long a candidate spins on a holder whose slice is over before it sleeps.
const SPIN_NS: u64 = 20_000;
/// A thread uses the lock until so long after its last use.
const ACTIVE_NS: u64 = 1_000_000_000;
/// No ban is longer, and unused time is not saved up for longer.
const HORIZON_NS: u64 = 200_000_000;
/// A power of two.
const ACCOUNTS: usize = 64;

/// How much one thread has used the lock.
#[derive(Debug)]
struct Account {
    /// Until when it has had its share.
    banned_until_ns: hint::AtomicU64,
    /// Its last use; 0 if none.
    used_ns: hint::AtomicU64,
}

/// An account after a use of `used_ns` until `now`, with so many `users`. Who has used less than its share has saved it up.
const fn charged(banned_until_ns: u64, now_ns: u64, used_ns: u64, users: u64) -> u64 {
    let began = now_ns.saturating_sub(used_ns);
    let saved_up = began.saturating_sub(HORIZON_NS);
    let before = if banned_until_ns > saved_up {
        banned_until_ns
    } else {
        saved_up
    };
    before.saturating_add(used_ns.saturating_mul(users))
}

/// See the module.
#[derive(Debug)]
pub struct UScl<P> {
    word: AtomicU32,
    /// Whose slice it is: a thread id, or 0.
    owner: hint::AtomicI32,
    slice_end_ns: hint::AtomicU64,
    /// When the holder acquired.
    since_ns: hint::AtomicU64,
    /// How many accounts were in use at the beginning of the slice, at least 1.
    users: hint::AtomicU32,
    tail: AtomicPtr<Node>,
    accounts: [Account; ACCOUNTS],
    platform: PhantomData<fn(P)>,
}

impl<P: Platform> Algorithm for UScl<P> {
    const INFO: Info = Info {
        name: "u_scl",
        about: "slices of lock time (2 ms); a thread over its share is kept out for a while",
        source: "Patel et al., EuroSys 2020",
        order: Order::Bounded,
        waiting: Waiting::Sleeps,
    };

    fn new() -> Self {
        Self {
            word: AtomicU32::new(FREE),
            owner: hint::AtomicI32::new(0),
            slice_end_ns: hint::AtomicU64::new(0),
            since_ns: hint::AtomicU64::new(0),
            users: hint::AtomicU32::new(1),
            tail: AtomicPtr::new(core::ptr::null_mut()),
            accounts: core::array::from_fn(|_| Account {
                banned_until_ns: hint::AtomicU64::new(0),
                used_ns: hint::AtomicU64::new(0),
            }),
            platform: PhantomData,
        }
    }

    #[inline]
    fn lock(&self) {
        let me = P::tid();
        let now = P::now_ns();
        if self.owner.load(Relaxed) == me && now < self.slice_end_ns.load(Relaxed) && self.acquire()
        {
            self.since_ns.store(now, Relaxed);
        } else {
            self.lock_in_turn(me);
        }
        P::preemption_point();
    }

    fn try_lock(&self) -> bool {
        let acquired = self.acquire();
        if acquired {
            self.since_ns.store(P::now_ns(), Relaxed);
        }
        acquired
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.charge();
        P::preemption_point();
        if self.word.swap(FREE, Release) == CONTENDED {
            P::wake_one(&raw const self.word, false);
        }
    }
}

impl<P: Platform> UScl<P> {
    #[inline]
    fn acquire(&self) -> bool {
        self.word.load(Relaxed) == FREE
            && self
                .word
                .compare_exchange(FREE, HELD, Acquire, Relaxed)
                .is_ok()
    }

    fn account(&self, tid: i32) -> &Account {
        &self.accounts[tid.cast_unsigned() as usize % ACCOUNTS]
    }

    /// Charges the holder for this use.
    fn charge(&self) {
        let now = P::now_ns();
        let account = self.account(P::tid());
        let users = u64::from(self.users.load(Relaxed));
        let used = now.saturating_sub(self.since_ns.load(Relaxed));
        let after = charged(account.banned_until_ns.load(Relaxed), now, used, users);
        account.banned_until_ns.store(after, Relaxed);
        account.used_ns.store(now, Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn lock_in_turn(&self, me: i32) {
        let ban = self.account(me).banned_until_ns.load(Relaxed);
        let banned_ns = ban.saturating_sub(P::now_ns());
        if banned_ns > 0 {
            P::sleep(banned_ns.min(HORIZON_NS));
        }
        let node = self.queue();
        self.wait_for_the_slices_end(me);
        self.take();
        self.begin_slice(me);
        P::preemption_point();
        self.leave(node);
    }

    /// Queues; returns as the candidate.
    fn queue(&self) -> &'static Node {
        let node = P::take_node();
        node.next.store(core::ptr::null_mut(), Relaxed);
        node.state.store(WAITING, Relaxed);
        let before = self.tail.swap(node.pointer(), AcqRel);
        P::preemption_point();
        // SAFETY: the tail is null or a node.
        if let Some(before) = unsafe { node::at(before) } {
            before.next.store(node.pointer(), Release);
            while node.state.load(Acquire) == WAITING {
                P::wait(&node.state, WAITING, false, FOREVER_NS, None);
            }
        }
        node
    }

    fn wait_for_the_slices_end(&self, me: i32) {
        while self.owner.load(Relaxed) != me {
            let left_ns = self.slice_end_ns.load(Relaxed).saturating_sub(P::now_ns());
            match left_ns {
                0 => return,
                1..=EARLY_NS => P::pause(),
                _ => P::sleep(left_ns - EARLY_NS),
            }
        }
    }

    /// Acquires, as the candidate.
    fn take(&self) {
        if spin_for::<P>(SPIN_NS, || self.acquire()) {
            return;
        }
        while !self.acquire() {
            let marked = self
                .word
                .compare_exchange(HELD, CONTENDED, Relaxed, Relaxed);
            if marked != Err(FREE) {
                P::preemption_point();
                P::wait(&self.word, CONTENDED, false, FOREVER_NS, None);
            }
        }
    }

    /// The holder's slice begins.
    fn begin_slice(&self, me: i32) {
        let now = P::now_ns();
        self.account(me).used_ns.store(now, Relaxed);
        let is_used = |account: &&Account| {
            let used = account.used_ns.load(Relaxed);
            used != 0 && now.saturating_sub(used) < ACTIVE_NS
        };
        let users = self.accounts.iter().filter(is_used).count();
        self.users.store((users as u32).max(1), Relaxed);
        self.owner.store(me, Relaxed);
        self.slice_end_ns
            .store(now.saturating_add(SLICE_NS), Relaxed);
        self.since_ns.store(now, Relaxed);
    }

    /// Leaves the queue; who is next becomes the candidate.
    fn leave(&self, node: &'static Node) {
        if node.next.load(Acquire).is_null() {
            let nobody = core::ptr::null_mut();
            if self
                .tail
                .compare_exchange(node.pointer(), nobody, AcqRel, Relaxed)
                .is_ok()
            {
                P::give_node(node);
                return;
            }
            // Somebody has exchanged the tail and is about to link itself in.
            while node.next.load(Acquire).is_null() {
                P::pause();
            }
        }
        // SAFETY: not null, so a node.
        if let Some(next) = unsafe { node::at(node.next.load(Acquire)) } {
            store_release(&next.state, CANDIDATE);
            // The node may be another lock's by now: its sleeper, woken for nothing, looks again, as all sleepers on nodes do.
            P::wake_one(&raw const next.state, false);
        }
        P::give_node(node);
    }
}

/// The last candidate leaves no queue behind.
#[cfg(loom)]
impl<P> Drop for UScl<P> {
    fn drop(&mut self) {
        let empty = self.tail.load(Relaxed).is_null();
        assert!(empty || std::thread::panicking(), "the queue is left empty");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const START: u64 = 1_000_000_000_000;
    const MS: u64 = 1_000_000;

    /// Threads in turn, each using the lock for its time unless it is banned; the times that they have had it after `rounds`.
    fn share<const USERS: usize>(uses: [u64; USERS], rounds: u32) -> [u64; USERS] {
        let mut now = START;
        let mut had = [0; USERS];
        let mut banned_until = [0; USERS];
        for _ in 0..rounds {
            let free = (0..USERS)
                .filter(|&user| banned_until[user] <= now)
                .min_by_key(|&user| banned_until[user]);
            let Some(user) = free else {
                now += MS / 10;
                continue;
            };
            now += uses[user];
            had[user] += uses[user];
            banned_until[user] = charged(banned_until[user], now, uses[user], USERS as u64);
        }
        had
    }

    #[test]
    fn who_holds_ten_times_as_long_gets_no_more_time() {
        let [hog, other] = share([10 * MS, MS], 10_000);
        let ratio = hog as f64 / other as f64;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn one_thread_alone_is_never_banned() {
        let mut now = START;
        let mut banned_until = 0;
        for _ in 0..1000 {
            now += 3 * MS;
            banned_until = charged(banned_until, now, 3 * MS, 1);
            assert!(banned_until <= now);
        }
    }

    #[test]
    fn what_is_saved_up_is_bounded() {
        let use_ns = 2 * HORIZON_NS;
        assert!(charged(0, START, use_ns, 2) > START, "banned at once");
        assert!(charged(0, START, use_ns, 1) <= START);
    }
}
