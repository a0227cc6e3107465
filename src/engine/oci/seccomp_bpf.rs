//! Classic BPF (Documentation/networking/filter.rst) as seccomp(2) takes it: instructions on `struct seccomp_data`.

/// `BPF_LD | BPF_W | BPF_ABS`: the accumulator becomes the word at this offset of `struct seccomp_data`.
pub const LOAD: u16 = 0x20;
pub const JUMP: u16 = 0x05;
pub const JUMP_EQUAL: u16 = 0x15;
pub const JUMP_GREATER: u16 = 0x25;
pub const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub const RETURN: u16 = 0x06;
/// Offset of `nr`.
pub const NUMBER: u32 = 0;
/// Offset of `arch`.
pub const ARCHITECTURE: u32 = 4;

/// `BPF_CLASS`.
const CLASS: u16 = 7;
/// Bytes of a `struct sock_filter`.
const SIZE: usize = 8;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instruction {
    pub code: u16,
    /// How many instructions are left out where the condition of a jump holds.
    pub yes: u8,
    pub no: u8,
    pub operand: u32,
}

/// An instruction that does not jump, or [`JUMP`].
pub const fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, operand }
}

/// A conditional jump.
pub const fn branch(code: u16, yes: u8, no: u8, operand: u32) -> Instruction {
    Instruction { code, yes, no, operand }
}

/// Where a program goes on after an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// With what this returns.
    Return(u32),
    At(usize),
    Either {
        yes: usize,
        no: usize,
    },
    /// Nowhere that can be told from the instruction: it returns what was computed.
    Unknown,
}

impl Instruction {
    /// Where a program goes on after this instruction of it.
    pub fn next(self, at: usize) -> Next {
        let behind = at + 1;
        match self.code {
            RETURN => Next::Return(self.operand),
            JUMP => Next::At(behind.saturating_add(self.operand as usize)),
            code if code & CLASS == RETURN => Next::Unknown,
            code if code & CLASS == JUMP => {
                Next::Either { yes: behind + usize::from(self.yes), no: behind + usize::from(self.no) }
            }
            _ => Next::At(behind),
        }
    }
}

/// The instructions of a program; `None` where it does not consist of whole ones.
pub fn parse(program: &[u8]) -> Option<Vec<Instruction>> {
    let (instructions, []) = program.as_chunks::<SIZE>() else { return None };
    let instruction = |&[code, of_code, yes, no, operand @ ..]: &[u8; SIZE]| Instruction {
        code: u16::from_ne_bytes([code, of_code]),
        yes,
        no,
        operand: u32::from_ne_bytes(operand),
    };
    Some(instructions.iter().map(instruction).collect())
}

/// The reverse of [`parse`].
pub fn bytes(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * SIZE);
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.yes, instruction.no]);
        bytes.extend(instruction.operand.to_ne_bytes());
    }
    bytes
}

/// What a program returns for a call, of which `word` tells the word at an offset; `None` where it asks for one that is not
/// told, or goes on behind its last instruction.
#[cfg(test)]
pub fn run(program: &[Instruction], word: impl Fn(u32) -> Option<u32>) -> Option<u32> {
    const AND: u16 = 0x54;
    const JUMP_SET: u16 = 0x45;
    let (mut at, mut accumulator) = (0, 0u32);
    while let Some(instruction) = program.get(at) {
        let operand = instruction.operand;
        at += 1;
        let taken = match instruction.code {
            LOAD => {
                accumulator = word(operand)?;
                continue;
            }
            AND => {
                accumulator &= operand;
                continue;
            }
            JUMP => {
                at += operand as usize;
                continue;
            }
            RETURN => return Some(operand),
            JUMP_EQUAL => accumulator == operand,
            JUMP_GREATER => accumulator > operand,
            JUMP_GREATER_OR_EQUAL => accumulator >= operand,
            JUMP_SET => accumulator & operand != 0,
            other => panic!("{other:#x}"),
        };
        at += usize::from(if taken { instruction.yes } else { instruction.no });
    }
    assert_eq!(at, program.len(), "a jump past the first instruction of what may follow");
    None
}
