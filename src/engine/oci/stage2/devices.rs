//! Device nodes and the links of a standard /dev (runtime-spec config-linux.md, Devices and Default Devices).

use super::root::{Root, Target, c_string};
use crate::rpc::operation::DeviceOperation;
use crate::rpc::server::Context;
use crate::sys::{Errno, On, mount};
use anyhow::{Context as _, Result};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, SFlag, fstatat, makedev, mknodat};
use nix::unistd::{AccessFlags, Gid, Uid, UnlinkatFlags, access, fchownat, symlinkat, unlinkat};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;

/// Makes the nodes, or attaches the host's where no node can be made.
///
/// # Errors
/// The kernel's, with the path.
pub fn make(root: &Root, devices: &[DeviceOperation], context: &mut Context) -> Result<()> {
    let make = |device| make_one(root, device, context).with_context(|| named(device));
    devices.iter().try_for_each(make)
}

/// The device as messages call it, with its pointer in config.json where it has one.
fn named(device: &DeviceOperation) -> String {
    let at = if device.pointer.is_empty() { String::new() } else { format!("{}: ", device.pointer) };
    format!("{at}device /{}", device.path)
}

fn make_one(root: &Root, device: &DeviceOperation, context: &mut Context) -> Result<()> {
    let shown = format!("/{}", device.path);
    if let Some(index) = device.tree {
        let tree = context.take(index)?;
        return attach(root, device, &tree);
    }
    let (directory, name) = device.path.rsplit_once('/').unwrap_or(("", &device.path));
    let name = OsStr::new(name);
    let parent = root.directory(directory)?;
    let parent = &*parent;
    let kind = SFlag::from_bits_truncate(device.mode) & SFlag::S_IFMT;
    let mode = Mode::from_bits_truncate(device.mode);
    match mknodat(parent, name, kind, mode, makedev(device.major.into(), device.minor.into())) {
        Ok(()) => own(parent, name, device),
        Err(Errno::EEXIST) => {
            if !is_that_device(parent, name, device, kind) {
                context.warnings.push(format!(
                    "{shown} exists in the root file system and is left as it is, which is not the device asked for"
                ));
            }
            Ok(())
        }
        Err(Errno::EPERM) if device.host_path.is_some() => {
            let host_path = device.host_path.as_deref().unwrap_or_default();
            let tree = mount::clone_tree(AT_FDCWD, &c_string(host_path)?, false).on("open", host_path)?;
            attach(root, device, &tree)
        }
        Err(errno) => Err(errno).on("mknod", shown)?,
    }
}

fn own(parent: &OwnedFd, name: &OsStr, device: &DeviceOperation) -> Result<()> {
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).on("chown", name.display())?;
    }
    Ok(())
}

fn is_that_device(parent: &OwnedFd, name: &OsStr, device: &DeviceOperation, kind: SFlag) -> bool {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
            && (kind == SFlag::S_IFIFO || stat.st_rdev == makedev(device.major.into(), device.minor.into()))
    })
}

fn attach(root: &Root, device: &DeviceOperation, tree: &OwnedFd) -> Result<()> {
    let target = root.target(&device.path, Target::File)?;
    mount::attach(tree, &target).on("attach", format_args!("/{}", device.path))?;
    Ok(())
}

/// /dev/ptmx, /dev/fd and the links to the standard streams.
///
/// # Errors
/// The kernel's.
pub fn standard_links(root: &Root) -> Result<()> {
    let dev = root.directory("dev")?;
    let dev = &*dev;
    let mut links = vec![
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    if access("/proc/kcore", AccessFlags::F_OK).is_ok() {
        links.push(("/proc/kcore", "core"));
    }
    for (target, name) in links {
        match symlinkat(target, dev, name) {
            Err(Errno::EEXIST) if name == "ptmx" => {
                // What the image has under this name would not belong to this container's devpts.
                let _ = unlinkat(dev, name, UnlinkatFlags::NoRemoveDir);
                let _ = symlinkat(target, dev, name);
            }
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => Err(errno).on("symlink", format_args!("/dev/{name}"))?,
        }
    }
    Ok(())
}
