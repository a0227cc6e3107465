//! Capability sets of this thread (capabilities(7)): one capset(2) instead of a read-modify-write for each set.

use super::{Errno, check};

/// The five sets, each a bit mask indexed by capability number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CapabilitySets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// Names by number, as the configuration writes them (linux/capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The names of all capabilities; a name's index is the capability's number.
pub fn all_names() -> &'static [&'static str] {
    &NAMES
}

pub const CAP_SYS_ADMIN: u32 = 21;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;
const NONE: libc::c_ulong = 0;

/// Sets the effective, permitted and inheritable set.
///
/// # Errors
/// `EPERM` where a set asks for more than the thread may have.
pub fn set(effective: u64, permitted: u64, inheritable: u64) -> nix::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads a header and two data structures, both alive here.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// The effective and permitted set of this thread.
///
/// # Errors
/// The kernel's.
pub fn get() -> nix::Result<(u64, u64)> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 writes two data structures, both alive here.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok((join(data[0].effective, data[1].effective), join(data[0].permitted, data[1].permitted)))
}

/// Whether this thread has CAP_SYS_ADMIN in its user namespace.
pub fn has_sys_admin() -> bool {
    get().is_ok_and(|(effective, _)| effective & (1 << CAP_SYS_ADMIN) != 0)
}

/// Whether a program gets capabilities from its file (capabilities(7), "File capabilities").
pub fn has_from_file(path: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both names are NUL-terminated; a size of 0 only asks how long the value is.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) > 0 }
}

/// Removes from the bounding set everything that is not in `keep`.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP.
pub fn limit_bounding(keep: u64) -> nix::Result<()> {
    for number in 0..64u32 {
        if keep & (1 << number) != 0 {
            continue;
        }
        // SAFETY: the call takes only integers.
        let dropped = check(libc::c_long::from(unsafe {
            libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), NONE, NONE, NONE)
        }));
        match dropped {
            Ok(_) => {}
            // Beyond the last that the kernel knows.
            Err(Errno::EINVAL) => return Ok(()),
            // What is not there needs no privilege to be left out.
            Err(_) if in_bounding(number) == Ok(false) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn in_bounding(number: u32) -> nix::Result<bool> {
    // SAFETY: the call takes only integers.
    let answer = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), NONE, NONE, NONE) };
    check(libc::c_long::from(answer)).map(|answer| answer == 1)
}

/// The bounding set of this thread; numbers that the kernel does not know are absent.
pub fn bounding() -> u64 {
    let mut set = 0;
    for number in 0..64u32 {
        match in_bounding(number) {
            Ok(true) => set |= 1 << number,
            Ok(false) => {}
            Err(_) => break,
        }
    }
    set
}

/// Replaces the ambient set. A capability has to be permitted and inheritable to be raised; one that is not is left
/// out, and returned.
///
/// # Errors
/// The kernel's, for anything but that.
pub fn set_ambient(set: u64) -> nix::Result<u64> {
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    let mut refused = 0;
    for number in (0..64u32).filter(|number| set & (1 << number) != 0) {
        match ambient(libc::PR_CAP_AMBIENT_RAISE, number) {
            Ok(()) => {}
            Err(Errno::EPERM | Errno::EINVAL) => refused |= 1 << number,
            Err(errno) => return Err(errno),
        }
    }
    Ok(refused)
}

fn ambient(operation: libc::c_int, number: u32) -> nix::Result<()> {
    // SAFETY: the call takes only integers.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, operation as libc::c_ulong, libc::c_ulong::from(number), NONE, NONE)
    }))
    .map(drop)
}
