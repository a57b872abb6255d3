//! A report as text for a terminal: what was recorded, the locks, where they were fought over, who still waits, what is missing.
//!
//! May touch: nothing; the caller prints.

use std::fmt::Write;

use comfy_table::{CellAlignment, ColumnConstraint, Table, Width, presets::NOTHING};

use super::model::{Distribution, Ending, Mode, Report};
use super::rows::{Row, Sort, Totals, quantile, rows, sort};
use super::units::{count, digits, percent, plural, share, time, time_of};
use super::{identity::kind_name, places};

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Sorted by this.
    pub sort: Sort,
    /// So many rows.
    pub top: usize,
    /// A row for each lock, not for each identity.
    pub each: bool,
    /// The locks and nothing else.
    pub list: bool,
    /// Columns of the terminal.
    pub width: usize,
}

/// Locks whose contention sites are shown.
const DETAILED: usize = 5;
/// The lock's column is at least so wide, whatever the terminal.
const NARROWEST: usize = 16;

/// The whole text.
pub fn text(report: &Report, view: View) -> String {
    let mut rows = rows(report, view.each);
    sort(&mut rows, view.sort);
    let shown = &rows[..rows.len().min(view.top)];
    let mut text = String::new();
    if view.list {
        locks(&mut text, shown, view);
        return text;
    }
    header(&mut text, report);
    if !shown.is_empty() {
        text.push('\n');
        locks(&mut text, shown, view);
        below(&mut text, &rows, shown.len(), view);
    }
    let contended = shown.iter().filter(|row| row.wait.count != 0);
    places::contention(&mut text, report, contended.take(DETAILED));
    places::waiting(&mut text, report);
    footer(&mut text, report);
    text
}

fn header(text: &mut String, report: &Report) {
    let process = &report.process;
    let command = match process.command.is_empty() {
        true => process.executable.clone(),
        false => process.command.join(" "),
    };
    let _ = writeln!(text, "{command}");
    let mode = match process.mode {
        Mode::Sampled => "sampled mode",
        Mode::Full => "full mode",
    };
    let _ = writeln!(
        text,
        "pid {}, recorded for {}, {mode}; {}",
        process.pid,
        time(process.duration_ns),
        ending(process.ending)
    );
    if let Some(next) = &process.next {
        let _ = writeln!(text, "its locks are those of {next}");
    }
    let totals = Totals::of(report);
    let _ = writeln!(
        text,
        "{}, {} contended; {}, {} contended; waited {}, held {} in all",
        plural(totals.locks, "lock"),
        totals.contended_locks,
        plural(totals.acquisitions, "acquisition"),
        share(totals.contended, totals.acquisitions),
        time(totals.wait_ns),
        time(totals.hold_ns),
    );
}

/// How the recording ended, as a part of a sentence.
pub fn ending(ending: Ending) -> String {
    match ending {
        Ending::Exit => "it exited".to_owned(),
        Ending::UnderscoreExit(status) => format!("it ended by _exit({status})"),
        Ending::QuickExit => "it ended by quick_exit".to_owned(),
        Ending::Signal(signal) => format!("killed by {}", signal_name(signal)),
        Ending::None => {
            "no end recorded: it runs still, was killed or became another program".to_owned()
        }
    }
}

fn signal_name(signal: u32) -> String {
    let name = match signal as i32 {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGABRT => "SIGABRT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

/// The table: two lines a lock, waits above holds. Columns that would be all zeros are left out.
fn locks(text: &mut String, rows: &[Row<'_>], view: View) {
    let failed = rows.iter().any(|row| row.failed_tries != 0);
    let timed_out = rows.iter().any(|row| row.timed_out.count != 0);
    let mut columns = vec![
        Column::left("lock", |_| String::new()),
        Column::right("acquired\n(locks)", |row| match row.indices.len() {
            1 => count(row.acquisitions),
            n => format!("{}\n(x {n})", count(row.acquisitions)),
        }),
        Column::right("\ncontended", |row| {
            let contended = count(row.wait.count);
            format!("{contended}\n{}", share(row.wait.count, row.acquisitions))
        }),
        Column::left("", |_| "wait\nhold".to_owned()),
        Column::both("\ntotal", |d| time(d.total_ns)),
        Column::both("\navg", |d| time_of(d.mean_ns())),
        Column::both("\np99", move |d| match d.histogram.is_empty() {
            true => "-".to_owned(),
            false if d.shared && view.each => format!("~{}", time(quantile(d, 0.99))),
            false => time(quantile(d, 0.99)),
        }),
        Column::both("\nmax", |d| time(d.max_ns)),
        Column::right("owner\nchanged", |row| share(row.changed, row.compared)),
        Column::right("most\nwaiters", |row| row.most_waiters.to_string()),
        Column::right("tries\nfailed", |row| count(row.failed_tries)),
        Column::right("timed\nout", |row| count(row.timed_out.count)),
    ];
    let mut wanted = [true; 12];
    wanted[10] = failed;
    wanted[11] = timed_out;
    let mut wanted = wanted.into_iter();
    columns.retain(|_| wanted.next().unwrap_or(true));

    let cells = |row| {
        columns
            .iter()
            .map(|c| (c.cell)(row))
            .collect::<Vec<String>>()
    };
    let mut table: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let width = |cell: &String| cell.lines().map(str::len).max().unwrap_or(0);
    let others: usize = (1..columns.len())
        .map(|i| {
            let cells = table.iter().map(|row| width(&row[i]));
            cells.max().unwrap_or(0).max(width(&columns[i].title)) + 1
        })
        .sum();
    let room = view.width.saturating_sub(others).max(NARROWEST);
    for (cells, row) in table.iter_mut().zip(rows) {
        let name = match view.each {
            true => format!("{} {:#x}", row.name(), row.lock.address),
            false => row.name(),
        };
        cells[0] = two_lines(&name, room);
    }

    let mut made = Table::new();
    made.load_style(NOTHING);
    made.set_header(columns.iter().map(|c| c.title.as_str()));
    made.add_rows(table);
    for (i, column) in columns.iter().enumerate() {
        if let Some(made) = made.column_mut(i) {
            made.set_padding((u16::from(i != 0), 0));
            made.set_cell_alignment(column.alignment);
        }
    }
    if let Some(first) = made.column_mut(0) {
        first.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
            NARROWEST as u16,
        )));
    }
    for line in made.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

struct Column {
    title: String,
    alignment: CellAlignment,
    cell: Box<dyn Fn(&Row<'_>) -> String>,
}

impl Column {
    fn new(
        title: &str,
        alignment: CellAlignment,
        cell: impl Fn(&Row<'_>) -> String + 'static,
    ) -> Self {
        let title = title.to_owned();
        let cell = Box::new(cell);
        Self {
            title,
            alignment,
            cell,
        }
    }

    fn left(title: &str, cell: impl Fn(&Row<'_>) -> String + 'static) -> Self {
        Self::new(title, CellAlignment::Left, cell)
    }

    fn right(title: &str, cell: impl Fn(&Row<'_>) -> String + 'static) -> Self {
        Self::new(title, CellAlignment::Right, cell)
    }

    /// Of the waits, and below of the holds.
    fn both(title: &str, cell: impl Fn(&Distribution) -> String + 'static) -> Self {
        let of = move |d: &Distribution| match d.count {
            0 => "-".to_owned(),
            _ => cell(d),
        };
        Self::right(title, move |row| {
            format!("{}\n{}", of(&row.wait), of(&row.hold))
        })
    }
}

/// Breaks a name into at most two lines of `room` characters, at a space if there is one; what is too long loses its middle.
fn two_lines(name: &str, room: usize) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= room {
        return name.to_owned();
    }
    let space = all[..=room].iter().rposition(|&c| c == ' ');
    let cut = space.filter(|&at| at >= room / 2).unwrap_or(room);
    let rest = &all[cut + usize::from(all[cut] == ' ')..];
    // The second line is indented by one.
    let room = room - 1;
    let rest: String = match rest.len() {
        short if short <= room => rest.iter().collect(),
        long => {
            let end = room / 2;
            let start = room - end - 2;
            let (first, last) = (&rest[..start], &rest[long - end..]);
            first.iter().chain(&['.', '.']).chain(last).collect()
        }
    };
    format!("{}\n {rest}", all[..cut].iter().collect::<String>())
}

/// What a reader of the table needs to know.
fn below(text: &mut String, rows: &[Row<'_>], shown: usize, view: View) {
    if shown < rows.len() {
        let _ = writeln!(
            text,
            "{} more not shown (--top {})",
            rows.len() - shown,
            rows.len()
        );
    }
    let shared = rows[..shown]
        .iter()
        .any(|row| row.wait.shared || row.hold.shared);
    if view.each && shared {
        text.push_str(
            "~ over all locks that were first used at the same place, for lack of memory\n",
        );
    }
}

fn footer(text: &mut String, report: &Report) {
    let totals = Totals::of(report);
    text.push('\n');
    let timed = match report.process.mode {
        Mode::Full => "every hold".to_owned(),
        Mode::Sampled if totals.hold_samples >= totals.holds => "every hold".to_owned(),
        Mode::Sampled => format!(
            "{} of {} ({}), which stand for the rest",
            count(totals.hold_samples),
            plural(totals.holds, "hold"),
            share(totals.hold_samples, totals.holds)
        ),
    };
    let _ = writeln!(text, "Timed: every contended wait; {timed}.");
    let dropped = &report.dropped;
    let parts = [
        (dropped.operations, "operations not counted"),
        (dropped.threads, "threads not seen"),
        (dropped.stacks, "stacks not kept"),
        (dropped.sites, "waits and holds not recorded"),
        (dropped.values, "values in no histogram"),
        (dropped.holds, "holds not seen to end"),
    ];
    let parts = parts.iter().filter(|(n, _)| *n != 0);
    let parts: Vec<String> = parts
        .map(|(n, what)| format!("{} {what}", count(*n)))
        .collect();
    let parts = match parts.is_empty() {
        true => "nothing".to_owned(),
        false => parts.join(", "),
    };
    let _ = writeln!(text, "Dropped: {parts}.");
    let cost = &report.cost;
    if cost.counted_ns != 0.0 || cost.timed_ns != 0.0 {
        let _ = writeln!(
            text,
            "The profiler adds {} ns to an uncontended lock and unlock of {} ns, {} ns where it is timed:\n\
             about {} of CPU time over all threads, {} of the run time.",
            digits(cost.counted_ns),
            digits(cost.native_ns),
            digits(cost.timed_ns),
            time_of(totals.overhead_ns.round()),
            percent(totals.overhead_ratio),
        );
    }
    for note in &report.notes {
        let _ = writeln!(text, "Note: {note}.");
    }
}

/// A row in words: name, kind, how many.
pub fn title(row: &Row<'_>) -> String {
    let lock = row.lock;
    let kind = kind_name(lock.kind);
    match row.indices.len() {
        1 => format!(
            "{} ({kind} at {:#x}, id {})",
            lock.name, lock.address, lock.id
        ),
        n => format!("{} ({n} locks: {kind}, id {})", lock.name, lock.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_both_ends_within_two_lines() {
        assert_eq!(two_lines("short", 20), "short");
        for (name, room) in [
            ("mutex first used in item_alloc (items.c:12)", 27),
            (
                "std::vector<std::pair<int, long>, std::allocator<void> >::a_very_long_name",
                21,
            ),
            (
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaz",
                20,
            ),
            (
                "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
                20,
            ),
        ] {
            let broken = two_lines(name, room);
            assert!(broken.lines().count() <= 2, "{broken}");
            assert!(
                broken.lines().all(|l| l.chars().count() <= room),
                "{broken}"
            );
            assert_eq!(broken.chars().last(), name.chars().last());
            assert_eq!(broken.chars().next(), name.chars().next());
        }
    }
}
