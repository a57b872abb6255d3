//! Captures made by hand, byte by byte from the layout: what a recorder would write, and what it never would.
#![allow(dead_code)] // Unit tests and CLI tests each use a part.

use std::mem::offset_of;

use autolock_capture::layout::{
    self, CHUNK, Cost, Dropped, Entry, Header, Held, Histogram, ITEM_SIZES, Lock, MAGIC, Module,
    Row, Site, Stack, TABLES, Table, Thread, VERSION, ending, frame, mode, slot,
};

/// A capture in the making.
pub struct Synthetic {
    pub header: Vec<u8>,
    /// By table; item 0 is never used.
    pub items: [Vec<Vec<u8>>; TABLES],
}

/// What a lock says, apart from its sites.
#[derive(Clone, Copy, Default)]
pub struct LockSays {
    pub key: u64,
    pub kind: u32,
    pub control: u32,
    pub first_use: u32,
    pub place: u64,
    pub histograms: [u32; 3],
    pub acquisitions: u64,
    pub failed: u64,
    pub recursions: u64,
    pub most_waiters: u32,
    pub compared: u64,
    pub changed: u64,
}

/// A site: kind, stack, holder, then count, total, maximum, samples.
pub struct SiteSays(pub u32, pub u32, pub u32, pub [u64; 4]);

/// When synthetic captures begin, on their own clock.
pub const STARTED: u64 = 5_000_000_000;
/// Locks of one first use in [`server`].
pub const MANY: u64 = 200;
/// How long they last.
pub const LASTED: u64 = 10_000_000_000;

pub fn put32(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

pub fn put64(bytes: &mut [u8], offset: usize, value: u64) {
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

impl Synthetic {
    pub fn new() -> Self {
        let mut header = vec![0; size_of::<Header>()];
        put(&mut header, offset_of!(Header, magic), &MAGIC);
        put32(&mut header, offset_of!(Header, version), VERSION);
        let size = size_of::<Header>() as u32;
        put32(&mut header, offset_of!(Header, header_size), size);
        put32(&mut header, offset_of!(Header, mode), mode::SAMPLED);
        put32(&mut header, offset_of!(Header, pid), 4242);
        put64(&mut header, offset_of!(Header, started_ns), STARTED);
        put64(&mut header, offset_of!(Header, ended_ns), STARTED + LASTED);
        put32(&mut header, offset_of!(Header, ending), ending::EXIT);
        put(
            &mut header,
            offset_of!(Header, executable),
            b"/opt/bin/server",
        );
        let command = b"server\0-t\x004\0";
        put(&mut header, offset_of!(Header, command), command);
        let length = command.len() as u32;
        put32(&mut header, offset_of!(Header, command_length), length);
        let cost = offset_of!(Header, cost);
        put64(&mut header, cost + offset_of!(Cost, counted_ps), 3_200);
        put64(&mut header, cost + offset_of!(Cost, timed_ps), 45_000);
        put64(&mut header, cost + offset_of!(Cost, native_ps), 12_100);
        Self {
            header,
            items: ITEM_SIZES.map(|size| vec![vec![0; size]]),
        }
    }

    /// The process was killed, or runs still.
    pub fn without_end(&mut self) {
        put64(&mut self.header, offset_of!(Header, ended_ns), 0);
        put32(&mut self.header, offset_of!(Header, ending), ending::NONE);
    }

    pub fn dropped_operations(&mut self, n: u64) {
        let at = offset_of!(Header, dropped) + offset_of!(Dropped, operations);
        put64(&mut self.header, at, n);
    }

    fn add(&mut self, table: usize, item: Vec<u8>) -> u32 {
        assert_eq!(item.len(), ITEM_SIZES[table]);
        self.items[table].push(item);
        self.items[table].len() as u32 - 1
    }

    fn empty(table: usize) -> Vec<u8> {
        vec![0; ITEM_SIZES[table]]
    }

    pub fn module(&mut self, path: &str, build_id: &[u8]) -> u32 {
        let mut item = Self::empty(layout::MODULES);
        let at = self.items[layout::MODULES].len() as u64 * 0x10_0000_0000;
        put64(&mut item, offset_of!(Module, base), at);
        put64(&mut item, offset_of!(Module, start), at);
        put64(&mut item, offset_of!(Module, end), at + 0x100_0000);
        let length = build_id.len() as u32;
        put32(&mut item, offset_of!(Module, build_id_length), length);
        put(&mut item, offset_of!(Module, build_id), build_id);
        let length = path.len() as u32;
        put32(&mut item, offset_of!(Module, path_length), length);
        put(&mut item, offset_of!(Module, path), path.as_bytes());
        self.add(layout::MODULES, item)
    }

    /// Return addresses, innermost first.
    pub fn stack(&mut self, frames: &[(u32, u64)]) -> u32 {
        let first = self.items[layout::FRAMES].len() as u32;
        for &(module, offset) in frames {
            let word = frame::new(module, offset).to_le_bytes().to_vec();
            self.add(layout::FRAMES, word);
        }
        let mut item = Self::empty(layout::STACKS);
        put32(&mut item, offset_of!(Stack, first), first);
        put32(&mut item, offset_of!(Stack, len), frames.len() as u32);
        self.add(layout::STACKS, item)
    }

    /// Histograms for the locks that were first used here and have none.
    pub fn shared(&mut self, stack: u32, histograms: [u32; 3]) {
        let item = &mut self.items[layout::STACKS][stack as usize];
        for (i, histogram) in histograms.into_iter().enumerate() {
            put32(item, offset_of!(Stack, histograms) + 4 * i, histogram);
        }
    }

    pub fn lock(&mut self, says: LockSays) -> u32 {
        let mut item = Self::empty(layout::LOCKS);
        put64(&mut item, offset_of!(Lock, key), says.key);
        put32(&mut item, offset_of!(Lock, kind), says.kind);
        put32(&mut item, offset_of!(Lock, control), says.control);
        put32(&mut item, offset_of!(Lock, first_use), says.first_use);
        put64(&mut item, offset_of!(Lock, place), says.place);
        for (i, histogram) in says.histograms.into_iter().enumerate() {
            put32(&mut item, offset_of!(Lock, histograms) + 4 * i, histogram);
        }
        put32(&mut item, offset_of!(Lock, incarnations), 1);
        put64(&mut item, offset_of!(Lock, acquisitions), says.acquisitions);
        put64(&mut item, offset_of!(Lock, failed), says.failed);
        put64(&mut item, offset_of!(Lock, recursions), says.recursions);
        put32(&mut item, offset_of!(Lock, most_waiters), says.most_waiters);
        put64(&mut item, offset_of!(Lock, compared), says.compared);
        put64(&mut item, offset_of!(Lock, changed), says.changed);
        self.add(layout::LOCKS, item)
    }

    pub fn site(&mut self, lock: u32, SiteSays(kind, stack, holder, numbers): SiteSays) -> u32 {
        let mut item = Self::empty(layout::SITES);
        put32(&mut item, offset_of!(Site, lock), lock);
        put32(&mut item, offset_of!(Site, kind), kind);
        put32(&mut item, offset_of!(Site, stack), stack);
        put32(&mut item, offset_of!(Site, holder), holder);
        let [count, total, max, samples] = numbers;
        put64(&mut item, offset_of!(Site, count), count);
        put64(&mut item, offset_of!(Site, total_ns), total);
        put64(&mut item, offset_of!(Site, max_ns), max);
        put64(&mut item, offset_of!(Site, samples), samples);
        self.add(layout::SITES, item)
    }

    /// Values in nanoseconds and how often each.
    pub fn histogram(&mut self, values: &[(u64, u64)]) -> u32 {
        let mut item = Self::empty(layout::HISTOGRAMS);
        for &(ns, count) in values {
            let (number, counter) = slot(ns);
            let at = offset_of!(Histogram, rows) + 4 * number;
            let mut row = u32::from_le_bytes(item[at..at + 4].try_into().expect("4 bytes"));
            if row == 0 {
                row = self.add(layout::ROWS, Self::empty(layout::ROWS));
                put32(&mut item, at, row);
            }
            let row = &mut self.items[layout::ROWS][row as usize];
            let at = offset_of!(Row, counts) + 8 * counter;
            let before = u64::from_le_bytes(row[at..at + 8].try_into().expect("8 bytes"));
            put64(row, at, before + count);
        }
        self.add(layout::HISTOGRAMS, item)
    }

    pub fn thread(&mut self, tid: u32) -> u32 {
        let mut item = Self::empty(layout::THREADS);
        put32(&mut item, offset_of!(Thread, tid), tid);
        self.add(layout::THREADS, item)
    }

    fn thread_bytes(&mut self, thread: u32) -> &mut [u8] {
        &mut self.items[layout::THREADS][thread as usize]
    }

    /// The thread's own counters for a lock.
    pub fn entry(&mut self, thread: u32, place: usize, key: u64, lock: u32, counts: (u64, u32)) {
        let at = offset_of!(Thread, entries) + place * size_of::<Entry>();
        let bytes = self.thread_bytes(thread);
        put64(bytes, at + offset_of!(Entry, key), key);
        put32(bytes, at + offset_of!(Entry, lock), lock);
        put64(bytes, at + offset_of!(Entry, acquisitions), counts.0);
        put32(bytes, at + offset_of!(Entry, failed), counts.1);
    }

    /// A contended acquisition that it has not released yet.
    pub fn held(&mut self, thread: u32, key: u64, lock: u32, stacks: (u32, u32), wait_ns: u64) {
        let at = offset_of!(Thread, held) + size_of::<Held>();
        let bytes = self.thread_bytes(thread);
        put32(bytes, offset_of!(Thread, held_count), 1);
        put64(bytes, at + offset_of!(Held, key), key);
        put32(bytes, at + offset_of!(Held, lock), lock);
        put64(bytes, at + offset_of!(Held, wait_ns), wait_ns);
        put32(bytes, at + offset_of!(Held, stack), stacks.0);
        put32(bytes, at + offset_of!(Held, holder), stacks.1);
        put32(bytes, at + offset_of!(Held, contended), 1);
    }

    /// It waits, for what a thread with the id `holder` holds.
    pub fn waits(&mut self, thread: u32, lock: u32, stacks: (u32, u32), holder: u32, since: u64) {
        let bytes = self.thread_bytes(thread);
        put32(bytes, offset_of!(Thread, waiting_for), lock);
        put32(bytes, offset_of!(Thread, waiting_stack), stacks.0);
        put32(bytes, offset_of!(Thread, waiting_holder), stacks.1);
        put32(bytes, offset_of!(Thread, waiting_holder_tid), holder);
        put64(bytes, offset_of!(Thread, waiting_since_ns), since);
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = self.header.clone();
        file.resize(file.len().next_multiple_of(CHUNK), 0);
        for (table, items) in self.items.iter().enumerate() {
            let at = offset_of!(Header, tables) + table * size_of::<Table>();
            let per_chunk = CHUNK / ITEM_SIZES[table];
            put32(&mut file, at + offset_of!(Table, len), items.len() as u32);
            put32(
                &mut file,
                at + offset_of!(Table, per_chunk),
                per_chunk as u32,
            );
            for (number, items) in items.chunks(per_chunk).enumerate() {
                let chunk = (file.len() / CHUNK) as u32;
                put32(
                    &mut file,
                    at + offset_of!(Table, chunks) + 4 * number,
                    chunk,
                );
                file.extend(items.iter().flatten());
                file.resize(file.len().next_multiple_of(CHUNK), 0);
            }
        }
        let used = (file.len() / CHUNK) as u32;
        put32(&mut file, offset_of!(Header, chunks_used), used);
        file
    }
}

/// A server with two fighting static locks in a module that is nowhere, [`MANY`] of one first use, readers, a hidden lock, threads with
/// counters, an unreleased contended hold and a wait that goes on. Every kind of item and reference is in it.
pub fn server() -> Synthetic {
    use layout::{kind, site};
    let mut s = Synthetic::new();
    let program = s.module("/nowhere/server", &[0xab; 20]);
    let libc = s.module("/nowhere/libc.so.6", &[]);
    put32(&mut s.header, offset_of!(Header, next_module), libc);
    let waiter = s.stack(&[(program, 0x1101), (program, 0x1201), (libc, 0x2001)]);
    let holder = s.stack(&[(program, 0x1301), (program, 0x1201), (libc, 0x2001)]);
    let init = s.stack(&[(program, 0x1401), (libc, 0x2001)]);

    let wait = s.histogram(&[(1_000_000, 90), (5_000_000, 10)]);
    let hold = s.histogram(&[(100_000_000, 20)]);
    let hot = s.lock(LockSays {
        key: 0x7000_1000,
        kind: kind::MUTEX,
        first_use: init,
        place: frame::new(program, 0x4010),
        histograms: [wait, hold, 0],
        acquisitions: 1_000,
        failed: 7,
        most_waiters: 3,
        compared: 100,
        changed: 40,
        ..LockSays::default()
    });
    s.site(
        hot,
        SiteSays(site::WAIT, waiter, holder, [60, 90_000_000, 5_000_000, 60]),
    );
    s.site(
        hot,
        SiteSays(site::WAIT, holder, waiter, [40, 50_000_000, 1_000_000, 40]),
    );
    s.site(
        hot,
        SiteSays(site::HOLD, holder, 0, [20, 2_000_000_000, 100_000_000, 20]),
    );
    s.site(
        hot,
        SiteSays(site::TIMEOUT, waiter, holder, [2, 3_000_000, 2_000_000, 2]),
    );
    s.site(
        hot,
        SiteSays(site::COND, waiter, 0, [5, 500_000_000, 100_000_000, 5]),
    );

    let shared = s.histogram(&[(1_000, MANY)]);
    s.shared(init, [0, shared, 0]);
    for i in 0..MANY {
        let many = s.lock(LockSays {
            key: 0x8000_0000 + i * 64,
            kind: kind::MUTEX,
            first_use: init,
            acquisitions: 5,
            ..LockSays::default()
        });
        s.site(many, SiteSays(site::HOLD, init, 0, [5, 5_000, 1_000, 1]));
    }
    let readers = s.lock(LockSays {
        key: 0x7000_2001,
        kind: kind::READERS,
        first_use: init,
        place: frame::new(program, 0x4100),
        acquisitions: 12,
        ..LockSays::default()
    });
    let hidden = s.lock(LockSays {
        key: 0x7000_3000,
        kind: kind::MUTEX,
        control: layout::control::HIDDEN,
        acquisitions: 1_000_000,
        ..LockSays::default()
    });
    s.site(
        hidden,
        SiteSays(site::WAIT, waiter, holder, [9, 9_000, 1_000, 9]),
    );

    let one = s.thread(4242);
    s.entry(one, 3, 0x7000_1000, hot, (500, 3));
    s.entry(one, 4, 0x7000_3000, hidden, (500, 3));
    s.held(one, 0x7000_1000, hot, (waiter, holder), 2_000_000);
    let two = s.thread(4243);
    s.entry(two, 200, 0x7000_2001, readers, (30, 0));
    s.waits(
        two,
        hot,
        (waiter, holder),
        4242,
        STARTED + LASTED - 1_500_000_000,
    );
    // A thread that has ended: its counters count, what it held is stale.
    let gone = s.thread(0);
    s.entry(gone, 0, 0x7000_1000, hot, (250, 0));
    s.held(gone, 0x7000_1000, hot, (waiter, holder), 2_000_000);
    s
}
