//! What commands see of a supervised container, and what they do about its smaster.

use super::Supervision;
use super::protocol::{Connection, Request, Verb};
use crate::engine::Container;
use crate::state::{Phase, Record, StateDir};
use crate::sys::{On, process, retry};
use anyhow::Result;
use nix::poll::{PollFd, PollTimeout, poll};
use serde::Serialize;
use serde_json::json;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long smaster may take to write down the end of a container that is being deleted.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `state` and `list` add for a supervised container.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    pub mode: &'static str,
    /// The pid of smaster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<i32>,
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub restarts: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restarting: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub output_lost: u64,
    /// smaster was killed; this is when that was first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsupervised_since: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl View {
    /// `None` for a container that is not supervised.
    ///
    /// # Errors
    /// Where its state is damaged.
    pub fn of(state: &StateDir, record: &Record) -> Result<Option<Self>> {
        if !record.supervised {
            return Ok(None);
        }
        let Some((supervision, watched)) = known(state)? else {
            let (created_at, since) = (record.created.clone(), unsupervised_since(state)?);
            return Ok(Some(Self { unsupervised_since: Some(since), created_at, ..Self::empty() }));
        };
        let is_lost = !watched && supervision.phase != Phase::Ended;
        let unsupervised_since = if is_lost { Some(unsupervised_since(state)?) } else { None };
        let end = supervision.end.filter(|_| supervision.phase != Phase::Watching);
        Ok(Some(Self {
            // It says its last words a moment before it is gone.
            supervisor: Some(supervision.smaster.pid).filter(|_| watched && supervision.phase != Phase::Ended),
            created_at: supervision.created_at,
            started_at: state.started_at(),
            finished_at: end.as_ref().map(|end| end.finished_at.clone()),
            exit_code: end.as_ref().and_then(|end| end.exit_code),
            signal: end.as_ref().and_then(|end| end.signal),
            oom_killed: end.as_ref().is_some_and(|end| end.oom_killed),
            restarts: supervision.restarts,
            restarting: watched && supervision.phase == Phase::Restarting,
            health: supervision.health.filter(|_| supervision.phase == Phase::Watching),
            output_lost: supervision.output_lost,
            unsupervised_since,
            ..Self::empty()
        }))
    }

    fn empty() -> Self {
        Self {
            mode: "supervised",
            supervisor: None,
            created_at: String::new(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            signal: None,
            oom_killed: false,
            restarts: 0,
            restarting: false,
            health: None,
            output_lost: 0,
            unsupervised_since: None,
        }
    }
}

/// What smaster says, and whether it is there.
///
/// # Errors
/// Where it is damaged.
pub fn known(state: &StateDir) -> Result<Option<(Supervision, bool)>> {
    let Some(supervision): Option<Supervision> = state.supervision()? else { return Ok(None) };
    if supervision.is_watched()? {
        return Ok(Some((supervision, true)));
    }
    // Its last words may have come since.
    Ok(state.supervision()?.map(|supervision| (supervision, false)))
}

fn unsupervised_since(state: &StateDir) -> Result<String> {
    let (since, is_new) = state.unsupervised_since()?;
    if is_new {
        let _ = state.add_event("unsupervised", &json!({ "since": since }));
    }
    Ok(since)
}

/// Adds an event to those of a supervised container. That it cannot be written down changes nothing.
pub fn tell(container: &Container, kind: &str, data: impl Serialize) {
    if container.record.supervised {
        let _ = container.state.add_event(kind, &data);
    }
}

/// Sees to it that a container is not restarted.
///
/// # Errors
/// The kernel's.
pub fn stop_restarts(container: &Container) -> Result<()> {
    container.state.set_to_stop()?;
    ask_to_stop(container);
    Ok(())
}

/// It waits no longer for the time of the restart.
fn ask_to_stop(container: &Container) {
    if let Ok(Some(smaster)) = Connection::open(&container.state) {
        let _ = smaster.ask(&Request::new(Verb::Stop));
    }
}

/// Before a container whose first process has ended is removed: lets smaster write that down, and ends it if it does not by
/// itself. Returns whether what the container held has been removed already.
///
/// # Errors
/// Where that cannot be told.
pub fn end_smaster(container: &Container) -> Result<bool> {
    let state = &container.state;
    let Some((supervision, watched)) = known(state)? else { return Ok(false) };
    // It is this process that made the container, and has failed.
    if !watched || supervision.smaster.pid == std::process::id() as i32 {
        return Ok(supervision.cleaned);
    }
    let Ok(pidfd) = supervision.smaster.open() else { return Ok(supervision.cleaned) };
    if supervision.phase == Phase::Restarting {
        ask_to_stop(container);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let mut fds = [PollFd::new(pidfd.as_fd(), process::end_events())];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        retry(|| poll(&mut fds, process::end_timeout(timeout))).on("poll", "smaster")?;
        if process::has_ended(&pidfd, fds[0].revents()) {
            break;
        }
        if left == 0 {
            let _ = process::pidfd_signal(&pidfd, libc::SIGKILL);
            let mut fds = [PollFd::new(pidfd.as_fd(), process::end_events())];
            let _ = retry(|| poll(&mut fds, PollTimeout::from(1000u16)));
            break;
        }
    }
    Ok(known(state)?.is_some_and(|(supervision, _)| supervision.cleaned))
}
