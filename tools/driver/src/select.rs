//! Which locks: names matched like file names. Pure functions over the list of known locks.

use crate::lock::Source;
use anyhow::{Context, Result, bail};
use globset::Glob;

/// What the command line says about it.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Names or patterns such as `mcs*` or `{tas,ticket}`.
    pub patterns: &'a [String],
    /// Every lock.
    pub all: bool,
}

impl Choice<'_> {
    /// The locks that are asked for, in the order of `known`; `otherwise` if nothing is said. A pattern that matches
    /// nothing is an error that names the known locks.
    pub fn of(&self, known: &[Source], otherwise: &[&str]) -> Result<Vec<Source>> {
        let mut wanted = vec![self.all; known.len()];
        for pattern in self.patterns {
            let glob = Glob::new(pattern)
                .with_context(|| format!("'{pattern}' is not a pattern"))?
                .compile_matcher();
            let mut matched = false;
            for (source, wanted) in known.iter().zip(&mut wanted) {
                if glob.is_match(&source.name) {
                    matched = true;
                    *wanted = true;
                }
            }
            if !matched {
                bail!(unknown(pattern, known.iter().map(|s| s.name.as_str())));
            }
        }
        let nothing_said = !self.all && self.patterns.is_empty();
        let chosen = known.iter().zip(wanted).filter(|(source, wanted)| {
            *wanted || nothing_said && otherwise.contains(&source.name.as_str())
        });
        Ok(chosen.map(|(source, _)| source.clone()).collect())
    }
}

/// That no lock has this name, and which there are.
pub fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = known.collect();
    format!("no lock is called '{name}'; known: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Source> {
        ["glibc", "autolock", "tas", "mcs", "mcs_tp", "mcs_autolock"]
            .map(|name| Source::library_named(name, "/nowhere"))
            .into()
    }

    fn names(patterns: &[&str], all: bool) -> Result<Vec<String>> {
        let patterns: Vec<_> = patterns.iter().map(|s| s.to_string()).collect();
        let choice = Choice {
            patterns: &patterns,
            all,
        };
        let chosen = choice.of(&known(), &["glibc", "autolock"])?;
        Ok(chosen.into_iter().map(|s| s.name).collect())
    }

    #[test]
    fn patterns_match_whole_names_in_the_order_of_the_list() {
        let of = |patterns: &[&str]| names(patterns, false).expect("matches");
        assert_eq!(of(&["mcs"]), ["mcs"]);
        assert_eq!(of(&["mcs*"]), ["mcs", "mcs_tp", "mcs_autolock"]);
        assert_eq!(of(&["*autolock"]), ["autolock", "mcs_autolock"]);
        assert_eq!(
            of(&["*_autolock", "{mcs,tas}"]),
            ["tas", "mcs", "mcs_autolock"]
        );
        assert_eq!(of(&["[st]as", "tas"]), ["tas"]);
        assert_eq!(of(&[]), ["glibc", "autolock"]);
        assert_eq!(names(&[], true).expect("all").len(), 6);
    }

    #[test]
    fn a_pattern_without_a_match_names_the_known_locks() {
        let error = names(&["mcs", "futex_*"], false).expect_err("no such lock");
        assert_eq!(
            error.to_string(),
            "no lock is called 'futex_*'; known: glibc, autolock, tas, mcs, mcs_tp, mcs_autolock"
        );
        assert!(
            names(&["nobody"], true).is_err(),
            "--all hides no typing error"
        );
        let error = names(&["{tas"], false).expect_err("an open brace");
        assert!(format!("{error:#}").starts_with("'{tas' is not a pattern"));
    }
}
