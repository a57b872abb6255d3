//! Locks that others wrote, to compare with: glibc's further kinds, the standard library's, and those of well-kept crates.
//!
//! glibc's are those that the driver is linked with; their results are handed on as they come. The rest implement the collection's trait.
//! May touch: the lock that it is given. Rust's own locks may allocate (parking_lot's table of queues).

use autolock_lock::algorithm::{Algorithm, Entry, Info, Operations, Order, Waiting, entry};
use libc::{c_int, c_void, pthread_mutex_t, pthread_spinlock_t};
use lock_api::RawMutex;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// In the order in which they are listed.
pub const ENTRIES: &[Entry] = &[
    PTHREAD_MUTEX,
    PTHREAD_MUTEX_ADAPTIVE,
    PTHREAD_SPINLOCK,
    entry::<StdMutex>(),
    entry::<OfCrate<ParkingLot>>(),
    entry::<OfCrate<Usync>>(),
];

/// C functions that hand their argument on to a function of the C library.
macro_rules! calls {
    ($($name:ident => $function:ident($lock:ty);)*) => {
        $(unsafe extern "C" fn $name(lock: *mut c_void) -> c_int {
            // SAFETY: the caller gives a lock that was initialised for this table, and keeps the function's contract.
            unsafe { libc::$function(lock.cast::<$lock>()) }
        })*
    };
}

calls! {
    mutex_destroy => pthread_mutex_destroy(pthread_mutex_t);
    mutex_lock => pthread_mutex_lock(pthread_mutex_t);
    mutex_trylock => pthread_mutex_trylock(pthread_mutex_t);
    mutex_unlock => pthread_mutex_unlock(pthread_mutex_t);
    spin_destroy => pthread_spin_destroy(pthread_spinlock_t);
    spin_lock => pthread_spin_lock(pthread_spinlock_t);
    spin_trylock => pthread_spin_trylock(pthread_spinlock_t);
    spin_unlock => pthread_spin_unlock(pthread_spinlock_t);
}

unsafe extern "C" fn mutex_init(lock: *mut c_void, _: *const c_void) -> c_int {
    // SAFETY: the caller gives memory for a mutex; no attributes means the default kind.
    unsafe { libc::pthread_mutex_init(lock.cast(), std::ptr::null()) }
}

unsafe extern "C" fn mutex_init_adaptive(lock: *mut c_void, _: *const c_void) -> c_int {
    let mut attributes = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: memory for attributes.
    let mut result = unsafe { libc::pthread_mutexattr_init(attributes) };
    if result == 0 {
        // SAFETY: initialised attributes.
        result =
            unsafe { libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ADAPTIVE_NP) };
    }
    if result == 0 {
        // SAFETY: the caller gives memory for a mutex; the attributes are initialised.
        result = unsafe { libc::pthread_mutex_init(lock.cast(), attributes) };
    }
    // Attributes hold nothing in glibc: there is nothing to destroy.
    result
}

unsafe extern "C" fn spin_init(lock: *mut c_void, _: *const c_void) -> c_int {
    // SAFETY: the caller gives memory for a spinlock.
    unsafe { libc::pthread_spin_init(lock.cast(), libc::PTHREAD_PROCESS_PRIVATE) }
}

const PTHREAD_MUTEX: Entry = Entry {
    info: Info {
        name: "pthread_mutex",
        about: "glibc's default mutex once more: its distance from `glibc` is the run's noise",
        source: "glibc",
        order: Order::Unfair,
        waiting: Waiting::Sleeps,
    },
    size: size_of::<pthread_mutex_t>(),
    align: align_of::<pthread_mutex_t>(),
    release_is_final: true,
    operations: Operations {
        init: mutex_init,
        destroy: mutex_destroy,
        lock: mutex_lock,
        trylock: mutex_trylock,
        unlock: mutex_unlock,
    },
};

const PTHREAD_MUTEX_ADAPTIVE: Entry = Entry {
    info: Info {
        name: "pthread_mutex_adaptive",
        about: "glibc's PTHREAD_MUTEX_ADAPTIVE_NP: spins up to 100 times, as long as that pays, then sleeps",
        source: "glibc",
        order: Order::Unfair,
        waiting: Waiting::Sleeps,
    },
    operations: Operations {
        init: mutex_init_adaptive,
        ..PTHREAD_MUTEX.operations
    },
    ..PTHREAD_MUTEX
};

const PTHREAD_SPINLOCK: Entry = Entry {
    info: Info {
        name: "pthread_spinlock",
        about: "glibc's pthread_spin_lock: test and test-and-set",
        source: "glibc",
        order: Order::Unfair,
        waiting: Waiting::Spins,
    },
    size: size_of::<pthread_spinlock_t>(),
    align: align_of::<pthread_spinlock_t>(),
    release_is_final: true,
    operations: Operations {
        init: spin_init,
        destroy: spin_destroy,
        lock: spin_lock,
        trylock: spin_trylock,
        unlock: spin_unlock,
    },
};

/// A crate's lock.
trait Crate: 'static {
    /// The lock itself.
    type Raw: RawMutex + Send + Sync;
    /// What it is.
    const INFO: Info;
    /// [`Algorithm::RELEASE_IS_FINAL`].
    const RELEASE_IS_FINAL: bool = true;
}

struct ParkingLot;

impl Crate for ParkingLot {
    type Raw = parking_lot::RawMutex;
    const INFO: Info = Info {
        name: "parking_lot",
        about: "a byte; spins and yields a little, sleeps in a queue in a global table; eventually fair (0.5 ms)",
        source: "crate parking_lot; after WebKit's WTF::ParkingLot",
        order: Order::Bounded,
        waiting: Waiting::Sleeps,
    };
}

struct Usync;

impl Crate for Usync {
    type Raw = usync::RawMutex;
    const INFO: Info = Info {
        name: "usync",
        about: "a word that is also the head of a lock-free queue of sleepers; spins a little",
        source: "crate usync; queues as in Windows' slim reader-writer locks",
        order: Order::Unfair,
        waiting: Waiting::Sleeps,
    };
    // It unlocks first and looks for sleepers then: Rust's borrows keep it alive.
    const RELEASE_IS_FINAL: bool = false;
}

/// A crate's lock, by lock_api.
struct OfCrate<C: Crate> {
    raw: C::Raw,
    name: PhantomData<fn(C)>,
}

impl<C: Crate> Algorithm for OfCrate<C> {
    const INFO: Info = C::INFO;
    const RELEASE_IS_FINAL: bool = C::RELEASE_IS_FINAL;

    fn new() -> Self {
        Self {
            raw: C::Raw::INIT,
            name: PhantomData,
        }
    }

    #[inline]
    fn lock(&self) {
        self.raw.lock();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.raw.try_lock()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock.
        unsafe { self.raw.unlock() };
    }
}

/// The standard library's mutex, which unlocks only by its guard: the holder's lies beside it.
struct StdMutex {
    guard: UnsafeCell<Option<MutexGuard<'static, ()>>>,
    mutex: Mutex<()>,
}

// SAFETY: the guard is touched by the mutex's holder only, and dropped by the thread that got it.
unsafe impl Sync for StdMutex {}

impl StdMutex {
    /// The mutex for as long as it may be locked.
    fn mutex(&self) -> &'static Mutex<()> {
        // SAFETY: a lock does not move and is not destroyed while somebody uses it, and the guard goes with `unlock`.
        unsafe { &*std::ptr::from_ref(&self.mutex) }
    }

    fn keep(&self, guard: MutexGuard<'static, ()>) {
        // SAFETY: the calling thread holds the mutex.
        unsafe { *self.guard.get() = Some(guard) };
    }
}

impl Algorithm for StdMutex {
    const INFO: Info = Info {
        name: "std_mutex",
        about: "Rust's std::sync::Mutex: a futex word as glibc's, 100 spins before the sleep",
        source: "Rust standard library",
        order: Order::Unfair,
        waiting: Waiting::Sleeps,
    };

    fn new() -> Self {
        Self {
            guard: UnsafeCell::new(None),
            mutex: Mutex::new(()),
        }
    }

    #[inline]
    fn lock(&self) {
        // Poisoned if a measuring thread panicked, which is reported elsewhere.
        let guard = self.mutex().lock().unwrap_or_else(PoisonError::into_inner);
        self.keep(guard);
    }

    #[inline]
    fn try_lock(&self) -> bool {
        match self.mutex().try_lock() {
            Ok(guard) => self.keep(guard),
            Err(TryLockError::Poisoned(error)) => self.keep(error.into_inner()),
            Err(TryLockError::WouldBlock) => return false,
        }
        true
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the calling thread holds the mutex.
        let guard = unsafe { &mut *self.guard.get() }.take();
        drop(guard);
    }
}

#[cfg(test)]
mod tests {
    use crate::lock::{Origin, Source};
    use std::collections::BTreeSet;

    #[test]
    fn every_lock_says_what_it_is_under_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for source in Source::collection() {
            let Origin::Entry(entry) = source.origin else {
                panic!("{source:?} is no entry");
            };
            let info = entry.info;
            assert_eq!(source.name, info.name);
            assert!(
                names.insert(info.name),
                "two locks are called {}",
                info.name
            );
            let in_a_name = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
            assert!(
                !info.name.is_empty() && info.name.bytes().all(in_a_name),
                "{info:?}"
            );
            for text in [info.about, info.source] {
                let one_line = !text.is_empty() && text.trim() == text && !text.contains('\n');
                assert!(one_line, "{info:?}");
            }
            assert!(entry.size > 0 && entry.align.is_power_of_two(), "{info:?}");
        }
    }

    #[test]
    fn the_adaptive_mutex_is_adaptive() {
        let lock = super::ENTRIES
            .iter()
            .find(|entry| entry.info.name == "pthread_mutex_adaptive")
            .expect("listed");
        let slot = crate::lock::Slot::new(lock.size);
        assert_eq!(slot.init(&lock.operations), 0);
        // SAFETY: a live mutex, seen as glibc lays it out.
        let mutex = unsafe { &*slot.lock().cast::<autolock_lock::Mutex>() };
        let kind = mutex.kind.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(kind.cast_signed(), libc::PTHREAD_MUTEX_ADAPTIVE_NP);
        assert_eq!(slot.destroy(&lock.operations), 0);
    }
}
