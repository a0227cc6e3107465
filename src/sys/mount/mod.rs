//! The mount API that works on descriptors: open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2), and in
//! file_system.rs fsopen(2) and its kin. Where a kernel or a seccomp profile lacks one of these calls, stage2 does the same by mount(2), as
//! [`classic`] has it; smaster, whose mount namespace is the host's, leaves everything to stage2 then.

mod file_system;
mod shown;

pub use shown::{Shown, shown_at};

pub use file_system::{
    FileSystemContext, fs_message, fsconfig_create, fsconfig_flag, fsconfig_string, fsmount, fsopen,
};

use super::{Errno, check, classic, fd::own, is_missing};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub mod attr {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    pub const ATIME_MASK: u64 = 0x70;
    pub const IDMAP: u64 = 0x0010_0000;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
/// Of the architectures whose new calls have the same numbers; the libc crate does not know it yet.
const SYS_OPEN_TREE_ATTR: Option<libc::c_long> =
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")) { Some(467) } else { None };
const AT_RECURSIVE: u32 = 0x8000;
const AT_SYMLINK_NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;
const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A call of the new API, and whether it is missing, as far as this process has seen.
struct Known(AtomicBool);

static OPEN_TREE: Known = Known::new();
static OPEN_TREE_ATTR: Known = Known::new();
static MOUNT_SETATTR: Known = Known::new();
static MOVE_MOUNT: Known = Known::new();
static FSOPEN: Known = Known::new();

impl Known {
    const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn is_missing(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set_missing(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The result of the call, or of the classic way where it is missing.
    fn or_classic<T>(
        &self,
        new: impl FnOnce() -> nix::Result<T>,
        probe: impl FnOnce() -> libc::c_long,
        old: impl FnOnce() -> nix::Result<T>,
    ) -> nix::Result<T> {
        if !self.is_missing() {
            match new() {
                Err(errno) if is_missing(errno, probe) => self.set_missing(),
                result => return result,
            }
        }
        if classic::is_allowed() { old() } else { Err(Errno::ENOSYS) }
    }
}

/// Whether this process has seen that there are no detached mounts here, or none whose attributes can be set.
pub fn is_classic() -> bool {
    OPEN_TREE.is_missing() || MOUNT_SETATTR.is_missing()
}

/// Looks whether there are the calls that a process finds out about last, when it is too late to do without: for one to
/// which nothing has shown so far that they work.
pub fn detect() {
    for (call, result) in [
        (&OPEN_TREE, check(probe_open_tree()).and_then(|fd| own(fd).map(drop))),
        (&MOUNT_SETATTR, check(probe_mount_setattr()).map(drop)),
    ] {
        if matches!(result, Err(Errno::ENOSYS | Errno::EPERM)) {
            call.set_missing();
        }
    }
}

/// Without OPEN_TREE_CLONE it is open(2) with O_PATH, which everybody may.
fn probe_open_tree() -> libc::c_long {
    // SAFETY: the path is NUL-terminated.
    unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), OPEN_TREE_CLOEXEC) }
}

/// The flags are looked at before the privileges.
fn probe_mount_setattr() -> libc::c_long {
    // SAFETY: a call with these flags reads no memory.
    unsafe { libc::syscall(libc::SYS_mount_setattr, -1, std::ptr::null::<u8>(), u32::MAX, std::ptr::null::<u8>(), 0) }
}

/// For a probe of a call that never says EPERM where rtx makes it: it is the profile's.
fn deny() -> libc::c_long {
    Errno::EPERM.set();
    -1
}

/// A detached copy of the mount at `path` below `dir`, with the mounts below it if `recursive`. An empty path means
/// `dir` itself.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN over the caller's mount namespace; `EINVAL` where `dir` is in another one.
pub fn clone_tree(dir: impl AsFd, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    open_tree(dir, path, if recursive { AT_RECURSIVE } else { 0 })
}

/// As [`clone_tree`], but a symbolic link at the end of the path is cloned itself.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_tree_nofollow(dir: impl AsFd, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    open_tree(dir, path, AT_SYMLINK_NOFOLLOW | if recursive { AT_RECURSIVE } else { 0 })
}

/// As [`clone_tree`], with these attributes on all that is cloned: one call since Linux 6.15.
///
/// # Errors
/// As [`clone_tree`] and [`set_attributes`].
pub fn clone_tree_with(dir: impl AsFd, path: &CStr, recursive: bool, attributes: Attributes) -> nix::Result<OwnedFd> {
    let dir = dir.as_fd();
    if let Some(number) = SYS_OPEN_TREE_ATTR.filter(|_| !OPEN_TREE_ATTR.is_missing() && !is_classic()) {
        let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
        let attr = MountAttr::from(attributes);
        // SAFETY: the path is NUL-terminated and `attr` is a live mount_attr of the size given.
        let tree = own(unsafe {
            libc::syscall(
                number,
                dir.as_raw_fd(),
                path.as_ptr(),
                flags,
                std::ptr::from_ref(&attr),
                size_of::<MountAttr>(),
            )
        });
        match tree {
            // The two calls say whether it is the call that is missing, or a privilege.
            Err(Errno::ENOSYS | Errno::EPERM) => OPEN_TREE_ATTR.set_missing(),
            result => return result,
        }
    }
    let tree = clone_tree(dir, path, recursive)?;
    set_attributes(&tree, attributes, recursive)?;
    Ok(tree)
}

fn open_tree(dir: impl AsFd, path: &CStr, more: u32) -> nix::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | more;
    let (recursive, follow) = (more & AT_RECURSIVE != 0, more & AT_SYMLINK_NOFOLLOW == 0);
    let dir = dir.as_fd();
    if is_classic() && classic::is_allowed() {
        return classic::clone_tree(dir, path, recursive, follow);
    }
    OPEN_TREE.or_classic(
        // SAFETY: the path is NUL-terminated; the call touches no other memory.
        || own(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) }),
        || match probe_open_tree() {
            fd if fd < 0 => fd,
            fd => own(fd).map_or(-1, |_| 0),
        },
        || classic::clone_tree(dir, path, recursive, follow),
    )
}

/// Attaches the mount that `tree` refers to at the file or directory that `target` refers to.
///
/// # Errors
/// The kernel's; `ENOTDIR` where one is a directory and the other is not.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> nix::Result<()> {
    let (tree, target) = (tree.as_fd(), target.as_fd());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let call = || {
        let (from, to) = (tree.as_raw_fd(), target.as_raw_fd());
        // SAFETY: both paths are empty NUL-terminated strings.
        check(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) }).map(drop)
    };
    // Whoever lacks the privilege could not have made what is to be attached: EPERM is a profile's.
    if classic::has_staged() {
        return classic::attach(tree, target);
    }
    MOVE_MOUNT.or_classic(call, deny, || classic::attach(tree, target))
}

/// As [`attach`], at what has that name in the directory `parent`. A link is not followed.
///
/// # Errors
/// As [`attach`].
pub fn attach_at(tree: impl AsFd, parent: impl AsFd, name: &CStr) -> nix::Result<()> {
    let (tree, parent) = (tree.as_fd(), parent.as_fd());
    let call = || {
        let (from, to) = (tree.as_raw_fd(), parent.as_raw_fd());
        // SAFETY: both paths are NUL-terminated strings.
        let result = unsafe {
            libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, name.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
        };
        check(result).map(drop)
    };
    let by_mount = || {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        classic::attach(tree, openat(parent, name, flags, Mode::empty())?)
    };
    if classic::has_staged() { by_mount() } else { MOVE_MOUNT.or_classic(call, deny, by_mount) }
}

/// As [`attach`], at a path of the host, whose links are followed.
///
/// # Errors
/// As [`attach`]; `ENOSYS` where there is no such call, or nothing to attach by it.
pub fn attach_at_path(tree: impl AsFd, path: &CStr) -> nix::Result<()> {
    const MOVE_MOUNT_T_SYMLINKS: u32 = 0x10;
    if classic::has_staged() || MOVE_MOUNT.is_missing() {
        return Err(Errno::ENOSYS);
    }
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
    let from = tree.as_fd().as_raw_fd();
    // SAFETY: both paths are NUL-terminated strings.
    let result =
        unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), libc::AT_FDCWD, path.as_ptr(), flags) };
    check(result).map(drop)
}

/// What [`set_attributes`] changes: `MOUNT_ATTR_*` bits to set and to clear, and a propagation type (`MS_SHARED` and
/// its kin, 0 for none).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

impl From<Attributes> for MountAttr {
    fn from(attributes: Attributes) -> Self {
        Self { attr_set: attributes.set, attr_clr: attributes.clear, propagation: attributes.propagation, userns_fd: 0 }
    }
}

/// mount_setattr(2) on the mount that `mount` refers to.
///
/// # Errors
/// The kernel's; `EINVAL` where the descriptor is not the root of a mount.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> nix::Result<()> {
    let attr = MountAttr::from(attributes);
    let mount = mount.as_fd();
    MOUNT_SETATTR.or_classic(
        || setattr(mount, &attr, recursive),
        probe_mount_setattr,
        || classic::set_attributes(mount, attributes, recursive),
    )
}

/// Maps the ids of a detached mount as the user namespace that `userns` refers to maps them
/// (`MOUNT_ATTR_IDMAP`).
///
/// # Errors
/// `EINVAL` where the file system cannot be mapped or the mount is attached already.
pub fn set_idmap(mount: impl AsFd, userns: impl AsFd, recursive: bool) -> nix::Result<()> {
    let attr =
        MountAttr { attr_set: attr::IDMAP, userns_fd: userns.as_fd().as_raw_fd() as u64, ..MountAttr::default() };
    setattr(mount, &attr, recursive)
}

fn setattr(mount: impl AsFd, attr: &MountAttr, recursive: bool) -> nix::Result<()> {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let mount = mount.as_fd();
    // SAFETY: the path is an empty NUL-terminated string and `attr` is a live mount_attr of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// pivot_root(".", "."): the new root is the working directory, and the old root is stacked on top of it, where
/// umount2(".", `MNT_DETACH`) removes it (pivot_root(2), NOTES).
///
/// # Errors
/// `EINVAL` where the working directory is not a mount, or its parent mount is shared.
pub fn pivot_root_here() -> nix::Result<()> {
    // SAFETY: both arguments are NUL-terminated.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// Labels the root of a mount for SELinux (setxattr(2) of `security.selinux`).
///
/// # Errors
/// `EOPNOTSUPP` where the file system has no labels.
pub fn set_selinux_label(mount: impl AsFd, label: &CStr) -> nix::Result<()> {
    let path = format!("/proc/self/fd/{}\0", mount.as_fd().as_raw_fd());
    let bytes = label.to_bytes_with_nul();
    // SAFETY: path and name are NUL-terminated, and the value is of the length given.
    check(libc::c_long::from(unsafe {
        libc::setxattr(path.as_ptr().cast(), c"security.selinux".as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0)
    }))
    .map(drop)
}
