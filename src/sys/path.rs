//! Resolving paths inside a root that its owner may be changing at this moment: openat2(2).

use super::{Errno, check};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `RESOLVE_*` of openat2(2).
pub mod resolve {
    pub const NO_XDEV: u64 = 0x01;
    pub const NO_MAGICLINKS: u64 = 0x02;
    pub const NO_SYMLINKS: u64 = 0x04;
    pub const BENEATH: u64 = 0x08;
    pub const IN_ROOT: u64 = 0x10;
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2), close-on-exec. `EAGAIN`, which the kernel returns when a rename raced with a `..`, is tried again a
/// bounded number of times.
///
/// # Errors
/// The kernel's; `EXDEV` where the path leaves what `resolve` allows.
pub fn openat2(dir: impl AsFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> nix::Result<OwnedFd> {
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    let mut tries = 0;
    loop {
        // SAFETY: the path is NUL-terminated and `how` is a live open_how of the size given.
        let result = check(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_fd().as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        });
        match result {
            // SAFETY: the kernel has just returned this descriptor to us alone.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(Errno::EAGAIN | Errno::EINTR) if tries < 128 => tries += 1,
            Err(errno) => return Err(errno),
        }
    }
}
