//! What glibc's makefiles say of their tests: which there are and with what flags they are built.
//!
//! Not a make: it joins continued lines, takes assignments of the few variables that name tests
//! and flags, and leaves out every word that needs expanding. Pure functions over text.

use std::collections::{BTreeMap, BTreeSet};

/// One test or module, ready to be compiled.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub cflags: Vec<String>,
    pub ldflags: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Catalogue {
    pub tests: Vec<Entry>,
    pub modules: Vec<Entry>,
    flags: BTreeMap<String, Vec<String>>,
}

/// Variables that list tests. `xtests` are the ones that want root or a long time.
const TEST_LISTS: &[&str] = &["tests", "tests-internal", "xtests"];

impl Catalogue {
    /// `excluded` holds a name and a reason a line.
    pub fn read(makefiles: &[String], excluded: &str) -> Self {
        let mut lists: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut flags: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (variable, words) in makefiles.iter().flat_map(|text| assignments(text)) {
            let list = match variable.as_str() {
                name if TEST_LISTS.contains(&name) => Some("tests"),
                "tests-static" | "xtests-static" => Some("static"),
                "modules-names" => Some("modules"),
                _ => None,
            };
            if let Some(list) = list {
                let names = words.into_iter().filter(|word| is_name(word));
                lists.entry(list).or_default().extend(names);
            } else if is_flags(&variable) {
                flags
                    .entry(variable)
                    .or_default()
                    .extend(words.into_iter().filter(|word| wanted_flag(word)));
            }
        }
        let empty = BTreeSet::new();
        let list = |name: &str| lists.get(name).unwrap_or(&empty);
        let excluded: BTreeSet<&str> = excluded
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let mut catalogue = Self {
            flags,
            ..Self::default()
        };
        let runs = |name: &&String| {
            !list("static").contains(*name)
                && !name.ends_with("-static")
                && !excluded.contains(name.as_str())
        };
        catalogue.tests = list("tests")
            .iter()
            .filter(runs)
            .map(|name| catalogue.entry(name))
            .collect();
        catalogue.modules = list("modules")
            .iter()
            .map(|name| catalogue.entry(name))
            .collect();
        catalogue
    }

    /// The flags of any file by its name without extension.
    pub fn entry(&self, name: &str) -> Entry {
        let of = |variable: String| self.flags.get(&variable).cloned().unwrap_or_default();
        let mut cflags = of(format!("CFLAGS-{name}.c"));
        // C++ tests have theirs on the object.
        cflags.extend(of(format!("CFLAGS-{name}.o")));
        let mut ldflags = of(format!("LDFLAGS-{name}"));
        ldflags.extend(of(format!("LDFLAGS-{name}.so")));
        ldflags.extend(of(format!("LDLIBS-{name}")));
        Entry {
            name: name.to_owned(),
            cflags,
            ldflags,
        }
    }
}

fn is_flags(variable: &str) -> bool {
    ["CFLAGS-tst-", "LDFLAGS-tst-", "LDLIBS-tst-"]
        .iter()
        .any(|start| variable.starts_with(start))
}

fn wanted_flag(word: &str) -> bool {
    word.starts_with('-')
        && !word.contains('$')
        && (!word.starts_with("-W") || word.starts_with("-Wl,"))
}

/// A word that names a test, and not a part of some make function.
fn is_name(word: &str) -> bool {
    word.starts_with("tst-")
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// Variable and words of every assignment, whatever its operator.
fn assignments(makefile: &str) -> Vec<(String, Vec<String>)> {
    let joined = makefile.replace("\\\n", " ");
    joined.lines().filter_map(assignment).collect()
}

fn assignment(line: &str) -> Option<(String, Vec<String>)> {
    if line.starts_with(['\t', '#']) {
        return None;
    }
    let (left, right) = line.split_once('=')?;
    let variable = left.trim_end_matches([':', '+', '?']).trim();
    if variable.is_empty() || variable.contains(char::is_whitespace) {
        return None;
    }
    let right = right.split(" #").next().unwrap_or_default();
    Some((
        variable.to_owned(),
        right.split_whitespace().map(str::to_owned).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str = "\
tests = tst-a tst-b \\\n\ttst-c \\\n\t # tests\n\
tests-internal := tst-d\n\
tests-static += tst-c\n\
tests += tst-e-static $(addprefix tst-f-,x y)\n\
modules-names += tst-bmod\n\
CFLAGS-tst-b.c += -fexceptions -Wno-error $(more)\n\
LDFLAGS-tst-b = -Wl,-z,lazy\n\
$(objpfx)tst-a.out: tests = tst-no\n\
\ttests = tst-recipe\n";

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn lists_follow_continued_lines_and_leave_static_tests_out() {
        let catalogue = Catalogue::read(&[MAKEFILE.to_owned()], "");
        assert_eq!(names(&catalogue.tests), ["tst-a", "tst-b", "tst-d"]);
        assert_eq!(names(&catalogue.modules), ["tst-bmod"]);
    }

    #[test]
    fn excluded_names_are_left_out_and_comments_are_not_names() {
        let catalogue = Catalogue::read(&[MAKEFILE.to_owned()], "# tst-a\ntst-d  a reason\n");
        assert_eq!(names(&catalogue.tests), ["tst-a", "tst-b"]);
    }

    #[test]
    fn flags_keep_what_changes_code_and_drop_warnings_and_variables() {
        let catalogue = Catalogue::read(&[MAKEFILE.to_owned()], "");
        let entry = catalogue.entry("tst-b");
        assert_eq!(entry.cflags, ["-fexceptions"]);
        assert_eq!(entry.ldflags, ["-Wl,-z,lazy"]);
    }
}
