//! The stack of a lock call: the return addresses from the lock's caller outwards, by call frame information.
//!
//! Compilers leave no frame pointers, but tables for exceptions (`.eh_frame`) are in nearly everything. [`walk`] reads its own registers, goes by the tables through the
//! profiler's frames and, from the interposed function's frame on, notes where each return address stands. A caller without tables (assembly, code that was
//! generated at run time) is passed by its frame pointer if `%rbp` looks like one: it points up the stack, below a return address that a call instruction stands before; at
//! an outer frame pointer or 0, unless the return address is in a module, whose functions do what they like with `%rbp`. Else the stack ends there.
//!
//! Each frame but an interrupted one must lie above the one it called, 8-aligned and at most [`FRAME`] long. A signal handler's caller is the interrupted function, on whichever stack: there
//! any stack pointer will do. The number of frames is bounded, so is the time.
//!
//! What was read from the tables is remembered, see [`rows`]: some 20 ns a frame then, else some hundred.
//!
//! Callable in signal handlers and on the smallest stacks: no lock, no allocation, no `errno`; a walk takes 2.6 KiB of stack (tests/unwind.rs measures it). It never
//! faults, whatever the tables and the stack say: [`memory`] says how. Everything here is about the calling thread's stack, which nobody else writes.
//!
//! May touch: the calling thread's stack, mapped tables, rt_sigprocmask(2) to ask for readable pages.

pub mod cfi;
mod expression;
mod memory;
mod rows;

use core::arch::asm;

use crate::modules::{self, Found, elf::Image};
use cfi::{Cfa, RBP, RBX, REGISTERS, RIP, RSP, Row, Rule, Tables};
use memory::Memory;
use rows::Usual;

pub use memory::start;

/// Longest frame, in bytes.
const FRAME: usize = 16 << 20;
/// Frames of the profiler between a walk and the interposed function's caller, at most.
const OWN_FRAMES: usize = 32;
/// Bit by bit, [`cfi::PRESERVED`].
const PRESERVED: u32 = 1 << RBX | 1 << RBP | 0b1111 << 12;

/// A frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The return address: the call stands before it. Of a function that a signal interrupted, the interrupted instruction's address plus 1, so that here too the
    /// address before it is the one to name.
    pub address: usize,
    /// The address of the memory that it is in (less the 1 of an interrupted function); 0 if it was in a register. Behind a signal handler on a stack of its own
    /// it is on the other stack.
    pub slot: usize,
}

/// Registers by their DWARF numbers, as far as they are known.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    values: [usize; REGISTERS],
    /// Bit by bit, which of them.
    known: u32,
}

impl Registers {
    const UNKNOWN: Self = Self {
        values: [0; REGISTERS],
        known: 0,
    };

    fn get(&self, number: usize) -> Option<usize> {
        let value = *self.values.get(number)?;
        (self.known >> number & 1 != 0).then_some(value)
    }

    fn set(&mut self, number: usize, value: Option<usize>) {
        if let (Some(place), Some(value)) = (self.values.get_mut(number), value) {
            *place = value;
            self.known |= 1 << number;
        }
    }
}

/// Notes the calls that the calling thread is in, innermost first, and returns how many.
///
/// The first is the interposed function's own call: `caller_stack_pointer` is the address right behind its return address, the function's canonical frame
/// address; the function must not have returned. At least this one is noted, unless `out` is empty; none beyond `out`, none beyond the thread's
/// first function.
#[inline(never)]
pub fn walk(caller_stack_pointer: usize, out: &mut [Step]) -> usize {
    let registers = capture();
    let Some(first_slot) = caller_stack_pointer.checked_sub(8) else {
        return 0;
    };
    let stack = registers.get(RSP).unwrap_or(first_slot);
    let mut walker = Walker {
        registers,
        memory: Memory::new(stack, caller_stack_pointer - 1),
        module: None,
        interrupted: true, // Its program counter is exact.
    };
    let Some((first, rest)) = out.split_first_mut() else {
        return 0;
    };
    let Some(address) = walker.memory.word(first_slot) else {
        return 0;
    };
    *first = Step {
        address,
        slot: first_slot,
    };
    if walker.leave_own_frames(caller_stack_pointer).is_none() {
        return 1;
    }
    let mut noted = 1;
    for place in rest {
        match walker.step() {
            Some(step) => *place = step,
            None => break,
        }
        noted += 1;
    }
    noted
}

/// The registers that a walk starts with, right here: inlined, so that they are those of [`walk`]'s frame.
#[inline(always)]
fn capture() -> Registers {
    let mut saved = [0usize; 8];
    // SAFETY: writes eight words to `saved`; nothing else changes.
    unsafe {
        asm!(
            "mov [{to}], rbx",
            "mov [{to} + 8], rbp",
            "mov [{to} + 16], rsp",
            "mov [{to} + 24], r12",
            "mov [{to} + 32], r13",
            "mov [{to} + 40], r14",
            "mov [{to} + 48], r15",
            "lea {pc}, [rip]",
            "mov [{to} + 56], {pc}",
            to = in(reg) saved.as_mut_ptr(),
            pc = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
    let mut registers = Registers::UNKNOWN;
    let numbers = [RBX, RBP, RSP, 12, 13, 14, 15, RIP];
    for (number, value) in numbers.into_iter().zip(saved) {
        registers.set(number, Some(value));
    }
    registers
}

/// A frame on the way out.
struct Walker {
    registers: Registers,
    memory: Memory,
    /// The module looked at last, which is often the next one too, and what it is for [`rows`].
    module: Option<(Found, u64)>,
    /// Whether the program counter is an instruction's that was going to be executed, rather than a return address.
    interrupted: bool,
}

impl Walker {
    /// Goes to the frame of the interposed function's caller.
    fn leave_own_frames(&mut self, caller_stack_pointer: usize) -> Option<()> {
        for _ in 0..OWN_FRAMES {
            self.step()?;
            let stack_pointer = self.registers.get(RSP)?;
            if stack_pointer >= caller_stack_pointer {
                return (stack_pointer == caller_stack_pointer).then_some(());
            }
        }
        None
    }

    /// Goes to the caller's frame; None at the end.
    fn step(&mut self) -> Option<Step> {
        let pc = self.registers.get(RIP)?;
        // A call may be its function's last instruction: what the return address is in is the next function.
        let pc = pc.checked_sub(usize::from(!self.interrupted))?;
        let Some((_, module)) = self.module(pc) else {
            return self.by_frame_pointer();
        };
        let module = *module;
        if let Some(row) = rows::get(pc, module) {
            return self.by_usual_row(row);
        }
        match self.row(pc) {
            Some((row, trampoline)) => {
                if let Some(usual) = Usual::of(&row).filter(|_| !trampoline) {
                    rows::put(pc, module, usual);
                }
                self.by_row(&row, trampoline)
            }
            None => self.by_frame_pointer(),
        }
    }

    /// The module that `pc` is in.
    #[inline]
    fn module(&mut self, pc: usize) -> Option<&(Found, u64)> {
        let known = self
            .module
            .as_ref()
            .is_some_and(|(found, _)| (found.start..found.end).contains(&pc));
        if !known {
            let found = modules::find(pc)?;
            self.module = Some((found, identity(&found)));
        }
        self.module.as_ref()
    }

    #[inline(never)]
    fn row(&mut self, pc: usize) -> Option<(Row, bool)> {
        tables(&self.module(pc)?.0)?.row(pc)
    }

    /// What an expression of the last row computes.
    fn evaluate(&mut self, length: u16, at: u32, initial: Option<usize>) -> Option<usize> {
        let expression = tables(&self.module.as_ref()?.0)?.expression(length, at)?;
        expression::evaluate(expression, &self.registers, initial, &mut self.memory)
    }

    /// Goes to the caller by a row of the usual kind.
    #[inline]
    fn by_usual_row(&mut self, row: Usual) -> Option<Step> {
        let from = if row.by_rbp() { RBP } else { RSP };
        let cfa = self.registers.get(from)?.checked_add(row.offset())?;
        if !is_above(cfa, self.registers.get(RSP)?) {
            return None;
        }
        let slot = cfa.checked_sub(8)?;
        let pc = self.memory.word(slot).filter(|&pc| pc != 0)?;
        for (index, number) in cfi::PRESERVED.into_iter().enumerate() {
            let below = row.saved(index);
            if below != 0 {
                self.registers.known &= !(1 << number);
                let value = self.memory.word(cfa.checked_sub(below)?);
                self.registers.set(number, value);
            }
        }
        self.registers.known &= PRESERVED;
        self.registers.set(RSP, Some(cfa));
        self.registers.set(RIP, Some(pc));
        self.interrupted = false;
        Some(Step { address: pc, slot })
    }

    /// Goes to the caller by the rules that hold here.
    #[inline(never)]
    fn by_row(&mut self, row: &Row, trampoline: bool) -> Option<Step> {
        let stack_pointer = self.registers.get(RSP)?;
        let cfa = match row.cfa {
            Cfa::Register(register, offset) => self
                .registers
                .get(usize::from(register))?
                .wrapping_add_signed(offset as isize),
            Cfa::Expression(length, at) => self.evaluate(length, at, None)?,
        };
        if !trampoline && !is_above(cfa, stack_pointer) {
            return None;
        }
        let mut slot = 0;
        let mut caller = Registers::UNKNOWN;
        for (number, &rule) in row.rules.iter().enumerate() {
            let value = match rule {
                Rule::Default if number == RSP => Some(cfa),
                Rule::Default if PRESERVED & 1 << number == 0 => None,
                Rule::Default | Rule::Same => self.registers.get(number),
                Rule::Undefined => None,
                Rule::Register(other) => self.registers.get(usize::from(other)),
                Rule::ValOffset(offset) => Some(cfa.wrapping_add_signed(offset as isize)),
                Rule::ValExpression(length, at) => self.evaluate(length, at, Some(cfa)),
                Rule::Offset(_) | Rule::Expression(..) => {
                    let address = match rule {
                        Rule::Expression(length, at) => self.evaluate(length, at, Some(cfa)),
                        Rule::Offset(offset) => Some(cfa.wrapping_add_signed(offset as isize)),
                        _ => None,
                    };
                    if number == RIP {
                        slot = address.unwrap_or(0);
                    }
                    address.and_then(|address| self.memory.word(address))
                }
            };
            caller.set(number, value);
        }
        self.arrive(&caller, slot, trampoline)
    }

    /// Goes to the caller by a frame pointer, if there is one.
    #[cold]
    fn by_frame_pointer(&mut self) -> Option<Step> {
        let frame = self.registers.get(RBP)?;
        let cfa = frame.checked_add(16)?;
        if !is_above(cfa, self.registers.get(RSP)?) {
            return None;
        }
        let outer = self.memory.word(frame)?;
        let address = self.memory.word(cfa - 8)?;
        // What calls code without tables may have tables, and anything in `%rbp`.
        let plausible = outer == 0 || is_above(outer, frame) || modules::find(address).is_some();
        if !plausible || !self.follows_a_call(address) {
            return None;
        }
        let mut caller = Registers::UNKNOWN;
        caller.set(RBP, Some(outer));
        caller.set(RSP, Some(cfa));
        caller.set(RIP, Some(address));
        self.arrive(&caller, cfa - 8, false)
    }

    fn arrive(&mut self, caller: &Registers, slot: usize, interrupted: bool) -> Option<Step> {
        let pc = caller.get(RIP).filter(|&pc| pc != 0)?;
        self.registers = *caller;
        self.interrupted = interrupted;
        Some(Step {
            address: pc.checked_add(usize::from(interrupted))?,
            slot,
        })
    }

    /// Whether a call instruction ends at `address`: `E8` and four bytes, or `FF /2` with any operand.
    fn follows_a_call(&mut self, address: usize) -> bool {
        let mut before = |distance: usize| self.memory.byte(address.checked_sub(distance)?);
        if before(1).is_none() {
            return false;
        }
        if before(5) == Some(0xe8) {
            return true;
        }
        (2..=7).any(|length| {
            before(length) == Some(0xff)
                && before(length - 1).is_some_and(|operand| is_call(operand, length))
        })
    }
}

/// Whether `FF` and this ModRM byte start a near call of `length` bytes (Intel SDM, volume 2, 2.1).
fn is_call(operand: u8, length: usize) -> bool {
    let (mode, register) = (operand >> 6, operand & 7);
    let with_index = register == 4 && mode != 3;
    let displacement = match (mode, register) {
        (1, _) => 1,
        (2, _) | (0, 5) => 4,
        _ => 0,
    };
    operand >> 3 & 7 == 2
        && (length == 2 + usize::from(with_index) + displacement
            || with_index && mode == 0 && length == 7)
}

/// Whether a frame from `low` to `high` is one.
fn is_above(high: usize, low: usize) -> bool {
    high.is_multiple_of(8)
        && high
            .checked_sub(low)
            .is_some_and(|size| size != 0 && size <= FRAME)
}

/// What tells a module from others that may be at its place at other times.
fn identity(found: &Found) -> u64 {
    let image = Image::of(found);
    let id = image.as_ref().map_or(&[][..], Image::build_id);
    let bytes = if id.is_empty() {
        let header = image.and_then(|image| image.from(found.eh_frame_hdr));
        header.map_or(&[][..], |header| header.get(..64).unwrap_or(header))
    } else {
        id
    };
    let mut hash = found.start as u64 ^ (found.end as u64).rotate_left(32);
    for word in bytes.chunks(8) {
        let mut padded = [0; 8];
        for (to, from) in padded.iter_mut().zip(word) {
            *to = *from;
        }
        hash = (hash ^ u64::from_le_bytes(padded)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    hash
}

/// The tables of a module.
fn tables(found: &Found) -> Option<Tables<'_>> {
    if found.eh_frame_hdr == 0 {
        return None;
    }
    let image = Image::of(found)?;
    let header = image.from(found.eh_frame_hdr)?;
    let frames_at = cfi::frames_at(header, found.eh_frame_hdr)?;
    let frames = image.from(frames_at)?;
    Some(Tables::new(header, found.eh_frame_hdr, frames, frames_at))
}

#[cfg(test)]
mod tests;
