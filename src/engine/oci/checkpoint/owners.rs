//! Images of a container with a user namespace: it is from inside that CRIU opens most of them, as the root of that
//! namespace, who has no right to what the host's root alone may read.

use crate::sys::{On, dir};
use anyhow::{Context, Result};
use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Uid, fchownat};
use oci_spec::runtime::{LinuxIdMapping, Spec};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a pre-dump left is found by a link of this name.
const PARENT: &str = "parent";

/// Makes the images belong to the container's root, who is on the host whoever its id is mapped to. The directory keeps
/// its mode, so nobody else gains anything.
///
/// # Errors
/// The kernel's, with the path.
pub fn give(images: &Path, spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let (Some(uid), Some(gid)) = (root_of(linux.uid_mappings()), root_of(linux.gid_mappings())) else { return Ok(()) };
    if uid == 0 && gid == 0 {
        return Ok(());
    }
    let mut directory = images.to_owned();
    loop {
        give_directory(&directory, uid, gid)
            .context("--image-path: the root of the container's user namespace has to read the images")?;
        directory.push(PARENT);
        match std::fs::canonicalize(&directory) {
            Ok(parent) if parent.is_dir() => directory = parent,
            _ => return Ok(()),
        }
    }
}

fn root_of(mappings: &Option<Vec<LinuxIdMapping>>) -> Option<u32> {
    mappings.iter().flatten().find(|mapping| mapping.container_id() == 0).map(LinuxIdMapping::host_id)
}

fn give_directory(directory: &Path, uid: u32, gid: u32) -> Result<()> {
    let entries = dir::entries(directory).on("read", directory.display())?;
    // A file with another name elsewhere may be something else, too.
    let is_image = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_file() && found.nlink() == 1);
    for path in entries.iter().map(|entry| directory.join(&entry.name)).filter(|path| is_image(path)) {
        chown(&path, uid, gid)?;
    }
    chown(directory, uid, gid)
}

fn chown(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let changed = fchownat(nix::fcntl::AT_FDCWD, path, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW);
    Ok(changed.on("chown", path.display())?)
}
