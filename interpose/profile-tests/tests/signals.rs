//! SIGINT and SIGTERM: the table is printed, and the program meets the signal as it would have. At any moment, many times. `kill -9` leaves a record, too.

use autolock_tests::{Outcome, Run};
use profile_tests::{Finished, Mode, Page, Profiled, compile, profiler};
use rustix::process::{Signal, kill_process};
use std::time::Duration;

/// Whether the table is on stderr, and before the program says that it handled its first signal.
fn has_table(finished: &Finished) -> bool {
    let stderr = &finished.ended.stderr;
    let in_time = match stderr.split_once("handled 1\n") {
        Some((before, _)) => before,
        None => stderr,
    };
    in_time.contains("used") && stderr.contains("autolock report ")
}

#[track_caller]
fn meets(args: &[&str], outcome: Outcome, at_signal: bool) {
    let program = compile("signals").build();
    for mode in [Mode::Sampled, Mode::Full] {
        // The program is right without the profiler.
        let plain = Run::new(&program).args(args).end();
        assert_eq!(plain.outcome, outcome, "{}", plain.story());
        let finished = Profiled::new(&program, mode).args(args).end();
        assert_eq!(
            finished.ended.outcome,
            outcome,
            "{}",
            finished.ended.story()
        );
        assert_eq!(
            has_table(&finished),
            at_signal,
            "{}",
            finished.ended.story()
        );
        finished.must_be_right();
    }
}

macro_rules! meets {
    ($($test:ident: $args:expr, $outcome:expr $(, $at_signal:literal)?;)*) => {$(
        #[test]
        fn $test() {
            // At the signal, unless it says otherwise.
            let at_signal = [$($at_signal,)? true][0];
            meets(&$args, $outcome, at_signal);
        }
    )*};
}

meets! {
    a_handler_that_is_set_first: ["early"], Outcome::Exited(0);
    a_handler_that_is_set_late: ["late"], Outcome::Exited(0);
    handlers_by_signal: ["signal"], Outcome::Exited(0);
    handlers_by_sysv_signal: ["sysv-signal"], Outcome::Killed(2);
    handlers_for_once: ["once"], Outcome::Killed(15);
    handlers_by_sigset: ["sigset"], Outcome::Exited(0);
    handlers_with_information: ["information"], Outcome::Exited(0);
    handlers_on_a_stack_of_their_own: ["other-stack"], Outcome::Exited(0);
    sigint_kills_by_default: ["default", "2"], Outcome::Killed(2);
    sigterm_kills_by_default: ["default", "15"], Outcome::Killed(15);
    sigint_kills_threads_that_lock: ["default-busy"], Outcome::Killed(2);
    ignored_and_then_not: ["ignored-then-default"], Outcome::Killed(2);
    signals_that_are_waited_for: ["waited-for"], Outcome::Exited(0);
    other_signals_are_not_ours: ["others"], Outcome::Exited(0), false;
    handlers_that_lock: ["handler-locks"], Outcome::Exited(0);
    handlers_that_jump_out: ["jumps-out"], Outcome::Exited(0);
    handlers_that_exit: ["handler-exits"], Outcome::Exited(0);
}

/// As behind nohup: `env` starts it with SIGINT ignored, without locks of its own.
#[test]
fn an_inherited_ignore_stays() {
    let program = compile("signals").build();
    Profiled::new("/usr/bin/env", Mode::Sampled)
        .args(&["--ignore-signal=INT", &program.to_string_lossy()])
        .args(&["inherited-ignore"])
        .must_be_right();
}

/// SIGINT at a random moment, 200 times; a program without a handler dies of it, one with a handler finishes.
const TIMES: u32 = 200;

/// Moments up to here after the start, in microseconds: from before `main` to well into the work.
const SPAN: u64 = 25_000;

/// xorshift64*, for moments.
fn next_moment(state: &mut u64) -> Duration {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    Duration::from_micros(state.wrapping_mul(2_685_821_657_736_338_717) % SPAN)
}

/// Starts the program, sends the signal at a random moment, and waits for the end.
fn struck(args: &[&str], signal: Option<Signal>, random: &mut u64) -> (Finished, Option<Page>) {
    let started = Profiled::new(compile("working").build(), Mode::Sampled)
        .with(|run| run.deadline(Duration::from_secs(30)))
        .args(args)
        .start();
    if let Some(signal) = signal {
        std::thread::sleep(next_moment(random));
        // It cannot be gone: it is not reaped before `end`.
        kill_process(started.running.pid(), signal).expect("the program is there");
    }
    let finished = started.end();
    let page = Page::read(&finished.folder.path().join("page"));
    (finished, page)
}

/// Lock calls that the program began.
fn begun(page: Option<&Page>) -> u64 {
    let locks = page.map(Page::locks).unwrap_or_default();
    locks.iter().map(|lock| lock.begun).sum()
}

/// The record of a process that had no time to say anything, against the notes of its steps: right to one operation of each thread.
#[track_caller]
fn agrees(finished: &Finished, page: Option<&Page>) {
    let Some(page) = page else {
        assert!(finished.reports.is_empty());
        return;
    };
    if finished.reports.is_empty() && begun(Some(page)) <= 4 {
        // Of what was not begun the tool says so; between its making and its first bytes the file is empty.
        for words in &finished.unreadable {
            assert!(
                words.contains("no capture was begun") || words.contains("it is empty"),
                "{words}"
            );
        }
        return;
    }
    let report = finished.report();
    for lock in page.locks() {
        let counted: u64 = report
            .locks()
            .iter()
            .filter(|found| found["address"] == lock.address)
            .map(|found| found["acquisitions"].as_u64().expect("a count"))
            .sum();
        assert!(
            (lock.over.saturating_sub(4)..=lock.begun).contains(&counted),
            "{} acquisitions counted, {} begun, {} over: {}",
            counted,
            lock.begun,
            lock.over,
            finished.ended.story()
        );
    }
}

#[test]
fn sigint_at_any_moment_and_the_program_finishes_with_exact_counts() {
    let mut random = 0x5eed_0001;
    let mut finished_well = 0;
    for _ in 0..TIMES {
        let (finished, page) = struck(&["page", "finish"], Some(Signal::INT), &mut random);
        let prepared = page.as_ref().is_some_and(Page::prepared);
        match &finished.ended.outcome {
            // Interrupted before it had begun.
            Outcome::Exited(0) if begun(page.as_ref()) == 0 => agrees(&finished, page.as_ref()),
            Outcome::Exited(0) => {
                finished_well += 1;
                finished.must_be_right();
            }
            // Before its handler was set, it dies as any program.
            Outcome::Killed(2) if !prepared => agrees(&finished, page.as_ref()),
            _ => panic!("{}", finished.ended.story()),
        }
    }
    assert!(
        finished_well > TIMES / 4,
        "{finished_well} came to their work"
    );
}

#[test]
fn sigint_at_any_moment_kills_a_program_without_a_handler_and_its_record_is_whole() {
    let mut random = 0x5eed_0002;
    let mut with_record = 0;
    for _ in 0..TIMES {
        let (finished, page) = struck(&["page", "default"], Some(Signal::INT), &mut random);
        assert_eq!(
            finished.ended.outcome,
            Outcome::Killed(2),
            "{}",
            finished.ended.story()
        );
        agrees(&finished, page.as_ref());
        if let Some(report) = finished.reports.first() {
            with_record += 1;
            assert!(
                ["signal:2", "none"].contains(&report.ending().as_str()),
                "{}",
                report.ending()
            );
        }
    }
    assert!(with_record > TIMES / 4, "{with_record} left a record");
}

#[test]
fn kill_9_at_any_moment_leaves_a_record_that_is_right_to_an_operation() {
    let mut random = 0x5eed_0003;
    for _ in 0..50 {
        let (finished, page) = struck(&["page", "default"], Some(Signal::KILL), &mut random);
        assert_eq!(finished.ended.outcome, Outcome::Killed(9));
        agrees(&finished, page.as_ref());
    }
}

#[test]
fn a_crash_among_threads_that_lock_leaves_a_record() {
    for _ in 0..5 {
        let (finished, page) = struck(&["page", "default", "crash"], None, &mut 1);
        assert_eq!(
            finished.ended.outcome,
            Outcome::Killed(11),
            "{}",
            finished.ended.story()
        );
        assert_eq!(finished.report().ending(), "none");
        agrees(&finished, page.as_ref());
    }
}

/// Some six thousand lines about handlers, masks, flags, deaths, forks and waits: the same with the profiler in front of every handler.
#[test]
fn a_program_that_tries_all_that_signals_can_do_sees_no_difference() {
    let program = compile("signals_transcript").build();
    let transcript = |run: Run| {
        let ended = run.end();
        assert_eq!(ended.outcome, Outcome::Exited(0), "{}", ended.story());
        ended.stdout
    };
    let plain = transcript(Run::new(&program));
    assert!(plain.lines().count() > 5000);
    for on_demand in ["", "USR2"] {
        let profiled = Run::new(&program)
            .preload(profiler())
            .env("AUTOLOCK_PROFILE_FILE", "none")
            .env("AUTOLOCK_PROFILE_SIGNAL", on_demand);
        let profiled = transcript(profiled);
        let differs = plain.lines().zip(profiled.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "AUTOLOCK_PROFILE_SIGNAL={on_demand}");
        assert_eq!(plain.lines().count(), profiled.lines().count());
    }
}
