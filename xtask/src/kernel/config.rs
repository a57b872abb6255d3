//! The named configurations: fragments in `linux-patches/6.12/config`, merged, and held against what kconfig made of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What the series adds; asked for in the fragments, and not to be had without the patches.
const OURS: &str = "CONFIG_AUTO_LOCK";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Config {
    /// What a virtual machine needs, with CONFIG_AUTO_LOCK
    #[default]
    Minimal,
    /// Besides: locks, RCU, sleeping in atomic context, objects' lives are checked
    Lockdep,
    /// Besides, lockdep's as well: uses after free and out of bounds are found
    Kasan,
    /// Besides: data races are found
    Kcsan,
    /// As minimal, without CONFIG_AUTO_LOCK
    Off,
}

impl Config {
    pub fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Lockdep => "lockdep",
            Self::Kasan => "kasan",
            Self::Kcsan => "kcsan",
            Self::Off => "off",
        }
    }

    /// Lines that a whole build writes, for the bar.
    pub fn lines(self) -> u64 {
        2730
    }

    /// Its fragments, in order.
    fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Minimal => &["minimal"],
            Self::Lockdep => &["minimal", "lockdep"],
            Self::Kasan => &["minimal", "lockdep", "kasan"],
            Self::Kcsan => &["minimal", "kcsan"],
            Self::Off => &["minimal", "off"],
        }
    }

    /// All that is asked for: minimal's lines, then its own, the last one of each option. `with_ours`: the tree has our option.
    pub fn wanted(self, folder: &Path, with_ours: bool) -> Result<Wanted> {
        let mut wanted = Wanted(BTreeMap::new());
        for name in self.fragments() {
            let path = folder.join(format!("{name}.config"));
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            wanted
                .add(&text)
                .with_context(|| format!("in {}", path.display()))?;
        }
        if !with_ours {
            wanted.0.remove(OURS);
        }
        Ok(wanted)
    }
}

/// Options and their values; None: not set.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted(BTreeMap<String, Option<String>>);

impl Wanted {
    fn add(&mut self, text: &str) -> Result<()> {
        for line in text.lines().map(str::trim) {
            match setting(line) {
                Some((option, value)) => {
                    let value = value.map(str::to_owned);
                    self.0.insert(option.to_owned(), value);
                }
                None if line.is_empty() || line.starts_with('#') => {}
                None => bail!("`{line}` sets no option"),
            }
        }
        Ok(())
    }

    /// As kconfig reads it.
    pub fn text(&self) -> String {
        let line = |(option, value): (&String, &Option<String>)| match value {
            Some(value) => format!("{option}={value}\n"),
            None => format!("# {option} is not set\n"),
        };
        self.0.iter().map(line).collect()
    }

    /// Those that `config`, kconfig's result, has otherwise.
    pub fn unmet(&self, config: &str) -> Vec<&str> {
        let is: BTreeMap<_, _> = config.lines().filter_map(setting).collect();
        let met = |option: &str, value: Option<&str>| is.get(option).copied().flatten() == value;
        self.0
            .iter()
            .filter(|(option, value)| !met(option, value.as_deref()))
            .map(|(option, _)| option.as_str())
            .collect()
    }
}

/// `CONFIG_X=value` or `# CONFIG_X is not set`.
fn setting(line: &str) -> Option<(&str, Option<&str>)> {
    let is_option = |word: &str| word.starts_with("CONFIG_") && !word.contains(' ');
    if let Some((option, value)) = line.split_once('=').filter(|it| is_option(it.0)) {
        return Some((option, (value != "n").then_some(value)));
    }
    let option = line.strip_prefix("# ")?.strip_suffix(" is not set")?;
    is_option(option).then_some((option, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../linux-patches/6.12/config")
    }

    #[test]
    fn each_configuration_has_its_fragment_and_off_alone_lacks_our_option() {
        use clap::ValueEnum;
        for config in Config::value_variants() {
            let wanted = config.wanted(&folder(), true).expect("fragments");
            let ours = wanted.0.get(OURS).expect("our option").is_some();
            assert_eq!(ours, *config != Config::Off, "{}", config.name());
            let without = config.wanted(&folder(), false).expect("fragments");
            assert!(!without.text().contains(OURS), "{}", config.name());
        }
    }

    #[test]
    fn a_later_line_wins_and_a_line_that_sets_nothing_is_an_error() {
        let mut wanted = Wanted(BTreeMap::new());
        wanted
            .add("# words\n\nCONFIG_A=y\nCONFIG_B=\"x=1\"\n")
            .expect("options");
        wanted.add("# CONFIG_A is not set\n").expect("options");
        assert_eq!(wanted.text(), "# CONFIG_A is not set\nCONFIG_B=\"x=1\"\n");
        assert!(wanted.add("SMP=y\n").is_err());
    }

    #[test]
    fn what_kconfig_dropped_or_set_all_the_same_is_unmet() {
        let mut wanted = Wanted(BTreeMap::new());
        wanted
            .add("CONFIG_A=y\nCONFIG_B=4\n# CONFIG_C is not set\n# CONFIG_D is not set\nCONFIG_E=n\n")
            .expect("options");
        let made = "CONFIG_B=4\nCONFIG_C=y\n# CONFIG_D is not set\n";
        assert_eq!(wanted.unmet(made), ["CONFIG_A", "CONFIG_C"]);
    }
}
