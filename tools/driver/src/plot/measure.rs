//! Figures over the number of threads, one line a lock: what is measured, and in two runs
//! what changed. With one number of threads a row a lock instead. Pure.

use super::figure::{
    Figure, Group, LockIndex, Point, Series, Shape, Subject, slug, threads_in_words,
};
use crate::run::{CellRun, Round, Run};
use crate::summary::{Spread, jain};
use figures::axis::Axis;
use figures::label::{nanoseconds_label, plain, short_magnitude};

/// One measure of one round.
type Of = fn(&Round, &CellRun, &Run) -> Option<f64>;

/// What a figure over the threads shows.
struct Measure {
    file: &'static str,
    title: &'static str,
    axis: &'static str,
    label: fn(f64) -> String,
    range: Range,
    of: Of,
}

/// Of an axis.
enum Range {
    Free,
    /// 0 to 1.
    Share,
    /// With 1 in it, and a rule there.
    AroundOne,
}

const MEASURES: &[Measure] = &[
    Measure {
        file: "throughput",
        title: "Throughput",
        axis: "operations per second",
        label: short_magnitude,
        range: Range::Free,
        of: |round, _, _| Some(round.ops_per_s()),
    },
    Measure {
        file: "ratio",
        title: "Throughput, ratio to the baseline",
        axis: "ratio to the baseline of the same round",
        label: plain,
        range: Range::AroundOne,
        of: ratio,
    },
    Measure {
        file: "fairness",
        title: "Fairness",
        axis: "Jain's index (1: all threads alike)",
        label: plain,
        range: Range::Share,
        of: |round, _, _| Some(jain(&round.shares())),
    },
    Measure {
        file: "cpu",
        title: "CPU time",
        axis: "CPU seconds per million operations",
        label: plain,
        range: Range::Free,
        of: |round, _, _| Some(round.per_million(round.user_s + round.system_s)),
    },
    Measure {
        file: "handover",
        title: "Hand-over time",
        axis: "unlock to the next thread's acquisition",
        label: nanoseconds_label,
        range: Range::Free,
        of: |round, _, _| round.handover_ns,
    },
    Measure {
        file: "futex",
        title: "Futex calls",
        axis: "futex calls per million operations",
        label: short_magnitude,
        range: Range::Free,
        of: |round, _, _| Some(round.per_million(round.futex_calls? as f64)),
    },
    Measure {
        file: "switches",
        title: "Context switches",
        axis: "context switches per million operations",
        label: short_magnitude,
        range: Range::Free,
        of: |round, _, _| {
            let switches = round.voluntary_switches + round.involuntary_switches;
            Some(round.per_million(switches as f64))
        },
    },
];

/// None for the baseline itself.
fn ratio(round: &Round, cell: &CellRun, run: &Run) -> Option<f64> {
    let baseline = &run.settings.baseline;
    let partner = cell
        .rounds
        .iter()
        .find(|r| r.lock == *baseline && r.round == round.round);
    (round.lock != *baseline).then_some(round.ops_per_s() / partner?.ops_per_s())
}

/// Of both runs: the first over the second.
const CHANGES: &[Measure] = &[
    Measure {
        file: "change-of-ratio",
        title: "Ratio to the baseline, first run over second",
        axis: "quotient of the ratios to the baseline",
        label: plain,
        range: Range::AroundOne,
        of: ratio,
    },
    Measure {
        file: "change-of-throughput",
        title: "Throughput, first run over second",
        axis: "quotient of operations per second",
        label: plain,
        range: Range::AroundOne,
        of: |round, _, _| Some(round.ops_per_s()),
    },
];

/// One value with its place.
struct Found {
    lock: LockIndex,
    second: bool,
    threads: usize,
    spread: Spread,
}

/// Of everything that some round has.
pub fn figures(subject: &Subject, group: &Group) -> Vec<Figure> {
    let figure = |measure: &Measure| {
        let sides = 0..subject.runs.len();
        let found = sides.flat_map(|side| find(subject, group, side, measure.of));
        assemble(subject, group, measure, found.collect())
    };
    MEASURES.iter().filter_map(figure).collect()
}

/// Empty where there are not two runs with a cell in common.
pub fn changes(subject: &Subject, group: &Group) -> Vec<Figure> {
    if subject.runs.len() < 2 {
        return Vec::new();
    }
    let figure = |measure: &Measure| {
        let second = find(subject, group, 1, measure.of);
        let quotient = |a: Found| {
            let same = |b: &&Found| b.lock == a.lock && b.threads == a.threads;
            let b = second.iter().find(same)?.spread;
            // The rounds are not paired: the widest that they allow.
            let spread = Spread {
                median: a.spread.median / b.median,
                min: a.spread.min / b.max,
                max: a.spread.max / b.min,
            };
            Some(Found { spread, ..a })
        };
        let first = find(subject, group, 0, measure.of).into_iter();
        assemble(
            subject,
            group,
            measure,
            first.filter_map(quotient).collect(),
        )
    };
    CHANGES.iter().filter_map(figure).collect()
}

/// Lock by lock, in the order of the threads.
fn find(subject: &Subject, group: &Group, side: usize, of: Of) -> Vec<Found> {
    let run = subject.runs[side];
    let mut found = Vec::new();
    for (lock, name) in subject.locks.iter().enumerate() {
        for cell in &group.cells[side] {
            let rounds = cell.rounds.iter().filter(|r| r.lock == *name);
            let values = rounds.filter_map(|r| of(r, cell, run));
            found.extend(Spread::of(values).map(|spread| Found {
                lock,
                second: side == 1,
                threads: cell.cell.threads,
                spread,
            }));
        }
    }
    found.sort_by_key(|f| (f.lock, f.threads));
    found
}

/// Ratios below this are all as bad: room for those that compete.
const LEAST_RATIO: f64 = 0.1;

fn values(measure: &Measure, found: &[Found]) -> Axis {
    let all = found.iter().flat_map(|f| [f.spread.min, f.spread.max]);
    match measure.range {
        Range::Free => Axis::values(measure.axis, measure.label, 0.0, all),
        Range::Share => Axis::linear(measure.axis, measure.label, 1.0),
        Range::AroundOne => {
            let all = all.chain([1.0, 1.15]);
            Axis::values(measure.axis, measure.label, LEAST_RATIO, all)
        }
    }
}

/// None of nothing.
fn assemble(
    subject: &Subject,
    group: &Group,
    measure: &Measure,
    found: Vec<Found>,
) -> Option<Figure> {
    if found.is_empty() {
        return None;
    }
    let values = values(measure, &found);
    let rule = matches!(measure.range, Range::AroundOne).then(|| values.place(1.0));
    let figure = Figure {
        file: format!("{}-{}", measure.file, slug(&group.title)),
        title: measure.title.into(),
        subtitle: group.title.clone(),
        x: Axis::threads(&group.threads),
        y: values,
        shape: Shape::Line,
        rule,
        series: Vec::new(),
    };
    let tip = |f: &Found| {
        let Spread { median, min, max } = f.spread;
        let [median, min, max] = [median, min, max].map(measure.label);
        format!(
            "{}{}, {}: {median} ({min}..{max})",
            subject.locks[f.lock],
            subject.side(f.second),
            threads_in_words(f.threads),
        )
    };
    Some(match group.threads[..] {
        [one] => {
            let subtitle = format!("{}, {}", threads_in_words(one), group.title);
            rows(Figure { subtitle, ..figure }, subject, &found, tip)
        }
        _ => lines(figure, &found, tip),
    })
}

fn lines(mut figure: Figure, found: &[Found], tip: impl Fn(&Found) -> String) -> Figure {
    for f in found {
        let place = |value| figure.y.place(value);
        let point = Point {
            x: figure.x.place(f.threads as f64),
            y: place(f.spread.median),
            spread: Some((place(f.spread.min), place(f.spread.max))),
            tip: tip(f),
        };
        push(&mut figure.series, f, point);
    }
    figure
}

/// The greatest at the top.
fn rows(
    figure: Figure,
    subject: &Subject,
    found: &[Found],
    tip: impl Fn(&Found) -> String,
) -> Figure {
    let values = figure.y;
    let mut order: Vec<(LockIndex, f64)> = Vec::new();
    for f in found {
        if order.iter().all(|(lock, _)| *lock != f.lock) {
            order.push((f.lock, f.spread.median));
        }
    }
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let names: Vec<String> = order
        .iter()
        .map(|(lock, _)| subject.locks[*lock].clone())
        .collect();
    let both = found.iter().any(|f| f.second);
    let mut series = Vec::new();
    for f in found {
        let row = order.iter().position(|(lock, _)| *lock == f.lock);
        let place = |value| values.place(value);
        // Two runs share a row, one above the other.
        let lift = match (both, f.second) {
            (false, _) => 0.0,
            (true, false) => 0.17,
            (true, true) => -0.17,
        };
        let point = Point {
            x: place(f.spread.median),
            y: (order.len() - 1 - row.unwrap_or(0)) as f64 + lift,
            spread: Some((place(f.spread.min), place(f.spread.max))),
            tip: tip(f),
        };
        push(&mut series, f, point);
    }
    Figure {
        x: values,
        y: Axis::names(&names),
        shape: Shape::Row,
        series,
        ..figure
    }
}

fn push(series: &mut Vec<Series>, of: &Found, point: Point) {
    match series.last_mut() {
        Some(s) if s.lock == of.lock && s.second == of.second => s.points.push(point),
        _ => series.push(Series {
            lock: of.lock,
            second: of.second,
            points: vec![point],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;

    fn titled<'a>(figures: &'a [Figure], file: &str) -> &'a Figure {
        let found = figures.iter().find(|f| f.file.starts_with(file));
        found.unwrap_or_else(|| panic!("no {file}"))
    }

    #[test]
    fn throughput_and_its_ratio_are_medians_with_the_rounds_extremes() {
        let run = sample();
        let subject = Subject::new(&run, None);
        let figures = figures(&subject, &subject.groups()[0]);
        let throughput = titled(&figures, "throughput");
        assert_eq!(throughput.series.len(), 2);
        let glibc = &throughput.series[0].points;
        assert_eq!(
            (glibc.len(), glibc[0].x),
            (2, 1.0),
            "2 threads are at log2 2"
        );
        assert_eq!(glibc[0].y, throughput.y.place(1e6));
        let (low, high) = (throughput.y.place(1e6), throughput.y.place(1.5e6));
        assert_eq!(glibc[0].spread, Some((low, high)));
        let ratio = titled(&figures, "ratio");
        assert_eq!(ratio.series.len(), 1, "the baseline has none");
        assert_eq!(ratio.rule, Some(ratio.y.place(1.0)));
        assert!(
            ratio.series[0].points[0]
                .tip
                .contains("autolock, 2 threads: 2 (")
        );
    }

    #[test]
    fn what_no_round_has_gets_no_figure() {
        let mut run = sample();
        let files = |run: &Run| -> Vec<String> {
            let subject = Subject::new(run, None);
            let all = figures(&subject, &subject.groups()[0]);
            all.into_iter().map(|f| f.file).collect()
        };
        assert!(files(&run).iter().all(|f| !f.starts_with("handover")));
        run.cells[0].rounds[0].handover_ns = Some(120.0);
        assert!(files(&run).iter().any(|f| f.starts_with("handover")));
    }

    #[test]
    fn one_number_of_threads_is_a_row_for_each_lock_the_fastest_first() {
        let mut run = sample();
        run.cells.truncate(1);
        let subject = Subject::new(&run, None);
        let figures = figures(&subject, &subject.groups()[0]);
        let throughput = titled(&figures, "throughput");
        assert_eq!(throughput.shape, Shape::Row);
        assert_eq!(throughput.y.ticks[0].label, "autolock");
        assert!(throughput.y.ticks[0].at > throughput.y.ticks[1].at);
        assert!(throughput.subtitle.starts_with("2 threads"));
    }

    #[test]
    fn changes_are_the_first_run_over_the_second() {
        let (a, mut b) = (sample(), sample());
        for round in b.cells.iter_mut().flat_map(|c| &mut c.rounds) {
            round.elapsed_s *= 2.0;
        }
        let subject = Subject::new(&a, Some(&b));
        let all = changes(&subject, &subject.groups()[0]);
        let throughput = titled(&all, "change-of-throughput");
        let point = &throughput.series[0].points[0];
        assert_eq!(point.y, throughput.y.place(2.0), "{}", point.tip);
        let ratio = titled(&all, "change-of-ratio");
        let point = &ratio.series[0].points[0];
        assert_eq!(point.y, ratio.y.place(1.0), "{}", point.tip);
        assert!(changes(&Subject::new(&a, None), &subject.groups()[0]).is_empty());
    }
}
