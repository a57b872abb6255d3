//! After the last unlock the lock may be gone: whoever takes it next may destroy it and give its memory back, as POSIX
//! allows for a mutex that counts its users. A lock that touches itself after it has let go dies of SIGSEGV here.

use crate::lock::Lock;
use crate::torture::child::{fail, trouble};
use crate::torture::crew::spawn;
use crate::torture::ground::{Ground, work};
use crate::torture::inject::{self, Torment};
use crate::torture::random::Random;
use crate::torture::signals;
use std::ffi::c_void;
use std::sync::Barrier;
use std::sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// Locks whose memory goes, at most.
const LIVES: usize = 2000;

pub fn run(ground: &Ground) {
    let lock = ground.gentle_lock();
    inject::configure(Torment::EarlyReturns, true);
    let threads = ground.threads.clamp(2, 3);
    let mut random = ground.random("release");
    let current = AtomicPtr::<c_void>::new(std::ptr::null_mut());
    let users = AtomicUsize::new(0);
    let rounds = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (current, users, rounds) = (&current, &users, &rounds);
            let seed = random.next();
            spawn(scope, move || {
                inject::seed(seed);
                signals::allow_steps(true);
                let mut random = Random::new(seed);
                loop {
                    rounds.wait();
                    let page = current.load(Acquire);
                    if page.is_null() {
                        signals::allow_steps(false);
                        return;
                    }
                    work(random.below(200));
                    use_up(lock, page, users, &mut random);
                    rounds.wait();
                }
            });
        }
        for _ in ground.rounds(10, LIVES) {
            users.store(threads, Relaxed);
            current.store(map(lock), Release);
            rounds.wait();
            rounds.wait();
            ground.progress.beat();
        }
        current.store(std::ptr::null_mut(), Release);
        rounds.wait();
    });
}

/// The last of the users destroys the lock and unmaps it.
fn use_up(lock: &Lock, page: *mut c_void, users: &AtomicUsize, random: &mut Random) {
    if random.one_in(4) {
        // Step by step through lock or through unlock.
        signals::interrupt_myself();
    }
    // SAFETY: initialised, and alive until the last user has unlocked.
    unsafe { (lock.ops.lock)(page) };
    // A load and a store: the lock guards the count.
    let left = users.load(Relaxed) - 1;
    users.store(left, Relaxed);
    if random.one_in(2) {
        signals::interrupt_myself();
    }
    // SAFETY: this thread has locked it.
    unsafe { (lock.ops.unlock)(page) };
    if left == 0 {
        // SAFETY: no other user will call it any more.
        if unsafe { (lock.ops.destroy)(page) } != 0 {
            fail("destroy after the last unlock fails");
        }
        // SAFETY: mapped by `map` with this length, used by nobody.
        unsafe { libc::munmap(page, lock.size) };
    }
}

/// A free lock on pages of its own.
fn map(lock: &Lock) -> *mut c_void {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            lock.size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        trouble("cannot map a page for a lock");
    }
    // SAFETY: fresh memory, page-aligned, large enough.
    if unsafe { (lock.ops.init)(page, std::ptr::null()) } != 0 {
        fail("init fails");
    }
    page
}
