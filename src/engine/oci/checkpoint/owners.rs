//! Images of a container with a user namespace: it is from inside that CRIU opens most of them, as the root of that
//! namespace, who has no right to what the host's root alone may read. The first it opens while it is still the host's
//! root, without any rights but an owner's.

use crate::sys::{On, dir, errno_of};
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};
use oci_spec::runtime::{LinuxIdMapping, Spec};
use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What a pre-dump left is found by a link of this name.
const PARENT: &str = "parent";

/// Makes the images belong to this process's user, and to the group of the container's root, which is on the host whatever
/// its id is mapped to. That group may read what their owner may, and nobody else gains anything.
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
        give_directory(&directory, gid)
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

fn give_directory(directory: &Path, gid: u32) -> Result<()> {
    let entries = dir::entries(directory).on("read", directory.display())?;
    // A file with another name elsewhere may be something else, too.
    let is_image = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_file() && found.nlink() == 1);
    for path in entries.iter().map(|entry| directory.join(&entry.name)).filter(|path| is_image(path)) {
        give_one(&path, gid)?;
    }
    give_one(directory, gid)
}

fn give_one(path: &Path, gid: u32) -> Result<()> {
    // What is changed is what was looked at, and no link.
    let file = OpenOptions::new().read(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path);
    let file = file.map_err(|error| errno_of(&error)).on("open", path.display())?;
    let mode = file.metadata().map_err(|error| errno_of(&error)).on("stat", path.display())?.mode() & 0o7777;
    fchown(&file, Some(Uid::effective()), Some(Gid::from_raw(gid))).on("chown", path.display())?;
    let mode = Mode::from_bits_truncate(mode | (mode & 0o500) >> 3);
    Ok(fchmod(&file, mode).on("chmod", path.display())?)
}
