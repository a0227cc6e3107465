//! Calls about processes that nix lacks: pidfds, prctl(2), the session keyring, setns(2) by number.

use super::{check, fd::own};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// pidfd_open(2).
///
/// # Errors
/// `ESRCH` where there is no such process.
pub fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes only integers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// pidfd_send_signal(2).
///
/// # Errors
/// `ESRCH` where the process has ended.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> nix::Result<()> {
    // SAFETY: a null siginfo is allowed and means what kill(2) would send.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// setns(2): joins the namespaces in `kinds` (`CLONE_NEW*`) of what `fd` refers to, a namespace file or a pidfd.
///
/// # Errors
/// The kernel's; `EINVAL` where the file is not of that kind.
pub fn setns(fd: impl AsFd, kinds: i32) -> nix::Result<()> {
    // SAFETY: the call takes only integers.
    check(libc::c_long::from(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kinds) })).map(drop)
}

/// Whether this process may enter another pid namespace for its children and come back. setns(2) wants CAP_SYS_ADMIN in
/// the user namespace that owns the one it goes to, so root of a user namespace that kept its maker's pid namespace may
/// not. Asked by going to where we are, which changes nothing.
pub fn can_return_to_pid_namespace() -> bool {
    let own = nix::fcntl::open("/proc/self/ns/pid", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    own.is_ok_and(|own| setns(&own, libc::CLONE_NEWPID).is_ok())
}

/// unshare(2).
///
/// # Errors
/// The kernel's.
pub fn unshare(kinds: i32) -> nix::Result<()> {
    // SAFETY: the call takes only integers.
    check(libc::c_long::from(unsafe { libc::unshare(kinds) })).map(drop)
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> nix::Result<()> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: the options used below take integers, or the address of a NUL-terminated string that outlives the call.
    check(libc::c_long::from(unsafe { libc::prctl(option, value, NONE, NONE, NONE) })).map(drop)
}

/// Whether others of the same user may look into this process (`PR_SET_DUMPABLE`).
///
/// # Errors
/// The kernel's.
pub fn set_dumpable(dumpable: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into())
}

/// The name of this process that others see, 15 bytes at most (`PR_SET_NAME`).
///
/// # Errors
/// The kernel's.
pub fn set_name(name: &std::ffi::CStr) -> nix::Result<()> {
    prctl(libc::PR_SET_NAME, name.as_ptr() as libc::c_ulong)
}

/// The signal this process gets when its parent dies (`PR_SET_PDEATHSIG`); 0 for none.
///
/// # Errors
/// The kernel's.
pub fn set_parent_death_signal(signal: i32) -> nix::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong)
}

/// Has a child killed when the process that starts it dies.
pub fn die_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec the closure makes one system call and touches nothing else.
    unsafe { command.pre_exec(|| set_parent_death_signal(libc::SIGKILL).map_err(std::io::Error::from)) };
}

/// Makes this process the parent of its orphaned descendants (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// The kernel's.
pub fn set_child_subreaper(on: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, on.into())
}

/// Keeps permitted capabilities over the next change from user 0 to another (`PR_SET_KEEPCAPS`).
///
/// # Errors
/// The kernel's.
pub fn set_keep_capabilities(on: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, on.into())
}

/// `PR_SET_NO_NEW_PRIVS`.
///
/// # Errors
/// The kernel's.
pub fn set_no_new_privileges() -> nix::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Makes a new session keyring called `name` and grants its possessor the search right, as runc and crun do.
///
/// # Errors
/// `EDQUOT` where the user's quota of keys is used up, `ENOSYS` where the kernel has no keyrings.
pub fn join_session_keyring(name: &std::ffi::CStr) -> nix::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    const DESCRIBE: libc::c_long = 6;
    const SETPERM: libc::c_long = 5;
    const USER_SEARCH: u32 = 0x0008_0000;
    // SAFETY: the name is NUL-terminated.
    let key = check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    let mut buffer = [0u8; 512];
    // SAFETY: the kernel writes at most the length given.
    let length = check(unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, key, buffer.as_mut_ptr(), buffer.len()) })?;
    let text = String::from_utf8_lossy(&buffer[..(length as usize).min(buffer.len())]);
    // The description is "type;uid;gid;permissions;name", the permissions in hexadecimal.
    if let Some(permissions) = text.split(';').nth(3).and_then(|field| u32::from_str_radix(field, 16).ok()) {
        // SAFETY: the call takes only integers.
        check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, key, permissions | USER_SEARCH) })?;
    }
    Ok(())
}

/// personality(2).
///
/// # Errors
/// The kernel's.
pub fn set_personality(persona: u32) -> nix::Result<()> {
    // SAFETY: the call takes only an integer.
    check(libc::c_long::from(unsafe { libc::personality(libc::c_ulong::from(persona)) })).map(drop)
}

/// ioprio_set(2) for this process.
///
/// # Errors
/// `EPERM` for the realtime class without the privilege.
pub fn set_io_priority(value: i32) -> nix::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the call takes only integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// setgroups(2) with raw ids.
///
/// # Errors
/// `EPERM` where the user namespace denies it.
pub fn set_groups(groups: &[u32]) -> nix::Result<()> {
    // SAFETY: the pointer and the length describe one live slice.
    check(libc::c_long::from(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })).map(drop)
}

/// setresgid(2) and setresuid(2): the group first, because the user may not be allowed to afterwards.
///
/// # Errors
/// `EINVAL` where the user namespace does not map the id.
pub fn set_ids(uid: u32, gid: u32) -> nix::Result<()> {
    // SAFETY: the calls take only integers.
    check(libc::c_long::from(unsafe { libc::setresgid(gid, gid, gid) }))?;
    // SAFETY: as above.
    check(libc::c_long::from(unsafe { libc::setresuid(uid, uid, uid) })).map(drop)
}

/// setrlimit by number, through prlimit64(2).
///
/// # Errors
/// `EPERM` where the hard limit would rise without CAP_SYS_RESOURCE.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is alive; a null pointer for the old one is allowed.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>())
    })
    .map(drop)
}

/// Unblocks every signal.
///
/// # Errors
/// The kernel's.
pub fn unblock_signals() -> nix::Result<()> {
    nix::sys::signal::SigSet::empty().thread_set_mask()
}

/// setdomainname(2): the NIS domain name of the UTS namespace.
///
/// # Errors
/// `EINVAL` where the name is longer than 64 bytes.
pub fn set_domainname(name: &str) -> nix::Result<()> {
    // SAFETY: the pointer and the length describe one live slice.
    check(libc::c_long::from(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })).map(drop)
}

/// Gives SIGPIPE its default action back, which Rust's runtime replaced when this process started: a program that is
/// executed inherits what is ignored.
pub fn restore_sigpipe() {
    // SAFETY: SIG_DFL is no handler; nothing of this process runs in signal context.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
