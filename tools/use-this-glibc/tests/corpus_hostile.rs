//! Files that nobody would link: cut off, with flipped bits, with headers that lie. Each is refused, in one line, or changed such that
//! it comes back to the byte and does what it did before; and nothing panics or hangs.
//!
//! The prefix is a copy of the system's glibc in a scratch folder. The programs are linked here; what needs a compiler says `SKIPPED` without one.

mod corpus;

use std::fmt::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use corpus::{Base, Damage, Numbers, Outcome, World};
use use_this_glibc::elf::{self, Change, RunPath};

/// Long enough for the largest hole that an edit may leave, on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

fn change() -> Change {
    Change {
        interpreter: Some(b"/nonexistent/prefix/lib/ld-linux-x86-64.so.2".to_vec()),
        run_path: Some((RunPath::Rpath, b"/nonexistent/prefix/lib:/usr/lib".to_vec())),
        add_needed: vec![b"libadded.so".to_vec(), b"libadded-too.so.1".to_vec()],
    }
}

/// What the edit of these bytes must be, without files: none where it is.
fn wrong(bytes: &[u8]) -> Option<String> {
    match elf::undo::original(bytes) {
        Ok(None) | Err(_) => {}
        Ok(Some(_)) => return Some("seems to have been changed by us".into()),
    }
    match elf::apply(bytes, &change()) {
        Err(error) => {
            let line = error.to_string();
            (line.is_empty() || line.contains('\n') || error.status() != 3)
                .then(|| format!("status {}, {line:?}", error.status()))
        }
        Ok(changed) => {
            if elf::Image::parse(&changed).is_err() {
                return Some("the result is not read again".into());
            }
            if elf::apply(bytes, &change()).as_ref() != Ok(&changed) {
                return Some("the same input gives another output".into());
            }
            let back = elf::undo::original(&changed);
            (back.as_ref().map(Option::as_deref) != Ok(Some(bytes))).then(|| {
                format!(
                    "does not come back: {:?}",
                    back.map(|it| it.map(|it| it.len()))
                )
            })
        }
    }
}

/// Each of them in a thread of its own, so that one that hangs or panics is named.
fn all_bear(base: &Base, damaged: impl Iterator<Item = Damage>) {
    let mut problems = String::new();
    let mut count = 0;
    let mut accepted = 0;
    let (send, receive) = mpsc::channel::<Vec<u8>>();
    let (answer, answers) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        for bytes in receive {
            let result = std::panic::catch_unwind(|| wrong(&bytes))
                .unwrap_or_else(|_| Some("panicked".into()));
            if answer
                .send((result, elf::apply(&bytes, &change()).is_ok()))
                .is_err()
            {
                return;
            }
        }
    });
    for damage in damaged {
        send.send(damage.bytes).expect("the worker lives");
        let (problem, ok) = answers.recv_timeout(LIMIT).unwrap_or_else(|_| {
            panic!("{}: {}: no answer after {LIMIT:?}", base.name, damage.name)
        });
        count += 1;
        accepted += usize::from(ok);
        if let Some(problem) = problem {
            let _ = writeln!(problems, "{}: {}: {problem}", base.name, damage.name);
        }
    }
    drop(send);
    worker.join().expect("the worker ends");
    println!(
        "{}: {count} damaged files, {accepted} of them changed",
        base.name
    );
    assert!(count > 0);
    assert!(problems.is_empty(), "{}", head(&problems));
}

fn head(problems: &str) -> String {
    let lines: Vec<_> = problems.lines().collect();
    format!(
        "{} problems\n{}",
        lines.len(),
        lines[..lines.len().min(40)].join("\n")
    )
}

/// The whole program on some of the damaged files (it takes milliseconds for each), and what it wrote is run where the damaged original runs.
/// Returns what went wrong.
fn all_run_as_before(world: &World, base: &Base, damaged: impl Iterator<Item = Damage>) -> String {
    let mut problems = String::new();
    let (mut same, mut refused, mut dead) = (0, 0, 0);
    for damage in damaged {
        match world.edit_and_run(base, &damage) {
            Outcome::Same => same += 1,
            Outcome::Refused => refused += 1,
            Outcome::OriginalDoesNotRun => dead += 1,
            Outcome::Wrong(problem) => {
                let _ = writeln!(problems, "{}: {}: {problem}", base.name, damage.name);
            }
        }
    }
    println!(
        "{}: {same} run as before, {refused} refused, {dead} changed whose original does not run",
        base.name
    );
    assert!(same + refused + dead > 0);
    problems
}

#[test]
fn truncated_files_are_refused_or_come_back() {
    let Some(world) = World::new() else { return };
    for base in &world.bases {
        all_bear(base, corpus::truncations(base));
    }
}

#[test]
fn every_flipped_header_bit_is_borne() {
    let Some(world) = World::new() else { return };
    for base in &world.bases {
        all_bear(base, corpus::header_bits(base));
    }
}

#[test]
fn every_flipped_bit_of_the_dynamic_section_is_borne() {
    let Some(world) = World::new() else { return };
    for base in &world.bases {
        all_bear(base, corpus::dynamic_bits(base));
    }
}

#[test]
fn many_faults_at_once_are_borne() {
    let Some(world) = World::new() else { return };
    for base in &world.bases {
        all_bear(base, corpus::many_faults(base, Numbers::new(1), 3000));
    }
}

#[test]
fn headers_that_lie_are_borne() {
    let Some(world) = World::new() else { return };
    for base in &world.bases {
        all_bear(base, corpus::lies(base).into_iter());
    }
}

#[test]
fn lying_files_run_as_before_or_are_refused() {
    let Some(world) = World::new() else { return };
    let mut problems = String::new();
    for base in &world.bases {
        problems += &all_run_as_before(&world, base, corpus::lies(base).into_iter().step_by(3));
    }
    assert!(problems.is_empty(), "{}", head(&problems));
}

#[test]
fn truncated_files_run_as_before_or_are_refused() {
    let Some(world) = World::new() else { return };
    let mut problems = String::new();
    for base in &world.bases {
        problems += &all_run_as_before(&world, base, corpus::truncations(base).step_by(3));
    }
    assert!(problems.is_empty(), "{}", head(&problems));
}

#[test]
fn flipped_bits_run_as_before_or_are_refused() {
    let Some(world) = World::new() else { return };
    let mut problems = String::new();
    for base in &world.bases {
        let mut numbers = Numbers::new(2);
        let chosen = |_: &Damage| numbers.below(24) == 0;
        problems += &all_run_as_before(
            &world,
            base,
            corpus::header_bits(base)
                .chain(corpus::dynamic_bits(base))
                .filter(chosen),
        );
    }
    assert!(problems.is_empty(), "{}", head(&problems));
}

/// Flips within the notes at the end of a changed file: never another original.
#[test]
fn a_damaged_undo_record_gives_no_wrong_original() {
    let Some(world) = World::new() else { return };
    for base in &world.bases {
        let changed = elf::apply(&base.bytes, &change()).expect("the undamaged file is changed");
        let mut problems = String::new();
        let tail = changed.len().saturating_sub(700)..changed.len();
        for at in tail {
            for bit in 0..8 {
                let mut bytes = changed.clone();
                bytes[at] ^= 1 << bit;
                let back = std::panic::catch_unwind(|| elf::undo::original(&bytes));
                match back {
                    Ok(Err(_) | Ok(None)) => {}
                    Ok(Ok(Some(original))) if original == base.bytes => {}
                    Ok(Ok(Some(_))) => {
                        let _ = writeln!(
                            problems,
                            "{}: byte {at} bit {bit}: another original",
                            base.name
                        );
                    }
                    Err(_) => {
                        let _ = writeln!(problems, "{}: byte {at} bit {bit}: panicked", base.name);
                    }
                }
            }
        }
        for cut in 1..400.min(changed.len()) {
            let bytes = &changed[..changed.len() - cut];
            match std::panic::catch_unwind(|| elf::undo::original(bytes)) {
                Ok(Ok(Some(original))) if original != base.bytes => {
                    let _ = writeln!(problems, "cut by {cut}: another original");
                }
                Ok(_) => {}
                Err(_) => {
                    let _ = writeln!(problems, "cut by {cut}: panicked");
                }
            }
        }
        assert!(problems.is_empty(), "{}", head(&problems));
    }
}

#[test]
fn paths_that_are_no_programs_are_refused_at_once() {
    let Some(world) = World::new() else { return };
    world.odd_paths();
}
