//! Descriptors of processes, and what they tell: pidfds, and /proc/PID where there are none.

use crate::sys::stat::Stat;
use crate::sys::{Errno, check, errno_of, fd::own, is_missing, retry};
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// There is no pidfd_open(2), as far as this process has seen.
static NO_PIDFD: AtomicBool = AtomicBool::new(false);
/// How often a process is looked at that no descriptor tells the end of.
const LOOK_EVERY: u16 = 10;

/// pidfd_open(2). Before Linux 5.3, and where a seccomp profile does not know it, a descriptor of /proc/PID: it belongs to
/// this process and never to another that gets its pid, but poll(2) tells nothing of it. The functions below take both.
///
/// # Errors
/// `ESRCH` where there is no such process.
pub fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    if !NO_PIDFD.load(Ordering::Relaxed) {
        // SAFETY: the call takes only integers.
        match own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }) {
            // The call itself never says EPERM: who does is a profile.
            Err(Errno::ENOSYS | Errno::EPERM) => NO_PIDFD.store(true, Ordering::Relaxed),
            result => return result,
        }
    }
    let path = format!("/proc/{pid}");
    let fd = match open(path.as_str(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENOENT) => return Err(Errno::ESRCH),
        other => other?,
    };
    // What is mounted there may be of another pid namespace, where the pid is somebody else's.
    let own = nix::fcntl::readlink("/proc/self")?;
    if fstatfs(&fd)?.filesystem_type() == PROC_SUPER_MAGIC && own == *std::process::id().to_string() {
        Ok(fd)
    } else {
        Err(Errno::ENOTSUP)
    }
}

/// A pidfd of a child, or `None` where there are none: [`super::has_child_ended`] tells of a child without any descriptor, and
/// in stage2 /proc would be another pid namespace's.
///
/// # Errors
/// `ESRCH`; `EMFILE`.
pub fn child_pidfd(pid: i32) -> nix::Result<Option<OwnedFd>> {
    match pidfd_open(pid) {
        // What cannot be told is an error: poll(2) would be waited for without anything to poll.
        Ok(fd) => is_directory(&fd).map(|is_directory| (!is_directory).then_some(fd)),
        Err(errno) if !NO_PIDFD.load(Ordering::Relaxed) => Err(errno),
        Err(_) => Ok(None),
    }
}

fn is_directory(fd: impl AsFd) -> nix::Result<bool> {
    Ok(fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Whether a descriptor of [`pidfd_open`] is a pidfd.
pub fn is_pidfd(fd: impl AsFd) -> bool {
    is_directory(fd) == Ok(false)
}

/// The descriptor of /proc/PID for either kind.
pub(super) fn proc_directory(fd: BorrowedFd) -> nix::Result<OwnedFd> {
    if is_directory(fd)? {
        return fd.try_clone_to_owned().map_err(|error| errno_of(&error));
    }
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    let text = text.map_err(|error| errno_of(&error))?;
    let pid: i32 = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok()).ok_or(Errno::EBADF)?;
    if pid <= 0 {
        return Err(Errno::ESRCH);
    }
    let path = format!("/proc/{pid}");
    let directory = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| if errno == Errno::ENOENT { Errno::ESRCH } else { errno })?;
    // As long as it is not over, the pid cannot have become another's.
    if has_ended_by_poll(fd)? { Err(Errno::ESRCH) } else { Ok(directory) }
}

pub(super) fn stat_of(directory: impl AsFd) -> nix::Result<Stat> {
    let file = openat(directory, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    file.map_err(|errno| if errno == Errno::ENOENT { Errno::ESRCH } else { errno }).and_then(|fd| Stat::read(fd.into()))
}

fn has_ended_by_poll(fd: BorrowedFd) -> nix::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    retry(|| poll(&mut fds, PollTimeout::ZERO)).map(|ready| ready > 0)
}

/// What to ask poll(2) for of a process's descriptor.
pub fn end_events() -> PollFlags {
    if NO_PIDFD.load(Ordering::Relaxed) { PollFlags::empty() } else { PollFlags::POLLIN }
}

/// How long poll(2) may take where the end of a process is waited for: for a while only, where it has to be looked at.
pub fn end_timeout(timeout: PollTimeout) -> PollTimeout {
    if NO_PIDFD.load(Ordering::Relaxed) && (timeout.is_none() || timeout > PollTimeout::from(LOOK_EVERY)) {
        return PollTimeout::from(LOOK_EVERY);
    }
    timeout
}

/// Whether a process has ended, by what poll(2) returned for its descriptor, and by a look at it where that tells nothing.
pub fn has_ended(fd: impl AsFd, polled: Option<PollFlags>) -> bool {
    if polled.is_some_and(|events| events.contains(PollFlags::POLLIN)) {
        return true;
    }
    if !NO_PIDFD.load(Ordering::Relaxed) {
        return false;
    }
    match is_directory(&fd) {
        Ok(true) => stat_of(fd).map_or(true, |stat| stat.is_zombie()),
        _ => has_ended_by_poll(fd.as_fd()).unwrap_or(true),
    }
}

/// pidfd_send_signal(2); before Linux 5.1, kill(2) right after a look that the process is still there.
///
/// # Errors
/// `ESRCH` where the process has ended.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> nix::Result<()> {
    let fd = pidfd.as_fd();
    let call = |fd: i32, signal: i32, flags: u32| {
        // SAFETY: a null siginfo is allowed and means what kill(2) would send.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), flags) }
    };
    match check(call(fd.as_raw_fd(), signal, 0)) {
        Err(errno) if is_missing(errno, || call(-1, 0, u32::MAX)) => {
            let stat = stat_of(proc_directory(fd)?)?;
            // SAFETY: the call takes only integers.
            check(libc::c_long::from(unsafe { libc::kill(stat.pid, signal) })).map(drop)
        }
        other => other.map(drop),
    }
}

/// pidfd_getfd(2): a copy of a descriptor that another process has under a number. Since Linux 5.6.
///
/// # Errors
/// `EBADF` where it has none; `EPERM` without the right to trace it.
pub fn pidfd_getfd(pidfd: impl AsFd, number: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes only integers and returns a new descriptor.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0) })
}
