//! The container's root: every path is resolved beneath it, once, to a descriptor.
//!
//! Whoever made the image, or another container that shares it, may be changing it meanwhile. A path is therefore
//! never checked and then used: it is opened by openat2(2) with the root as its world, and what happens next happens to
//! the descriptor.

use crate::rpc::operation::{EnterRoot, RootOperation};
use crate::sys::mount::{self, Attributes};
use crate::sys::{Errno, On, fd, path};
use anyhow::{Context, Result, bail};
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use std::cell::{Cell, RefCell};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

const SAFE: u64 = path::resolve::IN_ROOT | path::resolve::NO_MAGICLINKS;
/// As the kernel has it for the symbolic links of one path (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// What a mount's target has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Directory,
    File,
}

pub struct Root {
    fd: OwnedFd,
    /// The directory in which the last place was made, with its path: most are all in /dev.
    last: RefCell<Option<(String, Rc<OwnedFd>)>>,
    /// A place may be elsewhere than its path says.
    linked: Cell<bool>,
}

impl From<OwnedFd> for Root {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, last: RefCell::new(None), linked: Cell::new(false) }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Makes the root file system a mount of its own, in a mount namespace that is stage2's alone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(operation: &RootOperation, tree: Option<OwnedFd>) -> Result<Self> {
        let shown = &operation.path;
        if !operation.mount {
            let fd = fd::open(operation.path.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY);
            return Ok(Self::from(fd.on("open the root file system", shown)?));
        }
        let fd = match tree {
            Some(tree) => tree,
            None => mount::clone_tree(AT_FDCWD, &c_string(shown)?, true).on("open the root file system", shown)?,
        };
        if operation.propagation != 0 {
            let propagation = Attributes { propagation: operation.propagation, ..Attributes::default() };
            mount::set_attributes(&fd, propagation, true).on("set the propagation of the root file system", shown)?;
        }
        if operation.on_host || mount::attach_at_path(&fd, &c_string(shown)?).is_err() {
            Self::attach(&fd, operation)?;
        }
        Ok(Self::from(fd))
    }

    fn attach(fd: &OwnedFd, operation: &RootOperation) -> Result<()> {
        let shown = &operation.path;
        // Where the path cannot be reached, because a mapped user may not search its parents, the root goes on top of
        // everything: nothing but a hook would have looked for it at its path.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let place = match fd::open(operation.path.as_str(), flags) {
            Ok(place) => place,
            Err(errno) if operation.on_host => Err(errno).on("open the root file system", shown)?,
            Err(_) => fd::open("/", flags).on("open", "/")?,
        };
        mount::attach(fd, &place).on("mount the root file system", shown)?;
        if operation.on_host {
            // Attached below a shared mount it became one, and the others would get what is mounted on it.
            let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
            mount::set_attributes(fd, private, true).on("set the propagation of the root file system", shown)?;
        }
        Ok(())
    }

    /// Makes the root `/`.
    ///
    /// # Errors
    /// `EINVAL` for a pivot from a ramfs, where `--no-pivot` helps.
    pub fn enter(&self, how: EnterRoot) -> Result<()> {
        self.forget();
        nix::unistd::fchdir(&self.fd).on("chdir", "the root file system")?;
        match how {
            EnterRoot::Pivot => {
                mount::pivot_root_here().on("pivot_root", "the root file system")?;
                umount2(".", MntFlags::MNT_DETACH).on("unmount", "the host's root")?;
            }
            EnterRoot::Move => {
                self.hide_the_hosts()?;
                nix::mount::mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
                    .on("move the root file system to", "/")?;
                nix::unistd::chroot(".").on("chroot", "the root file system")?;
            }
            EnterRoot::Chroot => nix::unistd::chroot(".").on("chroot", "the root file system")?,
        }
        nix::unistd::chdir("/").on("chdir", "/")?;
        Ok(())
    }

    /// Takes the host's proc and sysfs out of this mount namespace. With pivot_root(2) they go with the host's root; beside a
    /// root that was moved they would stay, and with them, in view of the kernel, a right to mount new ones without masks.
    fn hide_the_hosts(&self) -> Result<()> {
        let own = readlinkat(AT_FDCWD, format!("/proc/self/fd/{}", self.fd.as_raw_fd()).as_str())
            .on("readlink", "the root file system")?;
        let mounts = procfs::process::Process::myself().and_then(|process| process.mountinfo());
        let mounts = mounts.context("read /proc/self/mountinfo")?;
        let is_hosts = |mount: &procfs::process::MountInfo| {
            matches!(mount.fs_type.as_str(), "proc" | "sysfs") && !mount.mount_point.starts_with(&own)
        };
        // The last mounted first: it may lie on another.
        let points: Vec<PathBuf> = mounts.into_iter().filter(is_hosts).map(|mount| mount.mount_point).collect();
        for point in points.iter().rev() {
            match umount2(point, MntFlags::MNT_DETACH) {
                // In a user namespace the mounts of its parent are locked together.
                Err(Errno::EINVAL | Errno::EPERM) => {
                    nix::mount::mount(Some("tmpfs"), point, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                        .on("cover", point.display())?;
                }
                Ok(()) | Err(Errno::ENOENT) => {}
                other => other.on("unmount", point.display())?,
            }
        }
        Ok(())
    }

    /// Opens what is at `path` without access to its content; `None` where nothing is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn find(&self, path: &str) -> Result<Option<OwnedFd>> {
        match self.open_with(path, OFlag::O_PATH, 0) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno).on("open", format_args!("/{path}"))?,
        }
    }

    /// openat2(2) in the root; `extra` are further `RESOLVE_*` limits.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_with(&self, path: &str, flags: OFlag, extra: u64) -> nix::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let c_path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        path::openat2(&self.fd, &c_path, flags.bits(), 0, SAFE | extra)
    }

    /// Whether some place was reached by a symbolic link.
    pub fn is_linked(&self) -> bool {
        self.linked.get()
    }

    /// As [`Self::open_with`], and takes note of symbolic links.
    fn open_noting(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        match self.open_with(path, flags, path::resolve::NO_SYMLINKS) {
            Err(Errno::ELOOP) => {
                self.linked.set(true);
                self.open_with(path, flags, 0)
            }
            other => other,
        }
    }

    /// Opens the place for a mount and makes it where it is missing: a directory with mode 0755, or an empty file.
    ///
    /// # Errors
    /// The kernel's; `EROFS` where it is missing from a read-only file system.
    pub fn target(&self, path: &str, kind: Target) -> Result<OwnedFd> {
        self.place(path, kind, false).map(|(target, _)| target)
    }

    /// As [`Self::target`], and whether it had to be made. With `nofollow` a symbolic link at the end of the path is the
    /// place itself.
    ///
    /// # Errors
    /// As [`Self::target`].
    pub fn place(&self, path: &str, kind: Target, nofollow: bool) -> Result<(OwnedFd, bool)> {
        if let Some(made) = self.make_beside_last(path, kind) {
            return Ok((made, true));
        }
        let flags = if nofollow { OFlag::O_PATH | OFlag::O_NOFOLLOW } else { OFlag::O_PATH };
        match self.open_noting(path, flags) {
            Ok(fd) => {
                // What is mounted on it may cover what was kept. Only what has just been made is sure not to.
                self.forget();
                Ok((fd, false))
            }
            Err(Errno::ENOENT) => Ok((self.make(path, kind, 0o755)?, true)),
            Err(errno) => Err(errno).on("open", format_args!("/{path}"))?,
        }
    }

    /// A directory, made where it is missing, and kept for what is made in it next.
    ///
    /// # Errors
    /// As [`Self::target`].
    pub fn directory(&self, path: &str) -> Result<Rc<OwnedFd>> {
        if let Some((known, directory)) = self.last.borrow().as_ref()
            && known == path
        {
            return Ok(directory.clone());
        }
        let directory = Rc::new(self.target(path, Target::Directory)?);
        *self.last.borrow_mut() = Some((path.to_owned(), directory.clone()));
        Ok(directory)
    }

    /// Where the directory is at hand, what is missing from it is made without being looked for first.
    fn make_beside_last(&self, path: &str, kind: Target) -> Option<OwnedFd> {
        let (above, name) = path.rsplit_once('/')?;
        let last = self.last.borrow();
        let (_, parent) = last.as_ref().filter(|(known, _)| known == above)?;
        create_entry(parent, Path::new(name), kind, 0o755).ok()
    }

    /// Forgets the directory that was kept: something may be mounted on it, or on the way to it.
    pub fn forget(&self) {
        *self.last.borrow_mut() = None;
    }

    /// Gives the descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The directory that holds `path`, made where it is missing, and the last component.
    ///
    /// # Errors
    /// The kernel's; an error for a path without a last component.
    pub fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p OsStr)> {
        let path = Path::new(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("the path {:?} names no entry of a directory", path.display());
        };
        Ok((self.target(&parent.to_string_lossy(), Target::Directory)?, name))
    }

    /// Makes a directory or file with all that is missing above it, component by component. A symbolic link that
    /// points at nothing is followed to where it points, inside the root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make(&self, path: &str, kind: Target, mode: u32) -> Result<OwnedFd> {
        // Most often only the last component is missing.
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !matches!(name, "" | "." | "..")
            && let Ok(parent) = self.open_noting(above, OFlag::O_PATH | OFlag::O_DIRECTORY)
            && let Ok(made) = create_entry(&parent, Path::new(name), kind, mode)
        {
            *self.last.borrow_mut() = Some((above.to_owned(), Rc::new(parent)));
            return Ok(made);
        }
        self.make_all(path, kind, mode)
    }

    fn make_all(&self, path: &str, kind: Target, mode: u32) -> Result<OwnedFd> {
        self.linked.set(true);
        let mut pending: Vec<PathBuf> = components(Path::new(path));
        let mut done = PathBuf::new();
        let mut links = 0;
        let mut current = self.open_with("", OFlag::O_PATH, 0).on("open", "the root file system")?;
        while let Some(name) = pending.pop() {
            let wanted = if pending.is_empty() { kind } else { Target::Directory };
            let next = done.join(&name);
            let shown = next.to_string_lossy();
            match self.open_with(&shown, OFlag::O_PATH, 0) {
                Ok(fd) => {
                    current = fd;
                    done = next;
                    continue;
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => Err(errno).on("open", format_args!("/{shown}"))?,
            }
            match create_entry(&current, &name, wanted, mode) {
                Err(Errno::EEXIST) if links < MAX_LINKS => {
                    // A dangling symbolic link: go where it points, from its own directory or from the root. Anything
                    // else was made by somebody between the two calls, and is there to be opened now.
                    links += 1;
                    let Ok(target) = readlinkat(&current, &name) else {
                        pending.push(name);
                        continue;
                    };
                    let target = Path::new(&target);
                    if target.is_absolute() {
                        done = PathBuf::new();
                        current = self.open_with("", OFlag::O_PATH, 0).on("open", "the root file system")?;
                    }
                    pending.extend(components(target));
                }
                other => {
                    current = other.on("create", format_args!("/{shown}"))?;
                    done = next;
                }
            }
        }
        Ok(current)
    }
}

/// The components in reverse order, ready to be popped.
fn components(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn create_entry(parent: &OwnedFd, name: &Path, kind: Target, mode: u32) -> nix::Result<OwnedFd> {
    let nofollow = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        Target::Directory => {
            mkdirat(parent, name, Mode::from_bits_truncate(mode))?;
            openat(parent, name, nofollow | OFlag::O_DIRECTORY, Mode::empty())
        }
        Target::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            drop(openat(parent, name, flags, Mode::from_bits_truncate(mode))?);
            openat(parent, name, nofollow, Mode::empty())
        }
    }
}

/// Whether the descriptor refers to a directory.
///
/// # Errors
/// The kernel's.
pub fn is_directory(fd: impl AsFd) -> nix::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// A path or name for a system call.
///
/// # Errors
/// Where it contains a NUL byte, which no path can.
pub fn c_string(text: impl AsRef<OsStr>) -> Result<CString> {
    let bytes = text.as_ref().as_bytes();
    CString::new(bytes).map_err(|_| anyhow::anyhow!("{:?} contains a NUL byte", String::from_utf8_lossy(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Containers that share a root make its missing directories at the same time: each has to end up where it wanted.
    #[test]
    fn a_race_for_a_directory_leads_everybody_into_it() {
        let directory = std::env::temp_dir().join(format!("rtx-root-{}", std::process::id()));
        for round in 0..200 {
            let top = directory.join(round.to_string());
            std::fs::create_dir_all(&top).unwrap();
            let make = || {
                let fd = fd::open(&top, OFlag::O_PATH | OFlag::O_DIRECTORY).unwrap();
                let made = Root::from(fd).make("a/b/c", Target::Directory, 0o755).unwrap();
                fstat(&made).unwrap().st_ino
            };
            let made = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect::<Vec<_>>()
            });
            let wanted = std::fs::metadata(top.join("a/b/c")).unwrap().ino();
            assert!(made.iter().all(|inode| *inode == wanted), "{made:?} {wanted}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
