//! Calls about processes that nix lacks: pidfds, prctl(2), the session keyring, setns(2) by number.

use super::stat::Stat;
use super::{Errno, check, errno_of, fd::own, is_missing, retry};
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat, stat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
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

/// A pidfd of a child, or `None` where there are none: [`child_has_ended`] tells of a child without any descriptor, and
/// in stage2 /proc would be another pid namespace's.
///
/// # Errors
/// `ESRCH`; `EMFILE`.
pub fn child_pidfd(pid: i32) -> nix::Result<Option<OwnedFd>> {
    match pidfd_open(pid) {
        Ok(fd) if is_pidfd(&fd) => Ok(Some(fd)),
        Err(errno) if !NO_PIDFD.load(Ordering::Relaxed) => Err(errno),
        _ => Ok(None),
    }
}

/// Whether a child has ended. It is left to be waited for.
pub fn child_has_ended(pid: i32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(Pid::from_raw(pid)), flags), Ok(WaitStatus::StillAlive))
}

fn is_directory(fd: impl AsFd) -> nix::Result<bool> {
    Ok(fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Whether a descriptor of [`pidfd_open`] is a pidfd.
pub fn is_pidfd(fd: impl AsFd) -> bool {
    is_directory(fd) == Ok(false)
}

/// The descriptor of /proc/PID for either kind.
fn proc_directory(fd: BorrowedFd) -> nix::Result<OwnedFd> {
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

fn stat_of(directory: impl AsFd) -> nix::Result<Stat> {
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

/// setns(2): joins the namespaces in `kinds` (`CLONE_NEW*`) of what `fd` refers to, a namespace file or a process. Before
/// Linux 5.8 those of a process are joined one by one.
///
/// # Errors
/// The kernel's; `EINVAL` where the file is not of that kind.
pub fn setns(fd: impl AsFd, kinds: i32) -> nix::Result<()> {
    let fd = fd.as_fd();
    // SAFETY: the call takes only integers.
    match check(libc::c_long::from(unsafe { libc::setns(fd.as_raw_fd(), kinds) })) {
        Err(errno @ (Errno::EINVAL | Errno::EBADF)) => match proc_directory(fd) {
            Ok(directory) => join_each(&directory, kinds),
            Err(_) => Err(errno),
        },
        other => other.map(drop),
    }
}

/// The user namespace first: it gives the right to join the others. The mount namespace last: it takes the directories.
const NAMESPACE_FILES: &[(i32, &str)] = &[
    (libc::CLONE_NEWUSER, "user"),
    (libc::CLONE_NEWCGROUP, "cgroup"),
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWNET, "net"),
    (libc::CLONE_NEWPID, "pid"),
    (0x80, "time"),
    (libc::CLONE_NEWNS, "mnt"),
];

fn join_each(directory: &OwnedFd, kinds: i32) -> nix::Result<()> {
    let mut files = Vec::new();
    for (kind, name) in NAMESPACE_FILES.iter().filter(|(kind, _)| kinds & kind != 0) {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(directory, format!("ns/{name}").as_str(), flags, Mode::empty())?;
        let own = stat(format!("/proc/self/ns/{name}").as_str())?;
        // Of its own user namespace a process cannot become a member again, and of the others it need not.
        if (own.st_dev, own.st_ino) != fstat(&file).map(|stat| (stat.st_dev, stat.st_ino))? {
            files.push((*kind, file));
        }
    }
    if stat_of(directory)?.is_zombie() {
        return Err(Errno::ESRCH);
    }
    for (kind, file) in files {
        // SAFETY: the call takes only integers.
        check(libc::c_long::from(unsafe { libc::setns(file.as_raw_fd(), kind) }))?;
    }
    Ok(())
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

/// Has a child killed when the process that starts it dies. It is forked for that, and not spawned by a call that the C
/// library finds no way around where a seccomp profile forbids clone3.
pub fn die_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec the closure makes one system call and touches nothing else.
    unsafe { command.pre_exec(|| set_parent_death_signal(libc::SIGKILL).map_err(std::io::Error::from)) };
}

/// Has a child under a seccomp filter from its first instruction on.
pub fn filter_child(command: &mut std::process::Command, filter: Vec<u8>, flags: u32) {
    use std::os::unix::process::CommandExt;
    let install = move || super::seccomp::install(&filter, flags).map(drop).map_err(std::io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// What a signal says, in lower case (strsignal(3)).
pub fn signal_description(signal: i32) -> String {
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
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
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
