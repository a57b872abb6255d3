//! Values that prove themselves: every byte of a value follows from its key and its version, so that
//! a reader can tell a right answer from one that is torn, mixed up or of another key.

/// Longest body of a value, chosen so that one key moves between memcached's size classes.
const LONGEST_BODY: u64 = 2_000;

/// Writes the value of `key` at `version` into `value`.
pub fn fill(key: &str, version: u64, value: &mut Vec<u8>) {
    let mut random = Random::new(hash(key) ^ version.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let length = random.below(LONGEST_BODY);
    value.clear();
    value.extend_from_slice(format!("{key}:{version}:").as_bytes());
    for _ in 0..length {
        value.push(random.next().to_le_bytes()[3]);
    }
}

/// The version whose value of `key` this is, byte for byte; `None` if it is none. `scratch` spares
/// an allocation per call.
pub fn version_of(key: &str, value: &[u8], scratch: &mut Vec<u8>) -> Option<u64> {
    let rest = value.strip_prefix(key.as_bytes())?.strip_prefix(b":")?;
    let end = rest.iter().position(|byte| *byte == b':')?;
    let version = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    fill(key, version, scratch);
    (scratch.as_slice() == value).then_some(version)
}

/// FNV-1a: any spread-out hash would do.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// xorshift64*: repeatable and cheap; nothing here needs more.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Zero is the generator's one fixed point.
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The bias of the remainder is far below anything that matters here.
        (self.next() >> 16) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_every_byte_and_its_length() {
        let (mut value, mut scratch) = (Vec::new(), Vec::new());
        for version in [1, 2, 77] {
            fill("k1", version, &mut value);
            assert_eq!(version_of("k1", &value, &mut scratch), Some(version));
            assert_eq!(version_of("k2", &value, &mut scratch), None);
            for place in 0..value.len() {
                let mut torn = value.clone();
                torn[place] ^= 1;
                assert_ne!(
                    version_of("k1", &torn, &mut scratch),
                    Some(version),
                    "byte {place}"
                );
            }
            let shorter = &value[..value.len() - 1];
            assert_eq!(version_of("k1", shorter, &mut scratch), None);
            value.push(b'x');
            assert_eq!(version_of("k1", &value, &mut scratch), None);
        }
    }

    #[test]
    fn versions_of_one_key_differ_in_length() {
        let mut value = Vec::new();
        let lengths: std::collections::HashSet<usize> = (1..50)
            .map(|version| {
                fill("k1", version, &mut value);
                value.len()
            })
            .collect();
        assert!(lengths.len() > 40, "{lengths:?}");
    }
}
