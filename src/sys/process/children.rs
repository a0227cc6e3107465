//! How children end. nix knows no real-time signals, and takes an end by one of them for an error.

use super::super::{Errno, check, retry};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Who may have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    Any,
    Pid(i32),
}

/// Of a caller that ignores the ends of its children this process would have that, and not learn how its own have ended
/// (wait(2)).
pub fn learn_of_ends() {
    // SAFETY: no handler is set but the default.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Waits for a child's end. From then on its pid may be another's.
///
/// # Errors
/// `ECHILD` where it is none.
pub fn wait(pid: i32) -> nix::Result<ExitStatus> {
    waitid(Child::Pid(pid), 0).and_then(certain)
}

/// As [`wait`], for a child that may not have ended yet.
///
/// # Errors
/// As [`wait`].
pub fn try_wait(pid: i32) -> nix::Result<Option<ExitStatus>> {
    Ok(waitid(Child::Pid(pid), libc::WNOHANG)?.map(|(_, status)| status))
}

/// As [`wait`], but the child stays, and so does its pid.
///
/// # Errors
/// As [`wait`].
pub fn wait_and_leave(pid: i32) -> nix::Result<ExitStatus> {
    waitid(Child::Pid(pid), libc::WNOWAIT).and_then(certain)
}

/// A child that has ended, if one has. It is left to be waited for.
///
/// # Errors
/// As [`wait`].
pub fn ended(child: Child) -> nix::Result<Option<(i32, ExitStatus)>> {
    waitid(child, libc::WNOHANG | libc::WNOWAIT)
}

/// Whether a child has ended, or is none. It is left to be waited for.
pub fn has_child_ended(pid: i32) -> bool {
    ended(Child::Pid(pid)) != Ok(None)
}

fn certain(ended: Option<(i32, ExitStatus)>) -> nix::Result<ExitStatus> {
    ended.map(|(_, status)| status).ok_or(Errno::ECHILD)
}

fn waitid(child: Child, flags: libc::c_int) -> nix::Result<Option<(i32, ExitStatus)>> {
    let (kind, id) = match child {
        Child::Any => (libc::P_ALL, 0),
        Child::Pid(pid) => (libc::P_PID, pid as libc::id_t),
    };
    // SAFETY: a siginfo_t is plain numbers, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to `info`, which lives here.
    retry(|| check(unsafe { libc::waitid(kind, id, &raw mut info, flags | libc::WEXITED) }.into()))?;
    // SAFETY: waitid(2) fills both fields, or leaves them zero where nobody has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    // As wait(2) packs them.
    let packed = match info.si_code {
        libc::CLD_EXITED => status << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    Ok((pid != 0).then(|| (pid, ExitStatus::from_raw(packed))))
}
