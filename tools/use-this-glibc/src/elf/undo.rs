//! The record at the end of a changed file: how long the original was and which of its bytes were overwritten.
//!
//! It follows the new segment, outside of what is mapped, and is found from the end of the file:
//!
//! ```text
//! overwritten ranges, in order: { offset: u64, length: u64, the original's bytes }
//! footer: SHA-256 of the original: [u8; 32]
//!         length of the original: u64
//!         length of the ranges above: u64
//!         "use-this-glibc 1"
//! ```
//!
//! All numbers are little-endian.

use sha2::{Digest, Sha256};

use super::image::slice;
use crate::error::{Error, Result};

/// The version of the format is its last byte.
const MAGIC: &[u8; 16] = b"use-this-glibc 1";
const HASH: usize = 32;
const FOOTER: usize = HASH + 8 + 8 + MAGIC.len();
/// Ranges with fewer equal bytes between them become one: a range costs 16 bytes.
const GAP: usize = 16;

/// The original of a changed file, to the byte (a checksum in the record says so). None: not changed by us.
/// A record that does not fit the file (stripped or edited since) is [`crate::error::Error::Unsupported`].
pub fn original(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(footer) = footer(bytes) else {
        return Ok(None);
    };
    let wrong = || {
        Error::Unsupported(
            "changed by use-this-glibc and edited since: its undo record does not fit it any more; take the original".into(),
        )
    };
    if footer.last() != MAGIC.last() {
        return Err(Error::Unsupported(
            "changed by another version of use-this-glibc: restore it with that one".into(),
        ));
    }
    let ranges = ranges(bytes, footer).ok_or_else(wrong)?;
    let length = usize::try_from(number(footer, HASH)).map_err(|_| wrong())?;
    // What is allocated is never more than the file is long.
    let before = bytes.len() - FOOTER - ranges.len();
    let mut original = bytes
        .get(..length.min(before + 1))
        .filter(|original| original.len() == length && length <= before)
        .ok_or_else(wrong)?
        .to_vec();

    let mut rest = ranges;
    while !rest.is_empty() {
        let (saved, after) = read_range(rest).ok_or_else(wrong)?;
        let start = usize::try_from(saved.offset).map_err(|_| wrong())?;
        start
            .checked_add(saved.bytes.len())
            .and_then(|end| original.get_mut(start..end))
            .ok_or_else(wrong)?
            .copy_from_slice(saved.bytes);
        rest = after;
    }
    if Sha256::digest(&original).as_slice() != &footer[..HASH] {
        return Err(wrong());
    }
    Ok(Some(original))
}

/// Appends the record. `changed` begins with as many bytes as `original` has.
pub(super) fn append(changed: &mut Vec<u8>, original: &[u8]) {
    let mut ranges = Vec::new();
    for (start, end) in differences(original, changed) {
        ranges.extend((start as u64).to_le_bytes());
        ranges.extend(((end - start) as u64).to_le_bytes());
        ranges.extend(&original[start..end]);
    }
    changed.extend(&ranges);
    changed.extend(Sha256::digest(original));
    changed.extend((original.len() as u64).to_le_bytes());
    changed.extend((ranges.len() as u64).to_le_bytes());
    changed.extend(MAGIC);
}

/// How many bytes the record at the end has, of whatever version; 0 if there is none.
pub(super) fn record_size(bytes: &[u8]) -> usize {
    footer(bytes)
        .and_then(|footer| ranges(bytes, footer))
        .map_or(0, |ranges| ranges.len() + FOOTER)
}

fn footer(bytes: &[u8]) -> Option<&[u8]> {
    let footer = bytes.last_chunk::<FOOTER>()?;
    let magic = footer.last_chunk::<{ MAGIC.len() }>()?;
    (magic[..15] == MAGIC[..15]).then_some(footer)
}

fn ranges<'a>(bytes: &'a [u8], footer: &[u8]) -> Option<&'a [u8]> {
    let before = &bytes[..bytes.len() - FOOTER];
    let size = number(footer, HASH + 8);
    slice(before, (before.len() as u64).checked_sub(size)?, size)
}

/// The caller knows that it is there.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

struct Saved<'a> {
    offset: u64,
    bytes: &'a [u8],
}

fn read_range(rest: &[u8]) -> Option<(Saved<'_>, &[u8])> {
    let (head, rest) = rest.split_at_checked(16)?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(number(head, 8)).ok()?)?;
    let offset = number(head, 0);
    Some((Saved { offset, bytes }, rest))
}

/// Where `changed` is unlike `original`, ascending.
fn differences(original: &[u8], changed: &[u8]) -> Vec<(usize, usize)> {
    const BLOCK: usize = 4096;
    let mut found: Vec<(usize, usize)> = Vec::new();
    let blocks = original.chunks(BLOCK).zip(changed.chunks(BLOCK));
    for (index, (was, is)) in blocks.enumerate() {
        // Nearly all blocks are equal, and comparing those is one memcmp.
        if is.get(..was.len()) == Some(was) {
            continue;
        }
        for (at, _) in was
            .iter()
            .zip(is)
            .enumerate()
            .filter(|(_, (was, is))| was != is)
        {
            let at = index * BLOCK + at;
            match found.last_mut() {
                Some((_, end)) if at < *end + GAP => *end = at + 1,
                _ => found.push((at, at + 1)),
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed() -> (Vec<u8>, Vec<u8>) {
        let original: Vec<u8> = (0..10_000u32).map(|number| (number % 251) as u8).collect();
        let mut changed = original.clone();
        for at in [0, 1, 17, 4095, 4096, 9_999] {
            changed[at] ^= 0x55;
        }
        changed.extend(b"new segment");
        append(&mut changed, &original);
        (original, changed)
    }

    #[test]
    fn the_original_comes_back() {
        let (before, changed) = changed();
        assert_eq!(original(&changed), Ok(Some(before)));
    }

    #[test]
    fn an_empty_original_comes_back() {
        let mut changed = b"all new".to_vec();
        append(&mut changed, &[]);
        assert_eq!(original(&changed), Ok(Some(Vec::new())));
    }

    #[test]
    fn no_record_is_no_error() {
        assert_eq!(original(b""), Ok(None));
        assert_eq!(original(&[0; 4096]), Ok(None));
        assert_eq!(original(MAGIC), Ok(None));
    }

    #[test]
    fn every_changed_byte_of_original_and_record_is_noticed() {
        let (before, changed) = changed();
        let record = changed.len() - record_size(&changed);
        for at in (0..before.len()).step_by(97).chain(record..changed.len()) {
            let mut edited = changed.clone();
            edited[at] ^= 1;
            match original(&edited) {
                // The byte was an overwritten one: its original is in the record.
                Ok(Some(restored)) => assert_eq!(restored, before, "byte {at}"),
                // Not recognisable as a record any more.
                Ok(None) => assert!(at >= changed.len() - MAGIC.len(), "byte {at}"),
                Err(error) => assert_eq!(error.status(), 3, "byte {at}"),
            }
        }
    }

    #[test]
    fn a_truncated_file_has_no_record_or_a_refused_one() {
        let (_, changed) = changed();
        for length in 0..changed.len() {
            assert!(!matches!(original(&changed[..length]), Ok(Some(_))));
            // The end is there, the beginning is not.
            assert!(!matches!(original(&changed[length + 1..]), Ok(Some(_))));
        }
    }

    #[test]
    fn a_later_format_is_named_as_such() {
        let (_, mut changed) = changed();
        *changed.last_mut().expect("not empty") = b'2';
        let error = original(&changed).expect_err("another version");
        assert!(error.to_string().contains("another version"), "{error}");
    }

    #[test]
    fn a_record_that_names_impossible_sizes_is_refused() {
        let (_, changed) = changed();
        let footer = changed.len() - FOOTER;
        for field in [HASH, HASH + 8] {
            for value in [0, 1, u64::MAX, u64::MAX - 15, changed.len() as u64, 1 << 40] {
                let mut hostile = changed.clone();
                hostile[footer + field..footer + field + 8].copy_from_slice(&value.to_le_bytes());
                assert!(original(&hostile).is_err(), "{field} {value}");
            }
        }
    }
}
