//! DWARF expressions in call frame information: PLT entries, realigned stacks, signal trampolines.

use gimli::{
    Encoding, Evaluation, EvaluationResult, EvaluationStorage, Expression, Format, Location, Piece,
    Value,
};

use super::Registers;
use super::cfi::Reader;
use super::memory::Memory;

/// Operations that one expression may execute: more than any that is generated, few enough that a loop ends soon.
const OPERATIONS: u32 = 256;

struct OnStack;

impl<'a> EvaluationStorage<Reader<'a>> for OnStack {
    type Stack = [Value; 8];
    type ExpressionStack = [(Reader<'a>, Reader<'a>); 0];
    type Result = [Piece<Reader<'a>>; 1];
}

/// What an expression computes from the registers, those of them that are known. `initial` is pushed first.
#[inline(never)]
pub fn evaluate(
    expression: Expression<Reader<'_>>,
    registers: &Registers,
    initial: Option<usize>,
    memory: &mut Memory,
) -> Option<usize> {
    let encoding = Encoding {
        format: Format::Dwarf32,
        version: 4,
        address_size: 8,
    };
    let mut evaluation = Evaluation::<_, OnStack>::new_in(expression.0, encoding);
    evaluation.set_max_iterations(OPERATIONS);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial as u64);
    }
    let mut result = evaluation.evaluate().ok()?;
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = registers.get(usize::from(register.0))?;
                evaluation
                    .resume_with_register(Value::Generic(value as u64))
                    .ok()?
            }
            EvaluationResult::RequiresMemory {
                address,
                size: 8,
                space: None,
                ..
            } => {
                let value = memory.word(usize::try_from(address).ok()?)?;
                evaluation
                    .resume_with_memory(Value::Generic(value as u64))
                    .ok()?
            }
            _ => return None,
        };
    }
    match evaluation.as_result().first()?.location {
        Location::Address { address } => usize::try_from(address).ok(),
        Location::Value { value } => usize::try_from(value.to_u64(u64::MAX).ok()?).ok(),
        _ => None,
    }
}
