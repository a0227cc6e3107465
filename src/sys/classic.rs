//! The mount API of [`mount`](super::mount) by mount(2) alone, for kernels before 5.12 and for seccomp profiles that know
//! nothing newer. For stage2 in a mount namespace of its own: what is detached in the new API is attached here to a tmpfs
//! that nobody else sees, and moved from there.
//!
//! mount(2) takes paths. Each is that of a descriptor in a /proc that was opened and checked before anything of the
//! container was there, so that what a path means was decided when the descriptor was opened, as in the new API: no link
//! that is put in the way later is followed.

use super::mount::{Attributes, attr};
use super::path::mount_id;
use super::{Errno, errno_of};
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The /proc that paths of descriptors are looked up in. Set where this API may be used at all.
static PROC: OnceLock<Arc<OwnedFd>> = OnceLock::new();
static STAGING: Mutex<Option<Staging>> = Mutex::new(None);

/// The tmpfs, on top of the root directory, and how many mounts wait in it.
struct Staging {
    root: OwnedFd,
    waiting: usize,
    made: usize,
}

/// Allows this API from now on, in this mount namespace. `proc` is a checked /proc.
pub fn allow(proc: Arc<OwnedFd>) {
    let _ = PROC.set(proc);
}

/// Whether it is allowed here.
pub fn is_allowed() -> bool {
    PROC.get().is_some()
}

/// Whether something made here waits to be attached.
pub fn has_staged() -> bool {
    STAGING.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

fn proc() -> nix::Result<&'static OwnedFd> {
    PROC.get().map(|proc| &**proc).ok_or(Errno::ENOSYS)
}

/// As [`super::mount::clone_tree`].
pub fn clone_tree(dir: impl AsFd, path: &CStr, recursive: bool, follow: bool) -> nix::Result<OwnedFd> {
    let source = match path.is_empty() {
        true => dir.as_fd().try_clone_to_owned().map_err(|error| errno_of(&error))?,
        false => {
            let nofollow = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
            openat(dir, path, OFlag::O_PATH | OFlag::O_CLOEXEC | nofollow, Mode::empty())?
        }
    };
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    stage(is_directory(&source)?, |place| at_proc(|| mount(Some(&*of(&source)), place, NONE, flags, NONE)))
}

/// As fsmount(2) of a context with these options; `superblock` are the `MS_*` flags of the file system.
pub fn new_file_system(
    kind: &str,
    source: Option<&str>,
    superblock: u64,
    data: &str,
    attributes: u64,
) -> nix::Result<OwnedFd> {
    let read_only = libc::MS_RDONLY;
    // mount(2) has one flag for both, the file system and the mount.
    let flags = superblock | mount_flags(attributes) & !read_only;
    let data = Some(data).filter(|data| !data.is_empty());
    let tree =
        stage(true, |place| at_proc(|| mount(Some(source.unwrap_or("none")), place, Some(kind), ms(flags), data)))?;
    let (wanted, got) = (attributes & attr::RDONLY, if superblock & read_only != 0 { attr::RDONLY } else { 0 });
    if wanted != got {
        set_attributes(&tree, Attributes { set: wanted, clear: attr::RDONLY, propagation: 0 }, false)?;
    }
    Ok(tree)
}

/// As [`super::mount::attach`]. Takes a detached tree of the new API as well.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> nix::Result<()> {
    at_proc(|| mount(Some(&*of(&tree)), &*of(&target), NONE, MsFlags::MS_MOVE, NONE))?;
    let mut staging = STAGING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(open) = staging.as_mut() {
        open.waiting = open.waiting.saturating_sub(1);
        if open.waiting == 0 {
            at_proc(|| umount2(&*of(&open.root), MntFlags::MNT_DETACH))?;
            *staging = None;
        }
    }
    Ok(())
}

/// As [`super::mount::set_attributes`], for mounts that are attached, or staged here.
pub fn set_attributes(tree: impl AsFd, attributes: Attributes, recursive: bool) -> nix::Result<()> {
    let tree = tree.as_fd();
    if attributes.set != 0 || attributes.clear != 0 {
        let table = mount_table()?;
        let id = mount_id(proc()?, tree)?;
        let own = table.iter().find(|mount| mount.id == id).ok_or(Errno::EINVAL)?;
        change(tree, own, attributes)?;
        if recursive {
            for child in below(&table, id) {
                if let Some(fd) = open_mount(tree, own, child, &table)? {
                    change(fd.as_fd(), child, attributes)?;
                }
            }
        }
    }
    if attributes.propagation != 0 {
        let flags = attributes.propagation | if recursive { libc::MS_REC } else { 0 };
        at_proc(|| mount(NONE, &*of(&tree), NONE, ms(flags), NONE))?;
    }
    Ok(())
}

const NONE: Option<&str> = None;

fn ms(flags: u64) -> MsFlags {
    MsFlags::from_bits_retain(flags as libc::c_ulong)
}

/// The path of a descriptor, seen from /proc.
fn of(fd: &impl AsFd) -> String {
    format!("self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Works in /proc, wherever that is mounted and whether it still is.
fn at_proc<T>(work: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let before = open(".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::fchdir(proc()?)?;
    let result = work();
    nix::unistd::fchdir(before)?;
    result
}

/// Makes a mount at a new place of the staging tmpfs and returns its root.
fn stage(directory: bool, make: impl FnOnce(&str) -> nix::Result<()>) -> nix::Result<OwnedFd> {
    let mut staging = STAGING.lock().unwrap_or_else(PoisonError::into_inner);
    let open = match staging.as_mut() {
        Some(open) => open,
        None => staging.insert(Staging { root: make_staging()?, waiting: 0, made: 0 }),
    };
    open.made += 1;
    let name = open.made.to_string();
    if directory {
        mkdirat(&open.root, name.as_str(), Mode::S_IRWXU)?;
    } else {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        drop(openat(&open.root, name.as_str(), flags, Mode::S_IRUSR)?);
    }
    let top = || openat(&open.root, name.as_str(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    let place = top()?;
    make(&of(&place))?;
    let tree = top()?;
    open.waiting += 1;
    Ok(tree)
}

/// The tmpfs goes on top of the root directory: there is one in every mount namespace, and what is already open, or looked
/// up from the root, does not see it. Unbindable, so that a copy of the root has nothing of it, and so not shared, so that
/// mounts may be moved out of it.
fn make_staging() -> nix::Result<OwnedFd> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("rtx"), "/", Some("tmpfs"), flags, Some("mode=700"))?;
    // Above the root is the root itself, but with what is mounted on it.
    let root = open("/..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let below = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    if fstatfs(&root)?.filesystem_type() != TMPFS_MAGIC || fstat(&root)?.st_dev == fstat(&below)?.st_dev {
        return Err(Errno::ENOTSUP);
    }
    at_proc(|| mount(NONE, &*of(&root), NONE, MsFlags::MS_UNBINDABLE, NONE))?;
    Ok(root)
}

fn is_directory(fd: impl AsFd) -> nix::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// `MS_*` flags of one mount.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Flags(u64);

const NOSYMFOLLOW: u64 = 256;
const ATIMES: u64 = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// `MS_*`, the same as `MOUNT_ATTR_*`, and what mountinfo calls it.
const OPTIONS: &[(u64, u64, &[u8])] = &[
    (libc::MS_RDONLY, attr::RDONLY, b"ro"),
    (libc::MS_NOSUID, attr::NOSUID, b"nosuid"),
    (libc::MS_NODEV, attr::NODEV, b"nodev"),
    (libc::MS_NOEXEC, attr::NOEXEC, b"noexec"),
    (libc::MS_NODIRATIME, 0x80, b"nodiratime"),
    (NOSYMFOLLOW, attr::NOSYMFOLLOW, b"nosymfollow"),
];

/// The flags that mount(2) takes for `MOUNT_ATTR_*`.
pub fn mount_flags(attributes: u64) -> u64 {
    Flags::default().with(attributes, attr::ATIME_MASK).0
}

impl Flags {
    /// Of the options field of mountinfo.
    fn parse(options: &[u8]) -> Self {
        let mut flags = 0;
        for option in options.split(|byte| *byte == b',') {
            flags |= match option {
                b"noatime" => libc::MS_NOATIME,
                b"relatime" => libc::MS_RELATIME,
                _ => OPTIONS.iter().find(|(_, _, name)| *name == option).map_or(0, |(flag, _, _)| *flag),
            };
        }
        // Neither is what mountinfo does not mention.
        if flags & (libc::MS_NOATIME | libc::MS_RELATIME) == 0 {
            flags |= libc::MS_STRICTATIME;
        }
        Self(flags)
    }

    /// With `MOUNT_ATTR_*` set and cleared as mount_setattr(2) does.
    fn with(self, set: u64, clear: u64) -> Self {
        let mut flags = self.0;
        for (flag, attribute, _) in OPTIONS {
            if clear & attribute != 0 {
                flags &= !flag;
            }
            if set & attribute != 0 {
                flags |= flag;
            }
        }
        if clear & attr::ATIME_MASK != 0 {
            const NOATIME: u64 = 0x10;
            const STRICTATIME: u64 = 0x20;
            flags = flags & !ATIMES
                | match set & attr::ATIME_MASK {
                    NOATIME => libc::MS_NOATIME,
                    STRICTATIME => libc::MS_STRICTATIME,
                    _ => libc::MS_RELATIME,
                };
        }
        Self(flags)
    }
}

fn change(fd: BorrowedFd, mounted: &Mounted, attributes: Attributes) -> nix::Result<()> {
    let Flags(flags) = mounted.flags.with(attributes.set, attributes.clear);
    at_proc(|| mount(NONE, &*of(&fd), NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | ms(flags), NONE))
}

/// A line of mountinfo.
#[derive(Debug)]
struct Mounted {
    id: u64,
    parent: u64,
    point: PathBuf,
    flags: Flags,
}

fn read_proc(name: &str) -> nix::Result<Vec<u8>> {
    let file = openat(proc()?, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).map_err(|error| errno_of(&error))?;
    Ok(bytes)
}

fn mount_table() -> nix::Result<Vec<Mounted>> {
    Ok(read_proc("self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

fn parse_line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let point = PathBuf::from(OsStr::from_bytes(&unescape(fields.nth(2)?)));
    Some(Mounted { id, parent, point, flags: Flags::parse(fields.next()?) })
}

/// Undoes mountinfo's escapes: a backslash and three octal digits.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    if !field.contains(&b'\\') {
        return field.to_vec();
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

/// Everything mounted below a mount, parents first.
fn below(table: &[Mounted], id: u64) -> Vec<&Mounted> {
    let mut found: Vec<&Mounted> = table.iter().filter(|mount| mount.parent == id).collect();
    let mut next = 0;
    while let Some(mount) = found.get(next) {
        let parent = mount.id;
        found.extend(table.iter().filter(|mount| mount.parent == parent));
        next += 1;
    }
    found
}

/// Opens the root of a mount below another. `None` for one that another covers: nobody can reach it.
fn open_mount(top: impl AsFd, own: &Mounted, child: &Mounted, table: &[Mounted]) -> nix::Result<Option<OwnedFd>> {
    if table.iter().any(|mount| mount.parent == child.id && mount.point == child.point) {
        return Ok(None);
    }
    let relative = child.point.strip_prefix(&own.point).map_err(|_| Errno::EINVAL)?;
    let mut current = top.as_fd().try_clone_to_owned().map_err(|error| errno_of(&error))?;
    for component in relative.components() {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        current = openat(&current, Path::new(component.as_os_str()), flags, Mode::empty())?;
    }
    // Whoever can change the tree may have changed it since the table was read.
    if mount_id(proc()?, &current)? != child.id { Err(Errno::EAGAIN) } else { Ok(Some(current)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_flags() {
        let line = b"1192 1191 0:27 / /a\\040b rw,nosuid,relatime shared:2 - tmpfs tmpfs rw";
        let mount = parse_line(line).unwrap();
        assert_eq!((mount.id, mount.parent, mount.point.to_str()), (1192, 1191, Some("/a b")));
        assert_eq!(mount.flags, Flags(libc::MS_NOSUID | libc::MS_RELATIME));
        let changed = mount.flags.with(attr::RDONLY | 0x10, attr::NOSUID | attr::ATIME_MASK);
        assert_eq!(changed, Flags(libc::MS_RDONLY | libc::MS_NOATIME));
        assert_eq!(Flags::parse(b"rw"), Flags(libc::MS_STRICTATIME));
    }
}
