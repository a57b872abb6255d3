//! A kernel that parks an armed waiter at any moment ([`preempt`]), among the actors.

use super::*;

#[test]
fn two_lockers() {
    check(4, || {
        run_parked(
            &Shared::new(PRIVATE),
            vec![Shared::ours, Shared::ours],
            preempt,
        );
    });
}

/// A park that ends without a wake, and a second one.
#[test]
fn until_a_time_out() {
    check(3, || {
        run_parked(
            &Shared::new(PRIVATE),
            vec![Shared::ours, Shared::ours],
            || {
                preempt();
                park_ends();
                preempt();
            },
        );
    });
}

/// The others sleep at the gate while the attendant is parked.
#[test]
fn three_lockers_one_at_the_gate() {
    check(2, || {
        run_parked(
            &Shared::new(PRIVATE),
            vec![Shared::ours, Shared::ours, Shared::ours],
            preempt,
        );
    });
}

#[test]
fn three_lockers_in_streaks() {
    check(2, || {
        run_parked(
            &experienced(STREAKS_PAY),
            vec![Shared::ours, Shared::ours, Shared::ours],
            preempt,
        );
    });
}

/// Two sleepers on the word, one wake: who was parked passes it on.
#[test]
fn beside_glibcs_own_lockers() {
    check(3, || {
        run_parked(
            &Shared::new(PRIVATE),
            vec![Shared::ours, Shared::glibcs, Shared::ours],
            preempt,
        );
    });
}

#[test]
fn beside_two_of_glibcs_own_lockers() {
    check(3, || {
        run_parked(
            &Shared::new(PRIVATE),
            vec![Shared::glibcs, Shared::ours, Shared::glibcs],
            preempt,
        );
    });
}

/// A timed waiter whose time passes while it is parked takes nobody's wake-up with it.
#[test]
fn timed_waiter_gives_up() {
    check(3, || {
        KERNEL.parks.store(true, Relaxed);
        let shared = Shared::new(PRIVATE);
        mutex::lock::<Model>(&shared.mutex, PRIVATE);
        let timed = shared.clone();
        let waiter = thread::spawn(move || {
            let deadline = Deadline {
                realtime: false,
                sec: 0,
                nsec: 0,
            };
            ID.with(|id| id.set(TIMED));
            if mutex::lock_until::<Model>(&timed.mutex, PRIVATE, &deadline) {
                mutex::unlock::<Model>(&timed.mutex, PRIVATE);
            }
        });
        let patient = shared.clone();
        let locker = thread::spawn(move || patient.glibcs());
        preempt();
        time_passes(TIMED);
        mutex::unlock::<Model>(&shared.mutex, PRIVATE);
        waiter.join().expect("the timed waiter");
        locker.join().expect("the patient waiter");
        assert_eq!(shared.mutex.word.load(SeqCst), word::UNLOCKED);
    });
}
