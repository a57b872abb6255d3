//! Of whole pages and files: what must be in them, whatever they look like.

use super::*;
use crate::latency::encode;
use crate::run::tests::sample;
use crate::run::{LockInfo, Round};
use hdrhistogram::Histogram;

/// `count` locks at 1 to 16 threads, with histograms: glibc, autolock, then names of
/// all kinds; the later, the faster.
pub fn many_locks(count: usize) -> Run {
    let mut run = sample();
    let name = |i: usize| match i {
        0 => "glibc".into(),
        1 => "autolock".into(),
        i if i % 3 == 0 => format!("number{i}_spinlock"),
        i if i % 3 == 1 => format!("number{i}_autolock"),
        i => format!("lock{i}"),
    };
    run.locks = (0..count)
        .map(|i| LockInfo {
            name: name(i),
            ..run.locks[0].clone()
        })
        .collect();
    let like = run.cells[0].rounds[0].clone();
    let mut cell = run.cells[0].clone();
    run.cells.clear();
    for threads in [1, 2, 4, 8, 16] {
        cell.cell.threads = threads;
        cell.rounds.clear();
        for round in 0..2 {
            for i in 0..count {
                let mut histogram = Histogram::<u64>::new(2).expect("histogram");
                for j in 1..200 {
                    let ns = 50 * j * (i as u64 + 1);
                    histogram.record(ns).expect("fits");
                }
                let mut latency = like.latency.clone().expect("latency");
                latency.histogram = Some(encode(&histogram).expect("encoded"));
                cell.rounds.push(Round {
                    lock: name(i),
                    round,
                    position: i,
                    thread_ops: vec![100_000 * (i as u64 + 1 + round as u64); threads],
                    latency: Some(latency),
                    handover_ns: Some(100.0 + i as f64),
                    ..like.clone()
                });
            }
        }
        run.cells.push(cell.clone());
    }
    run
}

fn rename(run: &mut Run, from: &str, to: &str) {
    for lock in run.locks.iter_mut().filter(|l| l.name == from) {
        lock.name = to.into();
    }
    for round in run.cells.iter_mut().flat_map(|c| &mut c.rounds) {
        if round.lock == from {
            round.lock = to.into();
        }
    }
}

fn plot(run: &Run, against: Option<&Run>) -> Output {
    let names = ["run.json".to_owned(), "other.json".to_owned()];
    output(run, against, &names, &[]).expect("plots")
}

/// Every figure of a page, parsed.
fn inline_figures(page: &str) -> Vec<&str> {
    page.split("<figure>")
        .skip(1)
        .map(|rest| rest.split("</figure>").next().expect("closed"))
        .collect()
}

#[test]
fn every_file_is_xml_and_has_every_lock_in_its_legend() {
    let run = many_locks(45);
    let output = plot(&run, None);
    // Throughput, ratio, fairness, CPU, hand-over, switches; 5 distributions.
    assert_eq!(output.figures.len(), 6 + 5);
    for (file, text) in &output.figures {
        let svg = roxmltree::Document::parse(text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let legend = svg
            .descendants()
            .find(|n| n.attribute("class") == Some("legend"))
            .expect("legend");
        let named: BTreeSet<&str> = legend
            .children()
            .filter(|n| n.has_tag_name("text"))
            .filter_map(|n| n.text())
            .collect();
        for lock in &run.locks {
            assert!(named.contains(lock.name.as_str()), "{file}: {}", lock.name);
        }
    }
}

#[test]
fn nothing_is_drawn_outside_its_figure() {
    for run in [many_locks(45), sample()] {
        for (file, text) in &plot(&run, None).figures {
            let svg = roxmltree::Document::parse(text).expect("XML");
            let root = svg.root_element();
            let side = |name| root.attribute(name).and_then(|v| v.parse::<f64>().ok());
            let (width, height) = (
                side("width").expect("width"),
                side("height").expect("height"),
            );
            let lines = root
                .descendants()
                .filter(|n| !n.ancestors().any(|a| a.has_tag_name("defs")));
            for points in lines.filter_map(|n| n.attribute("points")) {
                for pair in points.split(' ') {
                    let (x, y) = pair.split_once(',').expect("x,y");
                    let x: f64 = x.parse().expect("number");
                    let y: f64 = y.parse().expect("number");
                    let inside = (0.0..=width).contains(&x) && (0.0..=height).contains(&y);
                    assert!(inside, "{file}: {pair} in {width} x {height}");
                }
            }
        }
    }
}

#[test]
fn the_page_has_a_button_for_every_lock_a_line_in_every_figure_and_loads_nothing() {
    let run = many_locks(45);
    let page = plot(&run, None).page;
    let figures = inline_figures(&page);
    assert_eq!(figures.len(), 11);
    for (lock, LockInfo { name, .. }) in run.locks.iter().enumerate() {
        assert!(page.contains(&format!("data-lock=\"{lock}\"")), "{name}");
        for figure in &figures {
            let svg = roxmltree::Document::parse(figure).expect("XML");
            let class = format!("L{lock}");
            let drawn = svg.descendants().any(|n| {
                let classes = n.attribute("class").unwrap_or("");
                n.has_tag_name("polyline") && classes.split(' ').any(|c| c == class)
            });
            let label = svg.root_element().attribute("aria-label").unwrap_or("");
            let no_ratio = lock == 0 && label.contains("ratio");
            assert!(drawn || no_ratio, "{name} in {label}");
        }
    }
    for loads in [" src=", "href=", "@import", "http:", "https:"] {
        assert!(!page.contains(loads), "{loads}");
    }
    for stated in [
        "A CPU",
        "6.12",
        "2.36",
        "2026-01-01",
        "driver --bench",
        "on-CPU source",
    ] {
        assert!(page.contains(stated), "{stated}");
    }
}

#[test]
fn a_name_cannot_break_out_of_the_page_or_a_figure() {
    let evil = "<script>alert('1')</script>\"&]]>";
    let mut run = sample();
    rename(&mut run, "autolock", evil);
    run.machine.cpu = evil.into();
    run.command.push("</pre></style><b>".into());
    let mut one_cell = run.clone();
    one_cell.cells.truncate(1);
    // Lines have names in their legend, rows of one number of threads on their axis.
    for run in [run, one_cell] {
        let output = plot(&run, None);
        // The page's own script alone.
        assert_eq!(output.page.matches("<script").count(), 1);
        assert_eq!(output.page.matches("</script").count(), 1);
        assert!(!output.page.contains("<b>"));
        assert!(output.page.contains("&lt;script&gt;alert"));
        for (file, text) in &output.figures {
            let svg = roxmltree::Document::parse(text).unwrap_or_else(|e| panic!("{file}: {e}"));
            let scripts = svg.descendants().filter(|n| n.has_tag_name("script"));
            assert_eq!(scripts.count(), 0, "{file}");
            assert!(svg.descendants().any(|n| n.text() == Some(evil)), "{file}");
        }
    }
}

#[test]
fn a_comparison_marks_other_machines_and_draws_the_second_run_dashed() {
    let run = sample();
    let mut other = sample();
    let page = plot(&run, Some(&other)).page;
    assert!(!page.contains("Different machines"));
    other.machine.cores = 64;
    let output = plot(&run, Some(&other));
    assert!(output.page.contains("Different machines"));
    assert!(output.page.contains("number of cores"));
    for (file, text) in &output.figures {
        let svg = roxmltree::Document::parse(text).expect("XML");
        let dashed = svg.descendants().any(|n| {
            let classes: Vec<&str> = n.attribute("class").unwrap_or("").split(' ').collect();
            n.has_tag_name("polyline") && classes.contains(&"x") && classes.contains(&"L0")
        });
        let expected = !file.starts_with("change") && !file.starts_with("ratio");
        assert_eq!(dashed, expected, "{file}");
    }
}

#[test]
fn figures_have_different_files_even_if_their_groups_look_alike() {
    let mut run = sample();
    let mut other = run.cells[0].clone();
    // Not in the cell's words.
    other.cell.lines += 1;
    run.cells.push(other);
    let output = plot(&run, None);
    let files: BTreeSet<&String> = output.figures.iter().map(|(file, _)| file).collect();
    assert_eq!(files.len(), output.figures.len());
}

#[test]
fn an_unknown_highlight_and_an_empty_run_are_refused_in_one_line() {
    let names = ["run.json".to_owned(), String::new()];
    let error = output(&sample(), None, &names, &["mcs".into()])
        .err()
        .expect("unknown");
    assert!(error.to_string().contains("glibc, autolock"), "{error}");
    let mut run = sample();
    run.cells.clear();
    let error = output(&run, None, &names, &[]).err().expect("empty");
    assert!(error.to_string().contains("no cells"), "{error}");
}
