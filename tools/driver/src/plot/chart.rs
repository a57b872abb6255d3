//! Draws a figure: plotters lays out axes and grid, the elements carry classes. Once for
//! the page, which has one legend for all figures, and once as a file of its own.

use super::figure::{Figure, LockIndex, Point, Series, Shape};
use super::look::{self, Looks};
use anyhow::{Context, Result};
use figures::frame::{self, Chart, px};
use figures::svg::{Backend, Drawing, Inks, TENTHS};
use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

/// Of a figure without its legend.
const WIDTH: u32 = 620;
const HEIGHT: u32 = 400;
/// Of a lock in a figure of rows, and of a line of a legend.
const ROW: u32 = 18;
/// Above and below the rows.
const AROUND_ROWS: u32 = 110;

/// What the figures of a page have in common.
pub struct Style<'a> {
    pub locks: &'a [String],
    pub looks: &'a Looks,
    /// What solid and dashed lines are, where there are two runs.
    pub sides: Option<[&'a str; 2]>,
}

/// As part of a page.
pub fn inline(figure: &Figure, style: &Style) -> Result<Markup> {
    let (width, height) = size(figure);
    let label = format!("{}, {}", figure.title, figure.subtitle);
    Ok(html! {
        svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(label) {
            (contents(figure, style)?)
        }
    })
}

/// As a file: with a legend of every lock and a line that says where it was measured.
pub fn file(figure: &Figure, style: &Style, source: &str) -> Result<String> {
    let (plot_width, plot_height) = size(figure);
    let legend = Legend::new(style, plot_height);
    let width = plot_width + legend.width;
    let height = plot_height.max(legend.height) + 22;
    let label = format!("{}, {}", figure.title, figure.subtitle);
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" class="alone" width=(width) height=(height)
            viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(label) {
            style { (PreEscaped(format!("\n{}{}", look::CSS, style.looks.css()))) }
            defs { (look::marks()) }
            rect width="100%" height="100%" style="fill:var(--bg)" {}
            (contents(figure, style)?)
            (legend.draw(plot_width))
            text class="soft" x="8" y=(height - 8) font-size="10" { (source) }
        }
    };
    let svg = svg.into_string();
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{svg}\n"
    ))
}

fn size(figure: &Figure) -> (u32, u32) {
    match figure.shape {
        Shape::Row => (WIDTH, AROUND_ROWS + ROW * figure.y.ticks.len() as u32),
        Shape::Line | Shape::Curve => (WIDTH, HEIGHT),
    }
}

/// Class of everything of one lock and run.
fn class(kind: &str, series: &Series) -> String {
    let second = if series.second { " x" } else { "" };
    format!("{kind}{second} L{}", series.lock)
}

fn contents(figure: &Figure, style: &Style) -> Result<Markup> {
    let mut inks = Inks::default();
    let mut drawing = Drawing::default();
    draw(figure, style, &mut inks, &mut drawing)
        .with_context(|| format!("cannot draw {}", figure.file))?;
    Ok(drawing.render(&inks))
}

fn draw(figure: &Figure, style: &Style, inks: &mut Inks, drawing: &mut Drawing) -> Result<()> {
    let (width, height) = size(figure);
    let size = (width * TENTHS, height * TENTHS);
    let root = Backend { size, drawing }.into_drawing_area();
    let mut chart = frame::draw(
        &root,
        [&figure.title, &figure.subtitle],
        [&figure.x, &figure.y],
        inks,
    )?;
    if let Some(at) = figure.rule {
        let ends = match figure.shape {
            Shape::Row => [(at, figure.y.range.0), (at, figure.y.range.1)],
            _ => [(figure.x.range.0, at), (figure.x.range.1, at)],
        };
        chart.draw_series([PathElement::new(ends, inks.add("rule", None))])?;
    }
    for series in in_order(figure, style.looks) {
        draw_series(&mut chart, figure, series, style, inks)?;
    }
    Ok(())
}

/// Those in colour last, so that they lie above the grey.
fn in_order<'a>(figure: &'a Figure, looks: &Looks) -> Vec<&'a Series> {
    let mut order: Vec<&Series> = figure.series.iter().collect();
    order.sort_by_key(|s| looks.0[s.lock].map_or(0, |look| look::LOOKS - look + 1));
    order
}

fn draw_series(
    chart: &mut Chart,
    figure: &Figure,
    series: &Series,
    style: &Style,
    inks: &mut Inks,
) -> Result<()> {
    let points = &series.points;
    let at: Vec<(f64, f64)> = points.iter().map(|p| (p.x, p.y)).collect();
    let name = || Some(name_of(series, style));
    match figure.shape {
        Shape::Curve => {
            let ink = inks.add(class("s", series), name());
            chart.draw_series([PathElement::new(at, ink)])?;
            return Ok(());
        }
        Shape::Line => {
            let edge = |p: &Point, end: fn((f64, f64)) -> f64| Some((p.x, end(p.spread?)));
            let low = points.iter().filter_map(|p| edge(p, |s| s.0));
            let high = points.iter().rev().filter_map(|p| edge(p, |s| s.1));
            let band: Vec<(f64, f64)> = low.chain(high).collect();
            if band.len() > 2 {
                let ink = inks.add(class("b", series), None);
                chart.draw_series([Polygon::new(band, ink.filled())])?;
            }
            let ink = inks.add(class("s m", series), name());
            // A lone point has no line to carry its mark: both ends there.
            let line = if at.len() == 1 { [at[0]; 2].into() } else { at };
            chart.draw_series([PathElement::new(line, ink)])?;
        }
        Shape::Row => {
            for point in points {
                let (low, high) = point.spread.unwrap_or((point.x, point.x));
                let whisker = vec![(low, point.y), (high, point.y)];
                let ink = inks.add(class("w", series), None);
                chart.draw_series([PathElement::new(whisker, ink)])?;
                let ink = inks.add(class("s m", series), name());
                let mark = vec![(point.x, point.y); 2];
                chart.draw_series([PathElement::new(mark, ink)])?;
            }
        }
    }
    for point in points {
        let ink = inks.add(class("h", series), Some(point.tip.clone()));
        chart.draw_series([Circle::new((point.x, point.y), px(6), ink.filled())])?;
    }
    Ok(())
}

fn name_of(series: &Series, style: &Style) -> String {
    let name = &style.locks[series.lock];
    match style.sides {
        Some(sides) => format!("{name}, {}", sides[usize::from(series.second)]),
        None => name.clone(),
    }
}

/// Columns beside a figure: the locks in colour, then those in grey.
struct Legend {
    lines: Vec<Line>,
    rows: u32,
    column: u32,
    width: u32,
    height: u32,
}

struct Line {
    /// None: a heading.
    sample: Option<String>,
    text: String,
}

/// From the top of the figure to the first line of its legend.
const LEGEND_TOP: u32 = 48;

impl Legend {
    fn new(style: &Style, plot_height: u32) -> Legend {
        let sample = |lock: LockIndex| Line {
            sample: Some(format!("s m L{lock}")),
            text: style.locks[lock].clone(),
        };
        let heading = |text: String| Line { sample: None, text };
        let mut lines = Vec::new();
        if let Some([solid, dashed]) = style.sides {
            let with = |class: &str, text: &str| Line {
                sample: Some(class.into()),
                text: text.into(),
            };
            lines.extend([with("s key", solid), with("s x key", dashed)]);
        }
        lines.extend(style.looks.coloured().into_iter().map(sample));
        let grey = style.looks.grey();
        if !grey.is_empty() {
            lines.push(heading(format!("in grey: {} more", grey.len())));
        }
        lines.extend(grey.into_iter().map(sample));
        let letters = lines.iter().map(|l| l.text.chars().count()).max();
        let column = (letters.unwrap_or(0) as f64 * frame::LETTER) as u32 + 44;
        let fit = (plot_height - LEGEND_TOP) / ROW;
        let columns = (lines.len() as u32).div_ceil(fit).max(1);
        let rows = (lines.len() as u32).div_ceil(columns);
        Legend {
            rows,
            column,
            width: columns * column,
            height: LEGEND_TOP + rows * ROW,
            lines,
        }
    }

    fn draw(&self, left: u32) -> Markup {
        html! {
            g class="legend" {
                @for (i, line) in self.lines.iter().enumerate() {
                    @let x = left + (i as u32 / self.rows) * self.column;
                    @let y = LEGEND_TOP + 10 + (i as u32 % self.rows) * ROW;
                    @if let Some(class) = &line.sample {
                        polyline class=(class) points=(format!("{x},{y} {},{y} {},{y}", x + 12, x + 24)) {}
                        text class="t" x=(x + 30) y=(y + 4) font-size="12" { (line.text) }
                    } @else {
                        text class="soft" x=(x) y=(y + 4) font-size="12" { (line.text) }
                    }
                    "\n"
                }
            }
        }
    }
}
