//! A cgroup and all below it, by descriptors: who may make directories there nests them deeper than a path can be long.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file;
use crate::sys::dir;

/// Calls `enter` with a directory and then with all below it, and `leave` with the directory above and the name of each below
/// when all in it was seen. What vanishes meanwhile is left out.
///
/// # Errors
/// That of the first call that fails, or the kernel's.
pub(super) fn walk<E: From<Errno>>(
    directory: &Path,
    mut enter: impl FnMut(BorrowedFd<'_>, &Path) -> Result<(), E>,
    mut leave: impl FnMut(BorrowedFd<'_>, &OsStr) -> Result<(), E>,
) -> Result<(), E> {
    let mut path = directory.to_owned();
    let mut here = match file::open_dir(AT_FDCWD, directory) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    enter(here.as_fd(), &path)?;
    let mut levels = vec![below(here.as_fd())];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.pop() {
            here = match file::open_dir(&here, &name) {
                Err(Errno::ENOENT) => continue,
                other => other?,
            };
            path.push(name);
            enter(here.as_fd(), &path)?;
            levels.push(below(here.as_fd()));
            continue;
        }
        levels.pop();
        if !levels.is_empty() {
            here = file::open_dir(&here, "..")?;
            let name = path.file_name().unwrap_or_default().to_owned();
            path.pop();
            leave(here.as_fd(), &name)?;
        }
    }
    Ok(())
}

/// As [`walk`], parents first alone.
///
/// # Errors
/// As [`walk`].
pub(super) fn each<E: From<Errno>>(
    directory: &Path,
    visit: impl FnMut(BorrowedFd<'_>, &Path) -> Result<(), E>,
) -> Result<(), E> {
    walk(directory, visit, |_, _| Ok(()))
}

/// Removes a directory and all below it. What is not there is removed already.
///
/// # Errors
/// The kernel's, `EBUSY` where a process is in one of them.
pub(super) fn remove(directory: &Path) -> nix::Result<()> {
    walk(directory, |_, _| Ok(()), |parent, name| rmdir(parent, Path::new(name)))?;
    rmdir(AT_FDCWD, directory)
}

/// rmdir(2) for which a directory that is not there is removed already.
///
/// # Errors
/// The kernel's.
pub(super) fn rmdir(base: impl AsFd, path: &Path) -> nix::Result<()> {
    match unlinkat(base, path, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        result => result,
    }
}

fn below(directory: BorrowedFd<'_>) -> Vec<OsString> {
    let entries = dir::entries_of(directory).unwrap_or_default();
    entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()
}
