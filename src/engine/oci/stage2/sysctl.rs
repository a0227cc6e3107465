//! Kernel parameters of the container's namespaces (runtime-spec config-linux.md, Sysctl).

use crate::sys::path::{openat2, resolve};
use crate::sys::{On, errno_of, fd};
use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// A descriptor of /proc that is what it says: something else mounted there could take writes meant for the kernel
/// (CVE-2025-52881).
///
/// # Errors
/// Where /proc is missing or of another type.
pub fn open_proc() -> Result<OwnedFd> {
    let proc = fd::open("/proc", OFlag::O_PATH | OFlag::O_DIRECTORY).on("open", "/proc")?;
    if fstatfs(&proc).on("statfs", "/proc")?.filesystem_type() != PROC_SUPER_MAGIC {
        bail!("/proc is not a proc file system");
    }
    Ok(proc)
}

/// Writes to a file below /proc that no mount and no link replaces.
///
/// # Errors
/// The kernel's, with the path.
pub fn write_proc(proc: impl AsFd, path: &str, value: &str) -> Result<()> {
    let limits = resolve::BENEATH | resolve::NO_XDEV | resolve::NO_MAGICLINKS;
    let c_path = super::root::c_string(path)?;
    let file = openat2(proc, &c_path, OFlag::O_WRONLY.bits(), 0, limits).on("open", format_args!("/proc/{path}"))?;
    File::from(file)
        .write_all(value.as_bytes())
        .map_err(|error| errno_of(&error))
        .on("write", format_args!("{value:?} to /proc/{path}"))?;
    Ok(())
}

/// Sets every parameter. A name may have dots or slashes between its parts (sysctl(8)).
///
/// # Errors
/// The kernel's, with the parameter.
pub fn set(entries: &[(String, String)]) -> Result<()> {
    let proc = open_proc()?;
    for (name, value) in entries {
        let path = path_of(name);
        // stage1 has refused such a name; this is where it would do harm.
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            bail!("sysctl {name:?} is not a name");
        }
        write_proc(&proc, &format!("sys/{path}"), value).with_context(|| format!("/linux/sysctl/{name}"))?;
    }
    Ok(())
}

/// The first separator decides: with `/` first, dots belong to the names of interfaces.
fn path_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn names_have_dots_or_slashes() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path_of("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path_of("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
