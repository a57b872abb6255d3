//! A call stack, the innermost function first, inlined ones among them.

use maud::{Markup, html};

use super::{NO_NAME, names::passes_on};
use crate::report::model::{Frame, Function, Report, Stack};

/// Functions in view; the others behind a line to click.
const SHOWN: usize = 7;
/// Functions of this many bytes are cut in headings.
const HEADING: usize = 90;

struct Line<'a> {
    function: &'a Function,
    frame: &'a Frame,
    inlined: bool,
    soft: bool,
}

fn lines(stack: &Stack) -> Vec<Line<'_>> {
    let mut lines: Vec<Line> = Vec::new();
    for frame in &stack.frames {
        for (depth, function) in frame.functions.iter().enumerate() {
            let soft = passes_on(&function.name);
            lines.push(Line {
                function,
                frame,
                inlined: depth + 1 < frame.functions.len(),
                soft,
            });
        }
    }
    lines
}

/// The function that a stack is known by: the innermost that does not only pass on.
pub(super) fn heading(report: &Report, stack: Option<usize>) -> Option<String> {
    let stack = report.stacks.get(stack?)?;
    let lines = lines(stack);
    let line = lines.iter().find(|line| !line.soft).or(lines.first())?;
    let name = &line.function.name;
    let mut end = name.len().min(HEADING);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Some(match &name[..end] {
        "" => NO_NAME.into(),
        cut if end < name.len() => format!("{cut}\u{2026}"),
        whole => whole.to_owned(),
    })
}

pub(super) fn list(report: &Report, stack: Option<usize>) -> Markup {
    let Some(stack) = stack.and_then(|index| report.stacks.get(index)) else {
        return html! { p class="hint" { "not known" } };
    };
    let lines = lines(stack);
    // The one that counts is in view in any case.
    let first = lines.iter().position(|line| !line.soft).unwrap_or(0);
    let shown = (SHOWN + first.min(SHOWN)).min(lines.len());
    // A line that stands for a single one would save nothing.
    let shown = if lines.len() - shown <= 1 {
        lines.len()
    } else {
        shown
    };
    let (shown, more) = lines.split_at(shown);
    html! {
        ol class="stack" {
            @for (i, line) in shown.iter().enumerate() { (item(report, line, i == first)) }
        }
        @if !more.is_empty() {
            details class="more" {
                summary { (more.len()) " outer functions" }
                ol class="stack" { @for line in more { (item(report, line, false)) } }
            }
        }
    }
}

fn item(report: &Report, line: &Line, first: bool) -> Markup {
    let class = match (first, line.soft) {
        (true, _) => "first",
        (_, true) => "soft",
        _ => "",
    };
    html! {
        li class=(class) {
            code { @if line.function.name.is_empty() { (NO_NAME) } @else { (line.function.name) } }
            " "
            span class="place" {
                @if line.inlined { "inlined, " }
                (place(report, line))
            }
        }
    }
}

/// Source line, else module and address.
fn place(report: &Report, line: &Line) -> String {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    if let Some(file) = &line.function.file {
        return match line.function.line {
            Some(number) => format!("{}:{number}", base(file)),
            None => base(file),
        };
    }
    let module = line
        .frame
        .module
        .and_then(|index| report.modules.get(index));
    match module {
        Some(module) => format!("{}+{:#x}", base(&module.path), line.frame.address),
        None => format!("{:#x}", line.frame.address),
    }
}
