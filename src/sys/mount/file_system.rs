//! New file systems: fsopen(2), fsconfig(2), fsmount(2), or mount(2) where those are missing.

use super::super::{Errno, check, classic, fd::own};
use super::{FSOPEN, deny};
use std::cell::RefCell;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

/// A new file system in preparation.
pub enum FileSystemContext {
    /// Of fsopen(2).
    New(OwnedFd),
    /// For mount(2).
    Classic(RefCell<ClassicFileSystem>),
}

/// What mount(2) gets when all is known.
#[derive(Default)]
pub struct ClassicFileSystem {
    kind: String,
    source: Option<String>,
    /// `MS_*`.
    flags: u64,
    data: Vec<String>,
}

/// What fsconfig(2) calls the flags that mount(2) has as bits.
const SUPERBLOCK_FLAGS: &[(&str, u64)] = &[
    ("ro", libc::MS_RDONLY),
    ("sync", libc::MS_SYNCHRONOUS),
    ("dirsync", libc::MS_DIRSYNC),
    ("mand", libc::MS_MANDLOCK),
    ("lazytime", 1 << 25),
];

fn text(value: &CStr) -> nix::Result<String> {
    value.to_str().map(str::to_owned).map_err(|_| Errno::EINVAL)
}

/// fsopen(2): a context to configure a new instance of the file system type `name`.
///
/// # Errors
/// `ENODEV` where the kernel has no such file system.
pub fn fsopen(name: &CStr) -> nix::Result<FileSystemContext> {
    const FSOPEN_CLOEXEC: u32 = 1;
    FSOPEN.or_classic(
        // SAFETY: the name is NUL-terminated.
        || own(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) }).map(FileSystemContext::New),
        // It asks for the privilege first; only who has it comes here.
        deny,
        || {
            let context = ClassicFileSystem { kind: text(name)?, ..ClassicFileSystem::default() };
            Ok(FileSystemContext::Classic(RefCell::new(context)))
        },
    )
}

/// fsconfig(2), `FSCONFIG_SET_STRING`.
///
/// # Errors
/// `EINVAL` where the file system does not know the key or refuses the value; [`fs_message`] says more.
pub fn fsconfig_string(context: &FileSystemContext, key: &CStr, value: &CStr) -> nix::Result<()> {
    match context {
        FileSystemContext::New(fd) => fsconfig(fd, FSCONFIG_SET_STRING, Some(key), Some(value)),
        FileSystemContext::Classic(classic) => {
            let (key, value) = (text(key)?, text(value)?);
            match key.as_str() {
                "source" => classic.borrow_mut().source = Some(value),
                _ => classic.borrow_mut().data.push(format!("{key}={value}")),
            }
            Ok(())
        }
    }
}

/// fsconfig(2), `FSCONFIG_SET_FLAG`.
///
/// # Errors
/// As [`fsconfig_string`].
pub fn fsconfig_flag(context: &FileSystemContext, key: &CStr) -> nix::Result<()> {
    match context {
        FileSystemContext::New(fd) => fsconfig(fd, FSCONFIG_SET_FLAG, Some(key), None),
        FileSystemContext::Classic(classic) => {
            let key = text(key)?;
            match SUPERBLOCK_FLAGS.iter().find(|(name, _)| *name == key) {
                Some((_, flag)) => classic.borrow_mut().flags |= flag,
                None => classic.borrow_mut().data.push(key),
            }
            Ok(())
        }
    }
}

/// fsconfig(2), `FSCONFIG_CMD_CREATE`: makes the superblock.
///
/// # Errors
/// What mounting the file system returns.
pub fn fsconfig_create(context: &FileSystemContext) -> nix::Result<()> {
    match context {
        FileSystemContext::New(fd) => fsconfig(fd, FSCONFIG_CMD_CREATE, None, None),
        // mount(2) does it with all the rest.
        FileSystemContext::Classic(_) => Ok(()),
    }
}

fn fsconfig(context: impl AsFd, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> nix::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are null or NUL-terminated.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_fd().as_raw_fd(), command, pointer(key), pointer(value), 0)
    })
    .map(drop)
}

/// fsmount(2): a detached mount of the configured file system, with `MOUNT_ATTR_*` attributes.
///
/// # Errors
/// `EPERM` where a user namespace may not see this file system unmasked.
pub fn fsmount(context: &FileSystemContext, attributes: u64) -> nix::Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    match context {
        FileSystemContext::New(fd) => {
            // SAFETY: the call takes only integers.
            own(unsafe { libc::syscall(libc::SYS_fsmount, fd.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as u32) })
        }
        FileSystemContext::Classic(options) => {
            let ClassicFileSystem { kind, source, flags, data } = &*options.borrow();
            classic::new_file_system(kind, source.as_deref(), *flags, &data.join(","), attributes)
        }
    }
}

/// What the file system said about the last failure on this context, if it said anything.
pub fn fs_message(context: &FileSystemContext) -> Option<String> {
    let FileSystemContext::New(context) = context else { return None };
    let mut buffer = [0; 512];
    let length = nix::unistd::read(context, &mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    Some(text.trim_end().trim_start_matches(|c: char| c.is_lowercase()).trim_start().to_owned())
        .filter(|text| !text.is_empty())
}
