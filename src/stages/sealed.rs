//! The executable that stage2 runs from, out of the container's reach (CVE-2019-5736): a container that overwrites
//! /proc/PID/exe of the process that becomes its init, or joins it, would own the host.

use crate::config::envelope::Sealed;
use crate::sys::mount::{Attributes, attr, clone_tree_with};
use crate::sys::{Errno, On, errno_of, memfd};
use anyhow::{Result, bail};
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::stat::{Mode, fstat, stat};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

const SELF: &str = "/proc/self/exe";

/// This executable, open, so that nothing running from it can write to it.
pub struct Executable {
    pub fd: OwnedFd,
    pub sealed: Sealed,
    /// The mount that it is opened through. Closing it takes the mount apart, for which the kernel waits until no processor
    /// can still be using it: to be done while there is something else to wait for, and before the container's program
    /// runs. The file keeps what it needs of the mount.
    pub tree: Option<OwnedFd>,
}

/// Opens this executable so that nothing running from it can write to it.
///
/// # Errors
/// Where no way of protecting it works.
pub fn open_executable() -> Result<Executable> {
    if let Ok((fd, tree)) = readonly_mount() {
        return Ok(Executable { fd, sealed: Sealed::ReadonlyMount, tree: Some(tree) });
    }
    // Without privileges there is no mount to be had. A file that this user cannot write is safe from all users that
    // it could map into a container: they are itself and subordinate ones.
    if !nix::unistd::geteuid().is_root() && access(SELF, AccessFlags::W_OK) != Ok(()) {
        let fd = open(SELF, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).on("open", SELF)?;
        if fstat(&fd).on("stat", SELF)?.st_uid != nix::unistd::geteuid().as_raw() {
            return Ok(Executable { fd, sealed: Sealed::NotWritable, tree: None });
        }
    }
    Ok(Executable { fd: copy_in_memory()?, sealed: Sealed::Memory, tree: None })
}

/// A read-only clone of the mount that holds the executable's directory, attached nowhere. Of the directory and not of
/// the file: while a process holds the descriptor of a mount's root, here the directory's, its read-only flag can be
/// cleared, and /proc/PID/exe then refers to a file below that root and never to the root itself.
fn readonly_mount() -> Result<(OwnedFd, OwnedFd)> {
    let path = std::fs::read_link(SELF).map_err(|error| errno_of(&error)).on("readlink", SELF)?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { bail!("{SELF} names no file") };
    let c_directory = CString::new(directory.as_os_str().as_bytes())?;
    let readonly = Attributes { set: attr::RDONLY | attr::NOSUID, ..Attributes::default() };
    let tree = clone_tree_with(AT_FDCWD, &c_directory, false, readonly).on("open_tree", directory.display())?;
    let executable = openat(&tree, name, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
        .on("open", path.display())?;
    // The path may name another file by now.
    let (one, other) = (fstat(&executable).on("stat", path.display())?, stat(SELF).on("stat", SELF)?);
    if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
        bail!("{} is not what {SELF} refers to", path.display());
    }
    Ok((executable, tree))
}

fn copy_in_memory() -> Result<OwnedFd> {
    let memfd = memfd::create(c"rtx", true).on("memfd_create", "for a copy of rtx")?;
    let mut copy = File::from(memfd);
    let mut executable = File::open(SELF).map_err(|error| errno_of(&error)).on("open", SELF)?;
    std::io::copy(&mut executable, &mut copy).map_err(|error| errno_of(&error)).on("copy", SELF)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(all_seals())).on("seal", "a copy of rtx")?;
    Ok(copy.into())
}

fn all_seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL
}

/// In stage2: refuses to go on from an executable that the container could write.
///
/// # Errors
/// Where the executable is not protected as smaster said it is.
pub fn verify(sealed: Sealed) -> Result<()> {
    let is_safe = match sealed {
        // statfs(2) adds up first what is free there.
        Sealed::ReadonlyMount => {
            access(SELF, AccessFlags::W_OK) == Err(Errno::EROFS)
                || statvfs(SELF).on("statvfs", SELF)?.flags().contains(FsFlags::ST_RDONLY)
        }
        Sealed::Memory => {
            let executable = open(SELF, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).on("open", SELF)?;
            let seals = fcntl(&executable, FcntlArg::F_GET_SEALS).on("ask for the seals of", SELF)?;
            SealFlag::from_bits_truncate(seals).contains(all_seals())
        }
        // smaster looked as the user that it is; in a user namespace this process looks as another.
        Sealed::NotWritable => true,
    };
    if !is_safe {
        bail!("rtx init must run from a protected copy of rtx: it is not meant to be called by hand");
    }
    Ok(())
}
