//! stage2: the process that serves smaster until Finish, waits to be started, and becomes the payload.

use super::sealed;
use crate::config::envelope::{Envelope, Sealed, VERSION};
use crate::engine::table::{self, PayloadRequest};
use crate::engine::{Caller, PayloadOperations};
use crate::rpc::client::BEFORE_EXEC;
use crate::rpc::frame::{self, Frame, Kind};
use crate::rpc::server::{self, Context};
use crate::rpc::{Failure, Reply};
use crate::sys::{On, errno_of, fd, mount, process, socket};
use crate::trace;
use anyhow::{Result, bail};
use std::convert::Infallible;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::time::Duration;

/// `rtx init N`: N is the number of the socket to smaster. Returns only if something failed, and then everybody who
/// could be told has been told.
// Not into the beginning of every command, whose stack would have room for this one as well.
#[inline(never)]
pub fn main(arguments: &[OsString]) -> i32 {
    let number = arguments.first().and_then(|number| number.to_str()).and_then(|number| number.parse().ok());
    let Some(number) = number else {
        let _ = writeln!(
            std::io::stderr(),
            "rtx: init is not a command: rtx calls itself so to become a container's first process"
        );
        return 1;
    };
    match become_payload(number) {
        Ok(never) => match never {},
        Err(_) => process::leave(1),
    }
}

fn become_payload(number: i32) -> Result<Infallible> {
    let socket = fd::inherited(number).on("open", format_args!("descriptor {number}"))?;
    // First of all: nothing that leaked into this process reaches the payload, whatever happens (CVE-2024-21626).
    tell(&socket, fd::cloexec_from(3).on("close_range", ""))?;
    tell(&socket, process::set_parent_death_signal(libc::SIGKILL).on("prctl", "PR_SET_PDEATHSIG"))?;
    let (mut engine, start) = tell(&socket, receive_config(&socket))?;
    // It becomes the program without another look of smaster's.
    if !matches!(start, Start::Barrier(_)) {
        tell(&socket, process::set_name(BEFORE_EXEC).on("prctl", "PR_SET_NAME"))?;
    }
    let mut context: Context = server::serve(socket.as_fd(), &mut *engine)?;
    // Before the filter, which need not allow it.
    tell(&socket, process::end_by_signals().on("sigaction", "SIGTERM"))?;
    let mark = trace::span("give up privileges");
    let outcome = engine.finish(&mut context);
    drop(mark);
    // From here on this process has to survive smaster, which is about to hand it over.
    tell(&socket, process::set_parent_death_signal(0).on("prctl", "PR_SET_PDEATHSIG"))?;
    server::answer(socket.as_fd(), &outcome, context)?;
    outcome?;
    tell(&socket, engine.confine(socket.as_fd()))?;
    let is_others = matches!(start, Start::Barrier(_));
    let caller = match start {
        Start::Barrier(barrier) => {
            let _ = socket.into_raw_fd();
            engine.close_all_but(barrier.as_fd())?;
            let caller = wait_at(&barrier).map_err(|error| end_with(barrier, error))?;
            match process::set_name(BEFORE_EXEC).on("prctl", "PR_SET_NAME") {
                Ok(()) => caller,
                Err(error) => return Err(fail(caller, error.into())),
            }
        }
        Start::Creator => wait_for(socket)?,
        Start::AtOnce => socket,
    };
    let who = if is_others { Caller::Other(caller.as_fd()) } else { Caller::Smaster(caller.as_fd()) };
    let Err(error) = engine.start_process(who);
    match frame::send(&caller, Kind::Failed, &Failure::from_error(&error), &[]) {
        Ok(()) => Err(error),
        Err(error) => Err(end_with(caller, error)),
    }
}

/// Leaves a connection open until this process has ended: whoever sees it closed by one that lives takes that for the
/// beginning of the program.
fn end_with(connection: OwnedFd, error: anyhow::Error) -> anyhow::Error {
    std::mem::forget(connection);
    error
}

/// Tells smaster of a failure that it would not hear of otherwise.
fn tell<T>(socket: &OwnedFd, outcome: Result<T, impl Into<anyhow::Error>>) -> Result<T> {
    outcome.map_err(|error| {
        let error = error.into();
        let failure = Some(Failure::from_error(&error));
        // If it cannot hear of that either, it sees that this process ends.
        let _ = frame::send(socket, Kind::Reply, &Reply { failure, ..Reply::default() }, &[]);
        error
    })
}

/// When the program is executed.
enum Start {
    /// When somebody says so at the start barrier, to which this is the listening end.
    Barrier(OwnedFd),
    /// When smaster says so.
    Creator,
    AtOnce,
}

type Configured = (Box<dyn PayloadOperations>, Start);

fn receive_config(socket: &OwnedFd) -> Result<Configured> {
    let Some(Frame { kind: Kind::Config, body, mut fds }) = frame::receive(socket)? else {
        bail!("rtx init expected its configuration")
    };
    let envelope: Envelope = serde_json::from_slice(&body)?;
    if envelope.starter.timeline {
        trace::keep_spans();
    }
    if envelope.version != VERSION {
        bail!("rtx init does not read a configuration of version {}", envelope.version);
    }
    if let Some(adjustment) = envelope.starter.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", adjustment.to_string())
            .map_err(|error| errno_of(&error))
            .on("write", format_args!("{adjustment} to /proc/self/oom_score_adj (/process/oomScoreAdj)"))?;
    }
    // A user without privileges who maps the ids of a new user namespace writes to /proc/PID for that, which is root's where
    // the process is not dumpable. All that could be found here is that user's own.
    if !envelope.starter.is_mapped_by_user {
        process::set_dumpable(false).on("prctl", "PR_SET_DUMPABLE")?;
    }
    sealed::verify(envelope.starter.sealed)?;
    if envelope.starter.sealed != Sealed::ReadonlyMount {
        mount::detect();
    }
    let start = match envelope.starter.barrier {
        Some(0) if !fds.is_empty() => Start::Barrier(fds.remove(0)),
        Some(index) => bail!("rtx init was to find the start barrier at index {index}, where it is not"),
        None if envelope.starter.awaits_start => Start::Creator,
        None => Start::AtOnce,
    };
    let provider = table::find(&envelope.engine_name)?;
    let Some(make_payload) = provider.make_payload else {
        bail!("engine {:?} has no stage2", provider.name);
    };
    let Envelope { common, starter, oci_config, .. } = envelope;
    Ok((make_payload(PayloadRequest { common, starter, oci_config, fds })?, start))
}

/// Waits until smaster says so. Where smaster has ended there is nobody left who could: so does this process.
fn wait_for(socket: OwnedFd) -> Result<OwnedFd> {
    match frame::receive(&socket) {
        Ok(Some(Frame { kind: Kind::Start, .. })) => Ok(socket),
        Err(error) => Err(fail(socket, error)),
        Ok(_) => bail!("rtx init was not started"),
    }
}

/// Tells who waits for the program's beginning why it does not begin. That may have been said to begin, and the end of the
/// connection would be taken for its beginning.
fn fail(caller: OwnedFd, error: anyhow::Error) -> anyhow::Error {
    let _ = frame::send(&caller, Kind::Failed, &Failure::from_error(&error), &[]);
    end_with(caller, error)
}

/// How often a connection is tried to be accepted, which may fail for want of memory or files that there will be again.
const ATTEMPTS: u32 = 10;

fn accept(barrier: &OwnedFd) -> Result<OwnedFd> {
    let mut attempt = 1;
    loop {
        match socket::accept(barrier) {
            Err(_) if attempt < ATTEMPTS => {
                std::thread::sleep(Duration::from_millis(1) * 2u32.pow(attempt));
                attempt += 1;
            }
            other => return Ok(other.on("accept", "on the start barrier")?),
        }
    }
}

/// Waits until `rtx start` says so. Whoever connects and says something else, or nothing, is let go.
fn wait_at(barrier: &OwnedFd) -> Result<OwnedFd> {
    loop {
        let caller = accept(barrier)?;
        match frame::receive(&caller) {
            Ok(Some(Frame { kind: Kind::Start, .. })) => return Ok(caller),
            Err(error) if error.is::<crate::sys::Error>() => return Err(fail(caller, error)),
            _ => {}
        }
    }
}
