//! A test that cannot run here says so where nobody can miss it.

use std::io::Write as _;

/// Whether somebody could have made the missing thing present.
pub enum Installable {
    /// A package of Debian has it: in CI its absence is a failure.
    Apt(&'static str),
    /// The kernel, the privileges or the machine lack it.
    No,
}

/// Prints `SKIPPED: reason` past the test runner's capture; panics in CI when the missing thing
/// could have been installed.
#[track_caller]
pub fn skipped(reason: &str, installable: Installable) {
    let line = match installable {
        Installable::Apt(package) => format!("{reason} (apt-get install {package})"),
        Installable::No => reason.to_owned(),
    };
    assert!(
        std::env::var_os("CI").is_none() || matches!(installable, Installable::No),
        "missing in CI: {line}"
    );
    let _ = writeln!(std::io::stderr(), "SKIPPED: {line}");
}
