//! `rtx attach`: this command's standard streams become those of the program of a supervised container, until it ends or the
//! detach keys are typed.

use super::Context;
use super::args::AttachArgs;
use crate::stages::foreground::Signals;
use crate::stages::lifecycle::Live;
use crate::stages::relay::Terminal;
use crate::stages::supervisor::protocol::{Answer, Connection, Message, Request, Verb};
use crate::stages::supervisor::view;
use crate::stages::supervisor::wait::{self, Condition, Waited};
use crate::state::Phase;
use crate::sys::printer::Printer;
use crate::sys::{Errno, On, errno_of, fd, process, retry};
use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::isatty;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

pub fn attach(context: &Context, args: AttachArgs) -> Result<i32> {
    let live = Live::open(&context.root, &args.id)?;
    if !live.container.record.supervised {
        bail!("container {:?} is not supervised: its streams belong to whoever created it", args.id);
    }
    let Some(connection) = Connection::open(&live.container.state)? else {
        bail!("nobody holds the streams of container {:?}: it has ended, or its smaster was killed", args.id)
    };
    let answer = connection.ask(&Request::new(Verb::Attach))?;
    let stdin = std::io::stdin();
    let mut terminal = match answer.terminal {
        Some(true) if isatty(&stdin).unwrap_or(false) => Some(Terminal::find()?),
        _ => None,
    };
    // Without a terminal signals do what they always do.
    let signals = if terminal.is_some() { Some(Signals::catch()?) } else { None };
    if let Some(terminal) = &mut terminal {
        resize(&connection, terminal)?;
        terminal.make_raw()?;
    }
    // With signals that are caught, whoever has stopped to read must not keep this command from them.
    let mut printer = signals.is_some().then(Printer::default);
    let mut keys = Keys { keys: &args.detach_keys.0, typed: 0 };
    let mut reads = !args.no_stdin;
    loop {
        let room = printer.as_ref().and_then(Printer::poll_fd);
        let full = room.is_some();
        let mut fds = vec![room.unwrap_or(PollFd::new(connection.as_fd(), PollFlags::POLLIN))];
        fds.extend(signals.iter().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
        if reads {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        retry(|| poll(&mut fds, PollTimeout::NONE)).on("poll", "the streams")?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        if let (Some(signals), Some(terminal)) = (&signals, &terminal) {
            while let Some(signal) = signals.next() {
                match signal {
                    libc::SIGWINCH => resize(&connection, terminal)?,
                    libc::SIGTERM | libc::SIGHUP | libc::SIGINT | libc::SIGQUIT => return Ok(128 + signal),
                    _ => {}
                }
            }
        }
        if ready[0] && full {
            printer.iter_mut().for_each(Printer::write);
        } else if ready[0] && !show(connection.receive()?, printer.as_mut())? {
            drop(terminal);
            return ended(&context.root, &args.id);
        }
        if reads && ready.last() == Some(&true) {
            match keys.pass_on(&connection)? {
                Typed::More => {}
                Typed::End => {
                    reads = false;
                    if terminal.is_none() {
                        // The program may have gone, and what it printed last is still to be shown.
                        let _ = connection.send(&Request::new(Verb::CloseInput));
                    }
                }
                Typed::Detach => return Ok(0),
            }
        }
    }
}

fn resize(connection: &Connection, terminal: &Terminal) -> Result<()> {
    let Some((rows, columns)) = terminal.size() else { return Ok(()) };
    connection.send(&Request { rows, columns, ..Request::new(Verb::Resize) })
}

/// Shows what came; `false` where nothing more will.
fn show(message: Option<Message>, printer: Option<&mut Printer>) -> Result<bool> {
    let written = match message {
        None | Some(Message::Answer(Answer { ended: Some(_), .. })) => return Ok(false),
        Some(Message::Stdout(bytes)) => match printer {
            Some(printer) => {
                printer.add(&bytes);
                Ok(())
            }
            None => fd::print(&bytes).map_err(std::io::Error::from),
        },
        Some(Message::Stderr(bytes)) => std::io::stderr().write_all(&bytes),
        Some(Message::Answer(Answer { lost: Some(bytes), .. })) => {
            writeln!(
                std::io::stderr(),
                "rtx attach: {bytes} bytes were left out, which came faster than they were read"
            )
        }
        Some(Message::Answer(Answer { error: Some(error), .. })) => bail!("{error}"),
        Some(Message::Answer(_)) => Ok(()),
    };
    written.map_err(|error| errno_of(&error)).on("write", "the program's output")?;
    Ok(true)
}

/// The connection has ended, and by that either the container or its smaster.
fn ended(root: &Path, id: &str) -> Result<i32> {
    let live = Live::open(root, id)?;
    if let Some((supervision, _)) = view::known(&live.container.state)?
        && let Ok(smaster) = supervision.smaster.open()
    {
        let mut fds = [PollFd::new(smaster.as_fd(), process::end_events())];
        while !process::has_ended(&smaster, fds[0].revents()) {
            retry(|| poll(&mut fds, process::end_timeout(PollTimeout::NONE))).on("poll", "smaster")?;
        }
    }
    let known = view::known(&live.container.state)?;
    if known.is_none_or(|(supervision, _)| supervision.phase != Phase::Ended) {
        bail!("the smaster of container {id:?} was killed: nobody holds the streams of the program any more");
    }
    match wait::wait(root, id, Condition::Stopped, None)? {
        Waited::Ended(code) => Ok(code),
        Waited::Met | Waited::TimedOut => Ok(0),
    }
}

enum Typed {
    More,
    End,
    Detach,
}

/// Looks for the detach keys in what is typed.
struct Keys<'a> {
    keys: &'a [u8],
    typed: usize,
}

impl Keys<'_> {
    fn pass_on(&mut self, connection: &Connection) -> Result<Typed> {
        let mut buffer = [0; 16 * 1024];
        let length = match nix::unistd::read(std::io::stdin(), &mut buffer) {
            Ok(0) => return Ok(Typed::End),
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Typed::More),
            Err(_) => return Ok(Typed::End),
        };
        let (bytes, detached) = self.filter(&buffer[..length]);
        if !bytes.is_empty() && connection.send_input(&bytes).is_err() {
            // The end of the connection says the rest.
            return Ok(Typed::End);
        }
        Ok(if detached { Typed::Detach } else { Typed::More })
    }

    /// What is to be passed on, and whether all keys have been typed. A beginning of them is held back until it is none.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut bytes = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (bytes, true);
                }
                continue;
            }
            bytes.extend_from_slice(&self.keys[..std::mem::take(&mut self.typed)]);
            if self.keys.first() == Some(byte) {
                self.typed = 1;
                if self.keys.len() == 1 {
                    return (bytes, true);
                }
            } else {
                bytes.push(*byte);
            }
        }
        (bytes, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_and_others_passed_on() {
        let mut keys = Keys { keys: &[16, 17], typed: 0 };
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11d"), (b"\x10".to_vec(), true));
        let mut none = Keys { keys: &[], typed: 0 };
        assert_eq!(none.filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
