//! Resolving paths inside a root that its owner may be changing at this moment: openat2(2), and before Linux 5.6 and under
//! old seccomp profiles the same walk in steps. libpathrs, which has such a walk too, needs a /proc of this process's
//! own pid namespace for it, and a container may have none.

use super::{Errno, check, errno_of, is_missing};
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// `RESOLVE_*` of openat2(2).
pub mod resolve {
    pub const NO_XDEV: u64 = 0x01;
    pub const NO_MAGICLINKS: u64 = 0x02;
    pub const NO_SYMLINKS: u64 = 0x04;
    pub const BENEATH: u64 = 0x08;
    pub const IN_ROOT: u64 = 0x10;
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// realpath(3), into memory of the caller's: what the C library allocates for it musl would ask the kernel for, five calls
/// for one name.
///
/// # Errors
/// The kernel's, where the path leads nowhere.
pub fn canonical(path: &Path) -> nix::Result<PathBuf> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the path is NUL-terminated, and the buffer has the size that the function writes at most.
    let found = unsafe { libc::realpath(path.as_ptr(), buffer.as_mut_ptr().cast()) };
    if found.is_null() {
        return Err(Errno::last());
    }
    let found = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::ENAMETOOLONG)?;
    Ok(PathBuf::from(OsStr::from_bytes(found.to_bytes())))
}

/// An absolute path without `.`, `..` and double slashes, by its letters alone, as programs in Go write theirs.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

static MISSING: AtomicBool = AtomicBool::new(false);

/// openat2(2), close-on-exec. `EAGAIN`, which the kernel returns when a rename raced with a `..`, is tried again a
/// bounded number of times.
///
/// # Errors
/// The kernel's; `EXDEV` where the path leaves what `resolve` allows.
pub fn openat2(dir: impl AsFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> nix::Result<OwnedFd> {
    let dir = dir.as_fd();
    if MISSING.load(Ordering::Relaxed) {
        return walk(dir, path, flags, resolve);
    }
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    let mut tries = 0;
    loop {
        // SAFETY: the path is NUL-terminated and `how` is a live open_how of the size given.
        let result = check(unsafe {
            libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<OpenHow>())
        });
        match result {
            // SAFETY: the kernel has just returned this descriptor to us alone.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(Errno::EAGAIN | Errno::EINTR) if tries < 128 => tries += 1,
            Err(errno) if is_missing(errno, probe) => {
                MISSING.store(true, Ordering::Relaxed);
                return walk(dir, path, flags, resolve);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// The size is looked at first.
fn probe() -> libc::c_long {
    // SAFETY: of a structure of no size nothing is read.
    unsafe { libc::syscall(libc::SYS_openat2, -1, c"".as_ptr(), std::ptr::null::<OpenHow>(), 0) }
}

/// As the kernel has it for the symbolic links of one path (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// The inode of a proc file system's root (linux/proc_fs.h).
const PROC_ROOT: u64 = 1;

fn is(stat: &FileStat, kind: libc::mode_t) -> bool {
    stat.st_mode & libc::S_IFMT == kind
}

/// The same without the call: component by component, no link followed but by this function, and every directory on the
/// way held open, so that `..` leads back to where the walk came from whatever has been renamed meanwhile.
fn walk(dir: BorrowedFd, path: &CStr, flags: i32, limits: u64) -> nix::Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC;
    let mut pending = components(OsStr::from_bytes(path.to_bytes()));
    let mut held = vec![dir.try_clone_to_owned().map_err(|error| errno_of(&error))?];
    let mut name = OsString::from(".");
    let mut links = 0;
    while let Some(next) = pending.pop() {
        if next == ".." {
            match held.len() {
                1 if limits & resolve::BENEATH != 0 => return Err(Errno::EXDEV),
                1 => {}
                _ => drop(held.pop()),
            }
            name = ".".into();
            continue;
        }
        let (is_last, parent) = (pending.is_empty(), held.last().unwrap_or_else(|| unreachable!("the root stays")));
        let fd = openat(parent, &*next, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        if is(&fstat(&fd)?, libc::S_IFLNK) {
            if is_last && flags.contains(OFlag::O_NOFOLLOW) {
                return if flags.contains(OFlag::O_PATH) { Ok(fd) } else { Err(Errno::ELOOP) };
            }
            links += 1;
            if limits & resolve::NO_SYMLINKS != 0 || links > MAX_LINKS || is_magic(parent, &fd)? {
                return Err(Errno::ELOOP);
            }
            let target = readlinkat(&fd, "")?;
            if target.as_bytes().starts_with(b"/") {
                if limits & resolve::BENEATH != 0 {
                    return Err(Errno::EXDEV);
                }
                held.truncate(1);
                name = ".".into();
            }
            pending.append(&mut components(&target));
            continue;
        }
        if limits & resolve::NO_XDEV != 0 && is_elsewhere(dir, &fd)? {
            return Err(Errno::EXDEV);
        }
        held.push(fd);
        name = next;
    }
    finish(dir, held, &name, flags)
}

/// The components in reverse order, ready to be popped.
fn components(path: &OsStr) -> Vec<OsString> {
    let parts = path.as_bytes().split(|byte| *byte == b'/');
    parts
        .filter(|part| !part.is_empty() && *part != b".")
        .rev()
        .map(|part| OsStr::from_bytes(part).to_owned())
        .collect()
}

/// Links of /proc lead anywhere, whatever they say, but for those at its top (`self`, `mounts`).
fn is_magic(parent: &OwnedFd, link: &OwnedFd) -> nix::Result<bool> {
    Ok(fstatfs(link)?.filesystem_type() == PROC_SUPER_MAGIC && fstat(parent)?.st_ino != PROC_ROOT)
}

/// Opens what the walk has found as `flags` say.
fn finish(root: BorrowedFd, mut held: Vec<OwnedFd>, name: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let found = held.pop().unwrap_or_else(|| unreachable!("the root stays"));
    let stat = fstat(&found)?;
    if flags.contains(OFlag::O_DIRECTORY) && !is(&stat, libc::S_IFDIR) {
        return Err(Errno::ENOTDIR);
    }
    // A directory that was moved out of the root during the walk takes the walk with it.
    let shown = |fd: BorrowedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
    if let (Some(root), Some(found)) = (shown(root), shown(found.as_fd()))
        && found.is_absolute()
        && !found.starts_with(root)
    {
        return Err(Errno::EXDEV);
    }
    if flags.contains(OFlag::O_PATH) {
        return Ok(found);
    }
    let opened = match held.last() {
        Some(parent) if name != "." => openat(parent, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?,
        _ => openat(&found, ".", flags, Mode::empty())?,
    };
    let again = fstat(&opened)?;
    if (stat.st_dev, stat.st_ino) == (again.st_dev, again.st_ino) { Ok(opened) } else { Err(Errno::EAGAIN) }
}

/// Whether a descriptor is in another mount than that of /proc. Before Linux 5.14 a process that is not dumpable and has left
/// root's user id may not ask for that: then whether it is in another file system.
fn is_elsewhere(proc: BorrowedFd, fd: &OwnedFd) -> nix::Result<bool> {
    match mount_id(proc, fd) {
        Err(Errno::EACCES) => Ok(fstat(fd)?.st_dev != fstat(proc)?.st_dev),
        found => Ok(found? != mount_id(proc, proc)?),
    }
}

/// The mount that a descriptor is in, by a /proc (proc_pid_fdinfo(5)).
///
/// # Errors
/// `ENOTSUP` where /proc does not say.
pub fn mount_id(proc: impl AsFd, fd: impl AsFd) -> nix::Result<u64> {
    let path = format!("self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let info = openat(proc, path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(info).read_to_string(&mut text).map_err(|error| errno_of(&error))?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()).ok_or(Errno::ENOTSUP)
}

/// Whether a descriptor is the root of a mount; `None` where the kernel does not say, before Linux 5.8.
#[allow(unsafe_code)]
pub fn is_mount_root(fd: impl AsFd) -> Option<bool> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the path is a C string; statx(2) writes no more than the struct, of which all zeros are a value.
    let stat = unsafe {
        check(libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, 0, stat.as_mut_ptr()).into()).ok()?;
        stat.assume_init()
    };
    let is_root = libc::STATX_ATTR_MOUNT_ROOT as u64;
    (stat.stx_attributes_mask & is_root != 0).then_some(stat.stx_attributes & is_root != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::open;
    use std::os::unix::fs::symlink;

    /// Both ways have to come to the same end, or to the same error.
    #[test]
    fn the_walk_does_as_openat2() {
        let top = std::env::temp_dir().join(format!("rtx-walk-{}", std::process::id()));
        std::fs::create_dir_all(top.join("root/a/b")).unwrap();
        std::fs::write(top.join("outside"), "").unwrap();
        std::fs::write(top.join("root/a/file"), "").unwrap();
        for (name, target) in [
            ("up", "../../../outside"),
            ("abs", "/a/b"),
            ("loop", "loop"),
            ("nowhere", "/none"),
            ("a/b/back", "../file"),
            ("proc", "/proc"),
            ("two", "abs/../b/back"),
        ] {
            symlink(target, top.join("root").join(name)).unwrap();
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(&top.join("root"), flags, Mode::empty()).unwrap();
        let proc = open("/proc", flags, Mode::empty()).unwrap();
        let paths =
            "a a/b /a/b a/file a/file/ a/file/x up abs abs/back loop nowhere none ../.. a/../../a two . .. proc/x";
        let in_proc =
            "self self/attr/exec thread-self/status self/exe self/fd/0 self/cwd mounts .. sys/kernel/hostname";
        let kinds =
            [OFlag::O_PATH, OFlag::O_RDONLY, OFlag::O_PATH | OFlag::O_NOFOLLOW, OFlag::O_PATH | OFlag::O_DIRECTORY];
        let inside = resolve::IN_ROOT | resolve::NO_MAGICLINKS;
        let beneath = resolve::BENEATH | resolve::NO_XDEV | resolve::NO_MAGICLINKS;
        for (dir, paths, limits) in
            [(&root, paths, inside), (&root, paths, inside | resolve::NO_SYMLINKS), (&proc, in_proc, beneath)]
        {
            for (path, flags) in paths.split(' ').flat_map(|path| kinds.map(|kind| (path, kind))) {
                let c_path = std::ffi::CString::new(path).unwrap();
                let inode = |fd: OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
                let expected = openat2(dir, &c_path, flags.bits(), 0, limits).and_then(inode);
                if path.ends_with('/') && expected == Err(Errno::ENOTDIR) {
                    // Paths come without a slash at their end.
                    continue;
                }
                let walked = walk(dir.as_fd(), &c_path, flags.bits(), limits).and_then(inode);
                assert_eq!(walked, expected, "{path} {flags:?} {limits:x}");
            }
        }
        std::fs::remove_dir_all(&top).unwrap();
    }
}
