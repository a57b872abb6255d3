//! Names of locks where not every character may stand, and where each may stand only once.
//!
//! May touch: nothing.

use std::collections::HashMap;

use crate::report::model::Stack;
use crate::report::rows::Row;

/// Longest name of a file or a tag, in bytes.
pub(crate) const LONGEST: usize = 120;

/// Whether a function only passes a lock, or a call, on: whoever reads wants to know for whom.
pub(crate) fn passes_on(name: &str) -> bool {
    [
        "std::",
        "__invoke",
        "_M_",
        "__gthread_",
        "__glibcxx_rwlock_",
        "boost::",
        "absl::",
        "folly::",
        "pthread_",
        "__pthread_",
        "mtx_",
    ]
    .iter()
    .any(|start| name.starts_with(start))
}

/// The function that a stack is known by: the innermost that does not only pass on.
pub(crate) fn leaf(stack: Option<&Stack>) -> Option<&str> {
    let mut functions = stack?.frames.iter().flat_map(|frame| &frame.functions);
    let innermost = functions.clone().next()?;
    let own = functions.find(|function| !passes_on(&function.name));
    Some(&own.unwrap_or(innermost).name)
}

/// A name for each row, in their order: unique, and of characters that `keep` accepts; it is told which character of the name it is, and `_`
/// stands for the others; cut after `longest` bytes. Rows of one name have their identity behind it, which is the same in the next run.
pub(crate) fn unique(
    rows: &[Row<'_>],
    longest: usize,
    keep: fn(usize, char) -> bool,
) -> Vec<String> {
    let plain: Vec<String> = rows
        .iter()
        .map(|row| {
            let name = row.name();
            let chars = name.chars().enumerate();
            let mut name: String = chars
                .map(|(i, c)| if keep(i, c) { c } else { '_' })
                .collect();
            let mut end = name.len().min(longest);
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            name.truncate(end);
            name
        })
        .collect();
    let mut count: HashMap<&str, u32> = HashMap::new();
    for name in &plain {
        *count.entry(name).or_default() += 1;
    }
    let mut taken: HashMap<String, u32> = HashMap::new();
    plain
        .iter()
        .zip(rows)
        .map(|(name, row)| {
            let mut name = match count.get(name.as_str()) {
                Some(1) => name.clone(),
                _ => format!("{name}@{}", row.lock.id),
            };
            // A name may look like another with its identity.
            loop {
                let again = taken.entry(name.clone()).or_default();
                *again += 1;
                if *again == 1 {
                    return name;
                }
                name = format!("{name}.{again}");
            }
        })
        .collect()
}
