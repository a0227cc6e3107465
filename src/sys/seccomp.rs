//! seccomp(2): installing a compiled filter.

use super::check;
use std::os::fd::OwnedFd;

const SET_MODE_FILTER: libc::c_uint = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: the call returns the descriptor that notifications are read from.
pub const NEW_LISTENER: u32 = 8;

const TSYNC: u32 = 1;
const WAIT_KILLABLE_RECV: u32 = 0x20;

/// `SECCOMP_FILTER_FLAG_*` for a filter with a listener. There is one thread to be filtered, and the kernel refuses to
/// synchronise others when it has a descriptor to return.
pub fn listener_flags(flags: u32) -> u32 {
    flags & !TSYNC | NEW_LISTENER
}

/// The same for a filter without: nobody is there whose waiting could be killed, and the kernel refuses the flag.
pub fn plain_flags(flags: u32) -> u32 {
    flags & !WAIT_KILLABLE_RECV
}

/// Installs the filter (an array of `struct sock_filter`, 8 bytes each) for this thread, or for all with
/// `SECCOMP_FILTER_FLAG_TSYNC` in `flags`.
///
/// # Errors
/// `EACCES` without no_new_privs and without CAP_SYS_ADMIN; `EINVAL` for a program or a flag that the kernel refuses.
pub fn install(program: &[u8], flags: u32) -> nix::Result<Option<OwnedFd>> {
    if program.is_empty() || !program.len().is_multiple_of(8) || program.len() / 8 > usize::from(u16::MAX) {
        return Err(nix::errno::Errno::EINVAL);
    }
    let filter = libc::sock_fprog {
        len: (program.len() / 8) as u16,
        filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    // SAFETY: `filter` points at `len` instructions inside `program`, which the kernel copies before it returns; it
    // reads them bytewise, so their alignment does not matter.
    let result = check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const filter) })?;
    if flags & NEW_LISTENER != 0 { super::fd::own(result).map(Some) } else { Ok(None) }
}
