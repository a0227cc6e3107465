//! The program's standard streams: pipes between it and smaster, or the terminal's master.

use super::output::{Output, Stream};
use crate::sys::{Errno, On, fd, retry, tty};
use anyhow::Result;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2, read, write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What a pipe holds while smaster is busy.
const PIPE: i32 = 256 * 1024;
pub const CHUNK: usize = 64 * 1024;
/// More than what any pipe or terminal holds: somebody else writes on.
const MOST_AT_END: usize = 2 << 20;
/// What may wait for the program to read it.
const PENDING: usize = 64 * 1024;

/// smaster's ends.
#[derive(Default)]
pub struct Streams {
    /// Of the terminal; then there are no pipes.
    console: Option<Console>,
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pending: Vec<u8>,
}

struct Console {
    master: OwnedFd,
    /// Without an end that stays open the master has an end, too, whenever the program closes the last one, which it may open
    /// again.
    _peer: Option<OwnedFd>,
}

impl Console {
    fn new(master: OwnedFd) -> Self {
        let _peer = tty::open_peer(&master).ok();
        Self { master, _peer }
    }
}

/// The program's ends.
pub struct Ends {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

fn null(flags: OFlag) -> Result<OwnedFd> {
    Ok(open("/dev/null", flags | OFlag::O_CLOEXEC, Mode::empty()).on("open", "/dev/null")?)
}

/// Both ends of what a program gets; a terminal takes the place of its ends later.
///
/// # Errors
/// The kernel's.
pub fn make(terminal: bool, stdin: bool) -> Result<(Streams, Ends)> {
    let (input, keyboard) = if stdin && !terminal {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC).on("pipe", "standard input")?;
        (theirs, Some(ours))
    } else {
        (null(OFlag::O_RDONLY)?, None)
    };
    if terminal {
        let ends = Ends { stdin: input, stdout: null(OFlag::O_WRONLY)?, stderr: null(OFlag::O_WRONLY)? };
        return Ok((Streams::default(), ends));
    }
    let output = |name: &str| -> Result<(OwnedFd, OwnedFd)> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).on("pipe", name)?;
        // The program can read what it writes, so that the pipe has a reader for as long as there is a writer: a program
        // whose smaster was killed would die of the next thing it prints.
        let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
        let theirs = open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).on("open", name)?;
        // More than this user may have of it is no reason to fail.
        let _ = fcntl(&ours, FcntlArg::F_SETPIPE_SZ(PIPE));
        Ok((ours, theirs))
    };
    let ((stdout, their_stdout), (stderr, their_stderr)) = (output("standard output")?, output("standard error")?);
    let ends = Ends { stdin: input, stdout: their_stdout, stderr: their_stderr };
    Ok((Streams { stdin: keyboard, stdout: Some(stdout), stderr: Some(stderr), ..Streams::default() }, ends))
}

impl Ends {
    /// Makes them the standard streams of this process, which its children inherit.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt(self) -> Result<()> {
        dup2_stdin(&self.stdin).on("dup", "standard input")?;
        dup2_stdout(&self.stdout).on("dup", "standard output")?;
        dup2_stderr(&self.stderr).on("dup", "standard error")?;
        Ok(())
    }
}

/// Puts /dev/null into the place of the standard streams.
///
/// # Errors
/// The kernel's.
pub fn leave_standard_streams() -> Result<()> {
    let null = null(OFlag::O_RDWR)?;
    dup2_stdin(&null).on("dup", "/dev/null")?;
    dup2_stdout(&null).on("dup", "/dev/null")?;
    dup2_stderr(&null).on("dup", "/dev/null")?;
    Ok(())
}

impl Streams {
    /// By the numbers under which they were inherited, in the order of [`Self::numbers`].
    ///
    /// # Errors
    /// Where one is not open.
    pub fn inherited(numbers: [Option<i32>; 4]) -> Result<Self> {
        let take = |number: Option<i32>| {
            number.map(|number| fd::inherited(number).on("open", format_args!("descriptor {number}"))).transpose()
        };
        let [console, stdin, stdout, stderr] = numbers;
        let streams = Self {
            console: take(console)?.map(Console::new),
            stdin: take(stdin)?,
            stdout: take(stdout)?,
            stderr: take(stderr)?,
            pending: Vec::new(),
        };
        streams.do_not_wait()?;
        Ok(streams)
    }

    /// The master of the terminal.
    pub fn console(&self) -> Option<&OwnedFd> {
        self.console.as_ref().map(|console| &console.master)
    }

    /// A terminal for the next program.
    pub fn set_console(&mut self, master: Option<OwnedFd>) {
        self.console = master.map(Console::new);
    }

    /// # Errors
    /// The kernel's.
    pub fn do_not_wait(&self) -> Result<()> {
        for fd in
            [self.console(), self.stdin.as_ref(), self.stdout.as_ref(), self.stderr.as_ref()].into_iter().flatten()
        {
            let flags = fcntl(fd, FcntlArg::F_GETFL).on("fcntl", "a stream")?;
            let flags = OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK;
            fcntl(fd, FcntlArg::F_SETFL(flags)).on("fcntl", "a stream")?;
        }
        Ok(())
    }

    /// The descriptors of the streams there are.
    pub fn numbers(&self) -> [Option<i32>; 4] {
        let [stdin, stdout, stderr] = [&self.stdin, &self.stdout, &self.stderr].map(Option::as_ref);
        [self.console(), stdin, stdout, stderr].map(|fd| fd.map(AsRawFd::as_raw_fd))
    }

    /// What may become readable, and which stream it is.
    pub fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let stdout = self.console().or(self.stdout.as_ref());
        let stdout = stdout.map(|fd| (Stream::Stdout, fd.as_fd()));
        stdout.into_iter().chain(self.stderr.as_ref().map(|fd| (Stream::Stderr, fd.as_fd())))
    }

    /// Where standard input goes, if it goes anywhere.
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        self.console().or(self.stdin.as_ref()).map(AsFd::as_fd)
    }

    /// Whether more input may be taken from whoever has some.
    pub fn takes_input(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes input, and writes what can be written of it.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.input().is_some() && self.pending.len() + bytes.len() <= 2 * PENDING {
            self.pending.extend_from_slice(bytes);
            self.flush_input();
        }
    }

    pub fn flush_input(&mut self) {
        while let Some(fd) = self.input().filter(|_| !self.pending.is_empty()) {
            match write(fd, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // The program has closed it.
                Err(_) => self.close_input(),
            }
        }
        self.pending = Vec::new();
    }

    /// Nothing more will be typed. A terminal stays: its end is a character.
    pub fn close_input(&mut self) {
        self.stdin = None;
        self.pending = Vec::new();
    }

    /// Reads one portion of a stream: what it was, empty where there is nothing now; `None` at the end of it.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Option<usize> {
        let fd = match stream {
            Stream::Stdout => self.console().or(self.stdout.as_ref()),
            Stream::Stderr => self.stderr.as_ref(),
        };
        let fd = fd?;
        match retry(|| read(fd, buffer)) {
            Ok(length @ 1..) => Some(length),
            Err(Errno::EAGAIN | Errno::ENOMEM) => Some(0),
            Ok(0) | Err(_) => {
                match stream {
                    Stream::Stdout if self.console.is_some() => self.console = None,
                    Stream::Stdout => self.stdout = None,
                    Stream::Stderr => self.stderr = None,
                }
                None
            }
        }
    }

    /// Writes down what is still in the pipes. Who else has their other ends is not waited for.
    pub fn drain(&mut self, output: &mut Output, buffer: &mut [u8], mut copy: impl FnMut(Stream, &[u8])) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut left = MOST_AT_END;
            while left > 0
                && let Some(length @ 1..) = self.read(stream, buffer)
            {
                output.write(stream, &buffer[..length]);
                copy(stream, &buffer[..length]);
                left = left.saturating_sub(length);
            }
        }
    }
}
