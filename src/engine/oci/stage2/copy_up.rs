//! `tmpcopyup`: a new tmpfs starts with what the directory that it covers holds.

use crate::sys::{Errno, On};
use anyhow::Result;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// Copies the content of one directory into another: directories, files, links and nodes, with owner, permissions and
/// times. Links are copied, not followed.
///
/// # Errors
/// The kernel's, with the name of the entry.
pub fn copy_up(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut directory = Dir::openat(from.as_fd(), ".", flags, Mode::empty()).on("open", "directory")?;
    let source: OwnedFd = openat(from.as_fd(), ".", flags, Mode::empty()).on("open", "directory")?;
    for entry in directory.iter() {
        let entry = entry.on("read", "directory")?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(&source, to.as_fd(), name)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: impl AsFd, name: &CStr) -> Result<()> {
    let shown = name.to_string_lossy();
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).on("stat", &shown)?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let nofollow = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to.as_fd(), name, mode).on("mkdir", &shown)?;
            let inner =
                openat(from, name, nofollow | OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).on("open", &shown)?;
            let target = openat(to.as_fd(), name, nofollow | OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
                .on("open", &shown)?;
            copy_up(inner, target)?;
        }
        SFlag::S_IFREG => {
            // What has taken the file's place meanwhile could be a pipe that nobody writes to.
            let source = nofollow | OFlag::O_RDONLY | OFlag::O_NONBLOCK;
            let mut source: File = openat(from, name, source, Mode::empty()).on("open", &shown)?.into();
            let flags = nofollow | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let mut target: File = openat(to.as_fd(), name, flags, mode).on("create", &shown)?.into();
            std::io::copy(&mut source, &mut target).map_err(|error| crate::sys::errno_of(&error)).on("copy", &shown)?;
        }
        SFlag::S_IFLNK => {
            let link = readlinkat(from, name).on("readlink", &shown)?;
            symlinkat(link.as_os_str(), to.as_fd(), name).on("symlink", &shown)?;
        }
        _ => match mknodat(to.as_fd(), name, kind, mode, stat.st_rdev) {
            // A user namespace may make no device nodes; the image's own have no use in it either.
            Err(Errno::EPERM) => return Ok(()),
            other => other.on("mknod", &shown)?,
        },
    }
    keep_metadata(to, name, &stat, kind).on("set the owner and times of", &shown)?;
    Ok(())
}

fn keep_metadata(to: impl AsFd, name: &CStr, stat: &FileStat, kind: SFlag) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match fchownat(to.as_fd(), name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // An owner that the user namespace does not map cannot be given.
        Err(Errno::EINVAL | Errno::EPERM) => {}
        other => other?,
    }
    if kind != SFlag::S_IFLNK {
        // Changing the owner clears the set-id bits.
        fchmodat(to.as_fd(), name, Mode::from_bits_truncate(stat.st_mode), FchmodatFlags::FollowSymlink)?;
    }
    let time = |seconds, nanoseconds| TimeSpec::new(seconds, nanoseconds);
    utimensat(
        to,
        name,
        &time(stat.st_atime, stat.st_atime_nsec),
        &time(stat.st_mtime, stat.st_mtime_nsec),
        UtimensatFlags::NoFollowSymlink,
    )
}
