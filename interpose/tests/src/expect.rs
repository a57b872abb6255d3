//! What most tests say about a program: it passes on glibc and under the preload, prints the same
//! on both, or fails as it should under a broken preload.

use crate::compile::Compile;
use crate::preload::autolock;
use crate::run::{Ended, Run};
use std::path::Path;
use std::time::Duration;

/// The program passes on glibc alone and under the preload.
#[track_caller]
pub fn both_pass(name: &str, args: &[&str]) {
    let path = Compile::program(name).build();
    Run::new(&path).args(args).end().must_succeed();
    Run::new(&path)
        .args(args)
        .preload(autolock())
        .end()
        .must_succeed();
}

/// The program passes on both and says the same, line by line.
#[track_caller]
pub fn same_transcript(name: &str, args: &[&str]) {
    let path = Compile::program(name).build();
    let stock = Run::new(&path).args(args).end().must_succeed();
    let ours = Run::new(&path)
        .args(args)
        .preload(autolock())
        .end()
        .must_succeed();
    assert!(
        !stock.stdout.is_empty(),
        "{name} printed no transcript to compare"
    );
    if let Some(difference) = first_difference(&stock.stdout, &ours.stdout) {
        panic!("{}: not as on glibc\n{difference}", ours.what);
    }
}

/// Under this broken preload the program must not pass: it can fail for what it claims to catch.
#[track_caller]
pub fn must_break(program: &Path, args: &[&str], broken: &Path, deadline: Duration) -> Ended {
    let ended = Run::new(program)
        .args(args)
        .preload(broken)
        .deadline(deadline)
        .give_up_on_sleepers()
        .end();
    assert!(
        !ended.succeeded(),
        "{} passed: the program does not see what is broken there",
        ended.what
    );
    ended
}

/// The first lines that differ, with a few before them, or None.
fn first_difference(stock: &str, ours: &str) -> Option<String> {
    let (stock, ours): (Vec<_>, Vec<_>) = (stock.lines().collect(), ours.lines().collect());
    let longer = stock.len().max(ours.len());
    let at = (0..longer).find(|&i| stock.get(i) != ours.get(i))?;
    // The nearest heading, and what happened just before.
    let heading = (0..at).rev().find(|&i| !stock[i].starts_with(' '));
    let mut text = String::new();
    for i in heading.into_iter().chain(at.saturating_sub(3)..at) {
        text.push_str(&format!("    both:  {}\n", stock[i]));
    }
    let end = "(nothing more)";
    text.push_str(&format!("    glibc: {}\n", stock.get(at).unwrap_or(&end)));
    text.push_str(&format!("    ours:  {}\n", ours.get(at).unwrap_or(&end)));
    let differing = (0..longer).filter(|&i| stock.get(i) != ours.get(i)).count();
    text.push_str(&format!("    {differing} of {longer} lines differ"));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn equal_transcripts_have_no_difference() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    }

    #[test]
    fn a_difference_and_a_missing_line_are_found() {
        let text = first_difference("kind\n  x\n", "kind\n  y\n").unwrap_or_default();
        assert!(text.contains("both:  kind"), "{text}");
        assert!(
            text.contains("glibc:   x") && text.contains("ours:    y"),
            "{text}"
        );
        assert!(first_difference("a\nb\n", "a\n").is_some());
        assert!(first_difference("a\n", "a\nb\n").is_some());
    }
}
