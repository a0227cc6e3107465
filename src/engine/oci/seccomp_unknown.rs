//! What a seccomp profile says of system calls that are newer than itself.
//!
//! A profile that lists what is allowed denies the rest, commonly with EPERM. Programs that try a new call and go back to
//! an older one expect ENOSYS, and stop at EPERM. So a call whose number is above all that the profile names gets ENOSYS,
//! as runc has it, unless the profile says itself what it wants. The instructions for that go before libseccomp's.

use super::seccomp::architecture;
use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
use std::collections::BTreeMap;

// classic BPF (Documentation/networking/filter.rst) on `struct seccomp_data` (seccomp(2)).
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Set in the numbers of x32, whose calls have the architecture of x86_64 (syscall(2)).
const X32: u32 = 0x4000_0000;

type Instruction = (u16, u8, u8, u32);

/// The instructions; none where the profile decides itself.
pub fn prologue(seccomp: &LinuxSeccomp) -> Vec<u8> {
    let decides = match seccomp.default_action() {
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace => true,
        _ => seccomp.default_errno_ret() == Some(libc::ENOSYS as u32),
    };
    if decides { Vec::new() } else { assemble(&last_calls(seccomp)) }
}

/// The largest number that the profile names, by architecture; that of x32 apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct LastCalls {
    by_audit: BTreeMap<u32, u32>,
    x32: Option<u32>,
}

fn last_calls(seccomp: &LinuxSeccomp) -> LastCalls {
    let mut last = LastCalls::default();
    let listed = seccomp.architectures().iter().flatten().map(|arch| architecture(*arch));
    for arch in std::iter::once(ScmpArch::Native).chain(listed) {
        let arch = if arch == ScmpArch::Native { ScmpArch::native() } else { arch };
        let names = seccomp.syscalls().iter().flatten().flat_map(|rule| rule.names());
        let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
        // What the architecture does not have is negative.
        let Some(largest) = numbers.filter_map(|call| u32::try_from(i32::from(call)).ok()).max() else { continue };
        match (arch, audit(arch)) {
            (ScmpArch::X32, _) => last.x32 = Some(largest),
            (_, Some(audit)) => drop(last.by_audit.insert(audit, largest)),
            (_, None) => {}
        }
    }
    last
}

fn assemble(last: &LastCalls) -> Vec<u8> {
    let mut blocks: Vec<Vec<Instruction>> = Vec::new();
    for (audit, largest) in &last.by_audit {
        let mut block = vec![(LOAD, 0, 0, NUMBER)];
        if *audit == AUDIT_ARCH_X86_64 {
            match last.x32 {
                Some(x32) => block.extend([
                    (JUMP_GREATER_OR_EQUAL, 0, 3, X32),
                    (JUMP_GREATER, 0, 1, x32),
                    (RETURN, 0, 0, ENOSYS),
                    (JUMP, 0, 0, 0),
                ]),
                // Calls of an architecture that the profile does not have are libseccomp's to refuse.
                None => block.extend([(JUMP_GREATER_OR_EQUAL, 0, 1, X32), (JUMP, 0, 0, 0)]),
            }
        }
        block.extend([(JUMP_GREATER, 0, 1, *largest), (RETURN, 0, 0, ENOSYS), (JUMP, 0, 0, 0)]);
        block.insert(0, (JUMP_EQUAL, 0, block.len() as u8, *audit));
        blocks.push(block);
    }
    let mut program: Vec<Instruction> = vec![(LOAD, 0, 0, ARCHITECTURE)];
    program.extend(blocks.into_iter().flatten());
    // A jump leads to the first instruction of libseccomp's program.
    let length = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if instruction.0 == JUMP {
            instruction.3 = (length - at - 1) as u32;
        }
    }
    let bytes = |(code, yes, no, operand): &Instruction| {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&code.to_ne_bytes());
        (bytes[2], bytes[3]) = (*yes, *no);
        bytes[4..].copy_from_slice(&operand.to_ne_bytes());
        bytes
    };
    program.iter().flat_map(bytes).collect()
}

/// `AUDIT_ARCH_*` of linux/audit.h: the machine of elf(5), with a bit for 64 bits and one for little endian.
fn audit(arch: ScmpArch) -> Option<u32> {
    const WIDE: u32 = 0x8000_0000;
    const LITTLE: u32 = 0x4000_0000;
    Some(match arch {
        ScmpArch::X86 => 3 | LITTLE,
        ScmpArch::X8664 => AUDIT_ARCH_X86_64,
        ScmpArch::Arm => 40 | LITTLE,
        ScmpArch::Aarch64 => 183 | WIDE | LITTLE,
        ScmpArch::Ppc => 20,
        ScmpArch::Ppc64 => 21 | WIDE,
        ScmpArch::Ppc64Le => 21 | WIDE | LITTLE,
        ScmpArch::S390 => 22,
        ScmpArch::S390X => 22 | WIDE,
        ScmpArch::Riscv64 => 243 | WIDE | LITTLE,
        ScmpArch::Loongarch64 => 258 | WIDE | LITTLE,
        // Numbers of several calling conventions share one architecture elsewhere.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> LinuxSeccomp {
        serde_json::from_str(text).unwrap()
    }

    /// What the instructions return for a call; `None` where libseccomp's program would go on.
    fn run(program: &[u8], arch: u32, number: u32) -> Option<u32> {
        let word = |at: usize| u32::from_ne_bytes(program[at..at + 4].try_into().unwrap());
        let (mut at, mut accumulator) = (0, 0);
        while at < program.len() / 8 {
            let code = u16::from_ne_bytes(program[at * 8..at * 8 + 2].try_into().unwrap());
            let (yes, no, operand) = (program[at * 8 + 2], program[at * 8 + 3], word(at * 8 + 4));
            at += 1;
            let taken = match code {
                LOAD => {
                    accumulator = if operand == NUMBER { number } else { arch };
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
                other => panic!("{other:#x}"),
            };
            at += usize::from(if taken { yes } else { no });
        }
        assert_eq!(at, program.len() / 8, "a jump past the first instruction of the program behind");
        None
    }

    #[test]
    fn calls_above_the_last_are_unknown() {
        let last = LastCalls { by_audit: [(AUDIT_ARCH_X86_64, 400), (3 | 0x4000_0000, 300)].into(), x32: None };
        let program = assemble(&last);
        for (arch, number, expected) in [
            (AUDIT_ARCH_X86_64, 400, None),
            (AUDIT_ARCH_X86_64, 401, Some(ENOSYS)),
            (AUDIT_ARCH_X86_64, X32 | 5, None),
            (3 | 0x4000_0000, 300, None),
            (3 | 0x4000_0000, 301, Some(ENOSYS)),
            (40, 9999, None),
        ] {
            assert_eq!(run(&program, arch, number), expected, "{arch:#x} {number:#x}");
        }
        let program = assemble(&LastCalls { x32: Some(X32 | 500), ..last });
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, X32 | 500), None);
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, X32 | 501), Some(ENOSYS));
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, 401), Some(ENOSYS));
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, 400), None);
    }

    #[test]
    fn a_profile_that_allows_or_says_enosys_decides_itself() {
        let rule = r#""syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]"#;
        for own in [r#""defaultAction":"SCMP_ACT_ALLOW""#, r#""defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38"#] {
            assert!(prologue(&profile(&format!("{{{own},{rule}}}"))).is_empty(), "{own}");
        }
        assert!(!prologue(&profile(&format!(r#"{{"defaultAction":"SCMP_ACT_KILL",{rule}}}"#))).is_empty());
    }
}
