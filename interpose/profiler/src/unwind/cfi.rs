//! Call frame information: the row of an address, from `.eh_frame_hdr` and `.eh_frame` (Linux Standard Base, "Exception Frames"; DWARF 5, 6.4).
//!
//! gimli parses entries, instructions and expressions; the rules are kept here, in a few bytes each, for this runs on small stacks. Any bytes may come
//! in: what makes no sense gives no row. Only 4-byte search tables relative to the header are understood, which is what all linkers write.

use gimli::{
    BaseAddresses, CallFrameInstruction, CallFrameInstructionIter, EhFrame, EhFrameOffset,
    EndianSlice, Expression, LittleEndian, Register, UnwindExpression, UnwindSection as _,
};

/// How gimli reads.
pub type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Registers by their DWARF numbers, of which these are of use here (System V ABI, AMD64 supplement, figure 3.36).
pub const REGISTERS: usize = 17;
/// `%rbx`
pub const RBX: usize = 3;
/// `%rbp`
pub const RBP: usize = 6;
/// `%rsp`
pub const RSP: usize = 7;
/// The return address, or `%rip`.
pub const RIP: usize = 16;
/// Those that a called function leaves as they were: rbx, rbp, r12 to r15.
pub const PRESERVED: [usize; 6] = [RBX, RBP, 12, 13, 14, 15];

/// Rows that `DW_CFA_remember_state` may stack.
const REMEMBERED: usize = 3;

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing is said.
    Default,
    /// Nowhere; for [`RIP`]: there is no caller.
    Undefined,
    /// Still in the register.
    Same,
    /// In memory at the canonical frame address plus this.
    Offset(i32),
    /// The canonical frame address plus this.
    ValOffset(i32),
    /// In another register.
    Register(u8),
    /// In memory at the address that an expression of so many bytes at this place in `.eh_frame` computes.
    Expression(u16, u32),
    /// What such an expression computes.
    ValExpression(u16, u32),
}

/// How the canonical frame address is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cfa {
    /// A register and an offset.
    Register(u8, i32),
    /// What an expression of so many bytes at this place in `.eh_frame` computes.
    Expression(u16, u32),
}

/// All rules that hold at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The canonical frame address.
    pub cfa: Cfa,
    /// The registers.
    pub rules: [Rule; REGISTERS],
}

const _: () = assert!(size_of::<Row>() <= 152);

const EMPTY: Row = Row {
    cfa: Cfa::Register(RSP as u8, 0),
    rules: [Rule::Default; REGISTERS],
};

/// The tables of a module: bytes, and the addresses that they are at.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    header: &'a [u8],
    header_at: usize,
    frames: &'a [u8],
    frames_at: usize,
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(i32::from_le_bytes)
}

/// An address at a signed distance.
fn displaced(address: usize, by: i32) -> usize {
    address.wrapping_add_signed(by as isize)
}

/// Where `.eh_frame` is, by an `.eh_frame_hdr` at `at` of the kind that all linkers write.
#[must_use]
pub fn frames_at(header: &[u8], at: usize) -> Option<usize> {
    // Version 1; pc-relative, 4 bytes; number of entries, 4 bytes; table relative to the header, 4 bytes each.
    if header.get(..4)? != [1, 0x1b, 0x03, 0x3b] {
        return None;
    }
    Some(displaced(at.wrapping_add(4), i32_at(header, 4)?))
}

impl<'a> Tables<'a> {
    /// Tables at these addresses; `frames_at` is what [`frames_at`] says.
    #[must_use]
    pub fn new(header: &'a [u8], header_at: usize, frames: &'a [u8], frames_at: usize) -> Self {
        Self {
            header,
            header_at,
            frames,
            frames_at,
        }
    }

    /// Address of the last entry that starts at or below `pc`.
    fn search(&self, pc: usize) -> Option<usize> {
        let count = i32_at(self.header, 8)?.cast_unsigned() as usize;
        let table = self.header.get(12..)?;
        let table = table.get(..count.checked_mul(8)?)?;
        let entry = |index: usize| {
            let at = index.checked_mul(8)?;
            Some((i32_at(table, at)?, i32_at(table, at.checked_add(4)?)?))
        };
        let distance = pc.wrapping_sub(self.header_at).cast_signed();
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if entry(middle)?.0 as isize <= distance {
                low = middle.checked_add(1)?;
            } else {
                high = middle;
            }
        }
        let (_, offset) = entry(low.checked_sub(1)?)?;
        Some(displaced(self.header_at, offset))
    }

    /// The row of `pc`, and whether it is of a signal trampoline: whether its caller was interrupted rather than called out.
    #[inline(never)]
    #[must_use]
    pub fn row(&self, pc: usize) -> Option<(Row, bool)> {
        let offset = self.search(pc)?.checked_sub(self.frames_at)?;
        if offset >= self.frames.len() {
            return None;
        }
        let section = EhFrame::new(self.frames, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(self.frames_at as u64);
        let entry = section
            .fde_from_offset(&bases, EhFrameOffset(offset), EhFrame::cie_from_offset)
            .ok()?;
        let pc = pc as u64;
        if !entry.contains(pc) || entry.cie().return_address_register() != Register(RIP as u16) {
            return None;
        }
        let mut program = Program {
            row: EMPTY,
            initial: EMPTY,
            remembered: [EMPTY; REMEMBERED],
            depth: 0,
            location: 0,
            code_factor: entry.cie().code_alignment_factor(),
            data_factor: entry.cie().data_alignment_factor(),
        };
        program.run(entry.cie().instructions(&section, &bases), u64::MAX)?;
        program.initial = program.row;
        program.location = entry.initial_address();
        program.run(entry.instructions(&section, &bases), pc)?;
        Some((program.row, entry.is_signal_trampoline()))
    }

    /// The bytes of an expression.
    #[must_use]
    pub fn expression(&self, length: u16, at: u32) -> Option<Expression<Reader<'a>>> {
        let bytes = self.frames.get(at as usize..)?.get(..usize::from(length))?;
        Some(Expression(EndianSlice::new(bytes, LittleEndian)))
    }
}

/// The execution of an entry's instructions.
struct Program {
    row: Row,
    /// The row that the common entry gives, for `DW_CFA_restore`.
    initial: Row,
    remembered: [Row; REMEMBERED],
    depth: usize,
    location: u64,
    code_factor: u64,
    data_factor: i64,
}

fn place(expression: &UnwindExpression<usize>) -> Option<(u16, u32)> {
    Some((
        expression.length.try_into().ok()?,
        expression.offset.try_into().ok()?,
    ))
}

fn number(register: Register) -> Option<u8> {
    (usize::from(register.0) < REGISTERS).then_some(register.0 as u8)
}

impl Program {
    fn factored(&self, offset: i64) -> Option<i32> {
        offset.checked_mul(self.data_factor)?.try_into().ok()
    }

    /// The rule of a register; of registers that are of no use here, vectors' above all, none.
    fn set(&mut self, register: Register, rule: Rule) {
        if let Some(known) = self.row.rules.get_mut(usize::from(register.0)) {
            *known = rule;
        }
    }

    /// Until the row of `pc` is complete.
    fn run(
        &mut self,
        mut instructions: CallFrameInstructionIter<'_, Reader<'_>>,
        pc: u64,
    ) -> Option<()> {
        use CallFrameInstruction::*;
        while let Some(instruction) = instructions.next().ok()? {
            match instruction {
                SetLoc { address } => {
                    if address > pc {
                        break;
                    }
                    self.location = address;
                }
                AdvanceLoc { delta } => {
                    let delta = u64::from(delta).checked_mul(self.code_factor)?;
                    self.location = self.location.checked_add(delta)?;
                    if self.location > pc {
                        break;
                    }
                }
                DefCfa { register, offset } => {
                    self.row.cfa = Cfa::Register(number(register)?, offset.try_into().ok()?);
                }
                DefCfaSf {
                    register,
                    factored_offset,
                } => {
                    self.row.cfa =
                        Cfa::Register(number(register)?, self.factored(factored_offset)?);
                }
                DefCfaRegister { register } => {
                    let Cfa::Register(known, _) = &mut self.row.cfa else {
                        return None;
                    };
                    *known = number(register)?;
                }
                DefCfaOffset { offset } => self.set_cfa_offset(offset.try_into().ok()?)?,
                DefCfaOffsetSf { factored_offset } => {
                    let offset = self.factored(factored_offset)?;
                    self.set_cfa_offset(offset)?;
                }
                DefCfaExpression { expression } => {
                    let (length, at) = place(&expression)?;
                    self.row.cfa = Cfa::Expression(length, at);
                }
                Undefined { register } => self.set(register, Rule::Undefined),
                SameValue { register } => self.set(register, Rule::Same),
                Offset {
                    register,
                    factored_offset,
                } => {
                    let offset = self.factored(factored_offset.try_into().ok()?)?;
                    self.set(register, Rule::Offset(offset));
                }
                OffsetExtendedSf {
                    register,
                    factored_offset,
                } => {
                    let offset = self.factored(factored_offset)?;
                    self.set(register, Rule::Offset(offset));
                }
                ValOffset {
                    register,
                    factored_offset,
                } => {
                    let offset = self.factored(factored_offset.try_into().ok()?)?;
                    self.set(register, Rule::ValOffset(offset));
                }
                ValOffsetSf {
                    register,
                    factored_offset,
                } => {
                    let offset = self.factored(factored_offset)?;
                    self.set(register, Rule::ValOffset(offset));
                }
                Register {
                    dest_register,
                    src_register,
                } => {
                    let source = number(src_register).map_or(Rule::Undefined, Rule::Register);
                    self.set(dest_register, source);
                }
                Expression {
                    register,
                    expression,
                } => {
                    let (length, at) = place(&expression)?;
                    self.set(register, Rule::Expression(length, at));
                }
                ValExpression {
                    register,
                    expression,
                } => {
                    let (length, at) = place(&expression)?;
                    self.set(register, Rule::ValExpression(length, at));
                }
                Restore { register } => {
                    let rules = &self.initial.rules;
                    if let Some(&rule) = rules.get(usize::from(register.0)) {
                        self.set(register, rule);
                    }
                }
                RememberState => {
                    *self.remembered.get_mut(self.depth)? = self.row;
                    self.depth = self.depth.checked_add(1)?;
                }
                RestoreState => {
                    self.depth = self.depth.checked_sub(1)?;
                    self.row = *self.remembered.get(self.depth)?;
                }
                ArgsSize { .. } | Nop => {}
                // Not of this architecture.
                NegateRaState => return None,
            }
        }
        Some(())
    }

    fn set_cfa_offset(&mut self, to: i32) -> Option<()> {
        let Cfa::Register(_, offset) = &mut self.row.cfa else {
            return None;
        };
        *offset = to;
        Some(())
    }
}

#[cfg(test)]
pub(super) mod tests;
