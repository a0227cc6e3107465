//! Waiting for what becomes of a container, without asking again and again.

use super::view;
use crate::stages::lifecycle::Live;
use crate::state::{Liveness, Phase, ProcessIdentity, StateDir, Status};
use crate::sys::{Errno, On, process, retry};
use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a container without processes is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Created,
    Running,
    Stopped,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    Met,
    /// The program's exit code, as a shell would say it.
    Ended(i32),
    TimedOut,
}

/// Waits until a container is as `condition` says. One that is restarted has not stopped before it is for good.
///
/// # Errors
/// [`crate::state::NotFound`]; where the container can never be so, or nobody knows how it ended.
pub fn wait(root: &Path, id: &str, condition: Condition, deadline: Option<Instant>) -> Result<Waited> {
    let live = Live::open(root, id)?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).on("inotify_init", "")?;
    // The record of a container that is being made grows.
    let kinds = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF;
    inotify.add_watch(&live.container.state.path(), kinds).on("inotify_add_watch", id)?;
    let Live { container, engine } = live;
    let mut container = container;
    loop {
        while inotify.read_events().is_ok() {}
        let looked = look(&container, &*engine, condition)?;
        if let Look::Met = looked {
            return outcome(&container, condition);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Waited::TimedOut);
        }
        if let Look::NotYet(watched) = looked {
            let mut fds = vec![PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
            fds.extend(watched.iter().map(|pidfd| PollFd::new(pidfd.as_fd(), process::end_events())));
            // Of an engine without processes nothing tells when the time of a container is over.
            let is_timed = container.record.complete && container.record.init.is_none();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let next = left.into_iter().chain(is_timed.then_some(LOOK_AGAIN)).min();
            let timeout = next.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
            });
            retry(|| poll(&mut fds, process::end_timeout(timeout))).on("poll", id)?;
        }
        if container.state.is_removed() {
            bail!("container {id:?} was deleted");
        }
        // A restart has another first process.
        let Ok(record) = container.state.record() else { continue };
        container.record = record;
    }
}

enum Look {
    Met,
    /// The process whose end changes something.
    NotYet(Option<OwnedFd>),
    /// That process has ended since it was looked at.
    Changed,
}

fn watch(process: &ProcessIdentity) -> Result<Look> {
    match process.open() {
        Err(Errno::ESRCH) => Ok(Look::Changed),
        pidfd => Ok(Look::NotYet(Some(pidfd.on("watch", format_args!("process {}", process.pid))?))),
    }
}

fn outcome(container: &crate::engine::Container, condition: Condition) -> Result<Waited> {
    let known = view::known(&container.state)?.filter(|(supervision, _)| supervision.phase == Phase::Ended);
    let Some(end) = known.and_then(|(supervision, _)| supervision.end) else { return Ok(Waited::Met) };
    match end.code() {
        Some(code) => Ok(Waited::Ended(code)),
        None if condition == Condition::Stopped => {
            bail!("container {:?} has stopped, and its smaster could not learn how", container.record.id)
        }
        None => Ok(Waited::Met),
    }
}

fn look(
    container: &crate::engine::Container,
    engine: &dyn crate::engine::EngineOperations,
    condition: Condition,
) -> Result<Look> {
    let id = &container.record.id;
    let known = if container.record.supervised { view::known(&container.state)? } else { None };
    let has_ended = known.as_ref().is_some_and(|(supervision, _)| supervision.phase == Phase::Ended);
    let is_lost = known.as_ref().is_some_and(|(_, watched)| !watched) && container.record.init.is_none();
    if is_lost && !has_ended && !is_over(&container.state)? {
        bail!("container {id:?} was to be restarted, and nobody does that: its smaster was killed");
    }
    let smaster = known.filter(|(_, watched)| *watched).map(|(supervision, _)| supervision.smaster);
    let init = container.record.init.as_ref();
    match condition {
        Condition::Created => {
            if container.record.complete {
                Ok(Look::Met)
            } else {
                Ok(Look::NotYet(None))
            }
        }
        Condition::Running if engine.status(container)? == Status::Running => Ok(Look::Met),
        Condition::Running if has_ended => bail!("container {id:?} has stopped"),
        Condition::Stopped if has_ended => Ok(Look::Met),
        Condition::Running | Condition::Stopped => {
            // smaster ends after the container; without one init is all that can be watched.
            if let Some(smaster) = smaster {
                return watch(&smaster);
            }
            let is_alive = init.map_or(Ok(false), |init| init.liveness().map(|is| is == Liveness::Alive))?;
            let has_no_process = init.is_none() && engine.status(container)? != Status::Stopped;
            if is_alive || has_no_process {
                return init.map_or(Ok(Look::NotYet(None)), watch);
            }
            // Between the first look and this one smaster may have said its last words.
            if is_over(&container.state)? {
                return Ok(Look::Met);
            }
            if container.record.supervised {
                bail!("container {id:?} has stopped, and nobody saw how: its smaster was killed before it ended");
            }
            bail!(
                "container {id:?} has stopped, and only who started it knows how: \
                 rtx does for containers that were created with --supervise"
            )
        }
    }
}

fn is_over(state: &StateDir) -> Result<bool> {
    Ok(view::known(state)?.is_some_and(|(supervision, _)| supervision.phase == Phase::Ended))
}
