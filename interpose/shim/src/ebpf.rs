//! What the scheduler says: `autolockd`'s table of the threads on a CPU, which an eBPF program writes at each context switch.
//!
//! [`start`] asks the daemon once, from the preload's constructor (`autolockd`). What remains of it is a read-only mapping and no
//! descriptor. Later nothing is asked: an answer is three loads from the mapping and the coarse clock, which the vDSO reads from memory. A table that
//! its daemon left behind is not believed, and believed again as soon as a daemon beats in it; both without a system call.
//!
//! The thread that asks is running. A table that does not say so is about others' thread ids, as in a child that was born into another PID namespace,
//! or has not seen a switch to this thread yet: it says nothing about the holder either.
//!
//! Why nobody hangs on what the table says, be it frozen or a lie:
//! - *Running* makes the attendant's patience longer, up to a fixed time in which the mutex does not move; whoever else spins (newcomers, waiters of a
//!   process-shared mutex, the collection's locks) does so for the same bounded time as ever, or a longer bounded one.
//! - *Not running* makes a waiter sleep, by the protocol by which every waiter sleeps: it has written into the word that a wake is owed, or found
//!   it free, and then it tries to acquire before it asks again.
//! - *Unknown* is what user space alone begins with.
//!
//! May touch: the mapping, `%fs` and the vDSO; stderr at start.

use core::fmt::Write as _;
use core::sync::atomic::{
    AtomicPtr, AtomicU8,
    Ordering::{Acquire, Relaxed, Release},
};

use autolock_lock::oncpu::{Holder, HolderState, OnCpu};
use autolock_oncpu::{
    greeting,
    table::{self, Table},
};

use crate::{
    autolockd::{self, Refusal},
    linux,
    options::Backend,
    stats::{self, Line},
    tcb,
};

/// The mapping; null: user space alone. Written once.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(core::ptr::null_mut());
/// How [`start`] ended: an index into [`Refusal::ALL`], or beyond it.
static OUTCOME: AtomicU8 = AtomicU8::new(Refusal::NotAsked as u8);
const ATTACHED: u8 = u8::MAX;
const _: () = assert!(Refusal::ALL.len() < ATTACHED as usize);

/// The table where there is one, and what user space knows where it says nothing.
#[derive(Debug)]
pub struct Ebpf;

impl OnCpu for Ebpf {
    #[inline]
    fn thread(holder: Holder) -> HolderState {
        // Acquire: pairs with the Release in `start`.
        let table = TABLE.load(Acquire);
        if table.is_null() {
            return HolderState::Unknown;
        }
        // SAFETY: mapped by `start` for the process's life; all of it atomics.
        look_up(unsafe { &*table }, holder.tid)
    }
}

#[inline(never)]
fn look_up(table: &Table, tid: i32) -> HolderState {
    let now = || linux::ns(libc::CLOCK_MONOTONIC_COARSE);
    let state = state_of(table, tcb::tid(), tid, now);
    stats::note_answer(state);
    state
}

/// What `table` says of `tid` to the running thread `me`.
fn state_of(table: &Table, me: i32, tid: i32, now_ns: impl FnOnce() -> u64) -> HolderState {
    let state = match table.thread(tid) {
        table::RUNNING => HolderState::Running,
        table::NOT_RUNNING => HolderState::NotRunning,
        _ => return HolderState::Unknown,
    };
    if table.thread(me) == table::RUNNING && table.is_fresh(now_ns()) {
        state
    } else {
        HolderState::Unknown
    }
}

/// Asks the daemon for its table, unless it is not to be asked. Called once, from the preload's constructor; takes [`greeting::PATIENCE_MS`] at most. Says
/// something only where the table was asked for and is not to be had.
pub fn start(backend: Backend, socket: Option<&[u8]>) {
    let socket = socket.unwrap_or(greeting::SOCKET.as_bytes());
    match autolockd::attach(backend, socket) {
        Ok(table) => {
            OUTCOME.store(ATTACHED, Relaxed);
            // Release: pairs with the Acquire in `thread`: the mapping is there.
            TABLE.store(core::ptr::from_ref(table).cast_mut(), Release);
        }
        Err(refusal) => {
            OUTCOME.store(refusal as u8, Relaxed);
            if backend == Backend::Ebpf {
                let mut line = Line::default();
                let _ = writeln!(
                    line,
                    "autolock: AUTOLOCK_BACKEND=ebpf: {}; using user space",
                    refusal.text()
                );
                line.print();
            }
        }
    }
}

/// Where knowledge comes from, for the statistics: whether there is a table, and a word about it.
#[must_use]
pub fn source() -> (bool, &'static str) {
    match Refusal::ALL.get(usize::from(OUTCOME.load(Relaxed))) {
        Some(refusal) => (false, refusal.text()),
        None => (true, "autolockd's table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: i32 = 10;
    const HOLDER: i32 = 20;
    const NOW: u64 = 1_000_000_000_000;

    /// A fresh table in which this thread runs.
    fn fresh() -> Box<Table> {
        // SAFETY: zero is a valid table.
        let table = unsafe { Box::<Table>::new_zeroed().assume_init() };
        table.heartbeat.store(NOW, Relaxed);
        set(&table, ME, table::RUNNING);
        table
    }

    fn set(table: &Table, tid: i32, byte: u8) {
        table.threads[table::place(tid.unsigned_abs() as usize)].store(byte, Relaxed);
    }

    fn ask(table: &Table) -> HolderState {
        state_of(table, ME, HOLDER, || NOW)
    }

    #[test]
    fn a_fresh_table_is_believed() {
        let table = fresh();
        assert_eq!(ask(&table), HolderState::Unknown);
        set(&table, HOLDER, table::RUNNING);
        assert_eq!(ask(&table), HolderState::Running);
        set(&table, HOLDER, table::NOT_RUNNING);
        assert_eq!(ask(&table), HolderState::NotRunning);
        set(&table, HOLDER, 77);
        assert_eq!(ask(&table), HolderState::Unknown);
    }

    #[test]
    fn a_stale_table_is_not_believed_until_it_beats_again() {
        let table = fresh();
        set(&table, HOLDER, table::NOT_RUNNING);
        for (heartbeat, state) in [
            (NOW, HolderState::NotRunning),
            (0, HolderState::Unknown),
            (NOW - table::STALE_NS, HolderState::Unknown),
            (NOW - table::STALE_NS + 1, HolderState::NotRunning),
            // The clock is coarse: a beat may be ahead of it.
            (NOW + 4_000_000, HolderState::NotRunning),
            (NOW + table::STALE_NS, HolderState::Unknown),
        ] {
            table.heartbeat.store(heartbeat, Relaxed);
            assert_eq!(ask(&table), state, "{heartbeat}");
        }
    }

    #[test]
    fn a_table_that_denies_that_the_asker_runs_is_about_others() {
        let table = fresh();
        set(&table, HOLDER, table::NOT_RUNNING);
        for byte in [table::NOT_RUNNING, table::UNKNOWN, 77] {
            set(&table, ME, byte);
            assert_eq!(ask(&table), HolderState::Unknown, "{byte}");
        }
    }

    #[test]
    fn no_thread_id_is_beyond_the_table() {
        let table = fresh();
        for tid in [0, -1, i32::MIN, i32::MAX] {
            assert_eq!(state_of(&table, ME, tid, || NOW), HolderState::Unknown);
            set(&table, HOLDER, table::RUNNING);
            assert_eq!(state_of(&table, tid, HOLDER, || NOW), HolderState::Unknown);
        }
    }
}
