//! Who ends, and what of: children of smaster, the container's first process, the container for good.

use super::{Run, Smaster};
use crate::engine::{ExitStatus, Outcome};
use crate::stages::lifecycle::Live;
use crate::stages::supervisor::streams::Streams;
use crate::state::{Busy, End, Phase, StateDir, now};
use crate::sys::process::{self, Child};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long another command may have the lock of a container that has ended.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Smaster {
    /// Children other than init, which is waited for where its end is dealt with: helpers, and the container's orphans.
    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = process::ended(Child::Any) {
            match &self.run {
                Run::Up(init) if init.pid == pid => return,
                // Any other may be the new init, which ended before its maker did.
                Run::Making { helper, .. } if helper.pid != pid => {
                    if !process::has_child_ended(helper.pid) {
                        return;
                    }
                    let helper = helper.pid;
                    let _ = process::wait(helper);
                    self.helper_has_ended();
                }
                Run::Making { .. } => {
                    let _ = process::wait(pid);
                    self.helper_has_ended();
                }
                _ => {
                    let _ = process::wait(pid);
                    self.child_has_ended(pid, ExitStatus::from(status).code());
                }
            }
        }
    }

    pub(super) fn child_has_ended(&mut self, pid: i32, code: i32) {
        let Some(health) = &mut self.health else { return };
        let before = health.status;
        if health.ended(pid, code) && health.status != before {
            let status = health.status.name();
            let data = match health.timed_out() {
                true => json!({ "status": status, "timedOut": true }),
                false => json!({ "status": status, "exitCode": code }),
            };
            self.supervision.health = Some(status.to_owned());
            self.save();
            self.tell("health", data);
        }
    }

    pub(super) fn init_has_ended(&mut self, pid: i32) {
        // Whoever waits to be started catches signals, and ends as if it did not.
        let never_ran = self.state.started_at().is_none() && !self.is_again();
        let status = match process::try_wait(pid) {
            Ok(Some(status)) => match status.into() {
                ExitStatus::Exited(code) if never_ran && code > 128 => Some(ExitStatus::Signaled(code - 128)),
                status => Some(status),
            },
            // A thread of it was the one that poll(2) told of.
            Ok(None) => return,
            Err(_) => None,
        };
        self.look_at_memory();
        // The removal of its cgroup would pass for another shortage.
        self.memory = None;
        self.drain();
        if let Some(health) = &mut self.health {
            health.stop();
        }
        let signal = if let Some(ExitStatus::Signaled(signal)) = status { Some(signal) } else { None };
        let exit_code = if let Some(ExitStatus::Exited(code)) = status { Some(code) } else { None };
        let killed = status.is_some_and(|status| status.code() == 128 + libc::SIGKILL);
        let oom_killed = self.out_of_memory && killed;
        let end = End { exit_code, signal, oom_killed, finished_at: now() };
        self.tell("stopped", &end);
        self.supervision.output_lost = self.output.lost;
        self.supervision.end = Some(end);
        self.decide(status != Some(ExitStatus::Exited(0)));
    }

    pub(super) fn drain(&mut self) {
        let Self { streams, output, clients, buffer, .. } = self;
        streams.drain(output, buffer, |stream, bytes| clients.copy(stream, bytes));
        *streams = Streams::default();
    }

    pub(super) fn watch_memory(&mut self) {
        let live = Live::open(&self.root, self.state.id());
        self.memory = live.and_then(|live| live.engine.out_of_memory_events(&live.container)).ok();
    }

    pub(super) fn look_at_memory(&mut self) {
        let Some(watch) = &mut self.memory else { return };
        match watch.acknowledge() {
            Ok(true) => {
                // cgroup v1 tells of its removal in the same way.
                let live = Live::open(&self.root, self.state.id());
                if live.is_ok_and(|live| live.engine.out_of_memory_events(&live.container).is_ok()) {
                    self.out_of_memory = true;
                    self.tell("oom", json!({}));
                } else {
                    self.memory = None;
                }
            }
            Ok(false) => {}
            Err(_) => self.memory = None,
        }
    }

    /// The container has ended for good: what it held goes, its state stays until it is deleted.
    pub(super) fn finish(&mut self) {
        self.memory = None;
        let locked = self.lock().and_then(Live::with);
        let removed = locked.and_then(|mut live| {
            live.engine.cleanup_container(Outcome::Deleted { container: &live.container, force: true })?;
            Ok(live)
        });
        // Who hears of the end finds nothing of it.
        std::mem::take(&mut self.leaf).leave();
        let cleaned = removed.and_then(|_locked| {
            self.supervision.cleaned = true;
            self.supervision.phase = Phase::Ended;
            self.state.write_supervision(&self.supervision)
        });
        if let Err(error) = cleaned {
            self.tell("cleanup_failed", json!({ "error": format!("{error:#}") }));
            self.supervision.phase = Phase::Ended;
            self.save();
        }
        if let Some(end) = &self.supervision.end {
            self.clients.tell_end(end);
        }
    }

    /// The `start` of a program that ended at once may still have the lock; a command that deletes the container cleans up
    /// itself.
    pub(super) fn lock(&self) -> Result<StateDir> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match StateDir::open_locked_within(&self.root, self.state.id(), LOOK_AGAIN) {
                Err(error) if error.is::<Busy>() && !self.state.is_being_deleted() && Instant::now() < deadline => {}
                other => return other,
            }
        }
    }
}
