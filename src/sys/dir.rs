//! What is in a directory. Not by std or nix, which abort the process where closing a directory fails, after all of it was
//! read; nor by the C library, which asks for 2 KiB at a time.

use super::{Errno, check, fd};
use nix::NixPath;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::fstatat;
use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A name in a directory, and whether it is a directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: OsString,
    pub is_dir: bool,
}

/// What one call hands out: some two hundred entries.
const PORTION: usize = 8 * 1024;
/// Where the fields of `struct linux_dirent64` are (getdents(2)): the length of the entry, its type, and its name, which ends
/// with a zero.
const LENGTH: usize = 16;
const KIND: usize = 18;
const NAME: usize = 19;

/// All that is in a directory, except for itself and the one above, in no order.
///
/// # Errors
/// The kernel's.
pub fn entries(path: &Path) -> nix::Result<Vec<Entry>> {
    entries_of(fd::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)
}

/// As [`entries`], of an open directory that nobody has read from.
///
/// # Errors
/// The kernel's.
pub fn entries_of(directory: impl AsFd) -> nix::Result<Vec<Entry>> {
    let directory = directory.as_fd();
    let (mut entries, mut buffer) = (Vec::new(), [0; PORTION]);
    loop {
        // SAFETY: the kernel writes at most the length given.
        let mut read =
            || unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        let length = check(read())? as usize;
        if length == 0 {
            return Ok(entries);
        }
        let mut rest = &buffer[..length];
        while let Some((kind, name, next)) = first(rest) {
            rest = next;
            if name == "." || name == ".." {
                continue;
            }
            let is_dir = match kind {
                libc::DT_UNKNOWN => is_directory(directory, name),
                kind => kind == libc::DT_DIR,
            };
            entries.push(Entry { name: name.to_owned(), is_dir });
        }
    }
}

/// Whether there is something of that name. Asked as for a link, which is answered from the name alone: what else there could
/// be is not looked at. By the bare call: the C library's is a function more that every command maps.
///
/// # Errors
/// The kernel's.
pub fn has(directory: impl AsFd, name: &str) -> nix::Result<bool> {
    let (directory, mut letter) = (directory.as_fd().as_raw_fd(), [0_u8; 1]);
    let found = name.with_nix_path(|name| {
        // SAFETY: the name ends with a zero, and the kernel writes one byte at most.
        unsafe { libc::syscall(libc::SYS_readlinkat, directory, name.as_ptr(), letter.as_mut_ptr(), letter.len()) }
    })?;
    match Errno::last_raw() {
        _ if found >= 0 => Ok(true),
        // It is, and no link.
        libc::EINVAL => Ok(true),
        libc::ENOENT => Ok(false),
        errno => Err(Errno::from_raw(errno)),
    }
}

/// The type and the name of the first entry, and what comes after it.
fn first(entries: &[u8]) -> Option<(u8, &OsStr, &[u8])> {
    let length = usize::from(u16::from_ne_bytes([*entries.get(LENGTH)?, *entries.get(LENGTH + 1)?]));
    let (entry, rest) = entries.split_at_checked(length)?;
    let name = CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()?;
    Some((*entry.get(KIND)?, OsStr::from_bytes(name.to_bytes()), rest))
}

/// For file systems that do not say what an entry is.
fn is_directory(directory: BorrowedFd, name: &OsStr) -> bool {
    let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("a")).unwrap();
        std::fs::write(directory.path().join(".b"), "").unwrap();
        std::os::unix::fs::symlink("a", directory.path().join("c")).unwrap();
        let mut found: Vec<_> = entries(directory.path())
            .unwrap()
            .into_iter()
            .map(|entry| (entry.name.into_string().unwrap(), entry.is_dir))
            .collect();
        found.sort();
        assert_eq!(found, [(".b".into(), false), ("a".into(), true), ("c".into(), false)]);
        assert_eq!(entries(&directory.path().join("none")), Err(Errno::ENOENT));
        assert_eq!(entries(&directory.path().join(".b")), Err(Errno::ENOTDIR));
        assert_eq!(first(&[0; 18]), None);
        let open = std::fs::File::open(directory.path()).unwrap();
        std::os::unix::fs::symlink("none", directory.path().join("d")).unwrap();
        for (name, expected) in
            [("a", true), (".b", true), ("c", true), ("d", true), ("e", false), ("a/e", false), ("c/e", false)]
        {
            assert_eq!(has(&open, name), Ok(expected), "{name}");
        }
        assert_eq!(has(&open, ".b/e"), Err(Errno::ENOTDIR));
    }
}
