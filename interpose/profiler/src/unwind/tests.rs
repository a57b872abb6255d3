//! Rules, registers and expressions that make no sense: a walk goes on or ends, and nothing else.

use gimli::{EndianSlice, Expression, LittleEndian};

use super::cfi::tests::random;
use super::*;

fn registers(state: &mut u64, near: &[usize]) -> Registers {
    let mut registers = Registers::UNKNOWN;
    for number in 0..REGISTERS {
        let value = match random(state) % 8 {
            0 => None,
            1 => Some(random(state) as usize),
            2 => Some(random(state) as usize & 0x7fff_ffff_ffff),
            _ => {
                let base = near[random(state) as usize % near.len()];
                Some(base.wrapping_add((random(state) as usize % 8192) & !7))
            }
        };
        registers.set(number, value);
    }
    registers
}

fn rule(state: &mut u64) -> Rule {
    let offset = (random(state) as i32) >> (random(state) % 32);
    match random(state) % 8 {
        0 => Rule::Default,
        1 => Rule::Undefined,
        2 => Rule::Same,
        3 => Rule::ValOffset(offset),
        4 => Rule::Register(random(state) as u8 % 20),
        5 => Rule::Expression(random(state) as u16 % 32, random(state) as u32 % 100_000),
        6 => Rule::ValExpression(random(state) as u16 % 32, random(state) as u32 % 100_000),
        _ => Rule::Offset(offset),
    }
}

#[test]
fn no_rules_make_a_walk_fault() {
    modules::start();
    start();
    let here = 0usize;
    let libc = libc::dlopen as *const () as usize;
    let near = [
        core::ptr::from_ref(&here).addr(),
        libc,
        modules::find(libc).expect("libc is loaded").end - 4096,
        0,
    ];
    let mut steps = 0;
    for seed in 1..20_000u64 {
        let mut state = seed;
        let mut walker = Walker {
            registers: registers(&mut state, &near),
            memory: Memory::new(near[0], near[0]),
            module: modules::find(libc).map(|found| (found, 0)),
            interrupted: false,
        };
        for _ in 0..8 {
            let row = Row {
                cfa: match random(&mut state) % 8 {
                    0 => Cfa::Expression(
                        random(&mut state) as u16 % 32,
                        random(&mut state) as u32 % 100_000,
                    ),
                    _ => Cfa::Register(
                        random(&mut state) as u8 % 20,
                        random(&mut state) as i32 >> 20,
                    ),
                },
                rules: std::array::from_fn(|_| rule(&mut state)),
            };
            steps += usize::from(
                walker
                    .by_row(&row, random(&mut state).is_multiple_of(2))
                    .is_some(),
            );
            steps += usize::from(walker.step().is_some());
            steps += usize::from(walker.by_frame_pointer().is_some());
        }
    }
    assert!(steps > 1000, "{steps} steps");
}

fn evaluate(bytes: &[u8], registers: &Registers, memory: &mut Memory) -> Option<usize> {
    let expression = Expression(EndianSlice::new(bytes, LittleEndian));
    expression::evaluate(expression, registers, Some(24), memory)
}

#[test]
fn expressions_are_computed() {
    let words = [7usize, 9];
    let mut registers = Registers::UNKNOWN;
    registers.set(RSP, Some(words.as_ptr().addr()));
    registers.set(RIP, Some(0x100b));
    let mut memory = Memory::new(words.as_ptr().addr(), words.as_ptr().addr() + 15);
    let mut of = |bytes: &[u8]| evaluate(bytes, &registers, &mut memory);
    // DW_OP_breg7 8, DW_OP_deref
    assert_eq!(of(&[0x77, 8, 0x06]), Some(9));
    // A linkage table's: rsp + 8 + (rip & 15 >= 11) * 8
    let linkage = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
    assert_eq!(of(&linkage), Some(words.as_ptr().addr() + 16));
    // What is pushed first: the canonical frame address.
    assert_eq!(of(&[0x23, 1]), Some(25));
    // DW_OP_breg0: not known. DW_OP_skip -3: for ever. DW_OP_div by 0. Nothing on the stack.
    assert_eq!(of(&[0x70, 0]), None);
    assert_eq!(of(&[0x2f, 0xfd, 0xff]), None);
    assert_eq!(of(&[0x30, 0x1b]), None);
    assert_eq!(of(&[0x13, 0x13]), None);
    assert_eq!(of(&[0x30; 64]), None);
}

#[test]
fn no_expression_does_harm() {
    let here = 0usize;
    let near = [core::ptr::from_ref(&here).addr(), 0];
    let mut computed = 0;
    for seed in 1..100_000u64 {
        let mut state = seed;
        let registers = registers(&mut state, &near);
        let bytes: [u8; 12] = std::array::from_fn(|_| random(&mut state) as u8);
        let mut memory = Memory::new(near[0], near[0]);
        let length = random(&mut state) as usize % 12;
        computed += usize::from(evaluate(&bytes[..length], &registers, &mut memory).is_some());
    }
    assert!(computed > 1000, "{computed}");
}

#[test]
fn a_call_is_told_from_other_code() {
    let mut code = [0u8; 16];
    let end = code.as_ptr().addr() + 16;
    let mut follows = |bytes: &[u8]| {
        code = [0x90; 16];
        code[16 - bytes.len()..].copy_from_slice(bytes);
        std::hint::black_box(&code);
        let mut walker = Walker {
            registers: Registers::UNKNOWN,
            memory: Memory::new(end - 16, end - 1),
            module: None,
            interrupted: false,
        };
        walker.follows_a_call(end)
    };
    for call in [
        &[0xe8, 1, 2, 3, 4][..],         // call rel32
        &[0xff, 0xd0],                   // call *%rax
        &[0x41, 0xff, 0xd7],             // call *%r15
        &[0xff, 0x10],                   // call *(%rax)
        &[0xff, 0x14, 0xc1],             // call *(%rcx,%rax,8)
        &[0xff, 0x50, 8],                // call *8(%rax)
        &[0xff, 0x54, 0x24, 8],          // call *8(%rsp)
        &[0xff, 0x15, 1, 2, 3, 4],       // call *disp(%rip)
        &[0xff, 0x90, 1, 2, 3, 4],       // call *disp(%rax)
        &[0xff, 0x94, 0x24, 1, 2, 3, 4], // call *disp(%rsp)
        &[0xff, 0x14, 0xc5, 1, 2, 3, 4], // call *disp(,%rax,8)
    ] {
        assert!(follows(call), "{call:x?}");
    }
    for other in [
        &[0x90][..],
        &[0xff, 0xe0],       // jmp *%rax
        &[0xff, 0xd0, 0x90], // call *%rax; nop
        &[0xff, 0x30],       // push (%rax)
        &[0xe9, 1, 2, 3, 4], // jmp rel32
    ] {
        assert!(!follows(other), "{other:x?}");
    }
}
