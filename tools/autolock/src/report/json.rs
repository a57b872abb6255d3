//! A report as JSON, for programs. Fields are only added as long as `version` stays.
//!
//! | field | |
//! |---|---|
//! | `version` | of this format: 1 |
//! | `capture` | path of the file |
//! | `totals` | sums over all locks ([`Totals`]) |
//! | the rest | [`Report`], field by field; every time is in nanoseconds, the field's name ends in `_ns` |
//!
//! `lock`, `stack`, `holder` and `module` are indices, from 0, in the arrays `locks`, `stacks` and `modules`. A lock's `wait`, `hold`, `cond`,
//! `reacquire` and `timed_out` are the sums over its `sites` of that kind; their `histogram` holds the percentiles.

use std::path::Path;

use serde::Serialize;

use super::model::Report;
use super::rows::Totals;

/// Changes when a field changes its meaning or goes.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    capture: String,
    totals: Totals,
    #[serde(flatten)]
    report: &'a Report,
}

/// One capture's document.
pub fn document<'a>(capture: &Path, report: &'a Report) -> impl Serialize + use<'a> {
    Document {
        version: VERSION,
        capture: capture.display().to_string(),
        totals: Totals::of(report),
        report,
    }
}
