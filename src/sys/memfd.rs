//! Files in memory (memfd_create(2)) that can be sealed.

use super::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// `MFD_NOEXEC_SEAL` and `MFD_EXEC`, since Linux 6.3. A host may demand one of them (`vm.memfd_noexec`), or take away the
/// right to execute from a file that says neither; older kernels know neither.
const NOEXEC_SEAL: u32 = 0x8;
const EXEC: u32 = 0x10;

/// A new file, close-on-exec, that is to be executed or never will be.
///
/// # Errors
/// `EACCES` where the host lets no file in memory be executed.
pub fn create(name: &CStr, executable: bool) -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let purpose = MFdFlags::from_bits_retain(if executable { EXEC } else { NOEXEC_SEAL });
    match memfd_create(name, flags | purpose) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    }
}
