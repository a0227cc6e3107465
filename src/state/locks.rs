//! flock(2) of a state directory: waiting for it, and who has it.

use super::Holder;
use crate::sys::{dir, errno_of, process};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// # Errors
/// The kernel's.
pub(super) fn wait_for_lock(file: &File) -> nix::Result<()> {
    crate::sys::retry(|| file.lock().map_err(|error| errno_of(&error)))
}

/// The process that holds the lock of the directory of a container (/proc/locks, proc_locks(5)). The file there is told by an
/// inode, which other file systems have as well, and a device, which for some is not the one that stat(2) tells: so the
/// process has to have the directory open.
pub(super) fn lock_holder(directory: &File, id: &str) -> Option<Holder> {
    let own = directory.metadata().ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else { return None };
        let inode = file.rsplit(':').next()?;
        let pid = if inode.parse() == Ok(own.ino()) { pid.parse().ok()? } else { return None };
        // Before it is looked at: what has that pid afterwards may be another.
        let pidfd = process::pidfd_open(pid).ok()?;
        has_open(pid.to_string(), id, &own).then_some(Holder { pid, pidfd })
    })
}

/// Whether a process, by its name in /proc, has this directory of a container open.
pub(super) fn has_open(process: impl AsRef<Path>, id: &str, own: &Metadata) -> bool {
    let files = Path::new("/proc").join(process).join("fd");
    dir::entries(&files).unwrap_or_default().into_iter().any(|file| {
        // The name alone says nothing in another mount namespace, and to follow every link could wait for a server.
        let file = files.join(file.name);
        let names_it = std::fs::read_link(&file).is_ok_and(|target| target.ends_with(id));
        let is_it = |found: Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
        names_it && file.metadata().is_ok_and(is_it)
    })
}
