//! How long a lock was waited for and held: two lines on a percentile axis.

use anyhow::{Context as _, Result};
use figures::axis::Axis;
use figures::frame;
use figures::label::{nanoseconds_label, percent};
use figures::percentiles;
use figures::svg::{Backend, Drawing, Inks, TENTHS};
use maud::{Markup, html};
use plotters::prelude::*;

use crate::report::rows::Row;
use crate::report::units;

/// Of a figure.
const SIZE: (u32, u32) = (620, 360);

/// None without distributions.
pub(super) fn figure(row: &Row<'_>) -> Result<Option<Markup>> {
    let lines = [("wait", &row.wait), ("hold", &row.hold)].map(|(name, distribution)| {
        let histogram = &distribution.histogram;
        (name, histogram.len(), percentiles::points(histogram))
    });
    let all = || lines.iter().flat_map(|(_, _, points)| points);
    let Some(most) = all().map(|point| point.1).max_by(f64::total_cmp) else {
        return Ok(None);
    };
    let least = all().map(|point| point.1).fold(most, f64::min);
    let count = lines.iter().map(|(_, count, _)| *count).max().unwrap_or(0);
    let x = Axis::percentiles(count as f64);
    let y = Axis::logarithmic(
        "time",
        |ns| nanoseconds_label(ns).replace(' ', ""),
        least,
        most,
    );
    let (mut inks, mut drawing) = (Inks::default(), Drawing::default());
    {
        let backend = Backend {
            size: (SIZE.0 * TENTHS, SIZE.1 * TENTHS),
            drawing: &mut drawing,
        };
        let root = backend.into_drawing_area();
        let names: Vec<&str> = lines
            .iter()
            .filter(|(_, count, _)| *count > 0)
            .map(|(name, _, _)| *name)
            .collect();
        let mut chart = frame::draw(
            &root,
            ["How long", &format!("{}: quantiles", names.join(" and "))],
            [&x, &y],
            &mut inks,
        )
        .context("cannot draw a distribution")?;
        for (name, _, points) in &lines {
            let at = |&(quantile, ns): &(f64, f64)| (x.place(quantile), y.place(ns));
            let mut at: Vec<(f64, f64)> = points.iter().map(at).collect();
            if let [only] = at[..] {
                at = vec![(0.0, only.1), only];
            }
            if at.is_empty() {
                continue;
            }
            let ink = inks.add(format!("s {name}"), Some((*name).to_owned()));
            chart
                .draw_series([PathElement::new(at, ink)])
                .context("cannot draw a distribution")?;
            for &(quantile, ns) in points {
                let tip = format!("{name}, {}: {}", percent(quantile), units::time_of(ns));
                let ink = inks.add("h", Some(tip));
                let place = (x.place(quantile), y.place(ns));
                chart
                    .draw_series([Circle::new(place, frame::px(5), ink.filled())])
                    .context("cannot draw a distribution")?;
            }
        }
    }
    let label = format!("Distributions of {}", row.name());
    Ok(Some(html! {
        svg viewBox=(format!("0 0 {} {}", SIZE.0, SIZE.1)) role="img" aria-label=(label) {
            (drawing.render(&inks))
        }
    }))
}
