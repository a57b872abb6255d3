//! Flame graphs by `inferno`: as files that can be zoomed and searched, and as the frames alone for a page that has looks of its own.
//!
//! Colours follow the functions' names: equal stacks look alike in two runs.

use anyhow::{Context as _, Result};
use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};
use maud::{Markup, PreEscaped, html};

use super::View;
use super::folded::Stacks;
use crate::report::model::Report;

/// Width of a page's flame graph, in its own units.
const WIDTH: usize = 1200;
/// What inferno draws around the frames.
const DARK: &str = "@media (prefers-color-scheme: dark) {
  #background stop { stop-color:#14171b; }
  #title, #subtitle, #details, #unzoom, #search, #matched { fill:#e8eaed; }
}
";

/// A file of its own.
pub(crate) fn file(report: &Report, view: View, stacks: &Stacks) -> Result<Vec<u8>> {
    let title = title(view);
    if stacks.is_empty() {
        let text = format!("{title}: none were recorded");
        let svg = html! {
            svg xmlns="http://www.w3.org/2000/svg" width="600" height="60" {
                text x="20" y="35" font-family="sans-serif" font-size="14" fill="#808890" { (text) }
            }
        };
        return Ok(svg.into_string().into_bytes());
    }
    let mut options = options(view);
    title.clone_into(&mut options.title);
    options.subtitle = Some(clean(&report.process.command.join(" ")));
    let svg = draw(&mut options, stacks)?;
    Ok(svg
        .replacen("</style>", &format!("{DARK}</style>"), 1)
        .into_bytes())
}

/// As part of a page; none without stacks.
pub(crate) fn inline(view: View, stacks: &Stacks) -> Result<Option<Markup>> {
    if stacks.is_empty() {
        return Ok(None);
    }
    let mut options = options(view);
    options.image_width = Some(WIDTH);
    options.no_javascript = true;
    // Per cent: thinner ones would be less than a pixel or two. The file has them.
    options.min_width = 0.1;
    let svg = draw(&mut options, stacks)?;
    let start = svg.find("<svg id=\"frames\"");
    let frames = start.and_then(|start| svg[start..].strip_suffix("</svg>"));
    let height = svg
        .split_once(" height=\"")
        .and_then(|(_, rest)| rest.split_once('"')?.0.parse::<usize>().ok());
    let (Some(frames), Some(height)) = (frames, height) else {
        anyhow::bail!("inferno's picture is not as expected");
    };
    // The title's room above, the details' below.
    let (above, below) = (options.font_size * 3, options.font_size * 2 + 10);
    let frames = frames.replacen("id=\"frames\"", "class=\"frames\"", 1);
    let box_ = format!(
        "0 {above} {WIDTH} {}",
        height.saturating_sub(above + below).max(1)
    );
    Ok(Some(html! {
        svg class="flame" viewBox=(box_) role="img" aria-label=(title(view)) { (PreEscaped(frames)) }
    }))
}

/// What a view shows.
pub(crate) const fn title(view: View) -> &'static str {
    match view {
        View::Wait => "Contended waits, by who waited",
        View::Blame => "Contended waits, by who held the lock",
        View::Hold => "Holds, by who held",
    }
}

fn options(view: View) -> Options<'static> {
    let mut options = Options::default();
    options.colors = Palette::Basic(match view {
        View::Wait => BasicPalette::Hot,
        View::Blame => BasicPalette::Yellow,
        View::Hold => BasicPalette::Aqua,
    });
    options.hash = true;
    options.deterministic = true;
    options.text_truncate_direction = TextTruncateDirection::Right;
    "ns".clone_into(&mut options.count_name);
    options
}

fn draw(options: &mut Options<'_>, stacks: &Stacks) -> Result<String> {
    let lines: Vec<String> = stacks
        .iter()
        .map(|(stack, ns)| format!("{stack} {ns}"))
        .collect();
    let mut svg = Vec::new();
    from_lines(options, lines.iter().map(String::as_str), &mut svg)
        .context("cannot draw a flame graph")?;
    String::from_utf8(svg).context("cannot draw a flame graph")
}

fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
