//! Reading and writing the files of one cgroup directory, through its descriptor.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys::{fd, retry};

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
    read_bytes(dir, name).and_then(text)
}

/// Reads a file to its end.
pub fn read_bytes(dir: impl AsFd, name: &str) -> Result<Vec<u8>, Errno> {
    fd::read_to_end(openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Reads a cgroup file that is one line.
pub fn read_line(dir: impl AsFd, name: &str) -> Result<String, Errno> {
    let file = openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut line = [0; 4096];
    let length = retry(|| nix::unistd::read(&file, &mut line))?;
    // A longer one is not whole.
    if length == line.len() {
        return fd::read_to_end(file).map(|rest| [&line[..], &rest].concat()).and_then(text);
    }
    text(line[..length].to_vec())
}

fn text(bytes: Vec<u8>) -> Result<String, Errno> {
    String::from_utf8(bytes).map_err(|_| Errno::EINVAL)
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
