//! Which symbol of which library needs which version, and whether it is there.
//!
//! The loader itself compares versions alone, before the program starts, each against the library that the version's record names.
//! A symbol that is missing although its version is there ends the program later, at the first call; glibc's own libraries,
//! which share the version `GLIBC_PRIVATE` whatever they are built from, are where that happens.

use std::collections::{HashMap, HashSet};

use super::closure::Closure;
use crate::elf::{Image, Symbol};
use crate::error::Result;

/// What is wrong with a need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The library does not have the version: the loader refuses to start the program.
    Version,
    /// The same, of a version that is needed weakly: the loader says so, at every start, and goes on.
    WeakVersion,
    /// The library has no versions at all: likewise.
    Unversioned,
    /// The library has the version, and no library has the symbol in it.
    Symbol,
    /// The record names a library that the object does not need: the loader gives up on itself.
    NotNeeded,
}

/// One needed version that is not there, or is there without some of its symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    pub kind: Kind,
    /// Who needs it: an index into the closure's objects.
    pub user: usize,
    /// What the version's record names.
    pub library: String,
    /// The object that goes by this name.
    pub provider: Option<usize>,
    pub version: String,
    /// The user's symbols of this version, or those that are missing.
    pub symbols: Vec<String>,
}

impl Lack {
    /// One line for people.
    pub fn line(&self, closure: &Closure) -> String {
        let user = closure.objects[self.user].path.display();
        let Self {
            library, version, ..
        } = self;
        let provider = match self.provider {
            Some(provider) => closure.objects[provider].path.display().to_string(),
            None => library.clone(),
        };
        let symbols = some(&self.symbols);
        match self.kind {
            Kind::Version | Kind::WeakVersion => {
                let weakly = if self.kind == Kind::Version {
                    ""
                } else {
                    " weakly"
                };
                let what = if symbols.is_empty() {
                    String::new()
                } else {
                    format!(" for {symbols}")
                };
                format!(
                    "{user} needs version {version} of {library}{weakly}{what}; {provider} does not have it"
                )
            }
            Kind::Unversioned => {
                format!("{user} needs version {version} of {library}; {provider} has no versions")
            }
            Kind::Symbol => format!(
                "{user} needs {symbols} in version {version} of {library}; {provider} has this version without it"
            ),
            Kind::NotNeeded => {
                format!("{user} needs version {version} of {library}, and does not need {library}")
            }
        }
    }
}

/// Everything that is lacking in a closure. Missing symbols are looked for where `trusted` says so of the library that should have them:
/// elsewhere a program may know better than we do (it may define them itself after the start, or never call them).
pub fn check(closure: &Closure, trusted: impl Fn(usize) -> bool) -> Result<Vec<Lack>> {
    let mut lacks = Vec::new();
    let mut defined: HashMap<usize, Definitions> = HashMap::new();
    for &user in &closure.order {
        let image = closure.objects[user].image()?;
        let needs = image.needed_versions()?;
        if needs.is_empty() {
            continue;
        }
        let symbols = image.symbols()?;
        let undefined: Vec<&Symbol> = symbols.iter().filter(|symbol| !symbol.defined).collect();
        for need in needs {
            let wanted = undefined.iter().filter(|symbol| {
                symbol.version == Some(need.version) && symbol.library == Some(need.library)
            });
            let mut lack = Lack {
                kind: Kind::Version,
                user,
                library: text(need.library),
                provider: closure.called(need.library),
                version: text(need.version),
                symbols: Vec::new(),
            };
            let Some(provider) = lack.provider else {
                // The search has said so already, if the library is needed at all.
                if !closure
                    .missing
                    .iter()
                    .any(|missing| missing.name == need.library)
                {
                    lack.kind = Kind::NotNeeded;
                    lacks.push(lack);
                }
                continue;
            };
            if let std::collections::hash_map::Entry::Vacant(entry) = defined.entry(provider) {
                entry.insert(Definitions::of(&closure.objects[provider].image()?)?);
            }
            let versions = &defined[&provider].versions;
            if versions.is_empty() || !versions.contains(need.version) {
                lack.symbols = wanted.map(|symbol| text(symbol.name)).collect();
                if versions.is_empty() {
                    lack.kind = Kind::Unversioned;
                } else if need.weak {
                    lack.kind = Kind::WeakVersion;
                }
                lacks.push(lack);
                continue;
            }
            if !trusted(provider) {
                continue;
            }
            let here = &defined[&provider];
            for symbol in wanted.filter(|symbol| !symbol.weak) {
                if here.has(symbol.name, need.version) {
                    continue;
                }
                if !elsewhere(closure, symbol.name, need.version)? {
                    lack.symbols.push(text(symbol.name));
                }
            }
            if !lack.symbols.is_empty() {
                lack.kind = Kind::Symbol;
                lacks.push(lack);
            }
        }
    }
    Ok(lacks)
}

/// What one library has.
struct Definitions {
    versions: HashSet<Vec<u8>>,
    symbols: HashSet<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Definitions {
    fn of(image: &Image<'_>) -> Result<Self> {
        let owned = |text: &[u8]| text.to_vec();
        let symbols = image.symbols()?;
        let defined = symbols.iter().filter(|symbol| symbol.defined);
        Ok(Self {
            versions: image.defined_versions()?.into_iter().map(owned).collect(),
            symbols: defined
                .map(|symbol| (owned(symbol.name), symbol.version.map(owned)))
                .collect(),
        })
    }

    fn has(&self, name: &[u8], version: &[u8]) -> bool {
        let mut key = (name.to_vec(), Some(version.to_vec()));
        if self.symbols.contains(&key) {
            return true;
        }
        key.1 = None;
        self.symbols.contains(&key)
    }
}

/// Whether any object defines the symbol in this version, or without one: the search goes by scope, not by the record.
fn elsewhere(closure: &Closure, name: &[u8], version: &[u8]) -> Result<bool> {
    for &object in &closure.order {
        let image = closure.objects[object].image()?;
        let found = image.symbols()?.iter().any(|symbol| {
            symbol.defined
                && symbol.name == name
                && symbol.version.is_none_or(|other| other == version)
        });
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Up to three names, and how many more.
fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
