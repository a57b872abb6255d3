//! The reader against captures made by hand: what it must find in good ones, and that it survives bad ones.

use std::io::Cursor;
use std::mem::offset_of;

use autolock_capture::layout::{self, CHUNK, Header, Table};

use super::read;
use crate::report::model::{Ending, Kind, Mode, Report, SiteKind};
use crate::report::rows::{Totals, quantile, rows};
use crate::report::synthetic::{LASTED, LockSays, MANY, Synthetic, put32, put64, server};

fn report(capture: &Synthetic) -> Report {
    read(Cursor::new(capture.bytes())).expect("a capture")
}

fn refusal(bytes: Vec<u8>) -> String {
    format!("{:#}", read(Cursor::new(bytes)).expect_err("no capture"))
}

#[test]
fn counts_are_the_locks_own_and_its_threads() {
    let report = report(&server());
    let hot = &report.locks[0];
    assert_eq!(hot.acquisitions, 1_000 + 500 + 250);
    assert_eq!(hot.failed_tries, 7 + 3);
    assert_eq!((hot.compared, hot.changed, hot.most_waiters), (100, 40, 3));
    let readers = report.locks.last().expect("locks");
    assert_eq!(
        (readers.kind, readers.acquisitions),
        (Kind::Readers, 12 + 30)
    );
    assert_eq!(readers.address, 0x7000_2000);
    assert!(
        report.notes.iter().all(|note| !note.contains("damaged")),
        "{:?}",
        report.notes
    );
}

#[test]
fn totals_are_sums_of_sites_and_unreleased_waits_are_among_them() {
    let report = report(&server());
    let hot = &report.locks[0];
    assert_eq!(
        (hot.wait.count, hot.wait.total_ns),
        (60 + 40 + 1, 142_000_000)
    );
    assert_eq!(hot.wait.max_ns, 5_000_000);
    assert_eq!((hot.hold.count, hot.hold.total_ns), (20, 2_000_000_000));
    assert_eq!((hot.timed_out.count, hot.cond.count), (2, 5));
    // The histogram has the unreleased one as well.
    assert_eq!(hot.wait.histogram.len(), 101);
    let pending = report.sites.last().expect("sites");
    assert_eq!(
        (pending.kind, pending.count, pending.total_ns),
        (SiteKind::Wait, 1, 2_000_000)
    );
    for (index, lock) in report.locks.iter().enumerate() {
        let waits = report
            .sites
            .iter()
            .filter(|s| s.lock == index && s.kind == SiteKind::Wait);
        assert_eq!(lock.wait.count, waits.map(|s| s.count).sum::<u64>());
    }
}

#[test]
fn histograms_have_the_slots_of_the_capture() {
    let mut capture = Synthetic::new();
    let values = [
        0,
        1,
        127,
        128,
        255,
        256,
        1_001,
        99_999,
        123_456_789,
        (1 << 42) - 1,
    ];
    let weighted: Vec<_> = values.iter().map(|&ns| (ns, ns % 5 + 1)).collect();
    let histogram = capture.histogram(&weighted);
    let lock = LockSays {
        key: 64,
        kind: layout::kind::MUTEX,
        histograms: [0, histogram, 0],
        ..LockSays::default()
    };
    capture.lock(lock);
    let read = report(&capture).locks.remove(0).hold.histogram;
    let mut wanted = hdrhistogram::Histogram::<u64>::new(2).expect("a histogram");
    for &(ns, count) in &weighted {
        wanted.record_n(ns, count).expect("recorded");
    }
    assert_eq!(*read, wanted);
}

#[test]
fn shared_histograms_are_told_and_added_once() {
    let report = report(&server());
    let many = &report.locks[1..][..MANY as usize];
    assert!(
        many.iter()
            .all(|lock| lock.hold.shared && lock.hold.histogram.len() == MANY)
    );
    assert!(
        many.iter()
            .all(|lock| !lock.wait.shared && lock.wait.histogram.is_empty())
    );
    assert!(many.iter().all(|lock| lock.id == many[0].id));
    let rows = rows(&report, false);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1].indices.len() as u64, MANY);
    assert_eq!(rows[1].hold.count, 5 * MANY);
    assert_eq!(rows[1].hold.histogram.len(), MANY);
    assert!(quantile(&rows[1].hold, 0.99) < 1_010);
}

#[test]
fn hidden_locks_are_left_out() {
    let report = report(&server());
    assert_eq!(report.locks.len() as u64, MANY + 2);
    assert_eq!(Totals::of(&report).acquisitions, 1_750 + 5 * MANY + 42);
    assert_eq!(Totals::of(&report).contended, 101);
}

#[test]
fn waiting_threads_and_the_process_are_there() {
    let report = report(&server());
    let [waiting] = report.waiting.as_slice() else {
        panic!("{:?}", report.waiting);
    };
    assert_eq!(
        (waiting.tid, waiting.holder_tid, waiting.lock),
        (4243, Some(4242), 0)
    );
    assert_eq!(waiting.for_ns, 1_500_000_000);
    assert!(waiting.stack.is_some() && waiting.holder.is_some());
    let process = &report.process;
    assert_eq!(process.command, ["server", "-t", "4"]);
    assert_eq!((process.pid, process.threads), (4242, 2));
    assert_eq!(process.duration_ns, LASTED);
    assert_eq!(
        (process.ending, process.mode),
        (Ending::Exit, Mode::Sampled)
    );
    assert_eq!(process.next.as_deref(), Some("/nowhere/libc.so.6"));
}

#[test]
fn without_an_end_the_last_sign_of_life_is_it() {
    let mut capture = server();
    capture.without_end();
    let report = report(&capture);
    assert_eq!(report.process.ending, Ending::None);
    assert_eq!(report.process.duration_ns, LASTED - 1_500_000_000);
    assert_eq!(report.waiting[0].for_ns, 0);
}

#[test]
fn static_locks_without_a_symbol_are_module_and_offset() {
    let report = report(&server());
    assert_eq!(report.locks[0].name, "server+0x4010");
    assert_eq!(report.locks[1].name, "mutex first used in server+0x1400");
    assert_ne!(report.locks[0].id, report.locks[1].id);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("/nowhere/server"))
    );
}

#[test]
fn identity_does_not_depend_on_addresses() {
    let with = |key, folder: &str| {
        let mut capture = Synthetic::new();
        let module = capture.module(&format!("{folder}/lib.so"), &[]);
        let first_use = capture.stack(&[(module, 0x500), (0, key)]);
        let says = LockSays {
            key,
            kind: layout::kind::MUTEX,
            first_use,
            ..LockSays::default()
        };
        capture.lock(says);
        report(&capture).locks.remove(0).id
    };
    assert_eq!(with(0x1000, "/a"), with(0x2000, "/b"));
}

#[test]
fn what_is_no_capture_is_refused_in_a_line_that_says_why() {
    let good = server().bytes();
    let mut wrong_magic = good.clone();
    wrong_magic[0] ^= 1;
    let mut unborn = good.clone();
    unborn[..8].fill(0);
    let mut version = good.clone();
    put32(&mut version, offset_of!(Header, version), 99);
    let mut size = good.clone();
    put32(&mut size, offset_of!(Header, header_size), 8);
    for (bytes, why) in [
        (Vec::new(), "empty"),
        (b"ELF".to_vec(), "not a capture"),
        (wrong_magic, "not a capture"),
        (unborn, "no capture was begun"),
        (good[..10_000].to_vec(), "cut off"),
        (version, "version 99"),
        (size, "damaged"),
    ] {
        let refusal = refusal(bytes);
        assert!(
            refusal.contains(why) && !refusal.contains('\n'),
            "{refusal}"
        );
    }
}

#[test]
fn damage_inside_is_left_out_counted_and_told() {
    let mut capture = server();
    let locks = capture.items[layout::LOCKS].len();
    put32(
        &mut capture.items[layout::LOCKS][5],
        offset_of!(layout::Lock, kind),
        77,
    );
    put32(
        &mut capture.items[layout::SITES][1],
        offset_of!(layout::Site, lock),
        u32::MAX,
    );
    put64(
        &mut capture.items[layout::SITES][2],
        offset_of!(layout::Site, total_ns),
        u64::MAX,
    );
    put32(
        &mut capture.items[layout::STACKS][1],
        offset_of!(layout::Stack, first),
        u32::MAX,
    );
    let report = report(&capture);
    // Unused item 0, the hidden one, the one of kind 77.
    assert_eq!(report.locks.len(), locks - 3);
    assert_eq!(report.locks[0].wait.count, 1);
    let note = report
        .notes
        .iter()
        .find(|note| note.contains("damaged"))
        .expect("a note");
    for part in ["1 stacks", "1 locks", "3 sites"] {
        assert!(note.contains(part), "{note}");
    }
}

#[test]
fn a_chunk_belongs_to_one_table_and_never_to_the_header() {
    for number in [0, 1, 2, 1_000_000, u32::MAX] {
        let mut bytes = server().bytes();
        let table = offset_of!(Header, tables) + layout::SITES * size_of::<Table>();
        put32(&mut bytes, table + offset_of!(Table, chunks), number);
        let report = read(Cursor::new(bytes)).expect("a capture");
        assert!(
            report.notes.iter().any(|note| note.contains("1 chunks")),
            "{number}"
        );
        assert!(report.locks[0].wait.count <= 1);
    }
    let mut bytes = server().bytes();
    let table =
        |t: usize| offset_of!(Header, tables) + t * size_of::<Table>() + offset_of!(Table, chunks);
    let locks = bytes[table(layout::LOCKS)..][..4].to_vec();
    bytes[table(layout::SITES)..][..4].copy_from_slice(&locks);
    let report = read(Cursor::new(bytes)).expect("a capture");
    assert!(report.notes.iter().any(|note| note.contains("1 chunks")));
}

#[test]
fn stacks_are_as_deep_as_the_recorder_makes_them_and_share_no_frames() {
    let mut capture = Synthetic::new();
    let whole = capture.stack(&[(0, 0x100); layout::DEPTH]);
    let deeper = capture.stack(&[(0, 0x100); layout::DEPTH + 1]);
    assert_eq!(report(&capture).stacks.len(), 1);
    // Two on the same frames are more than there are.
    put32(
        &mut capture.items[layout::STACKS][deeper as usize],
        offset_of!(layout::Stack, len),
        layout::DEPTH as u32,
    );
    let again = capture.items[layout::STACKS][whole as usize].clone();
    capture.items[layout::STACKS].push(again);
    let report = report(&capture);
    assert_eq!(report.stacks.len(), 2);
    assert!(report.notes[0].contains("1 stacks"), "{:?}", report.notes);
}

#[test]
fn one_row_serves_one_histogram() {
    let mut capture = Synthetic::new();
    let one = capture.histogram(&[(1 << 41, 1)]);
    let bytes = capture.items[layout::HISTOGRAMS][one as usize].clone();
    capture.items[layout::HISTOGRAMS].push(bytes);
    for histogram in [one, one + 1] {
        capture.lock(LockSays {
            key: 64,
            kind: layout::kind::MUTEX,
            histograms: [histogram, 0, 0],
            ..LockSays::default()
        });
    }
    let report = report(&capture);
    assert_eq!(report.locks[0].wait.histogram.len(), 1);
    assert_eq!(report.locks[1].wait.histogram.len(), 0);
    assert!(
        report.notes[0].contains("1 rows of histograms"),
        "{:?}",
        report.notes
    );
}

/// Everything that is made from a report, so that a bad number is met where it would be used.
fn use_up(report: &Report) {
    use crate::report::{json, rows::Sort, table};
    for each in [false, true] {
        let view = table::View {
            sort: Sort::Wait,
            top: 50,
            each,
            list: false,
            width: 100,
        };
        assert!(!table::text(report, view).is_empty());
    }
    serde_json::to_vec(&json::document("x".as_ref(), report)).expect("JSON");
    let pair = crate::report::diff::Pair {
        a: ("a".as_ref(), report),
        b: ("b".as_ref(), report),
    };
    assert!(!pair.text(Sort::Hold, 10).is_empty());
}

#[test]
fn no_cut_makes_it_fail() {
    let bytes = server().bytes();
    let header = size_of::<Header>();
    let ends = (0..header)
        .step_by(4_099)
        .chain((header..bytes.len()).step_by(7_919))
        .chain([header, bytes.len() - 1]);
    for end in ends {
        match read(Cursor::new(bytes[..end].to_vec())) {
            Ok(report) => use_up(&report),
            Err(_) => assert!(end < header, "{end}"),
        }
    }
}

#[test]
fn no_flipped_bits_make_it_fail() {
    let bytes = server().bytes();
    // Where there is something: zeros outside the items matter to nobody.
    let full: Vec<usize> = (8..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    let in_header = (16..2_048).chain((0..layout::TABLES).flat_map(|table| {
        let at = offset_of!(Header, tables) + table * size_of::<Table>();
        at..at + 32
    }));
    let places: Vec<usize> = full.iter().copied().step_by(37).chain(in_header).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let mut read_well = 0;
    for _ in 0..400 {
        let mut broken = bytes.clone();
        for _ in 0..1 + next() % 24 {
            let place = places[next() % places.len()];
            broken[place] = match next() % 3 {
                0 => broken[place] ^ 1 << (next() % 8),
                1 => 0xff,
                _ => next() as u8,
            };
        }
        if let Ok(report) = read(Cursor::new(broken)) {
            read_well += 1;
            if read_well % 8 == 0 {
                use_up(&report);
            }
        }
    }
    assert!(
        read_well > 200,
        "{read_well}: the test breaks too much to test anything"
    );
}

#[test]
fn absurd_lengths_need_no_memory() {
    let mut bytes = server().bytes();
    for table in 0..layout::TABLES {
        let at = offset_of!(Header, tables) + table * size_of::<Table>();
        put32(&mut bytes, at + offset_of!(Table, len), u32::MAX);
        for chunk in 1..layout::CHUNKS {
            let at = at + offset_of!(Table, chunks) + 4 * chunk;
            if bytes[at..at + 4] == [0; 4] {
                put32(&mut bytes, at, u32::MAX - chunk as u32);
            }
        }
    }
    let report = read(Cursor::new(bytes)).expect("a capture");
    assert_eq!(report.locks[0].acquisitions, 1_750);
    assert!(report.modules.len() <= CHUNK / 512);
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let mut capture = server();
    let module = &mut capture.items[layout::MODULES][1];
    module[offset_of!(layout::Module, path)..][..15].copy_from_slice(b"/now\x1b[31m/\nserv");
    let at = offset_of!(Header, command);
    capture.header[at..at + 6].copy_from_slice(b"\x1b]0;x\x07");
    let report = report(&capture);
    let view = crate::report::table::View {
        sort: crate::report::rows::Sort::Wait,
        top: 50,
        each: false,
        list: false,
        width: 100,
    };
    let text = crate::report::table::text(&report, view);
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}
