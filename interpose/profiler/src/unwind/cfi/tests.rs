//! The rows of real tables, against gimli's own execution of them; and of tables that somebody has tampered with.

use gimli::{CfaRule, CieOrFde, Register, RegisterRule, UnwindContext, UnwindContextStorage};

use super::*;
use crate::modules::{self, Found, elf::Image};

/// Room for all of gimli's rules.
struct Large;

impl UnwindContextStorage<usize> for Large {
    type Rules = [(Register, RegisterRule<usize>); 64];
    type Stack = [gimli::UnwindTableRow<usize, Self>; 8];
}

/// libc: compilers' tables, and those written by hand.
fn libc() -> Found {
    modules::start();
    modules::find(libc::dlopen as *const () as usize).expect("libc is loaded")
}

fn tables(found: &Found) -> Tables<'_> {
    crate::unwind::tables(found).expect("it has tables")
}

fn expected_cfa(rule: &CfaRule<usize>) -> Cfa {
    match rule {
        CfaRule::RegisterAndOffset { register, offset } => {
            Cfa::Register(register.0 as u8, *offset as i32)
        }
        CfaRule::Expression(expression) => {
            Cfa::Expression(expression.length as u16, expression.offset as u32)
        }
    }
}

fn expected_rule(rule: Option<RegisterRule<usize>>) -> Rule {
    match rule {
        None => Rule::Default,
        Some(RegisterRule::Undefined) => Rule::Undefined,
        Some(RegisterRule::SameValue) => Rule::Same,
        Some(RegisterRule::Offset(offset)) => Rule::Offset(offset as i32),
        Some(RegisterRule::ValOffset(offset)) => Rule::ValOffset(offset as i32),
        Some(RegisterRule::Register(other)) => Rule::Register(other.0 as u8),
        Some(RegisterRule::Expression(e)) => Rule::Expression(e.length as u16, e.offset as u32),
        Some(RegisterRule::ValExpression(e)) => {
            Rule::ValExpression(e.length as u16, e.offset as u32)
        }
        Some(other) => panic!("{other:?} on x86-64"),
    }
}

#[test]
fn all_rows_of_libc_are_gimlis() {
    let found = libc();
    let tables = tables(&found);
    let section = EhFrame::new(tables.frames, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(tables.frames_at as u64);
    let mut context = UnwindContext::<usize, Large>::new_in();
    let (mut rows, mut trampolines) = (0, 0);
    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next().expect("libc's tables can be parsed") {
        let CieOrFde::Fde(entry) = entry else {
            continue;
        };
        let entry = entry.parse(EhFrame::cie_from_offset).expect("an entry");
        let mut table = entry.rows(&section, &bases, &mut context).expect("rows");
        while let Some(row) = table.next_row().expect("a row") {
            if row.start_address() == row.end_address() {
                continue;
            }
            for pc in [row.start_address(), row.end_address() - 1] {
                let (ours, trampoline) = tables.row(pc as usize).expect("a row of ours");
                assert_eq!(ours.cfa, expected_cfa(row.cfa()), "{pc:#x}");
                for (number, rule) in ours.rules.iter().enumerate() {
                    let expected = expected_rule(row.register(Register(number as u16)));
                    assert_eq!(*rule, expected, "{number} at {pc:#x}");
                }
                assert_eq!(trampoline, entry.is_signal_trampoline());
                trampolines += usize::from(trampoline);
                rows += 1;
            }
        }
    }
    assert!(rows > 1000 && trampolines > 0, "{rows} rows, {trampolines}");
}

#[test]
fn outside_of_all_entries_there_is_no_row() {
    let found = libc();
    let tables = tables(&found);
    for pc in [0, found.start, found.end, usize::MAX] {
        assert_eq!(tables.row(pc), None);
    }
}

/// xorshift64* (Vigna, 2016).
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[test]
fn tampered_tables_give_some_row_or_none() {
    let found = libc();
    let image = Image::of(&found).expect("libc's headers");
    let whole = tables(&found);
    let header = whole.header.get(..4096).expect("a table").to_vec();
    let mut some = 0;
    for seed in 1..4000u64 {
        let mut state = seed;
        let mut header = header.clone();
        // The first entries, cut anywhere.
        let length = random(&mut state) as usize % 20_000;
        let mut frames = whole.frames[..length].to_vec();
        for _ in 0..random(&mut state) % 200 {
            let bytes = if random(&mut state).is_multiple_of(4) {
                &mut header
            } else {
                &mut frames
            };
            let at = random(&mut state) as usize % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = match random(&mut state) % 4 {
                    0 => 0xff,
                    1 => 0,
                    _ => random(&mut state) as u8,
                };
            }
        }
        // As many entries as are there.
        if let Some(count) = header.get_mut(8..12) {
            count.copy_from_slice(&500u32.to_le_bytes());
        }
        let tables = Tables::new(&header, whole.header_at, &frames, whole.frames_at);
        let _ = frames_at(&header, whole.header_at);
        for _ in 0..20 {
            let entry = random(&mut state) as usize % 500;
            let start = displaced(
                whole.header_at,
                i32_at(&header, 12 + 8 * entry).unwrap_or(0),
            );
            let row = tables.row(start.wrapping_add(random(&mut state) as usize % 64));
            some += usize::from(row.is_some());
            let _ = tables.expression(
                random(&mut state) as u16,
                random(&mut state) as u32 % 40_000,
            );
        }
    }
    // Else nothing was executed.
    assert!(some > 1000, "{some} rows");
    assert!(image.from(found.end).is_none());
}
