//! Standard output that never holds this process up: what nobody has read yet is kept here, and its owner waits for room beside
//! whatever else it waits for.

use super::{Errno, fd};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Of a pipe that is said to have room a write of so many bytes or less does not wait (pipe(7)).
const PORTION: usize = libc::PIPE_BUF;

/// What writes to standard output, and what it could not write yet.
pub struct Printer {
    stdout: Stdout,
    pending: Vec<u8>,
    /// Somebody reads. Where nobody does any more, what comes is thrown away.
    open: bool,
}

enum Stdout {
    /// Opened once more: what is not to wait is a property of the open file, which others share.
    Own(OwnedFd),
    Socket,
    /// A file, or what may not be opened again.
    Inherited,
}

impl Default for Printer {
    fn default() -> Self {
        let [_, stdout, _] = fd::standard_streams();
        let kind = fstat(stdout).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT));
        let stdout = match kind {
            SFlag::S_IFSOCK => Stdout::Socket,
            // A terminal's room may be less than a portion. A file opened again would be at its beginning.
            _ if kind == SFlag::S_IFIFO || nix::unistd::isatty(stdout).unwrap_or(false) => {
                let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
                fd::open("/proc/self/fd/1", flags).map_or(Stdout::Inherited, Stdout::Own)
            }
            _ => Stdout::Inherited,
        };
        Self { stdout, pending: Vec::new(), open: true }
    }
}

impl Printer {
    /// Everything has been written, or nobody reads it.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// What to wait for until [`Self::write`], where something is left.
    pub fn poll_fd(&self) -> Option<PollFd<'_>> {
        let fd: BorrowedFd<'_> = match &self.stdout {
            Stdout::Own(own) => own.as_fd(),
            Stdout::Socket | Stdout::Inherited => fd::standard_streams()[1],
        };
        (!self.is_idle()).then(|| PollFd::new(fd, PollFlags::POLLOUT))
    }

    /// Keeps it for [`Self::write`].
    pub fn add(&mut self, bytes: &[u8]) {
        if self.open {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Writes as much as there is room for, which poll(2) has said there is.
    pub fn write(&mut self) {
        let [_, stdout, _] = fd::standard_streams();
        let written = match &self.stdout {
            Stdout::Own(own) => nix::unistd::write(own, &self.pending),
            Stdout::Socket => send(stdout.as_raw_fd(), &self.pending, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL),
            Stdout::Inherited => nix::unistd::write(stdout, &self.pending[..self.pending.len().min(PORTION)]),
        };
        match written {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                self.open = false;
                self.pending.clear();
            }
        }
    }
}
