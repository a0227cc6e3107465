//! The layout of a cgroup v1 host: a tmpfs with a directory for each hierarchy. The directories are made and mounted on by
//! way of the tmpfs itself, which nobody else has had in hand: no path is resolved for any of them.

use super::mounts::{clone_host_path, dress_further, new_file_system};
use super::root::{Root, c_string, is_directory};
use crate::engine::oci::file_system;
use crate::rpc::operation::{HierarchiesOperation, HierarchyOperation, MountOperation, MountSource};
use crate::rpc::server::Context;
use crate::sys::fd::close_together;
use crate::sys::mount::{self, Attributes, attr};
use crate::sys::{Errno, On};
use anyhow::{Context as _, Result, bail};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;
use std::os::fd::OwnedFd;

/// Mounts the tmpfs and the hierarchies in it.
///
/// # Errors
/// With the destination and the pointer of the mount in config.json.
pub fn mount(root: &Root, operation: &HierarchiesOperation, context: &mut Context) -> Result<()> {
    let HierarchiesOperation { mount: top, hierarchies, readonly } = operation;
    let MountSource::FileSystem(file_system) = &top.source else { bail!("rtx asked for hierarchies in no tmpfs") };
    let wrong = |name: &str| format!("error mounting {} at /{}{name}", top.pointer, top.destination);
    let tmpfs = new_file_system(root, top, file_system).with_context(|| wrong(""))?;
    let mut trees = Vec::with_capacity(hierarchies.len());
    for hierarchy in hierarchies {
        let tree = add(&tmpfs, top, hierarchy, context).with_context(|| wrong(&format!("/{}", hierarchy.name)))?;
        trees.push(tree);
    }
    close_together(trees);
    if *readonly {
        let attributes = Attributes { set: attr::RDONLY, ..Attributes::default() };
        mount::set_attributes(&tmpfs, attributes, false).on("make read-only", format_args!("/{}", top.destination))?;
    }
    Ok(())
}

fn add(
    tmpfs: &OwnedFd,
    top: &MountOperation,
    hierarchy: &HierarchyOperation,
    context: &mut Context,
) -> Result<OwnedFd> {
    let HierarchyOperation { name, source, attributes, aliases } = hierarchy;
    let tree = match source {
        MountSource::Tree { fd, .. } => context.take(*fd)?,
        MountSource::HostPath { path, .. } => clone_host_path(path, false, false)?.0,
        MountSource::FileSystem(file_system) => file_system::make(file_system, &file_system.data, attributes.set)?,
        MountSource::Existing { .. } | MountSource::Inside { .. } => {
            bail!("rtx asked for a hierarchy that is there already")
        }
    };
    if *attributes != Attributes::default() && !matches!(source, MountSource::FileSystem(_)) {
        mount::set_attributes(&tree, *attributes, false).on("set the mount options of", name)?;
    }
    dress_further(&tree, top)?;
    mkdirat(tmpfs, name.as_str(), Mode::from_bits_truncate(0o755)).on("mkdir", name)?;
    match mount::attach_at(&tree, tmpfs, &c_string(name)?) {
        Err(Errno::EINVAL | Errno::ENOTDIR) if is_directory(&tree) == Ok(false) => {
            bail!("not a directory: what is mounted is none")
        }
        other => other.on("attach", name)?,
    }
    for alias in aliases {
        match symlinkat(name.as_str(), tmpfs, alias.as_str()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => Err(errno).on("symlink", alias)?,
        }
    }
    Ok(tree)
}
