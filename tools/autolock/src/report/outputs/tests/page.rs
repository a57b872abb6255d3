//! What the page must and must not have.

use super::*;

fn page(report: &Report) -> String {
    super::super::page::render(report, &hottest(report)).expect("page")
}

#[test]
fn the_page_loads_nothing_and_no_name_breaks_out_of_it() {
    for (name, report) in all_kinds() {
        let page = page(&report);
        // Links lead to places in the page.
        assert_eq!(
            page.matches("href=").count(),
            page.matches("href=\"#").count(),
            "{name}"
        );
        for loads in [" src=", "@import", "url(h", "<link", "<iframe", "<img"] {
            assert!(!page.contains(loads), "{name}: {loads}");
        }
        // The page's own script alone.
        assert_eq!(page.matches("<script").count(), 1, "{name}");
        assert_eq!(page.matches("</script").count(), 1, "{name}");
        // What remains of the page is XML but for void elements, the doctype, flags and inferno's prefix.
        let (head, rest) = page.split_once("<body>").expect("body");
        assert!(head.contains(figures::POLICY), "{name}");
        let body = rest
            .split_once("<script>")
            .expect("script")
            .0
            .replace("fg:", "fg-");
        let body = body
            .replace("<details open", "<details")
            .replace(" open>", ">")
            .replace(" hidden>", ">");
        let body = body.replace('\u{1}', "");
        let body = void_elements_closed(&body);
        let text = format!("<body>{body}</body>");
        let tree = roxmltree::Document::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let ids: Vec<&str> = tree
            .descendants()
            .filter_map(|n| n.attribute("id"))
            .collect();
        let different: std::collections::BTreeSet<&&str> = ids.iter().collect();
        assert_eq!(ids.len(), different.len(), "{name}: ids");
        for link in tree.descendants().filter_map(|n| n.attribute("href")) {
            assert!(ids.contains(&&link[1..]), "{name}: {link} leads nowhere");
        }
    }
}

fn void_elements_closed(html: &str) -> String {
    let mut closed = String::new();
    let mut rest = html;
    while let Some(at) = rest.find("<input ") {
        let end = at + rest[at..].find('>').expect("closed");
        closed.push_str(&rest[..end]);
        closed.push_str("/>");
        rest = &rest[end + 1..];
    }
    closed + rest
}

#[test]
fn the_page_shows_pairs_of_waiters_and_holders_and_circles_of_threads() {
    let page = page(&sample::server());
    for stated in [
        "Blocked here, because it was held there",
        "another thread at the same place",
        "Deadlock? 2 threads wait for each other",
        "its holder is not known",
        "cached -t 4 --data a b;c",
        "signal 2 ended it",
        "/usr/bin/cached has changed since",
        "2 stacks",
        "7 holds that were not seen to end",
        "timing them 41ns",
        "config_lock (readers)",
        "Stats::flush(std::ostream&amp;, std::chrono::duration&lt;long, std::ratio&lt;1l, 1000l&gt; &gt;)",
    ] {
        assert!(page.contains(stated), "{stated}");
    }
    assert_eq!(page.matches("<figure class=\"flame\">").count(), 3);
    let without = self::page(&sample::empty());
    for stated in [
        "Nobody waited for a lock",
        "No lock was used",
        "no end was recorded",
    ] {
        assert!(without.contains(stated), "{stated}");
    }
    assert!(!without.contains("<figure"));
}

#[test]
fn ten_thousand_locks_are_all_in_the_table_and_few_in_detail() {
    let page = page(&sample::huge(10_000));
    assert_eq!(page.matches("<details class=\"lock\"").count(), 20);
    // A part of the table is in view; all of it is behind a line.
    assert_eq!(page.matches("<tr data-row=").count(), 10_000 + 50);
    assert!(page.contains("all 10000 locks"));
}

#[test]
fn locks_of_one_identity_are_one_wherever_locks_are_listed() {
    let mut report = sample::huge(30);
    for (i, lock) in report.locks.iter_mut().enumerate() {
        lock.id = format!("{:016x}", i / 10);
    }
    let rows = hottest(&report);
    assert_eq!(rows.len(), 3);
    let log = hlog::log(&report, &rows, Measure::Hold).expect("log");
    let log = String::from_utf8(log).expect("text");
    for name in ["Object0::mutex_", "Object1::mutex_", "Object2::mutex_"] {
        assert_eq!(
            log.matches(&format!("Tag=hold:{name},")).count(),
            1,
            "{name}"
        );
    }
    let page = page(&report);
    assert_eq!(page.matches("<tr data-row=").count(), 3);
    assert_eq!(page.matches("10 locks, the first at").count(), 3);
    // Ten holds of the same stack are one place.
    let longest = rows[0].hold.total_ns;
    assert!(
        page.contains(&units::time(longest)),
        "{}",
        units::time(longest)
    );
}
