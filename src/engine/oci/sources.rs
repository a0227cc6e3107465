//! What mounts take from the host: sources of binds, which become detached trees before stage2 hears of them, and block
//! devices.

use super::idmap::IdMap;
use super::mounts::Surroundings;
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::MountSource;
use crate::sys::mount::{Attributes, clone_tree, clone_tree_nofollow, clone_tree_with, set_attributes};
use crate::sys::{Errno, On};
use anyhow::{Result, bail};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, fstat, stat};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a bind binds.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub recursive: bool,
    /// A symbolic link is bound itself.
    pub nofollow: bool,
    pub idmap: Option<IdMap>,
    /// Its path in the container's root, where it is what earlier mounts of the container have made of it.
    pub inside: Option<String>,
}

impl Source {
    /// All that is at a path.
    pub fn plain(path: &Path) -> Self {
        Self { path: path.to_owned(), recursive: true, nofollow: false, idmap: None, inside: None }
    }
}

/// A source of the host: a detached tree where smaster may clone one, otherwise the path for stage2.
pub fn source_of(
    batch: &mut Batch,
    rpc: &mut RpcClient,
    source: &Source,
    around: &mut Surroundings,
) -> Result<MountSource> {
    let &Source { ref path, recursive, nofollow, .. } = source;
    if let (Some(inside), true) = (&source.inside, around.clones || source.idmap.is_none()) {
        let map = match &source.idmap {
            Some(map) => {
                make_room(1, batch, rpc)?;
                let namespace = around.user_namespaces.find(&map.maps)?.try_clone()?;
                Some((batch.fd(namespace), map.recursive))
            }
            None => None,
        };
        return Ok(MountSource::Inside { path: inside.clone(), recursive, nofollow, map });
    }
    if !around.clones {
        if source.idmap.is_some() {
            bail!("idmapped mounts need open_tree and mount_setattr, Linux 5.12 or later: remove the maps");
        }
        return Ok(MountSource::HostPath { path: path.display().to_string(), recursive, nofollow });
    }
    make_room(1, batch, rpc)?;
    let tree = clone_source(path, recursive, nofollow)?;
    if around.propagation != 0 {
        // In the peer group of the host's mount, what the container mounts below would appear on the host.
        let propagation = Attributes { propagation: around.propagation, ..Attributes::default() };
        set_attributes(&tree, propagation, true).on("set the propagation of", path.display())?;
    }
    if let Some(map) = &source.idmap {
        around.user_namespaces.apply(&tree, map, &path.display().to_string())?;
    }
    let stat = fstat(&tree).on("stat", path.display())?;
    let directory = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    Ok(MountSource::Tree { fd: batch.fd(tree), directory })
}

/// Descriptors in flight are limited: stage2 takes those that there are before more are made.
pub fn make_room(count: usize, batch: &mut Batch, rpc: &mut RpcClient) -> Result<()> {
    if batch.is_full(count) {
        rpc.send(std::mem::take(batch))?;
        rpc.drain()?;
    }
    Ok(())
}

pub fn is_block_device(source: &str) -> bool {
    let is_block = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFBLK;
    source.starts_with('/') && stat(source).is_ok_and(|stat| is_block(stat.st_mode))
}

/// A detached clone of what is at a path of the host.
///
/// # Errors
/// The kernel's, as `open PATH: …`.
pub fn clone_path(path: &Path, recursive: bool) -> Result<OwnedFd> {
    clone_source(path, recursive, false)
}

/// A detached clone of a root file system with all that is mounted in it, and this propagation (`MS_*`).
///
/// # Errors
/// The kernel's, as `open PATH: …`.
pub fn clone_root(path: &Path, propagation: u64) -> Result<OwnedFd> {
    let attributes = Attributes { propagation, ..Attributes::default() };
    Ok(clone_tree_with(AT_FDCWD, &c_string(path)?, true, attributes).on("open", path.display())?)
}

/// A detached clone of a device of the host's. Among the peers of the host's mount it would hand on to the host what the
/// container mounts on it.
///
/// # Errors
/// The kernel's, as `open PATH: …`.
pub fn clone_device(path: &Path) -> Result<OwnedFd> {
    let attributes = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    Ok(clone_tree_with(AT_FDCWD, &c_string(path)?, false, attributes).on("open", path.display())?)
}

/// A detached clone of a cgroup's directory, which has no mounts in it, with all that the mount is to have.
///
/// # Errors
/// The kernel's, with the path.
pub fn clone_cgroup(path: &Path, attributes: Attributes) -> Result<OwnedFd> {
    let c_path = c_string(path)?;
    Ok(clone_tree_with(AT_FDCWD, &c_path, false, attributes).on("open", path.display())?)
}

fn clone_source(path: &Path, recursive: bool, nofollow: bool) -> Result<OwnedFd> {
    let c_path = c_string(path)?;
    let tree = match nofollow {
        true => clone_tree_nofollow(AT_FDCWD, &c_path, recursive),
        false => clone_tree(AT_FDCWD, &c_path, recursive),
    };
    Ok(tree.on("open", path.display())?)
}

fn c_string(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL).on("open", path.display())?)
}
