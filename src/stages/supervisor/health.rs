//! Health checks: a program that is executed in the container again and again, and what its exit codes say of it.

use super::child::Helper;
use crate::config::supervision::HealthCheck;
use crate::sys::{On, process};
use anyhow::Result;
use std::time::{Duration, Instant};

/// How long a check that was told to end may take to.
const GRACE: Duration = Duration::from_secs(1);

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Starting,
    Healthy,
    Unhealthy,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The checks of one run of a container.
pub struct Health {
    check: HealthCheck,
    begin: Instant,
    next: Instant,
    running: Option<(Helper, Instant)>,
    told: bool,
    failures: u32,
    pub status: Status,
}

impl Health {
    pub fn new(check: HealthCheck) -> Self {
        let now = Instant::now();
        let next = now + Duration::from_secs_f64(check.interval);
        Self { check, begin: now, next, running: None, told: false, failures: 0, status: Status::Starting }
    }

    /// When there is something to do.
    pub fn deadline(&self) -> Instant {
        self.running.as_ref().map_or(self.next, |(_, until)| *until)
    }

    /// Begins a check or ends one that takes too long.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn act(&mut self, root: &std::path::Path, id: &str) -> Result<()> {
        let now = Instant::now();
        if now < self.deadline() {
            return Ok(());
        }
        if let Some((helper, until)) = &mut self.running {
            // `rtx exec` passes that on. What does not obey is killed where it is.
            if self.told {
                kill_children(helper.pid);
            } else {
                helper.signal(libc::SIGTERM);
            }
            self.told = true;
            *until = now + GRACE;
            return Ok(());
        }
        self.next = now + Duration::from_secs_f64(self.check.interval);
        self.told = false;
        let helper = Helper::start("health", root, id, &self.check.exec, None).on("start", "a health check")?;
        self.running = Some((helper, now + Duration::from_secs_f64(self.check.timeout)));
        Ok(())
    }

    /// A child has ended: `true` if it was the check.
    pub fn ended(&mut self, pid: i32, code: i32) -> bool {
        if self.running.as_ref().is_none_or(|(helper, _)| helper.pid != pid) {
            return false;
        }
        self.running = None;
        self.next = Instant::now() + Duration::from_secs_f64(self.check.interval);
        if code == 0 && !self.told {
            self.failures = 0;
            self.status = Status::Healthy;
        } else if self.begin.elapsed().as_secs_f64() >= self.check.start_period || self.status == Status::Healthy {
            self.failures += 1;
            if self.failures >= self.check.retries.max(1) {
                self.status = Status::Unhealthy;
            }
        }
        true
    }

    /// Whether the check that has ended last took too long: then its exit code is that of the signal that ended it.
    pub fn timed_out(&self) -> bool {
        self.told
    }

    /// No check outlives the container.
    pub fn stop(&mut self) {
        if let Some((helper, _)) = &self.running {
            kill_children(helper.pid);
            helper.signal(libc::SIGKILL);
        }
    }
}

/// Children of a child of this process, which has not been waited for: their pids are their own.
fn kill_children(pid: i32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
        if let Ok(pidfd) = process::pidfd_open(child) {
            let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
        }
    }
}
