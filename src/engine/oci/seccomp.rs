//! The seccomp filter of a configuration (runtime-spec config-linux.md, Seccomp), compiled by libseccomp in smaster, made
//! shorter ([`super::seccomp_ranges`]), and loaded by stage2. Compiling a profile of 400 calls takes longer than all the
//! rest of a container's creation, so programs are kept, by the hash of what they were made from.

use crate::config::envelope::{ListenerPlan, SeccompPlan};
use crate::sys::{Errno, On, errno_of};
use anyhow::{Context, Result};
use blake2::{Blake2b256, Digest};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall, Spec,
};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Directory of the kept programs below the state root. No container can have this name: an id has no `@`.
pub const CACHE: &str = "seccomp@cache";
/// `EPERM`, what a denied call returns where the profile does not say.
const DEFAULT_ERRNO: i32 = libc::EPERM;
/// Level of libseccomp at which the filter is a binary tree: dearer to compile, cheaper on every call.
const OPTIMIZE: u32 = 2;

/// What Docker's profile takes as JSON without spaces, and more.
const TYPICAL: usize = 8 << 10;
/// Length of the hash that a kept program ends with.
const SEAL: usize = 32;
/// `BPF_MAXINSNS` instructions of eight bytes: no kernel takes more.
const LARGEST: i64 = 4096 * 8;

/// `SECCOMP_FILTER_FLAG_*` of seccomp(2).
fn flags(seccomp: &LinuxSeccomp) -> u32 {
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

/// The profile of a configuration.
pub fn profile(spec: &Spec) -> Option<&LinuxSeccomp> {
    spec.linux().as_ref()?.seccomp().as_ref()
}

/// What stage2 has to know of a profile beside its program.
pub fn plan(profile: &LinuxSeccomp) -> SeccompPlan {
    let notifies = profile.syscalls().iter().flatten().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    let listener = notifies.then(|| ListenerPlan {
        path: profile.listener_path().as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        metadata: profile.listener_metadata().clone().unwrap_or_default(),
    });
    SeccompPlan { flags: flags(profile), listener }
}

/// A compiled program: the first bytes of a file.
pub struct Program {
    pub file: OwnedFd,
    pub length: u64,
}

/// The compiled program; from the cache below `root` where it is there, and kept there otherwise.
///
/// # Errors
/// Where the profile cannot be compiled. A cache that cannot be used is none.
pub fn program(seccomp: &LinuxSeccomp, root: &Path) -> Result<Program> {
    let name = cache_key(seccomp)?;
    let cache = open_cache(root).ok();
    if let Some(cache) = &cache
        && let Some(program) = cached(cache, &name)
    {
        return Ok(program);
    }
    let program = super::seccomp_ranges::shorten(complete(seccomp)?);
    let kept = cache.as_ref().and_then(|cache| keep(cache, &name, &program));
    kept.map_or_else(|| in_memory(&program), Ok)
}

fn cache_key(seccomp: &LinuxSeccomp) -> Result<String> {
    let version = libseccomp::ScmpVersion::current().context("ask for the version of libseccomp")?;
    let mut hash = Blake2b256::new();
    hash.update(format!("rtx 5, libseccomp {version}, optimize {OPTIMIZE}, {}\n", std::env::consts::ARCH));
    let mut profile = Vec::with_capacity(TYPICAL);
    serde_json::to_writer(&mut profile, seccomp)?;
    hash.update(&profile);
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or_default());
    Ok(hash.finalize().iter().flat_map(digits).collect())
}

fn open_cache(root: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(root, flags, Mode::empty())?;
    match mkdirat(&root, CACHE, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let cache = openat(&root, CACHE, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    // Of the root as well: who can rename in it can put another directory in this one's place.
    if belongs_to_us(&fstat(&root)?) && belongs_to_us(&fstat(&cache)?) { Ok(cache) } else { Err(Errno::EPERM) }
}

/// The program that is kept under a name. It ends with a hash of itself and of its name: a file that a crash of the host
/// left half written, or that was copied to another name, is not what this profile was compiled to.
fn cached(cache: &OwnedFd, name: &str) -> Option<Program> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::from(openat(cache, name, flags, Mode::empty()).ok()?);
    let stat = fstat(&file).ok()?;
    let is_file = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    if !is_file || !belongs_to_us(&stat) || stat.st_size > LARGEST + SEAL as i64 {
        return None;
    }
    let mut content = vec![0; stat.st_size as usize];
    // Read at places, so that stage2 begins at the start.
    file.read_exact_at(&mut content, 0).ok()?;
    let length = content.len().checked_sub(SEAL).filter(|length| *length > 0 && length.is_multiple_of(8))?;
    let (program, found) = content.split_at(length);
    (seal(name, program) == found).then(|| Program { file: file.into(), length: length as u64 })
}

/// The kept programs below a root that are not what they say, as a crash of the host may leave them. With `remove` they are
/// removed; another create may have put a whole one in such a place meanwhile, which is then compiled once more.
pub fn damaged(root: &Path, remove: bool) -> Vec<PathBuf> {
    let path = root.join(CACHE);
    // A cache that is not ours is not used, and is not ours to clear.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let Ok(cache) = open(&path, flags, Mode::empty()) else { return Vec::new() };
    if !fstat(&cache).is_ok_and(|stat| belongs_to_us(&stat)) {
        return Vec::new();
    }
    let is_key = |name: &str| name.len() == 2 * SEAL && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let entries = crate::sys::dir::entries(&path).unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|entry| entry.name.into_string().ok())
        .filter(|name| is_key(name) && cached(&cache, name).is_none())
        .filter(|name| !remove || unlinkat(&cache, name.as_str(), UnlinkatFlags::NoRemoveDir).is_ok())
        .map(|name| path.join(name))
        .collect()
}

fn seal(name: &str, program: &[u8]) -> Vec<u8> {
    let mut hash = Blake2b256::new();
    hash.update(name);
    hash.update(program);
    hash.finalize().to_vec()
}

/// Whoever can write here decides what later containers are filtered by.
fn belongs_to_us(stat: &FileStat) -> bool {
    stat.st_uid == nix::unistd::geteuid().as_raw() && stat.st_mode & 0o022 == 0
}

/// Keeps a program. It has no name until it is whole: nothing of it stays when this process is killed before.
fn keep(cache: &OwnedFd, name: &str, program: &[u8]) -> Option<Program> {
    let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    let file = File::from(openat(cache, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR).ok()?);
    file.write_all_at(program, 0).ok()?;
    file.write_all_at(&seal(name, program), program.len() as u64).ok()?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(AT_FDCWD, unnamed.as_str(), cache, name, AtFlags::AT_SYMLINK_FOLLOW);
    match link() {
        // Another create was faster, or what is there is damaged.
        Err(Errno::EEXIST) if cached(cache, name).is_none() => {
            unlinkat(cache, name, UnlinkatFlags::NoRemoveDir).ok()?;
            link().ok()?;
        }
        Err(Errno::EEXIST) => {}
        other => other.ok()?,
    }
    // What stage2 gets must not be writable: a copy of the descriptor would reach into the cache.
    cached(cache, name)
}

/// The program as libseccomp has it, with what it does not know before it.
pub(super) fn complete(seccomp: &LinuxSeccomp) -> Result<Vec<u8>> {
    let mut program = super::seccomp_unknown::prologue(seccomp);
    program.extend(export(&compile(seccomp)?)?);
    Ok(program)
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>> {
    let mut file = memory()?;
    filter.export_bpf(&file).context("export the seccomp program")?;
    let mut program = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut program))
        .map_err(|error| errno_of(&error))
        .on("read", "the seccomp program")?;
    Ok(program)
}

fn in_memory(program: &[u8]) -> Result<Program> {
    let file = memory()?;
    file.write_all_at(program, 0).map_err(|error| errno_of(&error)).on("write", "the seccomp program")?;
    Ok(Program { file: file.into(), length: program.len() as u64 })
}

fn memory() -> Result<File> {
    Ok(File::from(crate::sys::memfd::create(c"seccomp", false).on("memfd_create", "seccomp")?))
}

fn compile(seccomp: &LinuxSeccomp) -> Result<ScmpFilterContext> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default).context("seccomp: make a filter")?;
    filter.set_ctl_nnp(false).context("seccomp: leave no_new_privs alone")?;
    // Level 2 came with libseccomp 2.5; without it the program is only slower.
    let _ = filter.set_ctl_optimize(OPTIMIZE);
    for (index, arch) in seccomp.architectures().iter().flatten().enumerate() {
        filter.add_arch(architecture(*arch)).with_context(|| unknown_architecture(index, *arch))?;
    }
    for (index, rule) in seccomp.syscalls().iter().flatten().enumerate() {
        add_rule(&mut filter, rule, default).with_context(|| format!("/linux/seccomp/syscalls/{index}"))?;
    }
    Ok(filter)
}

/// Architectures come with versions of libseccomp; one that is of no use here was found before.
fn unknown_architecture(index: usize, arch: Arch) -> String {
    let name = serde_json::to_string(&arch).unwrap_or_default();
    let version = libseccomp::ScmpVersion::current().map_or_else(|_| String::new(), |version| format!(" {version}"));
    format!("/linux/seccomp/architectures/{index}: libseccomp{version} does not take {name}: remove it")
}

fn add_rule(filter: &mut ScmpFilterContext, rule: &LinuxSyscall, default: ScmpAction) -> Result<()> {
    let action = action(rule.action(), rule.errno_ret());
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

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> ScmpAction {
    let errno = errno.map_or(DEFAULT_ERRNO, |errno| errno as i32);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno as u16),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
    }
}

pub(super) fn architecture(arch: Arch) -> ScmpArch {
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
