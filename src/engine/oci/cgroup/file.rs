//! Reading and writing the files of one cgroup directory, through its descriptor.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// Opens a cgroup directory for use with the `*at` calls. Relative to `base`; an absolute `path` ignores it.
pub fn open_dir(base: impl AsFd, path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    // O_RDONLY rather than O_PATH, because remove() and pids() list the directory through it.
    openat(
        base,
        path.as_ref(),
        OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// Reads a cgroup file to its end.
pub fn read(dir: impl AsFd, name: &str) -> Result<String, Errno> {
    String::from_utf8(read_bytes(dir, name)?).map_err(|_| Errno::EINVAL)
}

/// Reads a file to its end, by read(2) alone: std would ask for the size first, which kernel files do not have.
pub fn read_bytes(dir: impl AsFd, name: &str) -> Result<Vec<u8>, Errno> {
    let fd = openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match nix::unistd::read(&fd, &mut buffer)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Opens a cgroup file for writing.
pub fn open_for_write(dir: impl AsFd, name: &str) -> Result<File, Errno> {
    openat(dir, name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
}

/// Writes a value into a cgroup file, in one write(2) as the kernel's parsers demand.
pub fn write(dir: impl AsFd, name: &str, value: &str) -> Result<(), Errno> {
    write_once(&mut open_for_write(dir, name)?, value)
}

/// One write(2) of the whole value. The kernel takes a cgroup value whole or not at all.
pub fn write_once(file: &mut File, value: &str) -> Result<(), Errno> {
    file.write(value.as_bytes()).map(drop).map_err(errno)
}

/// The error number behind a std error.
pub fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}
