//! What must be true of all files, whatever they look like. Where there is a public reader, it reads them back.

mod page;
mod readers;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use prost::Message as _;

use super::pprof::Profile;
use super::*;
use crate::report::model::Kind;
use crate::report::units;

/// A folder that goes away, unless `KEEP_OUTPUTS` is set: for human eyes.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("autolock-outputs-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("KEEP_OUTPUTS").is_none() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// What could not be checked is said past the test runner's capture, and fails where it could have been installed.
fn skipped(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "missing in CI: {reason}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

fn all_kinds() -> [(&'static str, Report); 4] {
    [
        ("server", sample::server()),
        ("empty", sample::empty()),
        ("evil", sample::evil()),
        ("huge", sample::huge(1_000)),
    ]
}

/// Sums over the sites: what the other outputs show.
fn totals(report: &Report, kind: SiteKind) -> (u64, u64) {
    let sites = report.sites.iter().filter(|site| site.kind == kind);
    sites.fold((0, 0), |sum, site| {
        (sum.0 + site.count, sum.1 + site.total_ns)
    })
}

const PROFILES: [(View, SiteKind); 3] = [
    (View::Wait, SiteKind::Wait),
    (View::Blame, SiteKind::Wait),
    (View::Hold, SiteKind::Hold),
];

fn decoded(report: &Report, view: View) -> Profile {
    let bytes = pprof::profile(report, view).expect("profile");
    let mut message = Vec::new();
    GzDecoder::new(&bytes[..])
        .read_to_end(&mut message)
        .expect("gzip");
    Profile::decode(&message[..]).expect("message")
}

#[test]
fn a_folder_gets_all_files_whole_and_nothing_else() {
    for (name, report) in all_kinds() {
        let scratch = Scratch::new(name);
        let dir = scratch.0.join("deep/er");
        let written = write_all(&report, &dir).expect("written");
        // Again over what is there, to the same bytes.
        let bytes = |path: &PathBuf| fs::read(path).expect("file");
        let first: Vec<Vec<u8>> = written.iter().map(bytes).collect();
        assert_eq!(written, write_all(&report, &dir).expect("written again"));
        for (path, first) in written.iter().zip(first) {
            assert_eq!(bytes(path), first, "{}", path.display());
        }
        let mut found = Vec::new();
        for folder in [&dir, &dir.join("hgrm")] {
            for entry in fs::read_dir(folder).expect("folder") {
                let entry = entry.expect("entry");
                if entry.file_type().expect("type").is_file() {
                    found.push(entry.path());
                }
            }
        }
        let mut written = written;
        written.sort();
        found.sort();
        assert_eq!(written, found);
        for required in [
            "contention.pb.gz",
            "hold.pb.gz",
            "wait.hlog",
            "hold.hlog",
            "wait.folded",
            "hold.folded",
            "wait.svg",
            "hold.svg",
            "index.html",
        ] {
            assert!(written.contains(&dir.join(required)), "{name}: {required}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named_in_the_error() {
    let error = write_all(&sample::empty(), Path::new("/dev/null/x")).expect_err("no folder");
    assert!(format!("{error:#}").contains("/dev/null/x"), "{error:#}");
}

#[test]
fn profiles_are_well_formed_and_add_up_to_the_sites() {
    for (name, report) in all_kinds() {
        for (view, kind) in PROFILES {
            let profile = decoded(&report, view);
            let text = |index: i64| profile.string_table[index as usize].as_str();
            assert_eq!(text(0), "");
            let types: Vec<_> = profile
                .sample_type
                .iter()
                .map(|t| (text(t.r#type), text(t.unit)))
                .collect();
            let expected = match view {
                View::Hold => [("holds", "count"), ("hold", "nanoseconds")],
                _ => [("contentions", "count"), ("delay", "nanoseconds")],
            };
            assert_eq!(types, expected);
            assert_eq!(text(profile.default_sample_type), expected[1].0);
            assert_eq!(
                (profile.period, profile.period_type),
                (1, Some(profile.sample_type[0]))
            );
            assert_eq!(profile.duration_nanos as u64, report.process.duration_ns);
            let sum = |value: usize| {
                profile
                    .sample
                    .iter()
                    .map(|s| s.value[value] as u64)
                    .sum::<u64>()
            };
            assert_eq!((sum(0), sum(1)), totals(&report, kind), "{name}, {view:?}");
            assert_eq!(text(profile.mapping[0].filename), report.process.executable);
            for (i, location) in (1..).zip(&profile.location) {
                assert_eq!(location.id, i);
                assert!(location.mapping_id <= profile.mapping.len() as u64);
                for line in &location.line {
                    assert!((1..=profile.function.len() as u64).contains(&line.function_id));
                }
                assert!(!location.line.is_empty());
            }
            for sample in &profile.sample {
                assert!(!sample.location_id.is_empty());
                assert!(
                    sample
                        .location_id
                        .iter()
                        .all(|id| (1..=profile.location.len() as u64).contains(id))
                );
                let mut keys: Vec<i64> = sample.label.iter().map(|label| label.key).collect();
                keys.sort_unstable();
                keys.dedup();
                assert_eq!(keys.len(), sample.label.len(), "one value a key");
            }
        }
    }
}

#[test]
fn a_waiter_is_the_leaf_and_its_holder_a_label_and_the_other_way_round() {
    let report = sample::server();
    for (view, label, leaf, other) in [
        (View::Wait, "holder", "Stats::flush(", "Stats::count("),
        (View::Blame, "waiter", "std::lock_guard<", "Stats::flush("),
    ] {
        let profile = decoded(&report, view);
        let text = |index: i64| profile.string_table[index as usize].as_str();
        // The flusher waits for counters in the third site of the sample: the only one of these.
        let sample = &profile.sample[2];
        let location = &profile.location[sample.location_id[0] as usize - 1];
        let name =
            |line: &super::pprof::Line| text(profile.function[line.function_id as usize - 1].name);
        let (inlined, own) = (name(&location.line[0]), location.line.len());
        assert!(inlined.starts_with(leaf), "{inlined}");
        // The guard is inlined into the counter, the flusher into nothing.
        assert_eq!(own, if leaf.starts_with("std") { 2 } else { 1 });
        let labels: BTreeMap<&str, &str> = sample
            .label
            .iter()
            .map(|l| (text(l.key), text(l.str)))
            .collect();
        assert!(labels[label].starts_with(other), "{labels:?}");
        assert_eq!(labels["lock"], "stats_lock");
        let mapping = &profile.mapping[location.mapping_id as usize - 1];
        assert_eq!(text(mapping.build_id), "0123456789abcdef");
        assert!((mapping.memory_start..mapping.memory_limit).contains(&location.address));
    }
}

#[test]
fn the_greatest_value_in_a_log_is_in_milliseconds() {
    let log = hlog::log(
        &sample::server(),
        &hottest(&sample::server()),
        Measure::Wait,
    )
    .expect("log");
    let log = String::from_utf8(log).expect("text");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "#[Histogram log format version 1.3]");
    assert_eq!(
        lines[1],
        "#[StartTime: 1790000000.123 (seconds since epoch)]"
    );
    let legend =
        r#""StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram""#;
    assert_eq!(lines[2], legend);
    let stats = lines
        .iter()
        .find_map(|line| line.strip_prefix("Tag=wait:stats_lock,"));
    let fields: Vec<&str> = stats.expect("tag").split(',').collect();
    let max: f64 = fields[2].parse().expect("number");
    let true_ms = sample::server().locks[0].wait.max_ns as f64 / 1e6;
    assert!((max / true_ms - 1.0).abs() < 0.01, "{max}, {true_ms}");
    assert!(fields[3].starts_with("HISTFAAA"), "{}", fields[3]);
}

#[test]
fn a_histogram_that_locks_share_counts_once() {
    // Three of one identity, and one of another; all have the histogram of their first use.
    let mut report = sample::huge(4);
    let shared = report.locks[3].wait.histogram.clone();
    let id = report.locks[0].id.clone();
    for (i, lock) in report.locks.iter_mut().enumerate() {
        lock.first_use = Some(0);
        lock.wait.shared = true;
        lock.wait.histogram = shared.clone();
        if i < 3 {
            lock.id.clone_from(&id);
        }
    }
    let rows = hottest(&report);
    assert_eq!(rows.len(), 2);
    let log = hlog::log(&report, &rows, Measure::Wait).expect("log");
    let log = String::from_utf8(log).expect("text");
    assert_eq!(log.matches("Tag=").count(), 2);
    // One row has as many values as its locks had waits or fewer, the other cannot have had them all.
    let more = rows
        .iter()
        .filter(|row| row.wait.count < shared.len())
        .count();
    assert_eq!(log.matches("+others,").count(), more);
    assert_eq!(
        hlog::together(&report, Measure::Wait).expect("sum").len(),
        shared.len()
    );
}

#[test]
fn percentile_files_have_the_columns_that_plotters_expect() {
    let mut report = sample::server();
    // Too wide for its column: more than 4000 seconds.
    report.locks[0]
        .wait
        .histogram
        .saturating_record(4_300_000_000_000);
    for (name, text) in hgrm::files(&report, &hottest(&report), Measure::Wait).expect("files") {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "       Value     Percentile TotalCount 1/(1-Percentile)"
        );
        assert_eq!(lines[1], "");
        let rows: Vec<&&str> = lines[2..]
            .iter()
            .take_while(|line| !line.starts_with('#'))
            .collect();
        assert_eq!(lines.len(), 2 + rows.len() + 3, "{name}");
        let mut before = (0.0, 0.0, 0);
        for (i, row) in rows.iter().enumerate() {
            assert!(row.starts_with(' '), "{name}: {row}");
            let cells: Vec<f64> = row
                .split_whitespace()
                .map(|c| c.parse().expect("number"))
                .collect();
            let last = i + 1 == rows.len();
            assert_eq!(cells.len(), if last { 3 } else { 4 }, "{row}");
            assert_eq!(cells[1] == 1.0, last, "{row}");
            let now = (cells[0], cells[1], cells[2] as u64);
            assert!(
                now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2,
                "{row}"
            );
            before = now;
        }
        assert!(lines[2 + rows.len()].starts_with("#[Mean    = "));
        assert!(lines[3 + rows.len()].ends_with(&format!("Total count    = {:>12}]", before.2)));
        assert!(
            lines[4 + rows.len()].ends_with("SubBuckets     =          256]"),
            "{text}"
        );
    }
    let (name, text) = &hgrm::files(&report, &hottest(&report), Measure::Wait).expect("files")[1];
    assert_eq!(name, "hgrm/stats_lock-wait.hgrm");
    let median = report.locks[0].wait.histogram.value_at_quantile(0.5) as f64 / 1e3;
    let row = text
        .lines()
        .find(|line| line.contains(" 0.500000000000 "))
        .expect("median");
    let value: f64 = row
        .split_whitespace()
        .next()
        .and_then(|v| v.parse().ok())
        .expect("number");
    assert!((value / median - 1.0).abs() < 0.01, "{row}: {median} us");
}

#[test]
fn percentile_files_stay_in_their_folder_and_are_for_the_hottest_locks_only() {
    for (name, report) in all_kinds() {
        for measure in Measure::ALL {
            let files = hgrm::files(&report, &hottest(&report), measure).expect("files");
            assert!(files.len() <= 101, "{name}: {}", files.len());
            let mut names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
            for file in &names[1..] {
                let file = file.strip_prefix("hgrm/").expect("in the folder");
                assert!(
                    !file.contains('/') && !file.starts_with('.') && !file.starts_with('-'),
                    "{file}"
                );
            }
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), files.len(), "{name}: each name once");
        }
    }
}

#[test]
fn folded_stacks_add_up_and_no_name_breaks_a_line() {
    for (name, report) in all_kinds() {
        for (view, kind) in PROFILES {
            let text =
                String::from_utf8(folded::text(&folded::stacks(&report, view))).expect("text");
            let mut sum = 0;
            for line in text.lines() {
                let (stack, ns) = line.rsplit_once(' ').expect("weight");
                sum += ns
                    .parse::<u64>()
                    .unwrap_or_else(|_| panic!("{name}: {line}"));
                assert!(stack.split(';').all(|frame| !frame.is_empty()), "{line}");
                assert!(!stack.chars().any(char::is_control), "{line}");
                // Readers would take a second number for that of another run.
                let second = stack
                    .rsplit_once(' ')
                    .map(|(_, word)| word.parse::<f64>().is_ok());
                assert_ne!(second, Some(true), "{line}");
            }
            assert_eq!(sum, totals(&report, kind).1, "{name}, {view:?}");
        }
    }
}

#[test]
fn folded_stacks_begin_at_the_root_and_end_at_the_lock_or_at_who_waited_for_it() {
    let report = sample::server();
    let wait = folded::stacks(&report, View::Wait);
    let of_flush = "clone3;start_thread;timer_thread;event_loop;timer_tick;Stats::flush(std::ostream&, std::chrono::duration<long, std::ratio<1l, 1000l> >);[stats_lock]";
    assert_eq!(
        wait.get(of_flush),
        Some(&report.sites[2].total_ns),
        "{wait:#?}"
    );
    // Inlined functions stand behind those they are inlined into.
    let inlined = "handle_request(Connection&);Stats::count(unsigned long);std::lock_guard<std::mutex>::lock_guard;[stats_lock]";
    assert!(
        wait.keys().any(|stack| stack.ends_with(inlined)),
        "{wait:?}"
    );
    let blame = folded::stacks(&report, View::Blame);
    let blamed = format!("{of_flush};Stats::count(unsigned long)");
    assert_eq!(blame.get(&blamed), Some(&report.sites[0].total_ns));
    assert!(
        wait.keys()
            .any(|stack| stack.ends_with("[config_lock (readers)]"))
    );
}

#[test]
fn flame_graphs_are_xml_and_show_what_was_recorded() {
    for (name, report) in all_kinds() {
        for view in View::ALL {
            let stacks = folded::stacks(&report, view);
            let file = String::from_utf8(flame::file(&report, view, &stacks).expect("drawn"))
                .expect("text");
            let options = roxmltree::ParsingOptions {
                allow_dtd: true,
                ..Default::default()
            };
            let svg = roxmltree::Document::parse_with_options(&file, options)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            let title = |text: &str| {
                svg.descendants().any(|n| {
                    n.has_tag_name(("http://www.w3.org/2000/svg", "title"))
                        && n.text().is_some_and(|t| t.starts_with(text))
                })
            };
            assert_eq!(title("all ("), !stacks.is_empty(), "{name}");
            let inline = flame::inline(view, &stacks)
                .expect("drawn")
                .map(maud::Markup::into_string);
            assert_eq!(inline.is_none(), stacks.is_empty());
            if let Some(inline) = inline {
                assert!(
                    !inline.contains("<script") && !inline.contains(" id="),
                    "{name}"
                );
                assert!(inline.contains("<title>all ("), "{name}");
                assert!(
                    inline.matches("<svg").count() == inline.matches("</svg>").count(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn names_of_locks_are_told_apart() {
    let mut b = sample::Builder::new();
    // The last looks like the first with its identity.
    for name in ["a", "a", "b"] {
        b.lock(name, Kind::Mutex);
    }
    let like = format!("a@{}", b.0.locks[0].id);
    b.lock(&like, Kind::Mutex);
    b.lock("c", Kind::Readers);
    b.lock("c", Kind::Writers);
    let rows = hottest(&b.0);
    let mut tags = hlog::tags(&rows);
    tags.sort_unstable();
    let expected = ["b", "c_(readers)", "c_(writers)"];
    assert_eq!(tags[3..], expected);
    assert!(
        tags[..3].iter().all(|tag| tag.starts_with("a@")),
        "{tags:?}"
    );
    tags.dedup();
    assert_eq!(tags.len(), rows.len(), "{tags:?}");
}
