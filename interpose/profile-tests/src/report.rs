//! A capture as `autolock report --json` tells it.

use crate::profiled::tool;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One capture, read.
#[derive(Debug, Clone)]
pub struct Report {
    pub path: PathBuf,
    pub json: Value,
}

/// Reads one capture with the tool; panics with the tool's words if it refuses.
#[track_caller]
pub fn read(path: &Path) -> Report {
    let output = Command::new(tool())
        .args(["report", "--json"])
        .arg(path)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => panic!("cannot run {}: {error}", tool().display()),
    };
    assert!(
        output.status.success(),
        "autolock report --json {}: {}\n{}",
        path.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let json: Value = match serde_json::from_slice(&output.stdout) {
        Ok(json) => json,
        Err(error) => panic!(
            "autolock report --json {} printed no JSON: {error}",
            path.display()
        ),
    };
    // One capture may come as it is, or as a list of one.
    let json = match json {
        Value::Array(mut list) if list.len() == 1 => list.remove(0),
        Value::Object(mut object) if object.get("captures").is_some_and(Value::is_array) => {
            match object["captures"].take() {
                Value::Array(mut list) if list.len() == 1 => list.remove(0),
                other => other,
            }
        }
        json => json,
    };
    Report {
        path: path.to_owned(),
        json,
    }
}

impl Report {
    pub fn pid(&self) -> u64 {
        number(&self.json["process"]["pid"])
    }

    pub fn started_ns(&self) -> u64 {
        number(&self.json["process"]["started_ns"])
    }

    /// How it ended, as the programs write it: `exit`, `underscore-exit:5`, `signal:2`, `none`.
    pub fn ending(&self) -> String {
        match &self.json["process"]["ending"] {
            Value::String(word) => word.clone(),
            Value::Object(object) => object
                .iter()
                .map(|(word, detail)| format!("{word}:{detail}"))
                .collect(),
            other => other.to_string(),
        }
    }

    pub fn locks(&self) -> &[Value] {
        list(&self.json["locks"])
    }

    pub fn sites(&self) -> &[Value] {
        list(&self.json["sites"])
    }

    /// Sum of what is missing, of one kind.
    pub fn dropped(&self, what: &str) -> u64 {
        number(&self.json["dropped"][what])
    }

    /// Sum over all locks.
    pub fn total(&self, what: &str) -> u64 {
        self.locks().iter().map(|lock| number(&lock[what])).sum()
    }

    /// Names of the functions of a stack, the innermost first.
    pub fn functions(&self, stack: &Value) -> Vec<&str> {
        let Some(stack) = stack.as_u64() else {
            return Vec::new();
        };
        let frames = list(&self.json["stacks"][stack as usize]["frames"]);
        frames
            .iter()
            .flat_map(|frame| list(&frame["functions"]))
            .filter_map(|function| function["name"].as_str())
            .collect()
    }

    /// Whether a stack has this function in it.
    pub fn is_in(&self, stack: &Value, function: &str) -> bool {
        self.functions(stack).iter().any(|name| {
            *name == function
                || name
                    .strip_prefix(function)
                    .is_some_and(|rest| rest.starts_with('('))
        })
    }
}

/// An unsigned number. Panics if it is absent or of another type: nothing may be right for lack of an answer.
#[track_caller]
pub fn number(value: &Value) -> u64 {
    match value.as_u64() {
        Some(number) => number,
        None => panic!("{value} stands where the record should have a number"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
