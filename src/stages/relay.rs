//! The caller's terminal and the container's: bytes, window size, and the raw mode that is undone whatever happens.

use super::foreground::Signals;
use crate::sys::printer::Printer;
use crate::sys::{Errno, On, fd, tty};
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::termios::{self, SetArg, Termios};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BUFFER: usize = 16 * 1024;

/// More than a terminal holds of what nobody has read yet, in bytes. Who writes without an end, and is not the process whose end was
/// waited for, does not keep this command.
const HELD: usize = 1024 * 1024;

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
    /// Without an end that stays open the master has an end, too, whenever the program closes the last one, which it may open
    /// again.
    _peer: Option<OwnedFd>,
    terminal: Terminal,
    /// Typed and not yet taken by the container's terminal.
    pending: Vec<u8>,
    stdin_open: bool,
    /// Takes no more from the container's terminal while it has something to write.
    printer: Printer,
}

/// What a Relay waits for beside its container's end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Master(PollFlags),
    Input,
    Room,
}

impl Relay {
    /// # Errors
    /// Where the terminal cannot be made raw.
    pub fn new(master: OwnedFd, mut terminal: Terminal) -> Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR)).on("fcntl", "the terminal")?;
        terminal.copy_size(&master);
        terminal.make_raw()?;
        let _peer = tty::open_peer(&master).ok();
        Ok(Self { master, _peer, terminal, pending: Vec::new(), stdin_open: true, printer: Printer::default() })
    }

    /// The window has another size.
    pub fn resize(&self) {
        self.terminal.copy_size(&self.master);
    }

    /// What is not wished for is not polled: poll(2) reports a hang-up to those who asked for nothing, again and again.
    fn wishes(&self) -> impl Iterator<Item = Wish> + use<> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, self.printer.is_idle());
        events.set(PollFlags::POLLOUT, !self.pending.is_empty());
        let master = (!events.is_empty()).then_some(Wish::Master(events));
        let input = (self.stdin_open && self.pending.is_empty()).then_some(Wish::Input);
        let room = (!self.printer.is_idle()).then_some(Wish::Room);
        [master, input, room].into_iter().flatten()
    }

    /// What to wait for until [`Self::pump`].
    pub fn poll_fds<'a>(&'a self, stdin: BorrowedFd<'a>) -> impl Iterator<Item = PollFd<'a>> {
        self.wishes().filter_map(move |wish| match wish {
            Wish::Master(events) => Some(PollFd::new(self.master.as_fd(), events)),
            Wish::Input => Some(PollFd::new(stdin, PollFlags::POLLIN)),
            Wish::Room => self.printer.poll_fd(),
        })
    }

    /// Moves what can be moved, after what poll(2) has found for [`Self::poll_fds`]. `false` when the container's side is
    /// closed and all that came from it is written.
    ///
    /// # Errors
    /// Where the container's terminal cannot be read.
    pub fn pump(&mut self, found: &[PollFlags]) -> Result<bool> {
        let mut open = true;
        for (wish, found) in self.wishes().zip(found) {
            match wish {
                _ if found.is_empty() => {}
                Wish::Master(events) => open = self.pump_master(events, *found)?,
                Wish::Input => self.read_input()?,
                Wish::Room => self.printer.write(),
            }
        }
        Ok(open)
    }

    fn pump_master(&mut self, wished: PollFlags, found: PollFlags) -> Result<bool> {
        if found.contains(PollFlags::POLLOUT) {
            self.pass_input();
        } else if found.contains(PollFlags::POLLHUP) {
            self.pending.clear();
        }
        let readable = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        if wished.contains(PollFlags::POLLIN) && found.intersects(readable) {
            return Ok(self.copy_output()?.is_some());
        }
        Ok(true)
    }

    fn read_input(&mut self) -> Result<()> {
        let mut buffer = [0; BUFFER];
        match nix::unistd::read(fd::standard_streams()[0], &mut buffer) {
            Ok(0) => self.stdin_open = false,
            Ok(length) => {
                self.pending.extend_from_slice(&buffer[..length]);
                self.pass_input();
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.stdin_open = false,
        }
        Ok(())
    }

    fn pass_input(&mut self) {
        match nix::unistd::write(&self.master, &self.pending) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.pending.clear(),
        }
    }

    /// How many bytes have come; `None` where none will.
    fn copy_output(&mut self) -> Result<Option<usize>> {
        let mut buffer = [0; BUFFER];
        match nix::unistd::read(&self.master, &mut buffer) {
            Ok(0) | Err(Errno::EIO) => Ok(None),
            Ok(length) => {
                self.printer.add(&buffer[..length]);
                Ok(Some(length))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Some(0)),
            Err(errno) => Err(errno).on("read", "the container's terminal")?,
        }
    }

    /// Writes what the container wrote before it ended, until `signals` has one that asks this command to end: who has
    /// stopped to read may never go on.
    pub fn drain(&mut self, signals: &Signals) {
        // They were for the container.
        while signals.next().is_some() {}
        let mut left = HELD;
        while self.flush(signals) {
            match self.copy_output() {
                Ok(Some(count @ 1..)) if left > 0 => left = left.saturating_sub(count),
                _ => return,
            }
        }
    }

    /// Writes what has been read; `false` where it is not to wait any longer for who reads that.
    fn flush(&mut self, signals: &Signals) -> bool {
        while let Some(room) = self.printer.poll_fd() {
            let mut fds = [room, PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::NONE).is_err_and(|errno| errno != Errno::EINTR) {
                return false;
            }
            if fds[0].any() == Some(true) {
                self.printer.write();
                continue;
            }
            let asked = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT];
            if std::iter::from_fn(|| signals.next()).any(|signal| asked.contains(&signal)) {
                return false;
            }
        }
        true
    }
}
