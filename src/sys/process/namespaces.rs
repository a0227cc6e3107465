//! Joining and leaving namespaces: setns(2) by number, unshare(2).

use super::pidfd::{proc_directory, stat_of};
use crate::sys::{Errno, check};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, stat};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

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

/// Whether the cgroup namespace at a path is the host's first: PROC_CGROUP_INIT_INO of the kernel, and part of its interface as
/// lsns(8) and others show it. What is not there is taken for it.
pub fn is_initial_cgroup_namespace(path: &Path) -> bool {
    const INITIAL: u64 = 0xeffffffb;
    stat(path).map_or(true, |stat| stat.st_ino == INITIAL)
}

/// Whether the namespace at a path is the one that this process is in; `name` is that of its file in /proc/self/ns.
pub fn is_own_namespace(path: &Path, name: &str) -> bool {
    let identity = |path: &Path| stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    identity(path).is_some_and(|joined| identity(&Path::new("/proc/self/ns").join(name)) == Some(joined))
}

/// unshare(2).
///
/// # Errors
/// The kernel's.
pub fn unshare(kinds: i32) -> nix::Result<()> {
    // SAFETY: the call takes only integers.
    check(libc::c_long::from(unsafe { libc::unshare(kinds) })).map(drop)
}
