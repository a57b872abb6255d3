//! Kernel autolocks: what `linux-patches/` adds to Linux, as user space sees it (`include/uapi/linux/auto-lock.h` there).
//!
//! A thread that has called `auto_lock_create` has a [`Slot`] in an area that the kernel maps once into each process. In it the kernel writes whether the thread
//! has a CPU, for all threads of the process to read; and the thread writes which word it spins on. A thread that would lose its CPU while it spins
//! so is *parked*: the kernel writes into the word that somebody sleeps, and puts the thread to sleep on the word, a futex. Whoever wakes that futex wakes it.
//!
//! To wait: [`Slot::arm`], look at the word in a loop, [`Slot::disarm`], and only then the compare-exchange: whoever holds the word must not be parked on it. If
//! [`Slot::parks`] has changed since, the thread may be the only awake one that knows of sleepers, as after `FUTEX_WAIT`.
//!
//! All of it is between a thread and the kernel that interrupts it on its own CPU: order of the program is order enough, and fences are the compiler's.

use core::sync::atomic::{Ordering::Relaxed, compiler_fence};

use crate::sync::hint::{AtomicU32, AtomicU64};

/// `auto_lock_create(struct auto_lock_create *, size_t size, unsigned int flags)`: 0 or a negative error number.
pub const SYS_CREATE: i64 = 1000;
/// `auto_lock_destroy(unsigned int flags)`.
pub const SYS_DESTROY: i64 = 1001;
/// `auto_lock_stats(struct auto_lock_stats *, size_t size, unsigned int flags)`.
pub const SYS_STATS: i64 = 1002;

/// What `auto_lock_create` is told and says. Everything but `flags` is the kernel's to write.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// None are defined: 0.
    pub flags: u32,
    /// The calling thread's slot, by number.
    pub slot: u32,
    /// Where the area is mapped, and its size in bytes.
    pub area: u64,
    pub area_size: u64,
    /// The size of a slot in bytes, and where the first one is in the area.
    pub slot_size: u32,
    pub slot_offset: u32,
    /// Bits: [`FEATURE_PARK`].
    pub features: u32,
    /// 0.
    pub reserved: u32,
}

/// [`Create::features`]: armed waiters are parked.
pub const FEATURE_PARK: u32 = 1;

/// What `auto_lock_stats` says of a process since its first slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Slots in use, the most at once, and room for how many there is.
    pub slots: u64,
    pub slots_peak: u64,
    pub slots_max: u64,
    /// Slots handed out.
    pub creates: u64,
    /// Threads parked; and how that ended.
    pub parks: u64,
    pub wakes: u64,
    pub timeouts: u64,
    pub signals: u64,
    pub spurious: u64,
    /// Not parked: the word was not waited for any more; it could not be read or written, or the slot was not in order.
    pub changed: u64,
    pub refused: u64,
    /// Armed waiters preempted in favour of a thread that woke up.
    pub hint_preemptions: u64,
    /// Nanoseconds spent parked, by all threads.
    pub parked_ns: u64,
}

/// What stands at the area's beginning, if the first slot does not.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Header {
    /// 1.
    pub version: AtomicU32,
    /// Not 0 once a thread of this process has a seccomp filter.
    pub filtered: AtomicU32,
    reserved: [AtomicU32; 30],
}

/// A thread's slot: a cache line that the kernel writes, and one that the thread writes.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slot {
    /// 0 no thread has this slot, [`RUNNING`], [`NOT_RUNNING`].
    pub state: AtomicU32,
    /// The CPU on which the thread is or was.
    pub cpu: AtomicU32,
    /// Its thread id, in the PID namespace in which it called `auto_lock_create`.
    pub tid: AtomicU32,
    /// How often it was parked.
    pub parks: AtomicU32,
    /// How many parks ended by a wake.
    pub wakes: AtomicU32,
    reserved_for_kernel: [AtomicU32; 11],
    /// The word's address; 0: disarmed.
    pub addr: AtomicU64,
    /// It is parked while `word & mask != value`.
    pub mask: AtomicU32,
    pub value: AtomicU32,
    /// Before it sleeps the word becomes `word & !leave_mask | leave`.
    pub leave_mask: AtomicU32,
    pub leave: AtomicU32,
    /// 0: the futex is private.
    pub flags: AtomicU32,
    /// The longest sleep, in microseconds; 0: the sysctl `kernel.auto_lock_max_park_us`, which no sleep exceeds.
    pub timeout_us: AtomicU32,
    reserved_for_user: [AtomicU32; 8],
}

/// [`Slot::state`]: the thread has a CPU.
pub const RUNNING: u32 = 1;
/// [`Slot::state`]: the thread has none.
pub const NOT_RUNNING: u32 = 2;

#[cfg(not(loom))]
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Slot>() == 128 && size_of::<Header>() == 128 && size_of::<Create>() == 40);
    assert!(size_of::<Stats>() == 104);
    assert!(offset_of!(Slot, parks) == 12);
    assert!(offset_of!(Slot, addr) == 64 && offset_of!(Slot, timeout_us) == 92);
};

/// Which word is not mine yet, and what says in it that somebody sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parking {
    /// The wait goes on while `word & mask != value`.
    pub mask: u32,
    pub value: u32,
    /// `word & !leave_mask | leave` owes the sleeper a wake.
    pub leave_mask: u32,
    pub leave: u32,
}

impl Parking {
    /// Until the word is `value`; any other value may become `leave`.
    #[must_use]
    pub const fn until(value: u32, leave: u32) -> Self {
        Self {
            mask: u32::MAX,
            value,
            leave_mask: u32::MAX,
            leave,
        }
    }

    /// Whether whoever waits for this `word` goes on waiting.
    #[must_use]
    pub const fn waits(self, word: u32) -> bool {
        word & self.mask != self.value
    }

    /// What the kernel leaves in the word for a sleeper.
    #[must_use]
    pub const fn left(self, word: u32) -> u32 {
        word & !self.leave_mask | self.leave
    }
}

impl Slot {
    /// Asks to be parked on the (private) word at this address, for at most `timeout_us`. By the slot's thread.
    #[inline]
    pub fn arm(&self, address: u64, parking: Parking, timeout_us: u32) {
        self.disarm();
        self.mask.store(parking.mask, Relaxed);
        self.value.store(parking.value, Relaxed);
        self.leave_mask.store(parking.leave_mask, Relaxed);
        self.leave.store(parking.leave, Relaxed);
        self.flags.store(0, Relaxed);
        self.timeout_us.store(timeout_us, Relaxed);
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        self.addr.store(address, Relaxed);
    }

    /// From here on it is not parked. By the slot's thread; harmless if it is not armed.
    #[inline]
    pub fn disarm(&self) {
        self.addr.store(0, Relaxed);
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_condition_may_look_at_a_part_of_the_word() {
        let exact = Parking::until(0, 2);
        assert!(exact.waits(1) && exact.waits(2) && !exact.waits(0));
        assert_eq!(exact.left(5), 2);
        // Bit 0 is a mark; the rest is a number to wait for.
        let number = Parking {
            mask: !1,
            value: 8,
            leave_mask: 0,
            leave: 1,
        };
        assert!(number.waits(6) && number.waits(7) && !number.waits(8) && !number.waits(9));
        assert_eq!((number.left(6), number.left(7)), (7, 7));
    }

    #[test]
    fn a_slot_is_armed_whole_and_disarmed_by_its_address() {
        let zero = || AtomicU32::new(0);
        let slot = Slot {
            state: zero(),
            cpu: zero(),
            tid: zero(),
            parks: zero(),
            wakes: zero(),
            reserved_for_kernel: core::array::from_fn(|_| zero()),
            addr: AtomicU64::new(0),
            mask: zero(),
            value: zero(),
            leave_mask: zero(),
            leave: zero(),
            flags: zero(),
            timeout_us: zero(),
            reserved_for_user: core::array::from_fn(|_| zero()),
        };
        slot.arm(0x1000, Parking::until(0, 2), 4000);
        let field = |field: &AtomicU32| field.load(Relaxed);
        assert_eq!(slot.addr.load(Relaxed), 0x1000);
        assert_eq!((field(&slot.mask), field(&slot.value)), (u32::MAX, 0));
        assert_eq!((field(&slot.leave_mask), field(&slot.leave)), (u32::MAX, 2));
        assert_eq!((field(&slot.flags), field(&slot.timeout_us)), (0, 4000));
        slot.disarm();
        assert_eq!(slot.addr.load(Relaxed), 0);
    }
}
