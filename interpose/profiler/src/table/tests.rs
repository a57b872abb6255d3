use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::AtomicU32;

use super::synthetic::{add, capture, frame as add_frame, histogram, text};
use super::*;

fn memory_file() -> File {
    // SAFETY: a NUL-terminated name.
    let descriptor = unsafe { libc::memfd_create(c"table".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(descriptor >= 0);
    // SAFETY: a fresh descriptor.
    unsafe { File::from_raw_fd(descriptor) }
}

const OCCASION: Occasion = Occasion {
    why: "SIGINT",
    file: |buffer| {
        buffer[..12].copy_from_slice(b"x.1.lockprof");
        &buffer[..12]
    },
    now_ns: 13_300_000_000,
    rows: 20,
    patience_ns: 60_000_000_000, // Other tests print too.
};

fn printed(capture: Capture, occasion: &Occasion) -> String {
    let mut file = memory_file();
    assert!(print(capture, occasion, file.as_raw_fd()));
    file.rewind().expect("a file");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("text");
    for line in text.lines() {
        assert!(line.len() <= WIDTH, "{line}");
    }
    text
}

/// A lock with waits and holds.
fn lock(capture: Capture, acquired: u64, waits: &[u64], hold: &[u64]) -> &'static Lock {
    let (index, lock) = add::<Lock>(capture);
    lock.key
        .store(0x7f00_0000_1000 + u64::from(index) * 64, Relaxed);
    lock.acquisitions.store(acquired, Relaxed);
    for (kind, which, values) in [
        (site::WAIT, histogram::WAIT, waits),
        (site::HOLD, histogram::HOLD, hold),
    ] {
        for value in values {
            let (_, site) = add::<Site>(capture);
            site.lock.store(index, Relaxed);
            site.kind.store(kind, Relaxed);
            site.count.store(1, Relaxed);
            site.samples.store(1, Relaxed);
            site.total_ns.store(*value, Relaxed);
            site.max_ns.store(*value, Relaxed);
        }
        if !values.is_empty() {
            lock.histograms[which].store(histogram(capture, values), Relaxed);
        }
    }
    lock
}

/// This program, as a module.
fn this_program(capture: Capture) -> u32 {
    let (index, module) = add::<Module>(capture);
    let path = std::env::current_exe().expect("a path");
    let path = path.as_os_str().as_bytes();
    text(&module.path, path);
    module.path_length.store(path.len() as u32, Relaxed);
    text(&capture.header().executable, path);
    index
}

/// What the file calls 0, in memory.
fn load_address() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let path = std::env::current_exe().expect("a path");
    let line = maps
        .lines()
        .find(|line| line.ends_with(path.to_str().expect("text")));
    let start = line
        .and_then(|line| line.split('-').next())
        .expect("mapped");
    u64::from_str_radix(start, 16).expect("an address")
}

// SAFETY: names that nothing else has.
#[unsafe(no_mangle)]
static AUTOLOCK_PROFILER_TEST_LOCKS: [AtomicU32; 10] = [const { AtomicU32::new(7) }; 10];

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn autolock_profiler_test_code() -> u32 {
    std::hint::black_box(AUTOLOCK_PROFILER_TEST_LOCKS[3].load(Relaxed))
}

#[test]
fn the_figures_are_the_captures() {
    let capture = capture();
    let header = capture.header();
    text(&header.command, b"memcached\0-t\x004\0");
    for (at, byte) in b"memcached\0-t\x004\0".iter().enumerate() {
        header.command[at].store(*byte, Relaxed);
    }
    header.command_length.store(15, Relaxed);
    header.started_ns.store(1_000_000_000, Relaxed);
    lock(capture, 1000, &[], &[100; 10]);
    let waited = lock(capture, 150, &[1_000_000, 3_000_000], &[100_000_000; 20]);
    // 50 of its acquisitions are still in a thread's entry.
    let (_, thread) = add::<Thread>(capture);
    thread.entries[5]
        .key
        .store(waited.key.load(Relaxed), Relaxed);
    thread.entries[5].lock.store(2, Relaxed);
    thread.entries[5].acquisitions.store(50, Relaxed);
    // The profiler's own lock counts nowhere.
    let own = lock(capture, 5, &[6], &[7, 8]);
    own.control.store(control::HIDDEN, Relaxed);
    header.dropped.stacks.store(3, Relaxed);
    header.cost.native_ps.store(23_000, Relaxed);

    let table = printed(capture, &OCCASION);
    let lines: Vec<_> = table.lines().skip(1).collect();
    assert_eq!(
        lines[0],
        format!(
            "pthread-mutex-profile: memcached -t 4 (pid {}), 12.3s, SIGINT",
            std::process::id()
        )
    );
    assert_eq!(
        lines[1],
        "2 locks, 1200 acquisitions, 2 contended (0.2%), 4.00ms waited"
    );
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(lines[4])[2..],
        [
            "200", "2", "1.0", "4.00ms", "2.00ms", "3.00ms", "3.00ms", "100ms", "100ms", "100ms"
        ]
    );
    assert_eq!(
        words(lines[5])[2..],
        [
            "1000", "0", "0", "-", "-", "-", "-", "100ns", "100ns", "100ns"
        ]
    );
    assert_eq!(lines[6], "dropped: 3 stacks");
    assert!(lines[7].contains(" of 30 holds 30 were"), "{table}");
    assert_eq!(
        lines[9],
        "stacks, holders, percentiles: autolock report x.1.lockprof"
    );
    assert_eq!(activity(capture), 1000 + 150 + 50 + 2 + 30 + 5 + 1 + 2);
    // Sums do not pile up.
    assert_eq!(printed(capture, &OCCASION), table);
}

#[test]
fn the_first_rows_are_those_that_waited_most() {
    let capture = capture();
    let mut waits: Vec<u64> = (1..=300)
        .map(|n| n * 7919 % 100_003 * 1_000_000_000)
        .collect();
    for wait in &waits {
        lock(capture, 1, &[*wait], &[]);
    }
    lock(capture, 0, &[], &[]); // Never used: not shown.
    waits.sort_unstable_by(|a, b| b.cmp(a));
    for rows in [1, 7, 100] {
        let table = printed(capture, &Occasion { rows, ..OCCASION });
        let shown: Vec<_> = table
            .lines()
            .filter(|line| line.starts_with("lock, 0x"))
            .map(|line| line.split_whitespace().nth(5).expect("a time").to_owned())
            .collect();
        let expected: Vec<_> = waits[..rows]
            .iter()
            .map(|wait| Time(*wait).to_string())
            .collect();
        assert_eq!(shown, expected);
        assert!(table.contains(&format!("... and {} more", 300 - rows)));
    }
}

#[test]
fn locks_are_named_after_symbols() {
    let capture = capture();
    let module = this_program(capture);
    let here = |address: usize| frame::new(module, address as u64 - load_address());
    let place = here(AUTOLOCK_PROFILER_TEST_LOCKS.as_ptr().addr());

    lock(capture, 3, &[9], &[]).place.store(place, Relaxed);
    let inner = lock(capture, 3, &[8], &[]);
    inner.place.store(place + 8, Relaxed);
    inner.kind.store(kind::READERS, Relaxed);

    let code = autolock_profiler_test_code as *const () as usize;
    let (stack_index, stack) = add::<Stack>(capture);
    stack
        .first
        .store(add_frame(capture, here(code + 4)), Relaxed);
    stack.len.store(1, Relaxed);
    let heap = lock(capture, 3, &[7], &[]);
    heap.first_use.store(stack_index, Relaxed);
    // Of a call that was a function's last instruction the return address is in the next.
    let (next_index, next) = add::<Stack>(capture);
    next.first.store(add_frame(capture, here(code)), Relaxed);
    next.len.store(1, Relaxed);
    let last = lock(capture, 3, &[6], &[]);
    last.first_use.store(next_index, Relaxed);
    last.incarnations.store(12, Relaxed);
    // A place that no symbol covers.
    lock(capture, 3, &[5], &[])
        .place
        .store(frame::new(module, 1), Relaxed);

    let table = printed(capture, &OCCASION);
    let own = std::env::current_exe().expect("a path");
    let own = own.file_name().expect("a name").to_str().expect("text");
    let names: Vec<_> = table.lines().skip(5).collect();
    assert!(
        names[0].starts_with("AUTOLOCK_PROFILER_TEST_LOCKS"),
        "{table}"
    );
    assert!(
        names[2].starts_with("AUTOLOCK_PROFILER_TEST_LOCKS+0x8 readers"),
        "{table}"
    );
    let expected = format!("first used at autolock_profiler_test_code+0x4 ({own}), 0x");
    assert!(
        names[4].starts_with(&expected[..WIDTH.min(expected.len())]),
        "{table}"
    );
    assert!(names[6].starts_with("first used at "), "{table}");
    assert!(!names[6].contains("autolock_profiler_test_code"), "{table}");
    assert!(names[8].starts_with(&format!("{own}+0x1")), "{table}");

    // Another build's symbols are not taken.
    let item = capture.get::<Module>(module).expect("added");
    item.build_id_length.store(20, Relaxed);
    let table = printed(capture, &OCCASION);
    assert!(!table.contains("AUTOLOCK_PROFILER_TEST_LOCKS"), "{table}");
}

#[test]
fn a_damaged_capture_does_no_harm() {
    let capture = capture();
    let module = this_program(capture);
    let odd = lock(capture, 3, &[9], &[7]);
    odd.place.store(frame::new(module + 9, 5), Relaxed);
    odd.first_use.store(77, Relaxed);
    odd.histograms[0].store(u32::MAX, Relaxed);
    let (_, site) = add::<Site>(capture);
    site.lock.store(u32::MAX, Relaxed);
    site.kind.store(99, Relaxed);
    let item = capture.get::<Module>(module).expect("added");
    item.path_length.store(u32::MAX, Relaxed);
    item.build_id_length.store(u32::MAX, Relaxed);
    lock(capture, u64::MAX, &[u64::MAX; 3], &[u64::MAX; 3])
        .place
        .store(frame::new(module, 5), Relaxed);
    capture.header().command_length.store(u32::MAX, Relaxed);
    assert!(printed(capture, &OCCASION).contains("2 locks"));
}

#[test]
fn one_table_at_a_time() {
    let capture = capture();
    lock(capture, 1, &[1], &[1]);
    let held = Held::new(process::TABLE);
    let none = Occasion {
        patience_ns: 0,
        ..OCCASION
    };
    let file = memory_file();
    assert!(!print(capture, &none, file.as_raw_fd()));
    let other = std::thread::spawn(move || print(capture, &none, file.as_raw_fd()));
    assert!(!other.join().expect("no panic"));
    drop(held);
    assert!(!printed(capture, &OCCASION).is_empty());
}
