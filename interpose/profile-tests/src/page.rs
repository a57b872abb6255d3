//! What `programs/working.c` noted of its steps, in a file that outlived it.

use std::path::Path;

const THREADS: usize = 4;
const LOCKS: usize = 3;
/// Words of a thread's slot, padding included.
const SLOT: usize = 2 * LOCKS + 10;

/// The file's words: `prepared`, addresses, the test's own sums, slots.
pub struct Page {
    words: Vec<u64>,
}

/// One of the program's locks.
pub struct Steps {
    pub address: u64,
    /// Lock calls that were begun, and those that had returned.
    pub begun: u64,
    pub over: u64,
}

impl Page {
    /// None if the program did not come so far as to make it.
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .filter_map(|word| Some(u64::from_ne_bytes(word.try_into().ok()?)))
            .collect();
        (words.len() >= 1 + 3 * LOCKS + THREADS * SLOT).then_some(Self { words })
    }

    /// Whether the program had come to its work.
    pub fn prepared(&self) -> bool {
        self.words[0] != 0
    }

    pub fn locks(&self) -> Vec<Steps> {
        let slot = |thread: usize| &self.words[1 + 3 * LOCKS + thread * SLOT..];
        let sum = |at: usize| (0..THREADS).map(|thread| slot(thread)[at]).sum();
        (0..LOCKS)
            .map(|lock| Steps {
                address: self.words[1 + lock],
                begun: sum(lock),
                over: sum(LOCKS + lock),
            })
            .collect()
    }
}
