//! The root of a container that has no mount namespace of its own.
//!
//! What it mounts is on the host then. All of it goes onto one mount of the root file system, private and attached over its
//! own path, so that unmounting that one, which the record knows by its id, takes everything away again.

use super::sources;
use crate::sys::{Errno, On, path};
use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostRoot {
    path: PathBuf,
    /// As proc_pid_fdinfo(5) has it.
    mount_id: u64,
}

impl HostRoot {
    /// A detached copy of the root file system, and what there is to know of it before stage2 attaches it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(rootfs: &Path) -> Result<(Self, OwnedFd)> {
        let tree = sources::clone_path(rootfs, true).context("invalid rootfs")?;
        let mount_id = mount_id(&tree).on("look for the mount of", rootfs.display())?;
        Ok((Self { path: rootfs.to_owned(), mount_id }, tree))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is what is at its path.
    pub fn is_attached(&self) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        open(&self.path, flags, Mode::empty()).and_then(|top| mount_id(&top)) == Ok(self.mount_id)
    }

    /// Unmounts it with everything on it, if it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unmount(&self) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let shown = self.path.display();
        let top = match open(&self.path, flags, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other.on("open", &shown)?,
        };
        if mount_id(&top).on("look for the mount of", &shown)? != self.mount_id {
            return Ok(());
        }
        umount2(&self.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).on("unmount", &shown)?;
        Ok(())
    }
}

fn mount_id(fd: &OwnedFd) -> nix::Result<u64> {
    path::mount_id(open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?, fd)
}
