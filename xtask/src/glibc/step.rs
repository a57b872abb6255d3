//! The step of `cargo xtask test`: glibc's own thread tests and the series' new ones, on the unpatched and on the patched glibc.

use std::path::Path;

use anyhow::{Result, ensure};

use super::new_tests::NewTest;
use super::source::Archive;
use super::{Kept, Options, prepare};
use crate::glibc_suite::{self, Pair, Way};
use crate::project::{Project, in_ci};

/// Tests whose names have one of these run under libautolock.so on the patched glibc as well: there its condition variables call it.
const WAITS: &[&str] = &["cond", "cnd", "mtx", "mutex", "cancel", "robust"];

/// POSIX leaves open what destroying such a mutex does. glibc's wait keeps a count in the mutex that an interposed unlock cannot tell from the holder's.
const NOT_PRELOADED: &[(&str, &str)] = &[
    ("tst-mutex8", WHY_NOT_PRELOADED),
    ("tst-mutexpi8", WHY_NOT_PRELOADED),
];
const WHY_NOT_PRELOADED: &str =
    "which expects EBUSY from destroying a mutex that a condition wait has released";

pub struct Outcome {
    pub passed: usize,
    pub failed: usize,
}

/// The finished build. None, said aloud, where the source of this glibc is not to be had.
pub fn build(project: &Project) -> Result<Option<Kept>> {
    if let Err(error) = Archive::verified()
        && !in_ci()
    {
        println!("SKIPPED: {error:#}");
        return Ok(None);
    }
    prepare(project, &Options::default()).map(Some)
}

/// None where [`build`] has none.
pub fn run(project: &Project) -> Result<Option<Outcome>> {
    let Some(kept) = build(project)? else {
        return Ok(None);
    };
    println!("   patched glibc: {}", kept.patched.display());
    println!("   unpatched glibc: {}", kept.stock.display());
    let mut outcome = new_tests(&kept.new_tests)?;
    for (pair, only) in pairs(&kept, &project.preload()) {
        let options = glibc_suite::Options {
            only: only.iter().map(|part| (*part).to_owned()).collect(),
            ..Default::default()
        };
        let report = glibc_suite::compare(project, &pair, &options)?;
        outcome.passed += report.passed;
        outcome.failed += report.failed.len();
        // Too few tests to mean anything.
        outcome.failed += usize::from(report.failed.is_empty() && !report.holds());
    }
    Ok(Some(outcome))
}

fn pairs(kept: &Kept, preload: &Path) -> [(Pair, &'static [&'static str]); 2] {
    let stock = Way::on_glibc(&kept.stock, "stock", "on the unpatched glibc");
    let patched = Way::on_glibc(&kept.patched, "patched", "on the patched glibc");
    let preloaded = patched.clone().under(preload, "there with the preload");
    [
        (
            Pair {
                base: stock,
                other: patched.clone(),
                left_out: &[],
                record: "results-patched.txt",
            },
            &[],
        ),
        (
            Pair {
                base: patched,
                other: preloaded,
                left_out: NOT_PRELOADED,
                record: "results-patched-preloaded.txt",
            },
            WAITS,
        ),
    ]
}

/// What the record of the build says of the tests that the patches add.
fn new_tests(tests: &[NewTest]) -> Result<Outcome> {
    let mut outcome = Outcome {
        passed: 0,
        failed: 0,
    };
    for test in tests {
        println!("   {test}");
        if test.passes() {
            outcome.passed += 1;
        } else {
            println!("   FAILED: {}", test.name);
            outcome.failed += 1;
        }
    }
    ensure!(
        tests.iter().any(NewTest::fails_on_stock),
        "no new test fails on the unpatched glibc: nothing shows that the patches do anything"
    );
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(patched: &str, stock: &str) -> NewTest {
        NewTest {
            name: "nptl/tst-a".to_owned(),
            patched: patched.to_owned(),
            stock: stock.to_owned(),
        }
    }

    #[test]
    fn tests_that_all_pass_unpatched_show_nothing() {
        assert!(new_tests(&[test("passed", "passed")]).is_err());
        assert!(new_tests(&[]).is_err());
    }

    #[test]
    fn a_new_test_that_does_not_pass_on_the_patched_glibc_has_failed() {
        let tests = [
            test("passed", "failed"),
            test("failed", "failed"),
            test("unsupported", "unsupported"),
        ];
        let outcome = new_tests(&tests).expect("an outcome");
        assert_eq!((outcome.passed, outcome.failed), (1, 2));
    }
}
