//! Names of locks where not every character may stand, and where each may stand only once.
//!
//! May touch: nothing.

use std::collections::HashMap;

use crate::report::model::{Kind, Lock, Report, Stack};

/// Longest name of a file or a tag, in bytes.
pub(crate) const LONGEST: usize = 120;

/// What a lock is called where its kind does not stand beside it.
pub(crate) fn of_lock(lock: &Lock) -> String {
    match lock.kind {
        Kind::Readers => format!("{} (readers)", lock.name),
        Kind::Writers => format!("{} (writers)", lock.name),
        _ => lock.name.clone(),
    }
}

/// A kind in a word or two.
pub(crate) const fn of_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Mutex => "mutex",
        Kind::Recursive => "recursive mutex",
        Kind::ErrorCheck => "error-checking mutex",
        Kind::Adaptive => "adaptive mutex",
        Kind::OtherMutex => "robust or priority mutex",
        Kind::Readers => "readers",
        Kind::Writers => "writers",
        Kind::Spin => "spin lock",
    }
}

/// The innermost function of a stack.
pub(crate) fn leaf(stack: Option<&Stack>) -> Option<&str> {
    let function = stack?.frames.first()?.functions.first()?;
    Some(&function.name)
}

/// A name for each lock, in their order: unique, and of characters that `keep` accepts; it is told which character of the name it is, and `_`
/// stands for the others; cut after `longest` bytes. Locks of one name have their address behind it.
pub(crate) fn unique(
    report: &Report,
    longest: usize,
    keep: fn(usize, char) -> bool,
) -> Vec<String> {
    let plain: Vec<String> = report
        .locks
        .iter()
        .map(|lock| {
            let name = of_lock(lock);
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
        .zip(&report.locks)
        .map(|(name, lock)| {
            let mut name = match count.get(name.as_str()) {
                Some(1) => name.clone(),
                _ => format!("{name}@{:#x}", lock.address),
            };
            // Different locks may have had one address, and a name may look like another with its address.
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
