//! Ending a container within a time: a signal, and SIGKILL for who does not heed it.

use super::lifecycle::{self, Live};
use super::supervisor::view;
use super::supervisor::wait::{self, Condition, Waited};
use crate::state::{Liveness, Status};
use crate::sys::{Errno, On, process, retry};
use anyhow::{Result, bail};
use nix::poll::{PollFd, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a process takes to die of SIGKILL, unless the kernel holds it.
const AFTER_KILL: Duration = Duration::from_secs(30);

/// Sends a signal and waits for the end of init; SIGKILL if it takes longer than `patience`.
///
/// # Errors
/// As [`lifecycle::kill`]; where even SIGKILL does not end it.
pub fn kill_within(root: &Path, id: &str, signal: i32, all: bool, patience: Duration) -> Result<()> {
    let live = Live::open(root, id)?;
    // Signal 0 asks whether there is a process, and nothing of it (kill(2)).
    let Some(init) = init(&live)?.filter(|_| signal != 0) else { return lifecycle::kill(root, id, signal, all) };
    lifecycle::kill(root, id, signal, all)?;
    if has_ended_within(&init, patience)? {
        return Ok(());
    }
    // It may have ended just now, and another process have been restarted in its place.
    let _ = process::pidfd_signal(&init, libc::SIGKILL);
    if live.status()? == Status::Paused {
        let _ = lifecycle::resume(root, id);
    }
    if !has_ended_within(&init, AFTER_KILL)? {
        bail!("init of container {id:?} does not die");
    }
    Ok(())
}

/// Ends the container for good: it is not restarted. One that has ended already is no error.
///
/// # Errors
/// As [`kill_within`].
pub fn stop(root: &Path, id: &str, signal: i32, patience: Duration) -> Result<()> {
    let live = Live::open(root, id)?;
    if live.container.record.supervised {
        view::stop_restarts(&live.container)?;
    }
    if init(&live)?.is_some() {
        match kill_within(root, id, signal, false, patience) {
            Err(error) if live.status()? != Status::Stopped => return Err(error),
            _ => {}
        }
    } else if !live.container.record.supervised && live.status()? != Status::Stopped {
        // An engine without processes. A supervised container without one is being restarted, which ends below.
        lifecycle::kill(root, id, signal, false)?;
    }
    if live.container.record.supervised && view::known(&live.container.state)?.is_some_and(|(_, watched)| watched) {
        // What is restarted at this very moment is ended as well.
        let end = Instant::now() + AFTER_KILL;
        loop {
            match wait::wait(root, id, Condition::Stopped, Some(Instant::now() + Duration::from_millis(500))) {
                Ok(Waited::TimedOut) if Instant::now() < end => {
                    let _ = lifecycle::kill(root, id, libc::SIGKILL, false);
                }
                Ok(Waited::TimedOut) => bail!("the smaster of container {id:?} does not end"),
                _ => return Ok(()),
            }
        }
    }
    Ok(())
}

fn init(live: &Live) -> Result<Option<OwnedFd>> {
    let Some(init) = &live.container.record.init else { return Ok(None) };
    if init.liveness()? != Liveness::Alive {
        return Ok(None);
    }
    match init.open() {
        Err(Errno::ESRCH) => Ok(None),
        other => Ok(Some(other.on("open", format_args!("init of {}", live.container.record.id))?)),
    }
}

fn has_ended_within(pidfd: &OwnedFd, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        let mut fds = [PollFd::new(pidfd.as_fd(), process::end_events())];
        let timeout = process::end_timeout(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        retry(|| poll(&mut fds, timeout)).on("poll", "init")?;
        if process::has_ended(pidfd, fds[0].revents()) {
            return Ok(true);
        }
        if left == 0 {
            return Ok(false);
        }
    }
}
