//! Progress on stderr: a spinner on a terminal, a line per step elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub struct Screen {
    bar: ProgressBar,
    program: &'static str,
}

impl Screen {
    /// `program` stands before each line.
    #[must_use]
    pub fn new(program: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        // Slow: the machine is being measured.
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, program }
    }

    /// What is being done now.
    pub fn step(&self, what: &str) {
        // A log needs no line for every percent.
        if self.bar.is_hidden() && !what.ends_with('%') {
            eprintln!("{}: {what}", self.program);
        }
        self.bar.set_message(what.to_string());
    }

    /// A line that stays.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{}: {line}", self.program));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
