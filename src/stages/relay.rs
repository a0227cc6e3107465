//! The caller's terminal and the container's: bytes, window size, and the raw mode that is undone whatever happens.

use crate::sys::{Errno, On, fd, tty};
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::Mode;
use nix::sys::termios::{self, SetArg, Termios};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BUFFER: usize = 16 * 1024;

/// The terminal that this command was typed at.
pub struct Terminal {
    device: OwnedFd,
    before: Option<Termios>,
}

impl Terminal {
    /// The first of the standard streams that is a terminal, or the controlling one.
    ///
    /// # Errors
    /// `open /dev/tty: no such device or address` where there is none.
    pub fn find() -> Result<Self> {
        for stream in fd::standard_streams() {
            if nix::unistd::isatty(stream).unwrap_or(false) {
                let device = stream.try_clone_to_owned().map_err(|error| crate::sys::errno_of(&error));
                return Ok(Self { device: device.on("duplicate", "the terminal")?, before: None });
            }
        }
        let device = open("/dev/tty", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty());
        let device = device.on("open", "/dev/tty").context(
            "the program is to have a terminal (/process/terminal), and this command has none: \
             set it to false, or give --console-socket with `create` or --detach",
        )?;
        Ok(Self { device, before: None })
    }

    /// Hands every key to the container, until this value is dropped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_raw(&mut self) -> Result<()> {
        let before = termios::tcgetattr(&self.device).on("tcgetattr", "the terminal")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        // The container's terminal leaves carriage returns to this one, so that a pipe in its place gets none.
        raw.output_flags = before.output_flags;
        self.before = Some(before);
        termios::tcsetattr(&self.device, SetArg::TCSANOW, &raw).on("tcsetattr", "the terminal")?;
        Ok(())
    }

    /// Rows and columns.
    pub fn size(&self) -> Option<(u16, u16)> {
        tty::size(&self.device).ok()
    }

    /// Gives the container's terminal the size of this one.
    pub fn copy_size(&self, to: impl AsFd) {
        if let Ok((rows, columns)) = tty::size(&self.device) {
            let _ = tty::set_size(to, rows, columns);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(&self.device, SetArg::TCSANOW, before);
        }
    }
}

/// Copies between the standard streams and the master of the container's terminal.
pub struct Relay {
    master: OwnedFd,
    terminal: Terminal,
    /// Typed and not yet taken by the container's terminal.
    pending: Vec<u8>,
    stdin_open: bool,
    /// Somebody reads what is written to standard output. Where nobody does any more, the program goes on all the same.
    stdout_open: bool,
}

impl Relay {
    /// # Errors
    /// Where the terminal cannot be made raw.
    pub fn new(master: OwnedFd, mut terminal: Terminal) -> Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR)).on("fcntl", "the terminal")?;
        terminal.copy_size(&master);
        terminal.make_raw()?;
        Ok(Self { master, terminal, pending: Vec::new(), stdin_open: true, stdout_open: true })
    }

    /// The window has another size.
    pub fn resize(&self) {
        self.terminal.copy_size(&self.master);
    }

    /// What to wait for: the master, and standard input as long as what came from it has been taken. Without a wish for
    /// more it is left out, because poll(2) reports a hang-up to those who asked for nothing, again and again.
    pub fn poll_fds<'a>(&'a self, stdin: BorrowedFd<'a>) -> Vec<PollFd<'a>> {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, !self.pending.is_empty());
        let wants_input = self.stdin_open && self.pending.is_empty();
        let mut fds = vec![PollFd::new(self.master.as_fd(), events)];
        fds.extend(wants_input.then(|| PollFd::new(stdin, PollFlags::POLLIN)));
        fds
    }

    /// Moves what can be moved. `false` when the container's side is closed.
    ///
    /// # Errors
    /// Where the container's terminal cannot be read.
    pub fn pump(&mut self, master: PollFlags, stdin: PollFlags) -> Result<bool> {
        if self.stdin_open && self.pending.is_empty() && !stdin.is_empty() {
            self.read_input()?;
        }
        if !self.pending.is_empty() {
            match nix::unistd::write(&self.master, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.pending.clear(),
            }
        }
        if master.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            return self.copy_output();
        }
        Ok(true)
    }

    fn read_input(&mut self) -> Result<()> {
        let mut buffer = [0; BUFFER];
        match nix::unistd::read(fd::standard_streams()[0], &mut buffer) {
            Ok(0) => self.stdin_open = false,
            Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.stdin_open = false,
        }
        Ok(())
    }

    fn copy_output(&mut self) -> Result<bool> {
        let mut buffer = [0; BUFFER];
        match nix::unistd::read(&self.master, &mut buffer) {
            Ok(0) | Err(Errno::EIO) => Ok(false),
            Ok(length) => {
                self.stdout_open = self.stdout_open && fd::print(&buffer[..length]).is_ok();
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno).on("read", "the container's terminal")?,
        }
    }

    /// What the container wrote before it ended.
    pub fn drain(&mut self) {
        while let Ok(true) = self.copy_output() {
            let mut poll = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO) != Ok(1) {
                break;
            }
        }
    }
}
