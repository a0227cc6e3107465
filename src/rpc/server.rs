//! stage2's end: performs batches until Finish, then never listens to smaster again.

use super::{Failure, Frame, Kind, Operation, Reply, frame};
use crate::sys::On;
use crate::sys::socket::is_hung_up;
use crate::trace;
use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What stage2 has to be able to do for smaster.
pub trait Perform {
    /// Does one operation.
    ///
    /// # Errors
    /// With the operation and its target in the message.
    fn perform(&mut self, operation: Operation, context: &mut Context) -> Result<()>;
}

/// What an operation may use beside itself: the descriptors of its message and the reply.
pub struct Context {
    fds: Vec<Option<OwnedFd>>,
    pub warnings: Vec<String>,
    pub returned: Vec<OwnedFd>,
    /// This process is to end: the one with this pid goes on as stage2.
    pub moved_to: Option<i32>,
    /// This process goes on in place of the one that received the message, and leaves the answer to it.
    pub is_successor: bool,
}

impl Context {
    /// With the descriptors of a message.
    pub fn new(fds: Vec<OwnedFd>) -> Self {
        Self {
            fds: fds.into_iter().map(Some).collect(),
            warnings: Vec::new(),
            returned: Vec::new(),
            moved_to: None,
            is_successor: false,
        }
    }

    /// Takes the descriptor with that index out of the message.
    ///
    /// # Errors
    /// Where the message has none, or it was taken before.
    pub fn take(&mut self, index: usize) -> Result<OwnedFd> {
        match self.fds.get_mut(index).and_then(Option::take) {
            Some(fd) => Ok(fd),
            None => bail!("a message names descriptor {index}, which did not come with it"),
        }
    }
}

/// Serves until Finish has been received; its answer is the caller's to give with [`answer`], and with it what is returned.
///
/// # Errors
/// The first failure, after it has been reported to smaster; or that smaster is gone.
pub fn serve(socket: BorrowedFd, stage: &mut dyn Perform) -> Result<Context> {
    let mut untold = Context::new(Vec::new());
    // Since when smaster's death ends this process at once (PR_SET_PDEATHSIG).
    let mut is_watched = false;
    loop {
        let message = match frame::receive(socket) {
            Ok(Some(message)) => message,
            Ok(None) => bail!("smaster is gone"),
            Err(error) => {
                let outcome = Err(error);
                answer(socket, &outcome, Context::new(Vec::new()))?;
                return outcome.map(|()| untold);
            }
        };
        // What it asked for before it died is not to be done: it died before this process could be told by a signal.
        if matches!(message.kind, Kind::Batch | Kind::Prelude) && !is_watched {
            if is_hung_up(socket).on("poll", "the socket to smaster")? {
                bail!("smaster is gone");
            }
            is_watched = true;
        }
        match message.kind {
            Kind::Finish => return Ok(untold),
            Kind::Batch | Kind::Prelude => untold = batch(socket, message, stage, untold, &mut is_watched)?,
            other => bail!("rtx expected a batch and received {other:?}"),
        }
    }
}

/// Performs a batch. Returns what of this one and of those before it smaster has not been told yet.
fn batch(
    socket: BorrowedFd,
    message: Frame,
    stage: &mut dyn Perform,
    untold: Context,
    is_watched: &mut bool,
) -> Result<Context> {
    let Frame { kind, body, fds } = message;
    let mut context = Context { warnings: untold.warnings, returned: untold.returned, ..Context::new(fds) };
    let outcome = frame::each(kind, &body, |operation: Operation| {
        *is_watched &= !operation.changes_identity();
        let mark = trace::span_of(|| operation.label());
        let outcome = stage.perform(operation, &mut context);
        drop(mark);
        outcome
    });
    drop(body);
    if kind == Kind::Prelude && outcome.is_ok() {
        return Ok(context);
    }
    let successor = context.moved_to;
    if !(context.is_successor && outcome.is_ok()) {
        // Of a successor that smaster does not hear of, nobody would wait for the end.
        answer(socket, &outcome, context).inspect_err(|_| {
            let _ = successor.map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        })?;
    }
    if successor.is_some() {
        std::process::exit(0);
    }
    outcome.map(|()| Context::new(Vec::new()))
}

/// Tells smaster how a batch, or Finish, went.
///
/// # Errors
/// Where smaster is gone.
pub fn answer(socket: BorrowedFd, outcome: &Result<()>, context: Context) -> Result<()> {
    let Context { warnings, returned, moved_to, .. } = context;
    let failure = outcome.as_ref().err().map(Failure::from_error);
    let fds: Vec<_> = returned.iter().map(AsFd::as_fd).collect();
    frame::send(
        socket,
        Kind::Reply,
        &Reply { failure, warnings, moved_to, listener: None, spans: trace::take_spans() },
        &fds,
    )
}
