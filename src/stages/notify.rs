//! sd_notify(3) for a container: a socket of its own, below its state directory and bound into it at /run/notify. Of what
//! arrives there only READY is passed on to the service manager, with the pid that is to be the service's main one. The
//! rest could be about the service and not about the container, and the manager would take it from rtx.

use crate::state::StateDir;
use crate::sys::{Errno, On, process, retry, socket};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// How long the service manager may take to read what it was sent (sd_notify_barrier(3)).
const BARRIER_TIMEOUT: u16 = 30_000;

/// The sockets of both sides.
pub struct NotifyProxy {
    container: OwnedFd,
    manager: OwnedFd,
}

impl NotifyProxy {
    /// Makes the container's socket, to which it may send as soon as it is started. `None` where the caller has no
    /// NOTIFY_SOCKET, or had none when the container was created.
    ///
    /// # Errors
    /// Where nobody listens at `manager`.
    pub fn bind(state: &StateDir, manager: Option<&OsStr>) -> Result<Option<Self>> {
        let Some(address) = manager else { return Ok(None) };
        let Some(container) = state.make_notify_socket()? else { return Ok(None) };
        let manager = socket::datagram_to(address.as_bytes())
            .on("connect to", address.display())
            .context("NOTIFY_SOCKET is set in the environment")?;
        Ok(Some(Self { container, manager }))
    }

    /// Waits until the container is ready, and tells; or until its init has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(self, init: BorrowedFd<'_>, main: i32) -> Result<()> {
        loop {
            let mut fds =
                [PollFd::new(self.container.as_fd(), PollFlags::POLLIN), PollFd::new(init, process::end_events())];
            let timeout = process::end_timeout(PollTimeout::NONE);
            retry(|| poll(&mut fds, timeout)).on("poll", "the container's notify socket")?;
            let [message, end] = fds.map(|fd| fd.revents());
            let end = process::has_ended(init, end);
            let message = message.is_some_and(|events| !events.is_empty());
            if message && self.pass_on(main)? {
                return self.barrier();
            }
            if end && !message {
                return Ok(());
            }
        }
    }

    /// Reads one message; `true` when it said that the container is ready and the service manager has been told so.
    ///
    /// # Errors
    /// Where the service manager has gone.
    pub fn pass_on(&self, main: i32) -> Result<bool> {
        let mut buffer = [0; 4096];
        let length = match retry(|| nix::unistd::read(&self.container, &mut buffer)) {
            Err(Errno::EAGAIN) => return Ok(false),
            other => other.on("read", "the container's notify socket")?,
        };
        let Some(ready) = buffer[..length].split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY=")) else {
            return Ok(false);
        };
        self.send(&[ready, b"\n"], &[])?;
        self.send(&[format!("MAINPID={main}\n").as_bytes()], &[])?;
        Ok(true)
    }

    /// Waits until the service manager has read what it was sent: it looks the sender up, which may end right after.
    fn barrier(&self) -> Result<()> {
        let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).on("pipe", "")?;
        self.send(&[b"BARRIER=1"], &[write.as_raw_fd()])?;
        drop(write);
        let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        match retry(|| poll(&mut fds, BARRIER_TIMEOUT)).on("poll", "the barrier of the service manager")? {
            0 => bail!("the service manager at NOTIFY_SOCKET has not read in 30 s that the container is ready"),
            _ => Ok(()),
        }
    }

    fn send(&self, parts: &[&[u8]], fds: &[i32]) -> Result<()> {
        Ok(socket::send(&self.manager, parts, fds).on("write to", "NOTIFY_SOCKET")?)
    }
}

impl AsFd for NotifyProxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }
}
