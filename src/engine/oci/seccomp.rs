//! The seccomp filter of a configuration (runtime-spec config-linux.md, Seccomp), compiled by libseccomp in smaster
//! and loaded by stage2. Compiling a profile of 400 calls takes longer than all the rest of a container's creation, so
//! programs are kept, by the hash of what they were made from.

use crate::sys::{Errno, On, errno_of};
use anyhow::{Context, Result, bail};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Directory of the kept programs below the state root. No container can have this name: an id has no `@`.
const CACHE: &str = "seccomp@cache";
/// `EPERM`, what a denied call returns where the profile does not say.
const DEFAULT_ERRNO: i32 = libc::EPERM;
/// Level of libseccomp at which the filter is a binary tree: dearer to compile, cheaper on every call.
const OPTIMIZE: u32 = 2;

/// `SECCOMP_FILTER_FLAG_*` of seccomp(2).
pub fn flags(seccomp: &LinuxSeccomp) -> u32 {
    seccomp.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0x20,
            }
    })
}

/// The compiled program, to be read from the descriptor; from the cache below `root` where it is there, and kept there
/// otherwise.
///
/// # Errors
/// Where the profile cannot be compiled. A cache that cannot be used is none.
pub fn program(seccomp: &LinuxSeccomp, root: &Path) -> Result<OwnedFd> {
    let name = cache_key(seccomp)?;
    let cache = open_cache(root).ok();
    if let Some(cache) = &cache
        && let Some(program) = cached(cache, &name)
    {
        return Ok(program);
    }
    let filter = compile(seccomp)?;
    match cache {
        Some(cache) => keep(&cache, &name, &filter).or_else(|_| in_memory(&filter)),
        None => in_memory(&filter),
    }
}

fn cache_key(seccomp: &LinuxSeccomp) -> Result<String> {
    let version = libseccomp::ScmpVersion::current().context("ask for the version of libseccomp")?;
    let mut hash = Sha256::new();
    hash.update(format!("rtx 1, libseccomp {version}, optimize {OPTIMIZE}, {}\n", std::env::consts::ARCH));
    hash.update(serde_json::to_vec(seccomp)?);
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn open_cache(root: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(root, flags, Mode::empty())?;
    match mkdirat(&root, CACHE, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let cache = openat(&root, CACHE, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    // Whoever can write here decides what every later container is filtered by.
    let stat = fstat(&cache)?;
    if stat.st_uid != nix::unistd::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Err(Errno::EPERM);
    }
    Ok(cache)
}

fn cached(cache: &OwnedFd, name: &str) -> Option<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let program = openat(cache, name, flags, Mode::empty()).ok()?;
    let stat = fstat(&program).ok()?;
    let is_ours = stat.st_uid == nix::unistd::geteuid().as_raw() && stat.st_mode & 0o022 == 0;
    (is_ours && stat.st_size > 0 && stat.st_size % 8 == 0).then_some(program)
}

fn keep(cache: &OwnedFd, name: &str, filter: &ScmpFilterContext) -> Result<OwnedFd> {
    // Two creates at once write the same bytes under different names.
    let temporary = format!("{name}.{}", std::process::id());
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = openat(cache, temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR).on("create", &temporary)?;
    filter.export_bpf(&file).context("export the seccomp program")?;
    renameat(cache, temporary.as_str(), cache, name).on("rename", &temporary)?;
    // What stage2 gets must not be writable: a copy of the descriptor would reach into the cache.
    openat(cache, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
        .on("open", name)
        .map_err(Into::into)
}

fn in_memory(filter: &ScmpFilterContext) -> Result<OwnedFd> {
    let mut file = File::from(crate::sys::memfd::create(c"seccomp", false).on("memfd_create", "seccomp")?);
    filter.export_bpf(&file).context("export the seccomp program")?;
    std::io::Seek::rewind(&mut file).map_err(|error| errno_of(&error)).on("rewind", "seccomp")?;
    Ok(file.into())
}

fn compile(seccomp: &LinuxSeccomp) -> Result<ScmpFilterContext> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut filter = ScmpFilterContext::new(default).context("seccomp: make a filter")?;
    filter.set_ctl_nnp(false).context("seccomp: leave no_new_privs alone")?;
    // Level 2 came with libseccomp 2.5; without it the program is only slower.
    let _ = filter.set_ctl_optimize(OPTIMIZE);
    for arch in seccomp.architectures().iter().flatten() {
        filter.add_arch(architecture(*arch)).with_context(|| format!("seccomp: add architecture {arch:?}"))?;
    }
    for (index, rule) in seccomp.syscalls().iter().flatten().enumerate() {
        add_rule(&mut filter, rule, default).with_context(|| format!("/linux/seccomp/syscalls/{index}"))?;
    }
    Ok(filter)
}

fn add_rule(filter: &mut ScmpFilterContext, rule: &LinuxSyscall, default: ScmpAction) -> Result<()> {
    let action = action(rule.action(), rule.errno_ret())?;
    // libseccomp refuses a rule that only repeats the default.
    if action == default {
        return Ok(());
    }
    let arguments = rule.args().clone().unwrap_or_default();
    for name in rule.names() {
        // A call that this libseccomp does not know is one that this kernel hardly has: profiles list calls of every
        // age and architecture.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        for comparisons in comparisons(&arguments) {
            let result = match comparisons.as_slice() {
                [] => filter.add_rule(action, call),
                comparisons => filter.add_rule_conditional(action, call, comparisons),
            };
            result.with_context(|| format!("add a rule for {name}"))?;
        }
    }
    Ok(())
}

/// libseccomp takes one comparison an argument. Several for the same argument are alternatives, as runc has it.
fn comparisons(arguments: &[LinuxSeccompArg]) -> Vec<Vec<ScmpArgCompare>> {
    let repeated = (0..6).any(|index| arguments.iter().filter(|argument| argument.index() == index).count() > 1);
    if repeated {
        arguments.iter().map(|argument| vec![comparison(argument)]).collect()
    } else {
        vec![arguments.iter().map(comparison).collect()]
    }
}

fn comparison(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let (value, second) = (argument.value(), argument.value_two().unwrap_or(0));
    let (operator, datum) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(value), second),
    };
    ScmpArgCompare::new(argument.index() as u32, operator, datum)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    let errno = errno.map_or(DEFAULT_ERRNO, |errno| errno as i32);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno as u16),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => {
            bail!("SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath, which rtx does not support yet: remove the action")
        }
    })
}

fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
    }
}
