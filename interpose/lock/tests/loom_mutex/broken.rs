//! Broken protocols must deadlock or corrupt: the model can fail.

use super::*;

/// loom aborts the process when it finds a deadlock, so each runs in a process of its own.
const BROKEN: &[(&str, &str, fn())] = &[
    ("a wake on the word is dropped", "deadlock", || {
        check(3, || {
            KERNEL.drop_word_wakes.store(true, Relaxed);
            run(&Shared::new(PRIVATE), vec![Shared::ours, Shared::ours]);
        });
    }),
    ("a wake at the gate is dropped", "deadlock", || {
        check(3, || {
            KERNEL.drop_gate_wakes.store(true, Relaxed);
            run(
                &Shared::new(PRIVATE),
                vec![Shared::ours, Shared::ours, Shared::ours],
            );
        });
    }),
    ("an heir goes without a word", "left == right", || {
        check(3, || {
            let shared = experienced(0);
            run_waiters(&shared, 2, || {
                let seen = shared.mutex.seat.fetch_or(0, SeqCst);
                if seen != 0 {
                    let changed = seen | HEIR;
                    let _ = (shared.mutex.seat).compare_exchange(seen, changed, SeqCst, SeqCst);
                }
            });
        });
    }),
    ("an unlock forgets the waiters", "deadlock", || {
        fn forgetful(shared: &Shared) {
            mutex::lock::<Model>(&shared.mutex, PRIVATE);
            shared.touch();
            shared.mutex.word.store(word::UNLOCKED, SeqCst);
        }
        check(3, || {
            run(&Shared::new(PRIVATE), vec![forgetful, Shared::ours])
        });
    }),
    ("a locker does not lock", "Causality violation", || {
        check(3, || {
            run(&Shared::new(PRIVATE), vec![Shared::touch, Shared::ours])
        });
    }),
    (
        "a waiter is disarmed after its compare-exchange",
        "deadlock",
        || {
            check(3, || {
                KERNEL.disarms_late.store(true, Relaxed);
                let actors: Vec<fn(&Shared)> = vec![Shared::ours, Shared::ours];
                run_parked(&Shared::new(PRIVATE), actors, preempt);
            });
        },
    ),
    (
        "a parked waiter acquires as one that was not",
        "deadlock",
        || {
            check(3, || {
                KERNEL.forgets_parks.store(true, Relaxed);
                let actors: Vec<fn(&Shared)> = vec![Shared::glibcs, Shared::ours, Shared::glibcs];
                run_parked(&Shared::new(PRIVATE), actors, preempt);
            });
        },
    ),
    ("a parked waiter leaves no mark", "deadlock", || {
        check(3, || {
            KERNEL.leaves_no_mark.store(true, Relaxed);
            let actors: Vec<fn(&Shared)> = vec![Shared::ours, Shared::ours];
            run_parked(&Shared::new(PRIVATE), actors, preempt);
        });
    }),
];

const CHILD: &str = "LOOM_MUTEX_BROKEN";

#[test]
fn the_model_notices_broken_variants() {
    if let Ok(name) = std::env::var(CHILD) {
        let (_, _, variant) = BROKEN
            .iter()
            .find(|(known, ..)| *known == name)
            .expect("a known variant");
        variant();
        return;
    }
    for (name, complaint, _) in BROKEN {
        let child = std::process::Command::new(std::env::current_exe().expect("this test's path"))
            .args([
                "--exact",
                "broken::the_model_notices_broken_variants",
                "--nocapture",
            ])
            .env(CHILD, name)
            .output()
            .expect("this test starts");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success(), "not noticed: {name}");
        assert!(
            said.contains(complaint),
            "{name}: no '{complaint}' in: {said}"
        );
    }
}
