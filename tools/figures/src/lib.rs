//! What the pages of the tools have in common. Pure: files are the tools'.
//!
//! - [`axis`]: scales and ticks.
//! - [`frame`]: a figure's title, axes and grid.
//! - [`label`], [`units`]: numbers as text.
//! - [`percentiles`]: a distribution as a line on a percentile axis.
//! - [`svg`]: the backend that plotters draws on; looks come from style sheets.

pub mod axis;
pub mod frame;
pub mod label;
pub mod percentiles;
pub mod svg;
pub mod units;

/// Colours of figures and pages, light and dark.
pub const LOOK: &str = include_str!("look.css");
/// Everything else about how a page looks.
pub const PAGE: &str = include_str!("page.css");
/// Sorts tables of the class `sheet` by a click on a heading, and keeps the rows with the words in `#search`.
pub const SHEET: &str = include_str!("sheet.js");
/// No request leaves a page, whatever is in it.
pub const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";
