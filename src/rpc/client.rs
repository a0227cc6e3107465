//! smaster's end: requests go out in order, replies are collected when they are needed.

use super::{Failure, Frame, Kind, Operation, Reply, frame};
use crate::sys::fd::close_together;
use crate::sys::stat::Stat;
use crate::sys::{Errno, On, process, retry};
use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Operations that are collected to travel in one message, with the descriptors that they name.
#[derive(Default)]
pub struct Batch {
    operations: Vec<Operation>,
    fds: Vec<OwnedFd>,
}

/// One message carries at most this many descriptors: `SCM_MAX_FD`, less one for a body that travels as a memfd.
const FDS_PER_BATCH: usize = crate::sys::socket::MAX_FDS - 1;

/// How many answers may wait to be read. Some hundreds have room.
const UNREAD: usize = 16;

impl Batch {
    /// Adds an operation that names no descriptor.
    pub fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// Adds a descriptor; the index is what an operation of this batch names it by.
    pub fn fd(&mut self, fd: OwnedFd) -> usize {
        self.fds.push(fd);
        self.fds.len() - 1
    }

    /// Whether the batch has no room for `count` more descriptors.
    pub fn is_full(&self, count: usize) -> bool {
        self.fds.len() + count > FDS_PER_BATCH
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// The connection to one stage2.
pub struct RpcClient {
    socket: OwnedFd,
    outstanding: usize,
    returned: Vec<OwnedFd>,
    warnings: Vec<String>,
    /// Of stage2, in this process's pid namespace.
    pid: i32,
}

impl RpcClient {
    pub fn new(socket: OwnedFd, pid: i32) -> Self {
        Self { socket, outstanding: 0, returned: Vec::new(), warnings: Vec::new(), pid }
    }

    /// Another process goes on as stage2.
    pub fn follow(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// Hands over the configuration. stage2 does not answer it.
    ///
    /// # Errors
    /// Where stage2 is gone.
    pub fn configure(&mut self, envelope: &impl Serialize, fds: &[BorrowedFd]) -> Result<()> {
        let sent = frame::send(&self.socket, Kind::Config, envelope, fds);
        self.or_failure(sent)
    }

    /// Sends a batch without waiting for it. What an earlier batch has failed with may be reported instead.
    ///
    /// # Errors
    /// stage2's own where it has given up.
    pub fn send(&mut self, batch: Batch) -> Result<()> {
        self.send_as(Kind::Batch, batch)
    }

    /// As [`Self::send`], for a batch after which nothing has to be known before the next message goes out: stage2 answers it
    /// only where it fails, and otherwise tells what there is to tell with its next answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_ahead(&mut self, batch: Batch) -> Result<()> {
        self.send_as(Kind::Prelude, batch)
    }

    fn send_as(&mut self, kind: Kind, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let fds: Vec<_> = batch.fds.iter().map(AsFd::as_fd).collect();
        let sent = frame::send_list(&self.socket, kind, &batch.operations, &fds);
        self.or_failure(sent)?;
        close_together(batch.fds);
        self.outstanding += usize::from(kind == Kind::Batch);
        Ok(())
    }

    /// Tells stage2 that nothing more will be asked of it. It gives up its privileges and answers once more.
    ///
    /// # Errors
    /// stage2's own where it has given up.
    pub fn finish(&mut self) -> Result<()> {
        let sent = frame::send(&self.socket, Kind::Finish, &(), &[]);
        self.or_failure(sent)?;
        self.outstanding += 1;
        Ok(())
    }

    /// Waits for all that was sent and returns the descriptors that came back.
    ///
    /// # Errors
    /// The first operation that failed, as [`Failure`]; or that stage2 died.
    pub fn wait(&mut self) -> Result<Vec<OwnedFd>> {
        self.drain()?;
        Ok(std::mem::take(&mut self.returned))
    }

    /// Waits until all that was sent has been done, keeping what came back for [`Self::wait`].
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn drain(&mut self) -> Result<()> {
        while self.outstanding > 0 {
            self.wait_one()?;
        }
        Ok(())
    }

    /// Waits for the next reply alone.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_one(&mut self) -> Result<Reply> {
        let (mut reply, mut fds) = self.reply()?;
        self.warnings.append(&mut reply.warnings);
        self.returned.append(&mut fds);
        Ok(reply)
    }

    /// As [`Self::wait_one`], where stage2 is about to be followed by a process that has its end of the connection as well: that
    /// it was killed before it said so is seen by its end alone.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_moved(&mut self, before: impl AsFd) -> Result<Reply> {
        loop {
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(before.as_fd(), process::end_events()),
            ];
            retry(|| poll(&mut fds, process::end_timeout(PollTimeout::NONE))).on("poll", "stage2")?;
            if fds[0].revents().is_some_and(|events| !events.is_empty()) {
                return self.wait_one();
            }
            if process::has_ended(&before, fds[1].revents()) && !self.has_heard()? {
                return Err(Stage2Ended.into());
            }
        }
    }

    /// Whether something was said that has not been read.
    fn has_heard(&self) -> Result<bool> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        Ok(retry(|| poll(&mut fds, PollTimeout::ZERO)).on("poll", "the socket to stage2")? > 0)
    }

    /// What stage2 has failed with before `error` was met here, which may follow from that.
    pub fn or_earlier_failure(&mut self, error: anyhow::Error) -> anyhow::Error {
        let is_stage2s = |error: &anyhow::Error| error.is::<Failure>() || error.is::<Stage2Ended>();
        while !is_stage2s(&error) && self.has_heard().unwrap_or(false) {
            match self.reply() {
                Ok(_) => {}
                Err(earlier) if is_stage2s(&earlier) => return earlier,
                Err(_) => break,
            }
        }
        error
    }

    /// Waits until the connection is closed, by the execution of the payload or by stage2's end, and leaves what was said
    /// until then to be read. For a stage2 that waits for no answer: each look at what it says would cost both processes a
    /// switch between them. Where stage2 has not read everything that ends it as well, and the first look at what it said
    /// hears of that (see [`frame::receive`]).
    ///
    /// # Errors
    /// The kernel's; as [`Self::wait`], where there is more to be said than a socket holds.
    pub fn wait_closed(&mut self) -> Result<()> {
        while self.outstanding > UNREAD {
            self.wait_one()?;
        }
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        retry(|| poll(&mut fds, PollTimeout::NONE)).on("poll", "the socket to stage2")?;
        Ok(())
    }

    /// After the answer to Finish, where stage2 installs a seccomp filter with a listener: the listener's number, under
    /// which it will appear soon.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_listener(&mut self) -> Result<i32> {
        match self.wait_one()?.listener {
            Some(number) => Ok(number),
            None => bail!("rtx expected the listener of a seccomp filter, and stage2 has none"),
        }
    }

    /// Waits for something to be said by stage2, for at most a millisecond. What it says now is a failure.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn pause(&mut self) -> Result<()> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, 1u8) {
            Ok(0) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).on("poll", "the socket to stage2")?,
            Ok(_) => self.wait_one().map(drop),
        }
    }

    /// Lets stage2 go on that waits for one byte.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn release(&mut self) -> Result<()> {
        Ok(crate::sys::socket::send(&self.socket, &[&[1]], &[]).on("answer", "stage2")?)
    }

    /// After an exec's Finish: waits until the payload has been executed. `look` as for [`wait_executed`].
    ///
    /// # Errors
    /// Why it could not be.
    pub fn wait_executed(&mut self, look: impl FnOnce() -> Option<Stat>) -> Result<()> {
        wait_executed(&self.socket, look)
    }

    /// Tells a stage2 that waits for this process to execute the payload. `look` as for [`wait_executed`].
    ///
    /// # Errors
    /// As [`wait_executed`].
    pub fn start(&mut self, look: impl FnOnce() -> Option<Stat>) -> Result<()> {
        match send_start(&self.socket) {
            // It may have said why before it ended.
            Err(error) if !error.is::<Stage2Died>() => Err(error),
            _ => {
                self.wait_closed()?;
                wait_executed(&self.socket, look)
            }
        }
    }

    /// What went differently than asked for, so far.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Where a message could not be sent: what stage2 may have said of it.
    fn or_failure(&mut self, sent: Result<()>) -> Result<()> {
        let Err(error) = sent else { return Ok(()) };
        // Only of a stage2 that has gone there is something to be heard: one that lives waits for this message.
        if !is_hang_up(&error) {
            return Err(error);
        }
        // What it said before tells more than the broken pipe does.
        while self.outstanding > 0 {
            self.reply()?;
        }
        match frame::receive(&self.socket) {
            Ok(Some(Frame { kind: Kind::Reply, body, .. })) => match serde_json::from_slice::<Reply>(&body) {
                Ok(Reply { failure: Some(failure), .. }) => Err(failure.into()),
                _ => Err(error),
            },
            Ok(None) => Err(Stage2Ended.into()),
            _ => Err(error),
        }
    }

    fn reply(&mut self) -> Result<(Reply, Vec<OwnedFd>)> {
        let Some(frame) = frame::receive(&self.socket)? else {
            self.outstanding = 0;
            return Err(Stage2Ended.into());
        };
        if frame.kind != Kind::Reply {
            bail!("rtx expected a reply and received {:?}", frame.kind);
        }
        let mut reply: Reply = frame.parse()?;
        crate::trace::adopt(self.pid, std::mem::take(&mut reply.spans));
        self.outstanding = self.outstanding.saturating_sub(1);
        match reply.failure {
            Some(failure) => Err(failure.into()),
            None => Ok((reply, frame.fds)),
        }
    }
}

/// Waits until stage2 has executed the payload. The socket closes on exec, and when stage2 dies: which of the two it was
/// is seen in what stage2 said last, and in what has become of the process, which `look` reads when the socket is closed.
///
/// # Errors
/// Why the payload could not be executed; [`Stage2Died`].
pub fn wait_executed(socket: impl AsFd, look: impl FnOnce() -> Option<Stat>) -> Result<()> {
    let mut is_executing = false;
    loop {
        match frame::receive(&socket)? {
            None => break,
            Some(frame) if frame.kind == Kind::Executing => is_executing = true,
            Some(frame) if frame.kind == Kind::Failed => return Err(frame.parse::<Failure>()?.into()),
            Some(frame) => bail!("rtx expected the payload to be executed and received {:?}", frame.kind),
        }
    }
    let has_executed = match look() {
        // A process that dies closes its descriptors when it has no program any more; one that executes closes them
        // when it has the new one.
        Some(stat) if !stat.is_ending() => true,
        Some(stat) => is_executing && stat.command != BEFORE_EXEC.to_bytes(),
        // Gone, and its parent has been told how it ended: all that is known here is how far it came.
        None => is_executing,
    };
    if has_executed { Ok(()) } else { Err(Stage2Died.into()) }
}

/// Tells a stage2 that waits for it to execute the payload.
///
/// # Errors
/// [`Stage2Died`] where it was killed meanwhile; the kernel's.
pub fn send_start(socket: impl AsFd) -> Result<()> {
    match frame::send(socket, Kind::Start, &(), &[]) {
        Err(error) if is_hang_up(&error) => Err(Stage2Died.into()),
        sent => sent,
    }
}

fn is_hang_up(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<crate::sys::Error>().map(|error| error.errno);
    matches!(errno, Some(Errno::EPIPE | Errno::ECONNRESET))
}

/// What stage2 calls itself from the start to execve(2), which gives it the program's name: by that one sees of a process
/// whether it has come so far. One that needs no other's start has the name from its configuration on.
pub const BEFORE_EXEC: &std::ffi::CStr = c"rtx:[start]";

/// stage2 died between the start and the execution of its payload.
#[derive(Debug)]
pub struct Stage2Died;

impl std::fmt::Display for Stage2Died {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the process was killed before it executed its program")
    }
}

impl std::error::Error for Stage2Died {}

/// stage2 closed the connection without saying why: it was killed, or could not be executed at all.
#[derive(Debug)]
pub struct Stage2Ended;

impl std::fmt::Display for Stage2Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the new process ended before it was ready")
    }
}

impl std::error::Error for Stage2Ended {}
