//! Whether a container that has ended is made anew, when, and by whom.

use super::{Run, Smaster};
use crate::config::supervision::RestartPolicy;
use crate::engine::InitProcess;
use crate::rpc::Reply;
use crate::rpc::frame;
use crate::stages::supervisor::child::Helper;
use crate::stages::supervisor::health::Health;
use crate::stages::supervisor::{Settings, again, streams};
use crate::state::Phase;
use crate::sys::{On, process, socket};
use anyhow::Result;
use serde_json::json;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

impl Smaster {
    /// Whether the container is made anew, and when.
    pub(super) fn decide(&mut self, failed: bool) {
        let Settings { restart, backoff, .. } = &self.supervision.settings;
        if self.up_since.elapsed() >= Duration::from_millis(backoff.reset_after) {
            self.restarts_in_a_row = 0;
        }
        let wanted = match restart {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure(None) => failed,
            RestartPolicy::OnFailure(Some(most)) => failed && self.restarts_in_a_row < *most,
        };
        // A container that was never started has nothing to be repeated.
        let wanted = wanted && !self.state.is_to_stop() && (self.state.started_at().is_some() || self.is_again());
        if !wanted {
            self.supervision.phase = Phase::Ending;
            self.save();
            self.run = Run::Over;
            return;
        }
        let delay = Duration::from_millis(backoff.delay(self.restarts_in_a_row, chance()));
        self.restarts_in_a_row += 1;
        self.supervision.phase = Phase::Restarting;
        self.save();
        self.tell("restarting", json!({ "delayMs": delay.as_millis() as u64, "inARow": self.restarts_in_a_row }));
        self.run = Run::Waiting(Instant::now() + delay);
    }

    pub(super) fn is_again(&self) -> bool {
        self.supervision.restarts > 0
    }

    pub(super) fn restart(&mut self) {
        self.supervision.restarts += 1;
        self.save();
        let begun = self.begin_restart();
        self.run = match begun {
            Ok((helper, socket)) => Run::Making { helper, socket, reply: None },
            Err(error) => return self.restart_has_failed(&format!("{error:#}")),
        };
    }

    pub(super) fn begin_restart(&mut self) -> Result<(Helper, OwnedFd)> {
        let settings = &self.supervision.settings;
        let (streams, ends) = streams::make(settings.launch.terminal, settings.stdin)?;
        streams.do_not_wait()?;
        let (ours, theirs) = socket::pair().on("socketpair", "")?;
        let helper = Helper::start::<&str>("again", &self.root, self.state.id(), &[], Some((theirs, ends)))
            .on("start", "a restart")?;
        self.streams = streams;
        Ok((helper, ours))
    }

    pub(super) fn hear_helper(&mut self) {
        let Run::Making { socket, reply, .. } = &mut self.run else { return };
        *reply = match frame::receive(&*socket) {
            Ok(Some(frame)) => frame.parse().ok().map(|reply| (reply, frame.fds)),
            _ => None,
        };
        // At end-of-file its end is near; until then there is nothing more to hear.
        if reply.is_none() {
            *reply = Some((Reply::default(), Vec::new()));
        }
    }

    pub(super) fn helper_has_ended(&mut self) {
        if matches!(self.run, Run::Making { reply: None, .. }) {
            self.hear_helper();
        }
        let Run::Making { reply, .. } = std::mem::replace(&mut self.run, Run::Over) else { return };
        let (reply, mut fds) = reply.unwrap_or_default();
        let (Some(pid), None) = (reply.moved_to, &reply.failure) else {
            let why = reply.failure.map_or_else(|| "the restart was killed".to_owned(), |failure| failure.message);
            return self.restart_has_failed(&why);
        };
        let Ok(pidfd) = process::pidfd_open(pid) else {
            return self.restart_has_failed("its first process cannot be watched");
        };
        self.streams.set_console(fds.pop());
        let _ = self.streams.do_not_wait();
        self.run = Run::Up(InitProcess { pid, pidfd });
        self.up_since = Instant::now();
        self.out_of_memory = false;
        self.watch_memory();
        self.health = self.supervision.settings.health.clone().map(Health::new);
        self.supervision.health = self.health.as_ref().map(|health| health.status.name().to_owned());
        self.supervision.phase = Phase::Watching;
        self.save();
        self.reap();
    }

    pub(super) fn restart_has_failed(&mut self, why: &str) {
        self.drain();
        if why == again::STOPPED {
            self.supervision.phase = Phase::Ending;
            self.save();
            self.run = Run::Over;
            return;
        }
        self.tell("failed_to_start", json!({ "error": why }));
        self.up_since = Instant::now();
        self.decide(true);
    }
}

/// Between 0 and 1.
fn chance() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
