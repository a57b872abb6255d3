//! Folded stacks: `root;caller;leaf;[lock] nanoseconds`, a line a stack. Inlined functions are frames like others.
//!
//! In the blame view the waiter's innermost function stands behind the lock: holder, lock, who waited.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{View, names};
use crate::report::model::{Report, Site};
use crate::report::rows;

/// Stacks and their time, sorted, each once; none without time.
pub(crate) type Stacks = BTreeMap<String, u64>;

/// Those of a view.
pub(crate) fn stacks(report: &Report, view: View) -> Stacks {
    let mut stacks = Stacks::new();
    for site in view.sites(report).filter(|site| site.total_ns > 0) {
        let total = stacks.entry(line(report, view, site)).or_default();
        *total += site.total_ns;
    }
    stacks
}

/// The file's bytes.
pub(crate) fn text(stacks: &Stacks) -> Vec<u8> {
    let mut text = String::new();
    for (stack, ns) in stacks {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{stack} {ns}");
    }
    text.into_bytes()
}

fn line(report: &Report, view: View, site: &Site) -> String {
    let (stack, other) = view.stacks(site);
    let known = |stack: Option<usize>| stack.and_then(|index| report.stacks.get(index));
    let mut line = String::new();
    let mut push = |name: &str| {
        if !line.is_empty() {
            line.push(';');
        }
        frame(&mut line, name);
    };
    match known(stack) {
        Some(stack) if !stack.frames.is_empty() => {
            let outermost_first = stack.frames.iter().rev();
            for function in outermost_first.flat_map(|frame| frame.functions.iter().rev()) {
                push(&function.name);
            }
        }
        _ => push("[unknown]"),
    }
    if let Some(lock) = report.locks.get(site.lock) {
        push(&format!("[{}]", rows::name(lock)));
    }
    if view == View::Blame {
        push(names::leaf(known(other)).unwrap_or("[unknown]"));
    }
    line
}

/// Readers split at `;`, at line ends, and take numbers behind a space at the end for weights.
fn frame(line: &mut String, name: &str) {
    let start = line.len();
    line.extend(name.chars().map(|c| match c {
        ';' => ':',
        c if c.is_control() => ' ',
        c => c,
    }));
    let number = |text: &str| text.parse::<f64>().is_ok();
    if let Some(space) = line[start..].rfind(' ')
        && (number(&line[start + space + 1..]) || line.ends_with(' '))
    {
        line.replace_range(start + space..=start + space, "_");
    }
    if line.len() == start {
        line.push('?');
    }
}
