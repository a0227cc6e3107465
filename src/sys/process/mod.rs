//! Calls about processes that nix lacks: prctl(2), the session keyring, ids and limits; pidfds and setns(2) beside it.

mod children;
mod ignored;
mod namespaces;
mod pidfd;
mod program;

pub use children::{Child, ended, has_child_ended, learn_of_ends, try_wait, wait, wait_and_leave};
pub use ignored::{stop_ignoring, stop_ignoring_any};
pub use namespaces::{is_initial_cgroup_namespace, is_own_namespace, setns, unshare};
pub use pidfd::{child_pidfd, end_events, end_timeout, has_ended, is_pidfd, pidfd_getfd, pidfd_open, pidfd_signal};
pub use program::{Output, Program};

use super::{Errno, check, dir};

fn prctl(option: libc::c_int, value: libc::c_ulong) -> nix::Result<()> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: the options used below take integers, or the address of a string or of a number that outlives the call.
    check(libc::c_long::from(unsafe { libc::prctl(option, value, NONE, NONE, NONE) })).map(drop)
}

/// Whether others of the same user may look into this process (`PR_SET_DUMPABLE`).
///
/// # Errors
/// The kernel's.
pub fn set_dumpable(dumpable: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into())
}

/// This process is not dumpable until this is dropped.
pub struct Undumpable {
    was_dumpable: bool,
}

impl Undumpable {
    /// # Errors
    /// The kernel's.
    pub fn new() -> nix::Result<Self> {
        // SAFETY: the call takes only integers.
        let dumpable = check(libc::c_long::from(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }))?;
        set_dumpable(false)?;
        Ok(Self { was_dumpable: dumpable == 1 })
    }
}

impl Drop for Undumpable {
    fn drop(&mut self) {
        if self.was_dumpable {
            let _ = set_dumpable(true);
        }
    }
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

/// What a signal says, in lower case (strsignal(3)); a real-time signal has a number.
pub fn signal_description(signal: i32) -> String {
    if signal > libc::SIGSYS {
        return format!("signal {signal}");
    }
    // SAFETY: what strsignal returns is NUL-terminated and stays until the next call of this thread.
    let text = unsafe { std::ffi::CStr::from_ptr(libc::strsignal(signal)) };
    text.to_string_lossy().to_lowercase()
}

/// The signal that this process gets when its parent dies (`PR_GET_PDEATHSIG`); 0 for none.
///
/// # Errors
/// The kernel's.
pub fn parent_death_signal() -> nix::Result<i32> {
    let mut signal: libc::c_int = 0;
    prctl(libc::PR_GET_PDEATHSIG, (&raw mut signal) as libc::c_ulong)?;
    Ok(signal)
}

/// fork(2), for a process that has one thread: the child goes on with everything that this one has. Its pid in the parent,
/// `None` in the child.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`; `EBUSY` where there are other threads, which the child would lack with what they have locked.
pub fn fork() -> nix::Result<Option<i32>> {
    if dir::entries(std::path::Path::new("/proc/self/task")).is_ok_and(|tasks| tasks.len() > 1) {
        return Err(Errno::EBUSY);
    }
    // SAFETY: with one thread no lock can be held by another.
    let pid = check(libc::c_long::from(unsafe { libc::fork() }))?;
    Ok((pid != 0).then_some(pid as i32))
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

/// setgroups(2) with raw ids, for a process with one thread: the C library's would block all signals around it, to tell the
/// others.
///
/// # Errors
/// `EPERM` where the user namespace denies it.
pub fn set_groups(groups: &[u32]) -> nix::Result<()> {
    // SAFETY: the pointer and the length describe one live slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// setresgid(2) and setresuid(2): the group first, because the user may not be allowed to afterwards. For a process with one
/// thread, as [`set_groups`].
///
/// # Errors
/// `EINVAL` where the user namespace does not map the id.
pub fn set_ids(uid: u32, gid: u32) -> nix::Result<()> {
    // SAFETY: the calls take only integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
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

/// Ends this process at once, whatever a seccomp filter forbids it: exit_group(2), or else the thread, or else by an instruction
/// that there is none of. The C library's exit would try for ever.
pub fn leave(code: i32) -> ! {
    // SAFETY: neither takes more than the code, and what returns has done nothing.
    unsafe {
        libc::syscall(libc::SYS_exit_group, code);
        libc::syscall(libc::SYS_exit, code);
    }
    trap()
}

fn trap() -> ! {
    // SAFETY: the instruction ends the process by a signal, which the kernel lets nobody ignore.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("ud2", options(noreturn, nomem, nostack));
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("udf #0", options(noreturn, nomem, nostack));
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        libc::abort()
    }
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

/// Lets SIGHUP, SIGINT, SIGQUIT and SIGTERM end this process, as 128 and their number, until it executes a program. The
/// first process of a PID namespace gets only signals that it has a handler for (pid_namespaces(7)), so that a container
/// that has been created could otherwise be ended by SIGKILL alone. The program has the default actions again, also where
/// the caller ignored one, as after nohup(1): runc's does.
///
/// # Errors
/// None that can happen.
pub fn end_by_signals() -> nix::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit(2) is async-signal-safe.
        unsafe { libc::_exit(128 + signal) }
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the handler calls nothing but _exit(2).
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}
