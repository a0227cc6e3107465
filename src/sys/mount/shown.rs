//! What the kernel says of one mount, without a line for each of the others: statx(2) has its id, statmount(2) what
//! proc_pid_mountinfo(5) shows of it. Both need Linux 6.8. The structures are those of include/uapi/linux/{stat,mount}.h.

use crate::sys::{Errno, check};
use linux_raw_sys::general as uapi;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A mount as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The kind of the file system (statfs(2), `f_type`).
    pub magic: u64,
    /// The directory of the file system that is visible at the mount point.
    pub root: PathBuf,
    pub point: PathBuf,
}

const WANTED: u32 = uapi::STATMOUNT_SB_BASIC | uapi::STATMOUNT_MNT_ROOT | uapi::STATMOUNT_MNT_POINT;

/// What statmount(2) fills. What does not fit is refused with EOVERFLOW.
#[repr(C)]
struct Answer {
    head: uapi::statmount,
    strings: [u8; 1024],
}

/// The mount that a path leads to; a symbolic link at its end is not followed.
///
/// # Errors
/// `ENOSYS` before Linux 6.8, the kernel's otherwise; a seccomp profile's.
pub fn shown_at(path: &CStr) -> nix::Result<Shown> {
    // SAFETY: a statmount is integers, and so are the strings.
    let mut answer: Answer = unsafe { std::mem::zeroed() };
    let request = uapi::mnt_id_req {
        size: uapi::MNT_ID_REQ_SIZE_VER0,
        spare: 0,
        mnt_id: unique_id(path)?,
        param: u64::from(WANTED),
        mnt_ns_id: 0,
    };
    // SAFETY: `request` and `answer` are live, the request at least of the size that it tells, the answer of the size given.
    check(unsafe {
        libc::syscall(
            libc::c_long::from(uapi::__NR_statmount),
            std::ptr::from_ref(&request),
            std::ptr::from_mut(&mut answer),
            size_of::<Answer>(),
            0,
        )
    })?;
    if answer.head.mask & u64::from(WANTED) != u64::from(WANTED) {
        return Err(Errno::ENOSYS);
    }
    let (root, point) = (answer.string(answer.head.mnt_root)?, answer.string(answer.head.mnt_point)?);
    Ok(Shown { magic: answer.head.sb_magic, root, point })
}

/// The id of the mount that a path leads to, which no other mount ever has.
fn unique_id(path: &CStr) -> nix::Result<u64> {
    // SAFETY: a statx is integers.
    let mut answer: uapi::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated and `answer` is a live statx.
    check(unsafe {
        libc::syscall(
            libc::SYS_statx,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            uapi::STATX_MNT_ID_UNIQUE,
            std::ptr::from_mut(&mut answer),
        )
    })?;
    // An older kernel answers without what it does not know.
    if answer.stx_mask & uapi::STATX_MNT_ID_UNIQUE == 0 { Err(Errno::ENOSYS) } else { Ok(answer.stx_mnt_id) }
}

impl Answer {
    /// The text that begins there.
    fn string(&self, offset: u32) -> nix::Result<PathBuf> {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.strings.get(offset..));
        let text = bytes.and_then(|bytes| CStr::from_bytes_until_nul(bytes).ok()).ok_or(Errno::EOVERFLOW)?;
        Ok(PathBuf::from(OsStr::from_bytes(text.to_bytes())))
    }
}
