//! What is said about one program: text, or one JSON object on a line.
//!
//! Names in JSON that are not UTF-8 have U+FFFD for what is not.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use use_this_glibc::elf::Image;
use use_this_glibc::error::Error;

/// What became of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Written.
    Changed,
    /// It is already as it would be made; nothing was written.
    Unchanged,
    /// `--dry-run`.
    WouldChange,
    /// `--check`: the program is not as it would be made.
    Differs,
    Restored,
    WouldRestore,
    /// Nothing was written: see the error.
    Failed,
}

/// One program's report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// As named on the command line.
    pub program: String,
    /// Without links; absent if there is no such file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub outcome: Outcome,
    /// 0 to 4: the exit status, were this the only program.
    pub status: u8,
    /// One line, or one for each thing that a check found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where the result stands or would stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Facts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Facts>,
    /// Needed libraries that nobody asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added_for: Vec<AddedFor>,
    pub warnings: Vec<String>,
}

/// What a change is about, as it stands in a file.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `PT_INTERP`.
    pub interpreter: Option<String>,
    /// `DT_RPATH`.
    pub rpath: Option<String>,
    /// `DT_RUNPATH`.
    pub runpath: Option<String>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// Of the file, in bytes.
    pub size: usize,
}

/// A needed library, and the library that has a run path of its own and needs it.
#[derive(Debug, Serialize)]
pub struct AddedFor {
    pub library: String,
    pub needed_by: String,
}

impl Facts {
    pub fn of(image: &Image) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            interpreter: image.interpreter().map(text),
            rpath: image.rpath().map(text),
            runpath: image.runpath().map(text),
            needed: image.needed().iter().map(|name| text(name)).collect(),
            size: image.bytes().len(),
        }
    }

    /// What differs, a line each.
    fn differences(&self, after: &Self, added_for: &[AddedFor]) -> Vec<String> {
        let mut lines = Vec::new();
        let pairs = [
            ("PT_INTERP", &self.interpreter, &after.interpreter),
            ("DT_RPATH", &self.rpath, &after.rpath),
            ("DT_RUNPATH", &self.runpath, &after.runpath),
        ];
        for (name, before, after) in pairs {
            let shown = |value: &Option<String>| value.clone().unwrap_or("none".into());
            if before != after {
                lines.push(format!("{name:<10}  {} -> {}", shown(before), shown(after)));
            }
        }
        for (sign, of, other) in [("-", self, after), ("+", after, self)] {
            for library in of.needed.iter().filter(|name| !other.needed.contains(name)) {
                let mut line = format!("DT_NEEDED   {sign} {library}");
                if let Some(reason) = added_for.iter().find(|added| added.library == *library) {
                    let _ = write!(
                        line,
                        " (for {}, which has a run path of its own)",
                        reason.needed_by
                    );
                }
                lines.push(line);
            }
        }
        lines
    }
}

impl Report {
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.display().to_string(),
            path: None,
            outcome: Outcome::Failed,
            status: 0,
            error: None,
            output: None,
            backup: None,
            before: None,
            after: None,
            added_for: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub fn failed(&mut self, error: &Error) {
        self.status = error.status();
        self.error = Some(error.to_string());
    }

    /// The first differences in one line.
    pub fn differs(&self) -> String {
        let lines = self.differences();
        if lines.is_empty() {
            return "laid out otherwise, as by another version of this tool".into();
        }
        let lines = lines
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>().join("; ")
    }

    fn differences(&self) -> Vec<String> {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => before.differences(after, &self.added_for),
            _ => Vec::new(),
        }
    }

    /// For stdout; errors and warnings are printed apart.
    pub fn text(&self) -> String {
        let said = match self.outcome {
            Outcome::Changed => "changed",
            Outcome::Unchanged => "already so, nothing to do",
            Outcome::WouldChange => "would be changed",
            Outcome::Restored => "restored",
            Outcome::WouldRestore => "would be restored",
            Outcome::Differs | Outcome::Failed => return String::new(),
        };
        let mut text = self.program.clone();
        if let Some(path) = self.path.as_ref().filter(|&path| {
            // A relative name of the file itself is no news, a link is.
            !std::path::absolute(&self.program)
                .is_ok_and(|absolute| absolute.as_os_str() == path.as_str())
        }) {
            let _ = write!(text, " (a link to {path})");
        }
        let _ = writeln!(text, ": {said}");
        for line in self.differences() {
            let _ = writeln!(text, "  {line}");
        }
        for (name, value) in [("written to", &self.output), ("original", &self.backup)] {
            if let Some(value) = value {
                let _ = writeln!(text, "  {name:<10}  {value}");
            }
        }
        text
    }
}
