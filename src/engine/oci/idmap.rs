//! Idmapped mounts (runtime-spec config.md, `uidMappings` and `gidMappings` of a mount; mount_setattr(2), "ID-mapped
//! mounts"): the kernel takes the maps from a user namespace, the container's own or one that is made for the mount.

use super::namespaces;
use crate::sys::mount::set_idmap;
use crate::sys::{Errno, On, clone};
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use oci_spec::runtime::LinuxIdMapping;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// How the ids of one mount are mapped.
#[derive(Debug, Clone)]
pub struct IdMap {
    pub maps: Maps,
    /// The mounts below it as well (`ridmap`).
    pub recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maps {
    /// Those of the container's user namespace.
    Container,
    Own {
        uids: Vec<LinuxIdMapping>,
        gids: Vec<LinuxIdMapping>,
    },
}

/// The user namespaces that the mounts of one container take their maps from, each made once.
pub struct UserNamespaces {
    /// Where the container's own is found.
    container: Option<PathBuf>,
    open: Vec<(Maps, OwnedFd)>,
}

impl UserNamespaces {
    pub fn new(container: Option<PathBuf>) -> Self {
        Self { container, open: Vec::new() }
    }

    /// Maps the ids of a detached mount.
    ///
    /// # Errors
    /// The kernel's, with what it means.
    pub fn apply(&mut self, tree: &OwnedFd, map: &IdMap, source: &str) -> Result<()> {
        apply(tree, self.find(&map.maps)?, map.recursive, source)
    }

    /// The namespace with these maps.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn find(&mut self, maps: &Maps) -> Result<&OwnedFd> {
        let at = match self.open.iter().position(|(known, _)| known == maps) {
            Some(at) => at,
            None => {
                let namespace = self.make(maps)?;
                self.open.push((maps.clone(), namespace));
                self.open.len() - 1
            }
        };
        Ok(&self.open[at].1)
    }

    fn make(&self, maps: &Maps) -> Result<OwnedFd> {
        let open = |path: &str| open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        match maps {
            Maps::Container => {
                let Some(path) = self.container.as_ref().map(|path| path.display().to_string()) else {
                    bail!("idmap without maps takes those of the container's user namespace, and it has none");
                };
                Ok(open(&path).on("open the user namespace", path)?)
            }
            Maps::Own { uids, gids } => {
                let holder = clone::hold_namespaces(libc::CLONE_NEWUSER as u64)
                    .on("clone", "a user namespace for an idmapped mount")?;
                namespaces::write_maps(holder.pid, uids, gids)?;
                let path = format!("/proc/{}/ns/user", holder.pid);
                Ok(open(&path).on("open the user namespace", path)?)
            }
        }
    }
}

/// Maps the ids of a detached mount by a user namespace.
///
/// # Errors
/// The kernel's, with what it means.
pub fn apply(tree: &OwnedFd, namespace: &OwnedFd, recursive: bool, source: &str) -> Result<()> {
    match set_idmap(tree, namespace, recursive) {
        Ok(()) => Ok(()),
        Err(errno) => Err(errno).on("map the ids of", source).with_context(|| explain(errno, tree)),
    }
}

/// What the kernel means.
fn explain(errno: Errno, tree: &OwnedFd) -> String {
    let kind =
        fstatfs(tree).map_or_else(|_| "this type".to_owned(), |stat| format!("type {:#x}", stat.filesystem_type().0));
    match errno {
        Errno::ENOSYS => "idmapped mounts need Linux 5.12 or later".to_owned(),
        Errno::EINVAL => format!("the file system ({kind}) does not support idmapped mounts on this kernel"),
        Errno::EPERM => format!("the mount ({kind}) has mapped ids already, or is of another user namespace's"),
        _ => "idmapped mount".to_owned(),
    }
}
