//! glibc's summaries of `make check`, before and after the patches.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// In the build folder, a line `PASS: nptl/tst-x` for each test.
const SUMMARY: &str = "tests.sum";

/// Keeps the summary that a `make check` has just written.
pub fn keep(objects: &Path, to: &Path) -> Result<()> {
    let from = objects.join(SUMMARY);
    std::fs::rename(&from, to).with_context(|| format!("make check left no {}", from.display()))
}

pub fn read(file: &Path) -> Result<BTreeMap<String, String>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let results = parse(&text);
    if results.is_empty() {
        bail!("{} has no result of any test", file.display());
    }
    Ok(results)
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (word, name) = line.split_once(": ")?;
        let result = !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase());
        result.then(|| (name.trim().to_owned(), word.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

pub fn passes(results: &BTreeMap<String, String>) -> usize {
    results.values().filter(|word| *word == "PASS").count()
}

/// Tests that passed before and do not any more.
pub fn lost<'a>(
    before: &'a BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<&'a str> {
    before
        .iter()
        .filter(|(name, word)| *word == "PASS" && after.get(*name).is_none_or(|it| it != "PASS"))
        .map(|(name, _)| name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_fails_or_is_gone_is_lost_and_one_that_failed_before_is_not() {
        let before = parse("PASS: nptl/a\nPASS: nptl/b\nFAIL: nptl/c\nPASS: nptl/d\n");
        let after = parse("PASS: nptl/a\nFAIL: nptl/b\nFAIL: nptl/c\nPASS: nptl/new\n");
        assert_eq!(lost(&before, &after), ["nptl/b", "nptl/d"]);
        assert_eq!(passes(&before), 3);
    }

    #[test]
    fn lines_that_are_no_results_are_not_read() {
        assert!(parse("original exit status 1\nerror: nothing\n").is_empty());
    }
}
