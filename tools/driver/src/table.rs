//! A run for human eyes: the table, and the list of cells that lose. Units by magnitude;
//! the table is Markdown, to be pasted as it is.

use crate::run::Run;
use crate::summary::{LEAST_RATIO, MOST_P999, Shortfall, lines, shortfalls};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::ASCII_MARKDOWN};

use figures::units::three_digits;
pub use figures::units::{magnitude, nanoseconds, significant};

/// The whole report: the machine, the settings, the table.
pub fn render(run: &Run) -> String {
    let m = &run.machine;
    let s = &run.settings;
    let on = m.cpus.as_ref().map(|cpus| format!(" ({cpus})"));
    let built = m.commit.as_ref().map(|c| format!(", driver {c}"));
    let rustc = m.rustc.as_ref().map(|r| format!(", {r}"));
    let work = match (s.iter, s.total) {
        (Some(ops), _) => format!("{} operations of each thread", magnitude(ops as f64)),
        (None, Some(ops)) => format!("{} operations in all", magnitude(ops as f64)),
        (None, None) => format!("{} s", s.duration_s),
    };
    let on_cpu = m.on_cpu.as_ref().map(|o| format!("; on-CPU source: {o}"));
    let futex = s.futex_calls.as_ref();
    let futex = futex.map(|how| format!("; futex calls: {how}"));
    let mut text = format!(
        "{}, {} cores{}, Linux {}, glibc {}{}{}, {}, load {}\n\
         {}{}, {} cache lines; {} rounds of {work}, interleaved; medians over the rounds \
         (min..max); ratio to {}, pair by pair{}{}\n\n",
        m.cpu,
        m.cores,
        on.unwrap_or_default(),
        m.kernel,
        m.glibc,
        rustc.unwrap_or_default(),
        built.unwrap_or_default(),
        run.date,
        m.load_average,
        if s.single_threaded {
            "single-threaded process"
        } else {
            "multi-threaded process"
        },
        if s.pin { ", pinned" } else { "" },
        run.cells.first().map_or(0, |c| c.cell.lines),
        s.rounds,
        s.baseline,
        on_cpu.unwrap_or_default(),
        futex.unwrap_or_default(),
    );
    text.push_str(&table(run).to_string());
    text.push('\n');
    text
}

fn table(run: &Run) -> Table {
    let all = lines(run);
    let latency = run.settings.latency;
    let handover = all.iter().any(|line| line.changed_hands.is_some());
    let futex = all.iter().any(|line| line.futex_calls.is_some());
    let first = all.iter().any(|line| line.first.is_some());
    let mut header = vec![
        "threads", "locks", "gap", "section", "lock", "ops/s", "ratio", "Jain",
    ];
    header.extend(first.then_some("first done"));
    if latency {
        header.extend(["p50", "p99", "p99.9", "max (worst)"]);
    }
    if handover {
        header.extend(["handover", "changed"]);
    }
    header.extend(["CPU s/Mop", "vol/Mop", "invol/Mop"]);
    header.extend(futex.then_some("futex/Mop"));
    let columns = header.len();
    let mut table = Table::new();
    table
        .load_preset(ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for line in all {
        let ops = line.ops_per_s;
        let percent = |share: Option<f64>| {
            share.map_or_else(String::new, |s| format!("{} %", three_digits(s * 100.0)))
        };
        let mut row = vec![
            line.cell.threads.to_string(),
            line.cell.locks.to_string(),
            line.cell.gap_cycles.to_string(),
            nanoseconds(line.cell.cs_ns as f64),
            line.lock.clone(),
            format!(
                "{} ({}..{})",
                magnitude(ops.median),
                magnitude(ops.min),
                magnitude(ops.max)
            ),
            line.ratio.map_or_else(String::new, |r| {
                format!("{:.3} ({:.2}..{:.2})", r.median, r.min, r.max)
            }),
            format!("{:.3} ({:.2})", line.jain.median, line.jain.min),
        ];
        row.extend(first.then(|| percent(line.first)));
        if latency {
            row.extend(line.latency.map_or_else(
                || vec![String::new(); 4],
                |l| {
                    let max = format!("{} ({})", nanoseconds(l.max), nanoseconds(l.worst));
                    vec![
                        nanoseconds(l.p50),
                        nanoseconds(l.p99),
                        nanoseconds(l.p999),
                        max,
                    ]
                },
            ));
        }
        if handover {
            row.push(line.handover.map_or_else(String::new, nanoseconds));
            row.push(percent(line.changed_hands));
        }
        row.extend([
            significant(line.cpu_s),
            magnitude(line.voluntary),
            magnitude(line.involuntary),
        ]);
        row.extend(futex.then(|| line.futex_calls.map_or_else(String::new, magnitude)));
        table.add_row(row);
    }
    for i in 0..columns {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(if i == 4 {
                CellAlignment::Left
            } else {
                CellAlignment::Right
            });
        }
    }
    table
}

/// Breaks between words so that lines have at most `width` characters, where words allow.
pub fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            wrapped.push_str("\n  ");
            column = 2;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// The cells that lose, one line each, or a line that says there are none; of one lock or of all.
pub fn render_shortfalls(run: &Run, only: Option<&str>) -> String {
    let base = &run.settings.baseline;
    let mut found = shortfalls(run);
    found.retain(|(line, _)| only.is_none_or(|name| line.lock == name));
    let mut text = format!(
        "worse than {base} (throughput below {LEAST_RATIO}, p99.9 above {MOST_P999}x, \
         worst maximum above): {}\n",
        found.len()
    );
    for (line, shortfall) in found {
        let what = match shortfall {
            Shortfall::Throughput { ratio } => format!("throughput {ratio:.3}"),
            Shortfall::P999 { ns, baseline_ns } => format!(
                "p99.9 {} against {}",
                nanoseconds(ns),
                nanoseconds(baseline_ns)
            ),
            Shortfall::Max { worst, median } => format!(
                "max {} against {} (medians {} and {})",
                nanoseconds(worst[0]),
                nanoseconds(worst[1]),
                nanoseconds(median[0]),
                nanoseconds(median[1])
            ),
        };
        text.push_str(&format!("  {} at {}: {what}\n", line.lock, line.cell));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;

    #[test]
    fn units_follow_the_magnitude() {
        let shown = [12.0, 999.4, 1234.0, 10_000.0, 2.5e6, 3.1e9].map(nanoseconds);
        assert_eq!(
            shown,
            [
                "12.0 ns", "999 ns", "1.23 us", "10.0 us", "2.50 ms", "3.10 s"
            ]
        );
        let shown = [0.0, 0.5, 17.2e6, 999e3, 2.1e9].map(magnitude);
        assert_eq!(shown, ["0.00", "0.50", "17.2 M", "999 k", "2.10 G"]);
        let shown = [0.0, 0.00654321, 0.1456, 1.0].map(significant);
        assert_eq!(shown, ["0.00", "0.00654", "0.146", "1.00"]);
    }

    #[test]
    fn the_table_has_a_row_per_cell_and_lock_and_survives_json() {
        let text = render(&sample());
        let rows: Vec<_> = text.lines().filter(|l| l.starts_with('|')).collect();
        assert_eq!(rows.len(), 2 + 4, "{text}");
        assert!(rows[3].contains("autolock") && rows[3].contains("2.000 (1.80..2.20)"));
        assert!(rows[2].contains("2.00 ms"), "{text}");
        for fact in [
            "2 cores (0-1)",
            "driver 0123456789ab",
            "on-CPU source: user",
        ] {
            assert!(text.contains(fact), "{text}");
        }
        let json = serde_json::to_string(&sample()).expect("encode");
        let back: Run = serde_json::from_str(&json).expect("decode");
        assert_eq!(render(&back), text);
    }

    #[test]
    fn without_latencies_their_columns_go() {
        let mut run = sample();
        run.settings.latency = false;
        assert!(!render(&run).contains("p99"));
    }

    #[test]
    fn the_losing_cell_is_listed_in_each_way_it_loses() {
        let text = render_shortfalls(&sample(), None);
        assert_eq!(text.lines().count(), 1 + 3, "{text}");
        assert!(text.contains("autolock at threads 16"), "{text}");
        assert!(text.contains("throughput 0.900"), "{text}");
        assert!(text.contains("p99.9 11.0 us against 5.00 us"), "{text}");
        assert!(text.contains("max 3.00 ms against 2.00 ms"), "{text}");
        assert_eq!(render_shortfalls(&sample(), Some("mcs")).lines().count(), 1);
    }

    #[test]
    fn long_lines_break_between_words() {
        assert_eq!(wrap("a bb ccc", 100), "a bb ccc");
        assert_eq!(
            wrap("known: a, bb, ccc, dddd", 11),
            "known: a,\n  bb, ccc,\n  dddd"
        );
        assert_eq!(wrap("unbreakable", 3), "unbreakable");
    }
}
