//! Whether the kernel has a system call, and lets this process make it. Each is made so that it fails with something else than
//! "there is none" wherever it exists, and changes nothing.

use super::Errno;
use std::ptr::null;

/// A number that no descriptor has: above any limit of open files.
const NO_FD: libc::c_int = libc::c_int::MAX;
/// Flags that no call knows.
const NO_FLAGS: libc::c_ulong = 0xffff_ffff;

/// The calls that rtx does without where they are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Clone3,
    CloneIntoCgroup,
    Openat2,
    OpenTree,
    MoveMount,
    Fsopen,
    MountSetattr,
    PidfdOpen,
    PidfdSendSignal,
    PidfdGetfd,
    CloseRange,
    Faccessat2,
}

/// Makes the call.
///
/// # Errors
/// `ENOSYS` where there is none; `EPERM` where a seccomp profile refuses it.
pub fn look(call: Call) -> Result<(), Errno> {
    let null = null::<u8>();
    let bad = libc::c_long::from(NO_FD);
    // SAFETY: every pointer is null or NUL-terminated text, every descriptor invalid, and the flags or sizes are such as the
    // kernel refuses before it does anything. clone3 reads one live structure, and fails for its descriptor before there
    // is a child.
    let result = unsafe {
        match call {
            Call::Clone3 => libc::syscall(libc::SYS_clone3, null, 0usize),
            Call::CloneIntoCgroup => clone_into_no_cgroup(),
            Call::Openat2 => libc::syscall(libc::SYS_openat2, bad, null, null, 0usize),
            Call::OpenTree => libc::syscall(libc::SYS_open_tree, bad, c"".as_ptr(), NO_FLAGS),
            Call::MoveMount => libc::syscall(libc::SYS_move_mount, bad, c"".as_ptr(), bad, c"".as_ptr(), NO_FLAGS),
            Call::Fsopen => libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), NO_FLAGS),
            Call::MountSetattr => libc::syscall(libc::SYS_mount_setattr, bad, null, NO_FLAGS, null, 0usize),
            Call::PidfdOpen => libc::syscall(libc::SYS_pidfd_open, 0, 0),
            Call::PidfdSendSignal => libc::syscall(libc::SYS_pidfd_send_signal, bad, 0, null, NO_FLAGS),
            Call::PidfdGetfd => libc::syscall(libc::SYS_pidfd_getfd, bad, 0, NO_FLAGS),
            Call::CloseRange => libc::syscall(libc::SYS_close_range, 1, 0, 0),
            Call::Faccessat2 => libc::syscall(libc::SYS_faccessat2, bad, c"x".as_ptr(), 0, 0),
        }
    };
    judge(call, if result < 0 { Errno::last() } else { Errno::UnknownErrno }, super::caps::has_sys_admin())
}

/// What a refusal says about the call.
fn judge(call: Call, errno: Errno, privileged: bool) -> Result<(), Errno> {
    match (call, errno) {
        (_, Errno::ENOSYS) => Err(Errno::ENOSYS),
        // The structure is longer than an older kernel knows, or has a flag that it does not.
        (Call::CloneIntoCgroup, Errno::E2BIG | Errno::EINVAL) => Err(Errno::ENOSYS),
        // These look at the privileges before the flags: it is those that are missing.
        (Call::Fsopen | Call::MoveMount, Errno::EPERM) if !privileged => Ok(()),
        (_, Errno::EPERM) => Err(Errno::EPERM),
        _ => Ok(()),
    }
}

/// `CLONE_INTO_CGROUP` with a descriptor that is none.
unsafe fn clone_into_no_cgroup() -> libc::c_long {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = [0u64; 11];
    args[0] = CLONE_INTO_CGROUP;
    args[10] = NO_FD as u64;
    // SAFETY: `args` is a live clone_args of that size.
    unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_and_filters_are_told_from_what_is_there() {
        assert_eq!(judge(Call::Openat2, Errno::ENOSYS, true), Err(Errno::ENOSYS));
        assert_eq!(judge(Call::Openat2, Errno::EPERM, false), Err(Errno::EPERM));
        assert_eq!(judge(Call::Openat2, Errno::EINVAL, true), Ok(()));
        assert_eq!(judge(Call::CloneIntoCgroup, Errno::E2BIG, true), Err(Errno::ENOSYS));
        assert_eq!(judge(Call::CloneIntoCgroup, Errno::EBADF, true), Ok(()));
        assert_eq!(judge(Call::Fsopen, Errno::EPERM, false), Ok(()));
        assert_eq!(judge(Call::Fsopen, Errno::EPERM, true), Err(Errno::EPERM));
    }
}
