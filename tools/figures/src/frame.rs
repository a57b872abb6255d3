//! What is around the lines of a figure: title, subtitle, axes, grid.

use crate::axis::Axis;
use crate::svg::{Backend, Inks, TENTHS};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::convert::Infallible;
use std::ops::Range;

/// Of a letter of a name, at the size that names have; on the safe side.
pub const LETTER: f64 = 7.0;

/// To be drawn into, at the places of the axes.
pub type Chart<'a, 'b> = ChartContext<'a, Backend<'b>, Cartesian2d<Places<'a>, Places<'a>>>;

/// Pixels as the backend counts.
pub fn px(pixels: u32) -> i32 {
    (pixels * TENTHS) as i32
}

/// Title and subtitle, x and y.
pub fn draw<'a, 'b>(
    root: &DrawingArea<Backend<'b>, Shift>,
    [title, subtitle]: [&str; 2],
    [x, y]: [&'a Axis; 2],
    inks: &mut Inks,
) -> Result<Chart<'a, 'b>, DrawingAreaErrorKind<Infallible>> {
    let mut text = |class: &str, size: u32| {
        let mut style = TextStyle::from(("sans-serif", px(size)).into_font());
        style.color = inks.add(class, None).to_backend_color();
        style
    };
    let (bold, soft, label) = (text("title", 15), text("soft", 12), text("t", 12));
    let axis_title = text("soft", 12);
    root.draw(&Text::new(title.to_owned(), (px(8), px(6)), bold))?;
    root.draw(&Text::new(subtitle.to_owned(), (px(8), px(25)), soft))?;

    let labels = y.ticks.iter().map(|t| t.label.chars().count());
    let widest = (labels.max().unwrap_or(0) as f64 * LETTER) as u32;
    let y_title = if y.title.is_empty() { 0 } else { 22 };
    let mut chart = ChartBuilder::on(root)
        .margin_top(px(48))
        .margin_right(px(22))
        .margin_bottom(px(4))
        .margin_left(px(8))
        .x_label_area_size(px(44))
        .y_label_area_size(px(widest + 14 + y_title))
        .build_cartesian_2d(Places(x), Places(y))?;
    chart
        .configure_mesh()
        .set_all_tick_mark_size(px(4))
        .bold_line_style(inks.add("grid", None))
        .light_line_style(TRANSPARENT)
        .axis_style(inks.add("axis", None))
        .label_style(label)
        .axis_desc_style(axis_title)
        .x_desc(&x.title)
        .y_desc(&y.title)
        .draw()?;
    Ok(chart)
}

/// An axis as plotters knows one.
pub struct Places<'a>(&'a Axis);

impl Ranged for Places<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (from, to): (i32, i32)) -> i32 {
        let (least, most) = self.0.range;
        let share = (place - least) / (most - least);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.ticks.iter().map(|tick| tick.at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.0.range.0..self.0.range.1
    }
}

impl ValueFormatter<f64> for Places<'_> {
    fn format_ext(&self, place: &f64) -> String {
        self.0.label(*place)
    }
}
