//! What is in a directory. Not by std or nix, which abort the process where closing a directory fails, after all of it was read.

use super::Errno;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

/// A name in a directory, and whether it is a directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: OsString,
    pub is_dir: bool,
}

/// An open directory.
struct Stream(NonNull<libc::DIR>);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream was opened by this value and nobody uses it after. What was read was read, whatever this says.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

impl Stream {
    /// The next entry: its name and its type. `None` at the end.
    fn next(&mut self) -> nix::Result<Option<(&CStr, u8)>> {
        Errno::clear();
        // SAFETY: the stream is open; what is returned lives until the next call for it, and the result borrows `self`.
        let entry = unsafe { libc::readdir64(self.0.as_ptr()) };
        match NonNull::new(entry) {
            // SAFETY: the kernel's names are NUL-terminated.
            Some(entry) => unsafe {
                let entry = entry.as_ptr();
                Ok(Some((CStr::from_ptr((&raw const (*entry).d_name).cast()), (*entry).d_type)))
            },
            None if Errno::last_raw() == 0 => Ok(None),
            None => Err(Errno::last()),
        }
    }
}

/// All that is in a directory, except for itself and the one above, in no order.
///
/// # Errors
/// The kernel's.
pub fn entries(path: &Path) -> nix::Result<Vec<Entry>> {
    let c_path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the path is NUL-terminated. The descriptor is close-on-exec.
    let stream = NonNull::new(unsafe { libc::opendir(c_path.as_ptr()) });
    let mut stream = Stream(stream.ok_or_else(Errno::last)?);
    let mut entries = Vec::new();
    while let Some((name, kind)) = stream.next()? {
        let name = OsStr::from_bytes(name.to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let is_dir = match kind {
            libc::DT_UNKNOWN => path.join(name).symlink_metadata().is_ok_and(|stat| stat.is_dir()),
            kind => kind == libc::DT_DIR,
        };
        entries.push(Entry { name: name.to_owned(), is_dir });
    }
    Ok(entries)
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
    }
}
