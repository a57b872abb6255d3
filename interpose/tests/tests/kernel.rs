//! The library on a kernel with `linux-patches/`, and on one without. `cargo xtask test --only kernel` runs this in virtual machines, `patched` in one and
//! `stock` in the other; what the library makes of slots is in `slots`, too, on any kernel.
//!
//! `TEST_KERNEL=patched` or `stock` says what the machine is to be, so that no test is skipped by mistake, and that it is there for tests alone: some set its sysctls.

use autolock_tests::{Compile, Ended, Installable, Run, autolock, must_break, program, skipped};
use std::path::PathBuf;
use std::time::Duration;

const SYSCTL: &str = "/proc/sys/kernel/auto_lock";
const MAX_SLOTS: &str = "/proc/sys/kernel/auto_lock_max_slots";

/// Threads that count, and the slots that they and the main thread have.
const THREADS: &str = "8";
const SLOTS: u64 = 9;

/// Whether this machine is the one that is wanted: what `TEST_KERNEL` says, which has to be so.
fn is(kernel: &str) -> bool {
    static ONCE: std::sync::Once = std::sync::Once::new();
    let Some(wanted) = std::env::var_os("TEST_KERNEL") else {
        let why = "TEST_KERNEL is not set: `cargo xtask test --only kernel` tests the library in machines of its own";
        ONCE.call_once(|| skipped(why, Installable::No));
        return false;
    };
    let found = match std::fs::read_to_string(SYSCTL) {
        Ok(value) if value.trim() == "1" => "patched",
        Ok(_) => "switched off",
        Err(_) => "stock",
    };
    assert_eq!(wanted, found, "the kernel is not what it is to be");
    wanted == kernel
}

fn run(name: &str, args: &[&str]) -> Run {
    Run::new(program(name))
        .args(args)
        .preload(autolock())
        .env("AUTOLOCK_STATS", "1")
}

/// So many rounds of each thread, and these steps.
fn counted(rounds: &str, steps: &[&str]) -> Run {
    run("counted", &[&[THREADS, rounds], steps].concat())
}

/// A figure of the library's lines about its source, one a process.
fn figures(ended: &Ended, key: &str) -> Vec<u64> {
    figures_in(ended, "autolock: source=kernel ", key)
}

/// The same where there is one process.
#[track_caller]
fn figure(ended: &Ended, key: &str) -> u64 {
    one(ended, &figures(ended, key))
}

/// A figure that the kernel has counted.
#[track_caller]
fn kernels(ended: &Ended, key: &str) -> u64 {
    one(ended, &figures_in(ended, "autolock: kernel ", key))
}

#[track_caller]
fn one(ended: &Ended, figures: &[u64]) -> u64 {
    assert_eq!(figures.len(), 1, "{}", ended.story());
    figures[0]
}

fn figures_in(ended: &Ended, start: &str, key: &str) -> Vec<u64> {
    let lines = ended.stderr.lines();
    let found = lines.filter_map(|line| {
        let mut words = line.strip_prefix(start)?.split(' ');
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    });
    found.collect()
}

#[track_caller]
fn says(ended: &Ended, words: &str) {
    assert!(ended.stderr.contains(words), "{}", ended.story());
}

fn broken(variant: &str) -> PathBuf {
    Compile::library("parking_preload")
        .define("BROKEN", variant)
        .build()
}

const BROKEN: [&str; 4] = [
    "BREAK_NONE",
    "BREAK_FORGETS",
    "BREAK_STAYS_ARMED",
    "BREAK_NEVER_ARMS",
];

/// The machines compile nothing: they find what was compiled here.
#[test]
fn all_programs_compile() {
    for name in [
        "counted",
        "slots",
        "torture",
        "process_shared",
        "environment",
    ] {
        program(name);
    }
    for variant in BROKEN {
        broken(variant);
    }
}

mod stock {
    use super::*;

    #[test]
    fn the_library_does_without() {
        if !is("stock") {
            return;
        }
        let ended = counted("500", &["crowd", "fork", "crowd"]);
        let ended = ended.env("AUTOLOCK_BACKEND", "kernel").end().must_succeed();
        says(
            &ended,
            "autolock: AUTOLOCK_BACKEND=kernel: this kernel has no autolocks; using user space\n",
        );
        says(
            &ended,
            "autolock: source=user (this kernel has no autolocks)\n",
        );
        // A system call too many would end it.
        let ended = counted("500", &["kill", "exec", "crowd"])
            .end()
            .must_succeed();
        says(&ended, "autolock: source=user ");
        assert_eq!(figures(&ended, "slots"), []);
    }
}

mod patched {
    use super::*;

    /// A sysctl that is something else for a while.
    struct Sysctl {
        path: &'static str,
        before: String,
    }

    impl Sysctl {
        fn set(path: &'static str, value: &str) -> Self {
            let before = std::fs::read_to_string(path).expect("a sysctl");
            std::fs::write(path, value).expect("a sysctl that root may write");
            Self { path, before }
        }
    }

    impl Drop for Sysctl {
        fn drop(&mut self) {
            std::fs::write(self.path, &self.before).expect("a sysctl that root may write");
        }
    }

    #[test]
    fn who_meets_contention_gets_a_slot_with_auto_and_by_name() {
        if !is("patched") {
            return;
        }
        for backend in ["auto", "kernel"] {
            for (step, slots) in [("contend", 5), ("alone", 1), ("hold", 3)] {
                let ended = run("slots", &[step]).env("AUTOLOCK_BACKEND", backend);
                let ended = ended.end().must_succeed();
                assert_eq!(figure(&ended, "slots"), slots, "{step}");
                assert_eq!(kernels(&ended, "creates"), slots, "{step}");
            }
        }
        for backend in ["ebpf", "user"] {
            let ended = run("slots", &["contend"]).env("AUTOLOCK_BACKEND", backend);
            says(&ended.end().must_succeed(), "autolock: source=user ");
        }
    }

    /// Whether a waiter loses its CPU while it is armed is chance, so there are many rounds.
    #[test]
    fn waiters_are_parked_and_woken() {
        if !is("patched") {
            return;
        }
        let (mut parks, mut wakes, mut answers) = (0, 0, 0);
        for _ in 0..60 {
            let ended = counted("1000", &["crowd"]).end().must_succeed();
            assert!(figure(&ended, "parks") <= kernels(&ended, "parks"));
            answers += figure(&ended, "running") + figure(&ended, "off-cpu");
            parks += figure(&ended, "parks");
            wakes += kernels(&ended, "wakes");
            if parks > 0 && wakes > 0 && answers > 0 {
                return;
            }
        }
        panic!("{parks} parks, {wakes} ended by a wake, {answers} times the kernel knew a holder");
    }

    #[test]
    fn who_holds_a_mutex_is_not_parked_on_it() {
        if is("patched") {
            counted("1000", &["watch"]).end().must_succeed();
        }
    }

    /// Those are noticed by [`waiters_are_parked_and_woken`] and [`who_holds_a_mutex_is_not_parked_on_it`]: mutexes that use slots, and use them wrongly.
    #[test]
    fn mutexes_that_use_slots_wrongly_are_noticed() {
        if !is("patched") {
            return;
        }
        let program = program("counted");
        let run = |variant, step| {
            let run = Run::new(&program).args(&[THREADS, "500", step]);
            run.preload(broken(variant)).end().must_succeed()
        };
        let right = run("BREAK_NONE", "crowd");
        assert!(kernels(&right, "parks") > 0, "{}", right.stderr);
        run("BREAK_NONE", "watch");
        let never = run("BREAK_NEVER_ARMS", "crowd");
        assert_eq!(kernels(&never, "parks"), 0, "{}", never.stderr);
        must_break(
            &program,
            &[THREADS, "500", "watch"],
            &broken("BREAK_STAYS_ARMED"),
            Duration::from_secs(60),
        );
        // Whether somebody sleeps who is forgotten is chance.
        let forgets = |_| {
            Run::new(&program)
                .args(&[THREADS, "1000", "count"])
                .preload(broken("BREAK_FORGETS"))
                .give_up_on_sleepers()
                .end()
        };
        let mut ends = (0..20).map(forgets);
        assert!(ends.any(|ended| !ended.succeeded()), "nobody was forgotten");
    }

    #[test]
    fn children_and_programs_that_are_executed_have_slots_of_their_own() {
        if !is("patched") {
            return;
        }
        for (step, processes) in [("fork", 2), ("vfork", 2), ("spawn", 2), ("exec", 1)] {
            let ended = counted("200", &["count", step, "crowd"])
                .end()
                .must_succeed();
            let slots = figures(&ended, "slots");
            assert_eq!(slots.len(), processes, "{step}: {}", ended.stderr);
            assert!(slots.iter().all(|&slots| slots > 0), "{step}: {slots:?}");
        }
        // With vfork children and those of bare system calls that wait themselves.
        for step in ["fork", "clone", "vfork"] {
            let ended = run("slots", &["contend", step, "contend"]).end();
            let ended = ended.must_succeed();
            assert!(figure(&ended, "slots") >= 5, "{step}: {}", ended.stderr);
            assert_eq!(figure(&ended, "unserved"), 0, "{step}: {}", ended.stderr);
        }
    }

    /// Those of threads that have ended, too, whose end may be later than their join.
    #[test]
    fn slots_are_used_again() {
        if !is("patched") {
            return;
        }
        let ended = run("slots", &["churn"]).end().must_succeed();
        assert_eq!(figure(&ended, "slots"), 101);
        assert_eq!(figure(&ended, "unserved"), 0);
        let peak = kernels(&ended, "peak");
        assert!(peak < 20, "{}", ended.stderr);
    }

    #[test]
    fn a_thread_without_a_slot_does_without() {
        if !is("patched") {
            return;
        }
        let _few = Sysctl::set(MAX_SLOTS, "3");
        let ended = counted("1000", &["crowd"]).end().must_succeed();
        // More than three in turn, where one ends before another asks.
        assert!(figure(&ended, "slots") >= 3, "{}", ended.stderr);
        assert_eq!(kernels(&ended, "peak"), 3);
        assert!(figure(&ended, "unserved") > 0, "{}", ended.stderr);
        let ended = run("slots", &["crowd"]).end().must_succeed();
        assert_eq!(figure(&ended, "slots"), 3);
        assert_eq!(figure(&ended, "unserved"), 22);
    }

    #[test]
    fn switched_off_there_are_none() {
        if !is("patched") {
            return;
        }
        let _off = Sysctl::set(SYSCTL, "0");
        let ended = counted("500", &["crowd", "fork", "crowd"]);
        let ended = ended.env("AUTOLOCK_BACKEND", "kernel").end().must_succeed();
        let why = "the sysctl kernel.auto_lock is 0";
        says(
            &ended,
            &format!("autolock: AUTOLOCK_BACKEND=kernel: {why}; using user space\n"),
        );
        says(&ended, &format!("autolock: source=user ({why})\n"));
        let ended = counted("500", &["crowd"]).end().must_succeed();
        says(&ended, "autolock: source=user ");
    }

    #[test]
    fn switched_off_in_the_middle_nobody_is_parked_any_more() {
        if !is("patched") {
            return;
        }
        let _on = Sysctl::set(SYSCTL, "1");
        let steps = ["crowd", "off", "crowd", "crowd", "same", "on", "crowd"];
        let ended = counted("500", &steps).end().must_succeed();
        // New threads get none while it is off.
        assert!(figure(&ended, "unserved") > 0, "{}", ended.stderr);
        assert!(figure(&ended, "slots") > SLOTS, "{}", ended.stderr);
        for _ in 0..3 {
            counted("500", &["toggle"]).end().must_succeed();
        }
    }

    #[test]
    fn in_a_sandbox_nobody_registers_unless_by_name() {
        if !is("patched") {
            return;
        }
        // There before the program begins.
        let ended = counted("500", &["kill", "exec", "crowd"])
            .end()
            .must_succeed();
        says(&ended, "autolock: source=user ");
        let ended = counted("500", &["refuse", "exec", "crowd"]);
        let ended = ended.env("AUTOLOCK_BACKEND", "kernel").end().must_succeed();
        says(&ended, "; using user space\n");
        // Put on in the middle: those who have a slot keep it.
        let ended = counted("500", &["crowd", "kill", "crowd", "fork", "crowd"]);
        let ended = ended.end().must_succeed();
        let slots = figures(&ended, "slots");
        assert!(slots.iter().all(|&slots| slots <= SLOTS), "{slots:?}");
        assert_eq!(figures(&ended, "unserved"), [0]);
        let ended = counted("500", &["crowd", "refuse", "crowd"]);
        let ended = ended.env("AUTOLOCK_BACKEND", "kernel").end().must_succeed();
        assert!(figure(&ended, "unserved") > 0, "{}", ended.stderr);
        run("environment", &["sandbox"]).end().must_succeed();
    }

    /// Everything at once, in short; and with processes that share.
    #[test]
    fn everything_at_once() {
        if !is("patched") {
            return;
        }
        for args in [["12", "3", "2000", "pure"], ["16", "15", "1000", "mixed"]] {
            let ended = run("torture", &args).end().must_succeed();
            assert!(figure(&ended, "slots") > 1, "{}", ended.stderr);
        }
        run("process_shared", &["both"]).end().must_succeed();
    }
}
