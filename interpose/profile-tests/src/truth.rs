//! What a program says that it did: lines of `programs/truth.h`, parsed.

use std::collections::BTreeMap;

/// Keys and values of one line.
pub type Facts = Vec<(String, String)>;

/// One lock of one process.
#[derive(Debug, Clone)]
pub struct Lock {
    pub address: u64,
    pub name: String,
    pub facts: Facts,
}

/// One process, or one of the programs that it has been.
#[derive(Debug, Clone, Default)]
pub struct Process {
    pub facts: Facts,
    pub locks: Vec<Lock>,
}

/// Everything that was said, by process id and image.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub processes: BTreeMap<(u32, u32), Process>,
    /// Lines of one key that are about no process: measurements.
    pub values: BTreeMap<String, u64>,
}

impl Truth {
    /// Reads a program's standard output; lines of other forms are its own affair.
    pub fn parse(stdout: &str) -> Self {
        let mut truth = Self::default();
        for line in stdout.lines() {
            // A line that does not parse is not one of ours.
            let _ = truth.line(line);
        }
        truth
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (pid, image) = words.next()?.split_once('.')?;
        let id = (pid.parse().ok()?, image.parse().ok()?);
        match words.next()? {
            "process" => {
                let facts = facts(words);
                self.processes.entry(id).or_default().facts.extend(facts);
            }
            "lock" => {
                let address = words.next()?.strip_prefix("0x")?;
                let lock = Lock {
                    address: u64::from_str_radix(address, 16).ok()?,
                    name: words.next()?.to_owned(),
                    facts: facts(words),
                };
                self.processes.entry(id).or_default().locks.push(lock);
            }
            value => {
                let (key, value) = value.split_once('=')?;
                self.values.insert(key.to_owned(), value.parse().ok()?);
            }
        }
        Some(())
    }
}

fn facts<'a>(words: impl Iterator<Item = &'a str>) -> Facts {
    words
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
