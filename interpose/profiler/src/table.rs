//! The table on stderr: the locks that were waited for most, from a capture in memory.
//!
//! Runs in signal handlers and at a process's end: allocates nothing, works on static buffers under a lock, makes system calls directly, and needs
//! less than 2 KiB of stack in a release build (what has a large frame is not inlined, so that frames are there one after the other).
//! One pass over the capture adds up what is known of each lock in its own [`Lock::scratch`]; another picks the first rows. Names come from the
//! symbol tables of the modules' files; C++ names stay mangled.
//!
//! May touch: scratch of the capture, files of modules (reading), the descriptor that it is given.

mod symbols;
#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;

use core::cell::UnsafeCell;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use autolock_capture::{
    Capture,
    layout::{Lock, Module, Site, Stack, Thread, control, frame, histogram, kind, mode, site},
};

use crate::{
    options::MOST_ROWS,
    process::{self, Held},
    system,
    text::{Count, Percent, Picoseconds, Text, Time},
};
use symbols::{Name, Symbols};

/// Puts the path of the capture into a buffer.
pub type FilePath = for<'a> fn(&'a mut [u8]) -> &'a [u8];

/// What the table says besides the capture.
#[derive(Clone, Copy, Debug)]
pub struct Occasion {
    /// Why it is printed.
    pub why: &'static str,
    /// Tells the path of the capture; empty if it is in memory only.
    pub file: FilePath,
    /// Now, on the capture's clock.
    pub now_ns: u64,
    /// Rows at most.
    pub rows: usize,
    /// How long to wait for another thread's table to be finished.
    pub patience_ns: u64,
}

/// Columns that everything fits into.
const WIDTH: usize = 100;
/// Column of the first figure.
const NAME: usize = 26;
/// Longest that is kept of a name.
const LONGEST_NAME: usize = 2 * symbols::LONGEST;

/// Indices of [`Lock::scratch`].
mod sum {
    pub const WAIT_NS: usize = 0;
    pub const HOLD_NS: usize = 1;
    pub const CONTENDED: usize = 2;
    pub const HOLDS: usize = 3;
    pub const TIMED_OUT: usize = 4;
    pub const WAIT_MAX: usize = 5;
    pub const HOLD_MAX: usize = 6;
    pub const ACQUIRED: usize = 7;
}

/// What all tables are made in, one at a time.
struct Work {
    text: [u8; 8192],
    name: [u8; LONGEST_NAME],
    path: [u8; 1024],
    rows: [Name; MOST_ROWS],
    symbols: Symbols,
}

struct Shared(UnsafeCell<Work>);

// SAFETY: used only while `process::TABLE` is held.
unsafe impl Sync for Shared {}

static WORK: Shared = Shared(UnsafeCell::new(Work {
    text: [0; 8192],
    name: [0; LONGEST_NAME],
    path: [0; 1024],
    rows: [Name::NONE; MOST_ROWS],
    symbols: Symbols::NEW,
}));

/// Prints the table. False if another thread was at it (or this one, below a signal handler), or the descriptor did not take it.
pub fn print(capture: Capture, occasion: &Occasion, descriptor: i32) -> bool {
    let Some(_held) = Held::within(process::TABLE, occasion.patience_ns) else {
        return false;
    };
    // SAFETY: the lock is held, and signals are blocked: nobody else has a reference.
    let work = unsafe { &mut *WORK.0.get() };
    let totals = gather(capture);
    let count = pick(capture, &mut work.rows, occasion.rows);
    let rows = work.rows.get_mut(..count).unwrap_or_default();
    for row in &mut *rows {
        look_up(capture, row);
    }
    work.symbols.resolve(capture, rows);

    let mut output = Output {
        text: Text::new(&mut work.text),
        descriptor,
        written: true,
    };
    output.heading(capture, occasion, &totals);
    for row in &*rows {
        let mut name = Text::new(&mut work.name);
        name_of(capture, row, &mut name);
        output.row(capture, row.lock, name.as_bytes());
    }
    output.footing(capture, (occasion.file)(&mut work.path), &totals, count);
    output.flush();
    output.written
}

/// Acquisitions and waits of all locks: what changes when something has happened.
#[must_use]
pub fn activity(capture: Capture) -> u64 {
    let mut sum = 0u64;
    for (_, lock) in capture.all::<Lock>() {
        sum = sum.wrapping_add(lock.acquisitions.load(Relaxed));
    }
    for (_, site) in capture.all::<Site>() {
        sum = sum.wrapping_add(site.count.load(Relaxed));
    }
    for (_, thread) in capture.all::<Thread>() {
        for entry in &thread.entries {
            if entry.key.load(Relaxed) != 0 {
                sum = sum.wrapping_add(entry.acquisitions.load(Relaxed));
            }
        }
    }
    sum
}

/// Sums over all locks.
#[derive(Default)]
struct Totals {
    locks: u64,
    acquired: u64,
    contended: u64,
    wait_ns: u64,
    holds: u64,
    holds_timed: u64,
}

fn get(lock: &Lock, which: usize) -> u64 {
    lock.scratch.get(which).map_or(0, |sum| sum.load(Relaxed))
}

fn add(sum: &AtomicU64, more: u64) {
    // Not a read-modify-write: scratch is ours while we hold the lock.
    sum.store(sum.load(Relaxed).saturating_add(more), Relaxed);
}

/// Adds up what is known of each lock, in its scratch.
#[inline(never)]
fn gather(capture: Capture) -> Totals {
    let mut totals = Totals::default();
    for (_, lock) in capture.all::<Lock>() {
        for sum in &lock.scratch {
            sum.store(0, Relaxed);
        }
        add(
            &lock.scratch[sum::ACQUIRED],
            lock.acquisitions.load(Relaxed),
        );
    }
    for (_, item) in capture.all::<Site>() {
        let Some(lock) = capture
            .get::<Lock>(item.lock.load(Relaxed))
            .filter(|lock| !is_hidden(lock))
        else {
            continue;
        };
        let count = item.count.load(Relaxed);
        let (how_often, time, longest) = match item.kind.load(Relaxed) {
            site::WAIT => (sum::CONTENDED, Some(sum::WAIT_NS), Some(sum::WAIT_MAX)),
            site::HOLD => {
                totals.holds = totals.holds.saturating_add(count);
                let samples = item.samples.load(Relaxed);
                totals.holds_timed = totals.holds_timed.saturating_add(samples);
                (sum::HOLDS, Some(sum::HOLD_NS), Some(sum::HOLD_MAX))
            }
            site::TIMEOUT => (sum::TIMED_OUT, None, None),
            _ => continue,
        };
        add(&lock.scratch[how_often], count);
        if let Some(time) = time {
            add(&lock.scratch[time], item.total_ns.load(Relaxed));
        }
        if let Some(longest) = longest {
            let max = item.max_ns.load(Relaxed).max(get(lock, longest));
            lock.scratch[longest].store(max, Relaxed);
        }
    }
    for (_, thread) in capture.all::<Thread>() {
        for entry in &thread.entries {
            if entry.key.load(Relaxed) != 0
                && let Some(lock) = capture.get::<Lock>(entry.lock.load(Relaxed))
            {
                add(
                    &lock.scratch[sum::ACQUIRED],
                    entry.acquisitions.load(Relaxed),
                );
            }
        }
    }
    for (_, lock) in capture.all::<Lock>().filter(|(_, lock)| shown(lock)) {
        totals.locks += 1;
        totals.acquired = totals.acquired.saturating_add(get(lock, sum::ACQUIRED));
        totals.contended = totals.contended.saturating_add(get(lock, sum::CONTENDED));
        totals.wait_ns = totals.wait_ns.saturating_add(get(lock, sum::WAIT_NS));
    }
    totals
}

/// Whether it is the profiler's own.
fn is_hidden(lock: &Lock) -> bool {
    lock.control.load(Relaxed) & control::HIDDEN != 0
}

fn shown(lock: &Lock) -> bool {
    !is_hidden(lock)
        && [sum::ACQUIRED, sum::CONTENDED, sum::HOLDS, sum::TIMED_OUT]
            .iter()
            .any(|which| get(lock, *which) != 0)
}

/// By what locks are sorted: total wait, then total hold, then acquisitions.
fn order(lock: &Lock) -> (u64, u64, u64) {
    (
        get(lock, sum::WAIT_NS),
        get(lock, sum::HOLD_NS),
        get(lock, sum::ACQUIRED),
    )
}

/// Finds the first locks of the order; returns how many of `most` there are.
fn pick(capture: Capture, rows: &mut [Name], most: usize) -> usize {
    let most = most.min(rows.len());
    let mut count = 0;
    for (index, lock) in capture.all::<Lock>().filter(|(_, lock)| shown(lock)) {
        let key = order(lock);
        // From the end: most locks are not among the first.
        let mut at = count;
        while at > 0
            && let Some(before) = rows.get(at - 1)
            && capture.get::<Lock>(before.lock).map(order) < Some(key)
        {
            at -= 1;
        }
        if at == most {
            continue;
        }
        count = most.min(count + 1);
        if let Some(moved) = rows.get_mut(at..count) {
            moved.rotate_right(1);
            moved[0].lock = index;
        }
    }
    count
}

/// Says what has to be looked up to name a lock: its own place, or where it was first used.
fn look_up(capture: Capture, name: &mut Name) {
    name.symbol = None;
    name.is_call = false;
    name.frame = 0;
    let Some(lock) = capture.get::<Lock>(name.lock) else {
        return;
    };
    name.frame = lock.place.load(Relaxed);
    if name.frame == 0
        && let Some(stack) = capture.get::<Stack>(lock.first_use.load(Relaxed))
        && stack.len.load(Relaxed) > 0
        && let Some(first) = capture.get::<AtomicU64>(stack.first.load(Relaxed))
    {
        name.frame = first.load(Relaxed);
        name.is_call = true;
    }
}

fn load_bytes(from: &[AtomicU8], text: &mut Text<'_>) {
    for byte in from {
        let byte = byte.load(Relaxed);
        if byte == 0 {
            return;
        }
        text.push_shown(&[byte]);
    }
}

/// Appends the last part of a module's path.
fn module_name(module: &Module, text: &mut Text<'_>) {
    let length = (module.path_length.load(Relaxed) as usize).min(module.path.len());
    let path = module.path.get(..length).unwrap_or_default();
    let start = path
        .iter()
        .rposition(|byte| byte.load(Relaxed) == b'/')
        .map_or(0, |slash| slash + 1);
    load_bytes(path.get(start..).unwrap_or_default(), text);
}

/// What people call a lock.
#[inline(never)]
fn name_of(capture: Capture, row: &Name, text: &mut Text<'_>) {
    let Some(lock) = capture.get::<Lock>(row.lock) else {
        return;
    };
    let module = capture.get::<Module>(frame::module(row.frame));
    let offset = frame::offset(row.frame);
    if row.is_call {
        text.push(b"first used at ");
    }
    match (row.symbol, module) {
        (Some(symbol), Some(module)) => {
            let name = row.text.split(|byte| *byte == 0).next();
            text.push_shown(name.unwrap_or_default());
            if offset > symbol.value {
                let _ = write!(text, "+{:#x}", offset - symbol.value);
            }
            if row.is_call || !symbols::is_executable(capture, module) {
                text.push(b" (");
                module_name(module, text);
                text.push(b")");
            }
        }
        (None, Some(module)) => {
            module_name(module, text);
            let _ = write!(text, "+{offset:#x}");
        }
        (_, None) if row.frame != 0 => _ = write!(text, "{offset:#x}"),
        (_, None) => text.push(b"lock"),
    }
    let many = lock.incarnations.load(Relaxed);
    if many > 1 {
        let _ = write!(text, ", {many} locks");
    } else if row.is_call || row.frame == 0 {
        let _ = write!(text, ", {:#x}", lock.key.load(Relaxed) & !3);
    }
    match lock.kind.load(Relaxed) {
        kind::READERS => text.push(b" readers"),
        kind::WRITERS => text.push(b" writers"),
        kind::SPIN => text.push(b" (spin)"),
        _ => {}
    }
}

/// Lines on their way to a descriptor.
struct Output<'a> {
    text: Text<'a>,
    descriptor: i32,
    written: bool,
}

impl Output<'_> {
    fn flush(&mut self) {
        self.written = self.written && system::write_all(self.descriptor, self.text.as_bytes());
        self.text.clear();
    }

    /// Ends the line that began at `start`, cut to the width.
    fn end_line(&mut self, start: usize) {
        self.text.truncate(start + WIDTH);
        self.text.push(b"\n");
        if self.text.room() < 2 * 512 {
            self.flush();
        }
    }

    fn line(&mut self, arguments: core::fmt::Arguments<'_>) {
        let start = self.text.len();
        let _ = self.text.write_fmt(arguments);
        self.end_line(start);
    }

    #[inline(never)]
    fn heading(&mut self, capture: Capture, occasion: &Occasion, totals: &Totals) {
        let header = capture.header();
        let start = self.text.len();
        self.text.push(b"\npthread-mutex-profile: ");
        let length = (header.command_length.load(Relaxed) as usize).min(header.command.len());
        let command = header.command.get(..length).unwrap_or_default();
        for (at, byte) in command.iter().enumerate() {
            match byte.load(Relaxed) {
                0 if at + 1 == length => {}
                0 => self.text.push(b" "),
                byte => self.text.push_shown(&[byte]),
            }
            if self.text.len() - start > 60 {
                self.text.push(b"...");
                break;
            }
        }
        let duration = occasion
            .now_ns
            .saturating_sub(header.started_ns.load(Relaxed));
        let pid = header.pid.load(Relaxed);
        let _ = write!(
            self.text,
            " (pid {pid}), {}, {}",
            Time(duration),
            occasion.why
        );
        self.end_line(start + 1);
        self.line(format_args!(
            "{} locks, {} acquisitions, {} contended ({}%), {} waited",
            Count(totals.locks),
            Count(totals.acquired),
            Count(totals.contended),
            Percent(totals.contended.min(totals.acquired), totals.acquired),
            Time(totals.wait_ns),
        ));
        self.line(format_args!(
            "{:NAME$}{:25} {:-^27} {:-^20}",
            "", "", " wait ", " hold "
        ));
        self.line(format_args!(
            "{:NAME$}{:>9}{:>10}{:>6}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}",
            "lock", "acquired", "contended", "%", "total", "avg", "p99", "max", "avg", "p99", "max",
        ));
    }

    #[inline(never)]
    fn row(&mut self, capture: Capture, index: u32, name: &[u8]) {
        let Some(lock) = capture.get::<Lock>(index) else {
            return;
        };
        let start = self.text.len();
        self.text.push(name);
        if name.len() >= NAME {
            self.end_line(start);
        }
        let start = if name.len() >= NAME {
            self.text.len()
        } else {
            start
        };
        self.text.pad_to(start + NAME);
        let (acquired, contended) = (get(lock, sum::ACQUIRED), get(lock, sum::CONTENDED));
        let _ = write!(
            self.text,
            "{:>9}{:>10}{:>6}",
            Count(acquired),
            Count(contended),
            Percent(contended.min(acquired), acquired)
        );
        if contended > 0 {
            let _ = write!(self.text, "{:>7}", Time(get(lock, sum::WAIT_NS)));
        } else {
            let _ = write!(self.text, "{:>7}", "-");
        }
        let wait = (sum::WAIT_NS, sum::CONTENDED, sum::WAIT_MAX);
        self.times(capture, lock, wait, histogram::WAIT);
        let hold = (sum::HOLD_NS, sum::HOLDS, sum::HOLD_MAX);
        self.times(capture, lock, hold, histogram::HOLD);
        self.end_line(start);
    }

    /// Average, 99th percentile (`~`: of all locks first used at the same place) and longest.
    fn times(
        &mut self,
        capture: Capture,
        lock: &Lock,
        (total, count, longest): (usize, usize, usize),
        which: usize,
    ) {
        let Some(average) = get(lock, total).checked_div(get(lock, count)) else {
            let _ = write!(self.text, "{:>7}{:>7}{:>7}", "-", "-", "-");
            return;
        };
        let _ = write!(self.text, "{:>7}", Time(average));
        let own = lock.histograms[which].load(Relaxed);
        let shared = capture
            .get::<Stack>(lock.first_use.load(Relaxed))
            .map_or(0, |stack| stack.histograms[which].load(Relaxed));
        let longest = get(lock, longest);
        match (own, shared) {
            (0, 0) => _ = write!(self.text, "{:>7}", "-"),
            (0, shared) => {
                let mut bytes = [0; 16];
                let mut text = Text::new(&mut bytes);
                let _ = write!(text, "~{}", Time(capture.quantile(shared, 0.99)));
                let text = core::str::from_utf8(text.as_bytes()).unwrap_or_default();
                let _ = write!(self.text, "{text:>7}");
            }
            // A bucket's top may lie above the longest.
            (own, _) => {
                let p99 = capture.quantile(own, 0.99).min(longest);
                let _ = write!(self.text, "{:>7}", Time(p99));
            }
        }
        let _ = write!(self.text, "{:>7}", Time(longest));
    }

    #[inline(never)]
    fn footing(&mut self, capture: Capture, file: &[u8], totals: &Totals, count: usize) {
        let header = capture.header();
        if totals.locks > count as u64 {
            let more = Count(totals.locks - count as u64);
            self.line(format_args!("... and {more} more"));
        }
        self.dropped(capture);
        if header.mode.load(Relaxed) == mode::FULL {
            self.line(format_args!("every wait and every hold was timed"));
        } else {
            self.line(format_args!(
                "every contended wait was timed; of {} holds {} were (AUTOLOCK_PROFILE=full: all)",
                Count(totals.holds),
                Count(totals.holds_timed)
            ));
        }
        let cost = &header.cost;
        let native = cost.native_ps.load(Relaxed);
        if native != 0 {
            self.line(format_args!(
                "a lock and unlock takes {}; counting it {} more, timing it {} more",
                Picoseconds(native),
                Picoseconds(cost.counted_ps.load(Relaxed)),
                Picoseconds(cost.timed_ps.load(Relaxed)),
            ));
        }
        if file.is_empty() {
            self.line(format_args!("no capture file (AUTOLOCK_PROFILE_FILE=none)"));
        } else {
            // Not cut: it is there to be copied.
            self.flush();
            self.text
                .push(b"stacks, holders, percentiles: autolock report ");
            self.text.push_shown(file);
            self.text.push(b"\n");
        }
    }

    /// A line if anything is missing.
    fn dropped(&mut self, capture: Capture) {
        let dropped = &capture.header().dropped;
        let start = self.text.len();
        for (count, what) in [
            (&dropped.operations, "operations"),
            (&dropped.threads, "threads"),
            (&dropped.stacks, "stacks"),
            (&dropped.sites, "sites"),
            (&dropped.values, "values"),
            (&dropped.holds, "holds"),
        ] {
            let count = count.load(Relaxed);
            if count > 0 {
                let first = self.text.len() == start;
                self.text.push(if first { b"dropped: " } else { b", " });
                let _ = write!(self.text, "{} {what}", Count(count));
            }
        }
        if self.text.len() > start {
            self.end_line(start);
        }
    }
}
