//! The truth against the record, key by key.

use crate::report::{Report, number};
use crate::truth::{Lock, Process};
use autolock_tests::glibc;
use serde_json::Value;

/// How the profiler was asked to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Sampled,
    Full,
}

/// The share by which a time may lie outside the program's own bounds.
const TOLERANCE: f64 = 0.01;

/// Every way in which the record contradicts what the process said; empty if it does not.
pub fn check(process: &Process, report: &Report, mode: Mode) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut said = |what: String| wrong.push(what);
    let mut may_drop = Vec::new();
    for (key, value) in &process.facts {
        let found = match key.as_str() {
            "dropped" => {
                may_drop.push(value.as_str());
                continue;
            }
            "ending" => {
                if *value != report.ending() {
                    said(format!("ending {}, was {value}", report.ending()));
                }
                continue;
            }
            "acquisitions" => report.total("acquisitions"),
            "acquisitions-and-dropped" => {
                may_drop.push("any");
                report.total("acquisitions") + report.dropped("operations")
            }
            // What the file takes on disk; its length is what it may grow to.
            "bytes" => match std::fs::metadata(&report.path) {
                Ok(file) => {
                    use std::os::unix::fs::MetadataExt as _;
                    file.blocks() * 512
                }
                Err(error) => {
                    said(format!("{}: {error}", report.path.display()));
                    continue;
                }
            },
            _ => panic!("the program says `{key}`, which no check knows"),
        };
        if !within(found, value, 0.0) {
            said(format!("{key} {found}, in truth {value}"));
        }
    }
    if let Some(dropped) = report.json["dropped"].as_object() {
        for (what, count) in dropped {
            let may = may_drop.iter().any(|&may| may == "any" || may == what);
            if number(count) > 0 && !may {
                said(format!("dropped {count} {what}"));
            }
        }
    } else {
        said("does not say what was dropped".to_owned());
    }
    for lock in &process.locks {
        for what in check_lock(lock, report, mode) {
            said(format!("{} at {:#x}: {what}", lock.name, lock.address));
        }
    }
    wrong
}

fn check_lock(truth: &Lock, report: &Report, mode: Mode) -> Vec<String> {
    let fact = |key: &str| {
        let mut facts = truth.facts.iter();
        facts.find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    };
    let readers = fact("kind") == Some("readers");
    // The same place may have been several locks, one after the other.
    let mine: Vec<usize> = (0..report.locks().len())
        .filter(|&i| {
            let lock = &report.locks()[i];
            number(&lock["address"]) == truth.address && (lock["kind"] == "readers") == readers
        })
        .collect();
    if mine.is_empty() {
        if matches!(fact("acquisitions"), Some(n) if n == "0" || n.starts_with("0..")) {
            return Vec::new();
        }
        return vec!["is not in the record".to_owned()];
    }
    let mut wrong = Vec::new();
    for (key, value) in &truth.facts {
        let key = match key.split_once('.') {
            Some(("full", _)) if mode != Mode::Full => continue,
            // What only a libc can show that re-acquires through the profiler.
            Some(("apart", _)) if glibc::prefix().is_none() => continue,
            Some((_, key)) => key,
            None => key,
        };
        if let Err(what) = check_fact(key, value, &mine, report) {
            wrong.push(what);
        }
    }
    // What every lock's record owes.
    for &i in &mine {
        for (kind, distribution) in [
            ("wait", "wait"),
            ("hold", "hold"),
            ("cond", "cond"),
            ("reacquire", "reacquire"),
            ("timed-out", "timed_out"),
        ] {
            let of = &report.locks()[i][distribution];
            let sum = |what: &str| -> u64 {
                let sites = report.sites().iter();
                sites
                    .filter(|site| site["lock"] == i && site["kind"] == kind)
                    .map(|site| number(&site[what]))
                    .sum()
            };
            for what in ["count", "total_ns"] {
                if number(&of[what]) != sum(what) {
                    wrong.push(format!(
                        "{distribution} {what} {}, the sum of its sites {}",
                        of[what],
                        sum(what)
                    ));
                }
            }
        }
        let count = |what: &str| number(&report.locks()[i][what]["count"]);
        let seen = if glibc::prefix().is_some() {
            count("cond")
        } else {
            0
        };
        if count("reacquire") != seen {
            wrong.push(format!(
                "{} re-acquisitions, in truth {seen} that can be seen",
                count("reacquire")
            ));
        }
        if number(&report.locks()[i]["wait"]["count"]) > number(&report.locks()[i]["acquisitions"])
        {
            wrong.push("more contended acquisitions than acquisitions".to_owned());
        }
    }
    wrong
}

fn check_fact(key: &str, value: &str, mine: &[usize], report: &Report) -> Result<(), String> {
    let locks = || mine.iter().map(|&i| &report.locks()[i]);
    let sum = |what: &[&str]| -> u64 {
        locks()
            .map(|lock| number(what.iter().fold(lock, |value, key| &value[*key])))
            .sum()
    };
    let (found, tolerance) = match key {
        "kind" => {
            return all(
                locks(),
                |lock| lock["kind"] == value,
                || format!("kind {}, in truth {value}", locks_say(locks(), "kind")),
            );
        }
        "symbol" => {
            let named = |lock: &Value| {
                let name = lock["name"].as_str().unwrap_or_default();
                // In front of the symbol the library, behind it the offset, may stand.
                name.split(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .any(|word| word == value)
            };
            return all(locks(), named, || {
                format!(
                    "called {}, its symbol is {value}",
                    locks_say(locks(), "name")
                )
            });
        }
        "first" => {
            let first = |lock: &Value| report.is_in(&lock["first_use"], value);
            return all(locks(), first, || {
                let seen: Vec<_> = locks()
                    .map(|lock| report.functions(&lock["first_use"]))
                    .collect();
                format!("first used in {seen:?}, in truth in {value}")
            });
        }
        "pair" => return check_pair("wait", value, mine, report),
        "gave_up" => return check_pair("timed-out", value, mine, report),
        "again_pair" => return check_pair("reacquire", value, mine, report),
        "held_at" | "cond_at" => {
            let kind = if key == "held_at" { "hold" } else { "cond" };
            let mut sites = report
                .sites()
                .iter()
                .filter(|site| site["kind"] == kind && mine.iter().any(|&i| site["lock"] == i));
            return match sites.find(|site| !report.is_in(&site["stack"], value)) {
                None => Ok(()),
                Some(site) => Err(format!(
                    "{kind} at {:?}, in truth in {value}",
                    report.functions(&site["stack"])
                )),
            };
        }
        "waiting" => return check_waiting(value, mine, report),
        "acquisitions" => (sum(&["acquisitions"]), 0.0),
        "failed" => (sum(&["failed_tries"]), 0.0),
        "recursions" => (sum(&["recursions"]), 0.0),
        "timeouts" => (sum(&["timed_out", "count"]), 0.0),
        "waits" => (sum(&["wait", "count"]), 0.0),
        "conds" => (sum(&["cond", "count"]), 0.0),
        "holds" => (sum(&["hold", "count"]), 0.0),
        "compared" => (sum(&["compared"]), 0.0),
        "changed" => (sum(&["changed"]), 0.0),
        "most" => {
            let most = locks().map(|lock| number(&lock["most_waiters"])).max();
            (most.unwrap_or_default(), 0.0)
        }
        "hold" => (sum(&["hold", "total_ns"]), TOLERANCE),
        "wait" => (sum(&["wait", "total_ns"]), TOLERANCE),
        "cond" => (sum(&["cond", "total_ns"]), TOLERANCE),
        "again" => (sum(&["reacquire", "total_ns"]), TOLERANCE),
        "idle" => {
            let both = sum(&["cond", "total_ns"]);
            let again = sum(&["reacquire", "total_ns"]);
            (both.saturating_sub(again), TOLERANCE)
        }
        "timeout" => (sum(&["timed_out", "total_ns"]), TOLERANCE),
        _ => panic!("the program says `{key}`, which no check knows"),
    };
    if within(found, value, tolerance) {
        Ok(())
    } else {
        Err(format!("{key} {found}, in truth {value}"))
    }
}

/// `waiter<holder:count`: so many contended acquisitions in one function while another's acquisition lasted.
fn check_pair(kind: &str, value: &str, mine: &[usize], report: &Report) -> Result<(), String> {
    let parsed = value
        .split_once('<')
        .and_then(|(waiter, rest)| Some((waiter, rest.split_once(':')?)));
    let Some((waiter, (holder, count))) = parsed else {
        panic!("the program says `pair={value}`");
    };
    let sites = || {
        let all = report.sites().iter();
        all.filter(|site| site["kind"] == kind && mine.iter().any(|&i| site["lock"] == i))
    };
    let found: u64 = sites()
        .filter(|site| {
            report.is_in(&site["stack"], waiter) && report.is_in(&site["holder"], holder)
        })
        .map(|site| number(&site["count"]))
        .sum();
    if within(found, count, 0.0) {
        return Ok(());
    }
    let seen: Vec<String> = sites()
        .map(|site| {
            let first = |stack: &Value| {
                let functions = report.functions(stack);
                functions
                    .iter()
                    .take(3)
                    .copied()
                    .collect::<Vec<_>>()
                    .join("/")
            };
            format!(
                "{} < {}: {}",
                first(&site["stack"]),
                first(&site["holder"]),
                site["count"]
            )
        })
        .collect();
    Err(format!(
        "{found} times {waiter} waited for {holder}, in truth {count}; there are: {}",
        seen.join(", ")
    ))
}

/// `tid<holder's tid:waiter<holder`: a thread that was waiting when the process ended.
fn check_waiting(value: &str, mine: &[usize], report: &Report) -> Result<(), String> {
    let parsed = value
        .split_once(':')
        .and_then(|(tids, functions)| Some((tids.split_once('<')?, functions.split_once('<')?)));
    let Some(((tid, holder_tid), (waiter, holder))) = parsed else {
        panic!("the program says `waiting={value}`");
    };
    let is = |number: &Value, text: &str| number.as_u64() == text.parse().ok();
    let waiting = report.json["waiting"].as_array();
    let found = waiting.into_iter().flatten().any(|waiting| {
        mine.iter().any(|&i| waiting["lock"] == i)
            && is(&waiting["tid"], tid)
            && is(&waiting["holder_tid"], holder_tid)
            && report.is_in(&waiting["stack"], waiter)
            && report.is_in(&waiting["holder"], holder)
    });
    if found {
        Ok(())
    } else {
        Err(format!(
            "thread {tid} waited in {waiter} for {holder_tid} in {holder}; the record says: {}",
            report.json["waiting"]
        ))
    }
}

fn all<'a>(
    mut locks: impl Iterator<Item = &'a Value>,
    good: impl Fn(&Value) -> bool,
    what: impl Fn() -> String,
) -> Result<(), String> {
    if locks.all(good) { Ok(()) } else { Err(what()) }
}

fn locks_say<'a>(locks: impl Iterator<Item = &'a Value>, key: &str) -> String {
    let words: Vec<String> = locks.map(|lock| lock[key].to_string()).collect();
    words.join(", ")
}

/// `N`, or `LEAST..MOST`.
fn within(found: u64, wanted: &str, tolerance: f64) -> bool {
    let (least, most) = wanted.split_once("..").unwrap_or((wanted, wanted));
    let (Ok(least), Ok(most)) = (least.parse::<u64>(), most.parse::<u64>()) else {
        panic!("the program says `{wanted}`, which is no number");
    };
    let found = found as f64;
    found >= least as f64 * (1.0 - tolerance) && found <= most as f64 * (1.0 + tolerance)
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn counts_are_exact_and_times_are_within_one_percent() {
        assert!(within(20, "20", 0.0) && !within(21, "20", 0.0) && !within(19, "20", 0.0));
        assert!(within(991, "1000..1100", 0.01) && !within(989, "1000..1100", 0.01));
        assert!(within(1111, "1000..1100", 0.01) && !within(1112, "1000..1100", 0.01));
    }
}
