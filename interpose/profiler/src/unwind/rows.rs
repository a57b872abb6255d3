//! The rows that walks have met, all threads' together: most fit in a word, and the next walk through the same code need not interpret its tables.
//!
//! A table of [`PLACES`] words and keys. An item is stored as its key xor its word, beside its word, so that of two halves that do not belong together the key comes out
//! wrong (Hyatt and Mann, "A lockless transposition-table implementation for parallel search", ICGA Journal 25, 2002): no item is ever seen torn, without a lock and in signal
//! handlers too. Hence Relaxed is enough.
//!
//! A key is an address and what its module is: its place and its build id. A library without a build id that was closed, and replaced at the same place by one with the same search
//! table's start, is taken for it: a walk through it may give wrong addresses, and is as safe as any.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cfi::{Cfa, PRESERVED, RBP, RIP, RSP, Row, Rule};

/// 32 KiB, of which only what is used becomes memory.
const PLACES: usize = 2048;
const BITS: u32 = PLACES.trailing_zeros();

struct Place {
    sealed: AtomicU64,
    word: AtomicU64,
}

static ROWS: [Place; PLACES] = [const {
    Place {
        sealed: AtomicU64::new(0),
        word: AtomicU64::new(0),
    }
}; PLACES];

/// A row of the usual kind: the canonical frame address is the stack pointer or `%rbp` and an offset, the return address right below it, and registers that are
/// saved are not far below. Never 0.
///
/// Bits 0 to 15: the offset, in words. Bit 16: whether from `%rbp`. 7 bits for each of [`PRESERVED`] from bit 17 on: how many words below the canonical frame address it is
/// saved; 0 if it is still in the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual(u64);

impl Usual {
    /// The row in short, if it is one of those.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let (from, offset) = match row.cfa {
            Cfa::Register(register, offset) => (usize::from(register), offset),
            Cfa::Expression(..) => return None,
        };
        let words = u16::try_from(offset / 8).ok()?;
        if offset % 8 != 0 || words == 0 || from != RSP && from != RBP {
            return None;
        }
        let mut word = u64::from(words) | u64::from(from == RBP) << 16;
        for (number, &rule) in row.rules.iter().enumerate() {
            match (PRESERVED.iter().position(|&one| one == number), rule) {
                (Some(_), Rule::Default | Rule::Same) => {}
                (Some(index), Rule::Offset(offset)) => {
                    let below = u64::try_from(offset.checked_neg()? / 8).ok()?;
                    if offset % 8 != 0 || below == 0 || below > 0x7f {
                        return None;
                    }
                    word |= below << (17 + 7 * index);
                }
                (None, Rule::Offset(-8)) if number == RIP => {}
                (None, Rule::Default) if number != RIP => {}
                _ => return None,
            }
        }
        Some(Self(word))
    }

    /// Whether the canonical frame address is counted from `%rbp`.
    #[inline]
    #[must_use]
    pub fn by_rbp(self) -> bool {
        self.0 >> 16 & 1 != 0
    }

    /// Its distance from the register, in bytes.
    #[inline]
    #[must_use]
    pub fn offset(self) -> usize {
        (self.0 & 0xffff) as usize * 8
    }

    /// How far below it the caller's value of the preserved register of this index is, in bytes; 0 if it was not saved.
    #[inline]
    #[must_use]
    pub fn saved(self, index: usize) -> usize {
        (self.0 >> (17 + 7 * index) & 0x7f) as usize * 8
    }
}

#[inline]
fn place(pc: usize, module: u64) -> (&'static Place, u64) {
    let key = (pc as u64 ^ module).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The upper bits are the mixed ones, and there are PLACES values of them.
    (&ROWS[(key >> (u64::BITS - BITS)) as usize % PLACES], key)
}

/// The row of an address in a module, if it was noted and not overwritten.
#[inline]
#[must_use]
pub fn get(pc: usize, module: u64) -> Option<Usual> {
    let (place, key) = place(pc, module);
    let word = place.word.load(Relaxed);
    (word != 0 && place.sealed.load(Relaxed) ^ word == key).then_some(Usual(word))
}

/// Notes it.
pub fn put(pc: usize, module: u64, row: Usual) {
    let (place, key) = place(pc, module);
    place.word.store(row.0, Relaxed);
    place.sealed.store(row.0 ^ key, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::cfi::REGISTERS;

    fn row(cfa: Cfa, saved: &[(usize, i32)]) -> Row {
        let mut rules = [Rule::Default; REGISTERS];
        rules[RIP] = Rule::Offset(-8);
        for &(number, offset) in saved {
            rules[number] = Rule::Offset(offset);
        }
        Row { cfa, rules }
    }

    #[test]
    fn a_row_says_the_same_in_short() {
        let saved = [(3, -56), (6, -16), (12, -48), (13, -1016), (15, -24)];
        let short = Usual::of(&row(Cfa::Register(7, 1024), &saved)).expect("a usual row");
        assert!(!short.by_rbp());
        assert_eq!(short.offset(), 1024);
        for (index, number) in PRESERVED.into_iter().enumerate() {
            let expected = saved.iter().find(|of| of.0 == number);
            let expected = expected.map_or(0, |of| -of.1 as usize);
            assert_eq!(short.saved(index), expected, "{number}");
        }
        let short = Usual::of(&row(Cfa::Register(6, 16), &[])).expect("a usual row");
        assert!(short.by_rbp());
        assert_eq!(short.offset(), 16);
    }

    #[test]
    fn unusual_rows_have_no_short_form() {
        for unusual in [
            row(Cfa::Expression(1, 1), &[]),
            row(Cfa::Register(10, 8), &[]),
            row(Cfa::Register(7, 0), &[]),
            row(Cfa::Register(7, -8), &[]),
            row(Cfa::Register(7, 12), &[]),
            row(Cfa::Register(7, 8 << 16), &[]),
            row(Cfa::Register(7, 16), &[(3, 8)]),
            row(Cfa::Register(7, 16), &[(3, 0)]),
            row(Cfa::Register(7, 16), &[(3, -12)]),
            row(Cfa::Register(7, 16), &[(3, -1024)]),
            row(Cfa::Register(7, 16), &[(3, i32::MIN)]),
            row(Cfa::Register(7, 16), &[(RIP, -16)]),
            row(Cfa::Register(7, 16), &[(RSP, -16)]),
            row(Cfa::Register(7, 16), &[(0, -16)]),
        ] {
            assert_eq!(Usual::of(&unusual), None, "{unusual:?}");
        }
        for (number, rule) in [
            (RIP, Rule::Undefined),
            (3, Rule::Undefined),
            (RIP, Rule::Default),
        ] {
            let mut unusual = row(Cfa::Register(7, 16), &[]);
            unusual.rules[number] = rule;
            assert_eq!(Usual::of(&unusual), None, "{number} {rule:?}");
        }
    }

    #[test]
    fn threads_that_overwrite_each_other_never_see_anothers_row() {
        // Addresses that share places, each with its own row.
        const MODULE: u64 = 0x0123_4567_89ab_cdef;
        let rounds = 200_000u64;
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                std::thread::spawn(move || {
                    let mut seen = 0;
                    for round in 0..rounds {
                        let pc = ((round * 7 + thread) % 5000) as usize;
                        put(pc, MODULE, Usual(pc as u64 + 1));
                        let other = ((round * 13) % 5000) as usize;
                        if let Some(row) = get(other, MODULE) {
                            assert_eq!(row, Usual(other as u64 + 1));
                            seen += 1;
                        }
                    }
                    seen
                })
            })
            .collect();
        let seen: u64 = threads.into_iter().map(|t| t.join().expect("thread")).sum();
        assert!(seen > 0);
        assert!(
            (0..5000).all(|pc| get(pc, !MODULE).is_none()),
            "another module"
        );
    }
}
