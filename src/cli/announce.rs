//! What a caller is told about a new process: the terminal's master, the pidfd, and last the pid file, because callers
//! take it for the sign that all else is done.

use crate::sys::process::is_pidfd;
use crate::sys::{On, describe, errno_of, socket};
use anyhow::{Context, Result, bail};
use nix::sys::socket::SockType;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Where a caller wants to be told.
#[derive(Default)]
pub struct Announcement<'a> {
    pub console_socket: Option<&'a Path>,
    pub pidfd_socket: Option<&'a Path>,
    pub pid_file: Option<&'a Path>,
}

impl Announcement<'_> {
    /// Tells everything. A process without a pid (an engine without processes) has neither pidfd nor pid file.
    ///
    /// # Errors
    /// Where a socket or the file cannot be written to.
    pub fn send(&self, process: Option<(i32, &OwnedFd)>, console: Option<&OwnedFd>) -> Result<()> {
        if let (Some(path), Some(master)) = (self.console_socket, console) {
            send_fd(path, "/dev/ptmx", master).context("--console-socket")?;
        }
        let Some((pid, pidfd)) = process else { return Ok(()) };
        if let Some(path) = self.pidfd_socket {
            if !is_pidfd(pidfd) {
                bail!("--pidfd-socket: this kernel has no pidfds, which came with Linux 5.3");
            }
            send_fd(path, "pidfd", pidfd).context("--pidfd-socket")?;
        }
        if let Some(path) = self.pid_file {
            write_pid_file(path, pid).with_context(|| format!("--pid-file {}", path.display()))?;
        }
        Ok(())
    }
}

fn send_fd(path: &Path, name: &str, fd: &OwnedFd) -> Result<()> {
    let peer = socket::dial(path, SockType::Stream).on("connect to", path.display())?;
    socket::send(&peer, &[name.as_bytes()], &[fd.as_fd().as_raw_fd()]).on("send to", path.display())?;
    Ok(())
}

/// Whoever reads the file finds the whole number or no file. The temporary file is a new one: in a directory of several
/// users a link may be waiting under its name.
fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = OsString::from(".");
    name.push(path.file_name().context("it names no file")?);
    name.push(format!(".{}", std::process::id()));
    let temporary = directory.join(name);
    let result = (|| {
        let create = || File::options().write(true).create_new(true).open(&temporary);
        let mut file = match create() {
            // Of a killed rtx that had the same pid.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                std::fs::remove_file(&temporary)?;
                create()?
            }
            other => other?,
        };
        write!(file, "{pid}")?;
        std::fs::rename(&temporary, path)
    })();
    result.map_err(|error: std::io::Error| {
        let _ = std::fs::remove_file(&temporary);
        anyhow::anyhow!("write: {}", describe(errno_of(&error)))
    })
}
