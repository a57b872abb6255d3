//! `--list`: what the locks are. A table for a terminal, else tab-separated, or CSV; the columns are the same.

use crate::lock::Source;
use anyhow::Result;
use autolock_lock::algorithm::{Order, Waiting};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};

/// How to print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Table,
    Tabs,
    Csv,
}

const HEADER: [&str; 5] = ["name", "order", "waiting", "about", "source"];

/// The line of a lock.
fn row(lock: &Source) -> [String; 5] {
    let missing = if lock.exists() { "" } else { " (missing)" };
    let place = format!("{}{missing}", lock.library().display());
    let Some(info) = lock.info() else {
        let unknown = || "unknown".to_owned();
        return [
            lock.name.clone(),
            unknown(),
            unknown(),
            place,
            String::new(),
        ];
    };
    let order = match info.order {
        Order::Fifo => "FIFO",
        Order::Bounded => "bounded",
        Order::Unfair => "unfair",
    };
    let waiting = match info.waiting {
        Waiting::Spins => "spins",
        Waiting::Yields => "yields",
        Waiting::Sleeps => "sleeps",
    };
    let about = match place.as_str() {
        "" => info.about.to_owned(),
        _ => format!("{}; {place}", info.about),
    };
    let source = info.source.to_owned();
    [
        lock.name.clone(),
        order.into(),
        waiting.into(),
        about,
        source,
    ]
}

/// The list, with a header and a final newline.
pub fn render(locks: &[Source], form: Form) -> Result<String> {
    let rows = locks.iter().map(row);
    match form {
        Form::Table => {
            let mut table = Table::new();
            table
                .load_preset(NOTHING)
                .set_content_arrangement(ContentArrangement::Disabled)
                .set_header(HEADER)
                .add_rows(rows);
            let lines: Vec<_> = table
                .lines()
                .map(|line| line.trim_end().to_owned())
                .collect();
            Ok(lines.join("\n") + "\n")
        }
        Form::Tabs | Form::Csv => {
            let delimiter = if form == Form::Tabs { b'\t' } else { b',' };
            let mut writer = ::csv::WriterBuilder::new()
                .delimiter(delimiter)
                .from_writer(Vec::new());
            writer.write_record(HEADER)?;
            for row in rows {
                writer.write_record(row)?;
            }
            Ok(String::from_utf8(writer.into_inner()?)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks() -> Vec<Source> {
        let library = Source::library_named("mine", "/nowhere/mine.so");
        let tas = Source::collection().find(|lock| lock.name == "tas");
        tas.into_iter().chain([library]).collect()
    }

    #[test]
    fn every_form_has_a_line_for_each_lock_and_the_same_columns() {
        let tabs = render(&locks(), Form::Tabs).expect("text");
        let lines: Vec<_> = tabs.lines().collect();
        assert_eq!(lines.len(), 3, "{tabs}");
        assert_eq!(lines[0], HEADER.join("\t"));
        assert!(lines[1].starts_with("tas\tunfair\tspins\t"), "{tabs}");
        assert_eq!(
            lines[2],
            "mine\tunknown\tunknown\t/nowhere/mine.so (missing)\t"
        );
        for form in [Form::Table, Form::Csv] {
            let text = render(&locks(), form).expect("text");
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(text.contains("/nowhere/mine.so (missing)"), "{text}");
        }
    }

    #[test]
    fn the_collection_describes_each_of_its_locks() {
        for lock in Source::collection().chain([Source::glibc()]) {
            let row = row(&lock);
            assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
            assert!(
                row.iter().all(|cell| !cell.contains(['\t', '\n'])),
                "{row:?}"
            );
        }
    }
}
