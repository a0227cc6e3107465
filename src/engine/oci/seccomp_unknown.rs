//! What a seccomp profile says of system calls that are newer than itself.
//!
//! A profile that lists what is allowed denies the rest, commonly with EPERM. Programs that try a new call and go back to
//! an older one expect ENOSYS, and stop at EPERM. So a call whose number is above all that the profile names gets ENOSYS,
//! as runc has it, unless the profile says itself what it wants. The instructions for that go before libseccomp's.

use super::seccomp::architecture;
use super::seccomp_bpf::{
    ARCHITECTURE, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, NUMBER, RETURN, branch,
    bytes, plain,
};
use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
use std::collections::BTreeMap;

const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Set in the numbers of x32, whose calls have the architecture of x86_64 (syscall(2)).
const X32: u32 = 0x4000_0000;

/// The instructions; none where the profile decides itself.
pub fn prologue(seccomp: &LinuxSeccomp) -> Vec<u8> {
    let decides = match seccomp.default_action() {
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace => true,
        _ => seccomp.default_errno_ret() == Some(libc::ENOSYS as u32),
    };
    if decides { Vec::new() } else { bytes(&assemble(&last_calls(seccomp))) }
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

fn assemble(last: &LastCalls) -> Vec<Instruction> {
    let unknown = plain(RETURN, ENOSYS);
    let end = plain(JUMP, 0);
    let mut blocks: Vec<Vec<Instruction>> = Vec::new();
    for (audit, largest) in &last.by_audit {
        let mut block = vec![plain(LOAD, NUMBER)];
        if *audit == AUDIT_ARCH_X86_64 {
            match last.x32 {
                Some(x32) => block.extend([
                    branch(JUMP_GREATER_OR_EQUAL, 0, 3, X32),
                    branch(JUMP_GREATER, 0, 1, x32),
                    unknown,
                    end,
                ]),
                // Calls of an architecture that the profile does not have are libseccomp's to refuse.
                None => block.extend([branch(JUMP_GREATER_OR_EQUAL, 0, 1, X32), end]),
            }
        }
        block.extend([branch(JUMP_GREATER, 0, 1, *largest), unknown, end]);
        block.insert(0, branch(JUMP_EQUAL, 0, block.len() as u8, *audit));
        blocks.push(block);
    }
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    program.extend(blocks.into_iter().flatten());
    // A jump leads to the first instruction of libseccomp's program.
    let length = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if instruction.code == JUMP {
            instruction.operand = (length - at - 1) as u32;
        }
    }
    program
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
    use super::super::seccomp_bpf;
    use super::*;

    fn profile(text: &str) -> LinuxSeccomp {
        serde_json::from_str(text).unwrap()
    }

    /// What the instructions return for a call; `None` where libseccomp's program would go on.
    fn run(program: &[Instruction], arch: u32, number: u32) -> Option<u32> {
        seccomp_bpf::run(program, |offset| Some(if offset == NUMBER { number } else { arch }))
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
