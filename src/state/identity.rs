//! Which process a pid means: pids are reused, so a pid in a file is worth nothing without the time the process was
//! started at and the boot it was started in.

use crate::sys::process::{self, pidfd_open};
use crate::sys::stat::Stat;
use crate::sys::{self, On, fd};
use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Of this boot (random(4), `/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

impl BootId {
    /// # Errors
    /// The kernel's: another boot's name would make every process another one.
    pub fn current() -> nix::Result<Self> {
        Self::known().cloned()
    }

    fn known() -> nix::Result<&'static Self> {
        // `list` asks for each container.
        static CURRENT: OnceLock<BootId> = OnceLock::new();
        if let Some(known) = CURRENT.get() {
            return Ok(known);
        }
        // 36 characters and the end of the line: one read gets them all, and there is nothing to ask a size of.
        let mut text = [0; 64];
        match fd::read_line("/proc/sys/kernel/random/boot_id", &mut text) {
            Ok(line) => Ok(CURRENT.get_or_init(|| Self(String::from_utf8_lossy(line).trim().to_owned()))),
            // Where it is hidden, it always is.
            Err(Errno::ENOENT | Errno::EACCES) => Ok(CURRENT.get_or_init(|| Self(String::new()))),
            Err(errno) => Err(errno),
        }
    }
}

/// A process, so named that no other can be taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessIdentity {
    pub pid: i32,
    /// Clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
    pub boot_id: BootId,
}

/// What has become of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    Alive,
    /// It has ended, and nobody has waited for it yet.
    Zombie,
    Gone,
}

impl ProcessIdentity {
    /// The identity of a process that is alive, and cannot be replaced meanwhile because the caller is its parent.
    ///
    /// # Errors
    /// `ESRCH` where it is gone.
    pub fn of(pid: i32) -> nix::Result<Self> {
        let start_time = Stat::of(pid)?.ok_or(Errno::ESRCH)?.start_time;
        Ok(Self { pid, start_time, boot_id: BootId::current()? })
    }

    /// What has become of it.
    ///
    /// # Errors
    /// Where that cannot be told: nobody may take a process for dead because there was no descriptor left to look.
    pub fn liveness(&self) -> Result<Liveness, sys::Error> {
        Ok(match self.look()? {
            Some(stat) if stat.is_zombie() => Liveness::Zombie,
            Some(_) => Liveness::Alive,
            None => Liveness::Gone,
        })
    }

    /// What /proc says about it; `None` where it is gone.
    ///
    /// # Errors
    /// As [`Self::liveness`].
    pub fn look(&self) -> Result<Option<Stat>, sys::Error> {
        self.borrowed().look()
    }

    pub fn borrowed(&self) -> Identity<'_> {
        Identity { pid: self.pid, start_time: self.start_time, boot_id: &self.boot_id.0 }
    }

    /// What /proc says about it; `None` where its pid is nobody's by now, or another process's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stat(&self) -> nix::Result<Option<Stat>> {
        self.borrowed().stat()
    }

    /// A descriptor of this very process. Signals go through it.
    ///
    /// # Errors
    /// `ESRCH` where it has ended, even if its pid belongs to another process now.
    pub fn open(&self) -> nix::Result<OwnedFd> {
        let pidfd = pidfd_open(self.pid)?;
        match self.liveness().map_err(|error| error.errno)? {
            Liveness::Alive => Ok(pidfd),
            _ => Err(Errno::ESRCH),
        }
    }

    /// Waits until it has ended, for so long at most; whether it has.
    ///
    /// # Errors
    /// The kernel's, where it cannot be opened.
    pub fn wait_for_end(&self, limit: Duration) -> nix::Result<bool> {
        let deadline = Instant::now() + limit;
        let pidfd = match self.open() {
            Err(Errno::ESRCH) => return Ok(true),
            other => other?,
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(pidfd.as_fd(), process::end_events())];
            let failed = sys::retry(|| poll(&mut fds, process::end_timeout(timeout))).is_err();
            if failed || process::has_ended(&pidfd, fds[0].revents()) {
                return Ok(true);
            }
            if left == 0 {
                return Ok(false);
            }
        }
    }
}

/// A [`ProcessIdentity`] that lies elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    pub pid: i32,
    pub start_time: u64,
    pub boot_id: &'a str,
}

impl Identity<'_> {
    /// What /proc says about it; `None` where it is gone.
    ///
    /// # Errors
    /// As [`ProcessIdentity::liveness`].
    pub fn look(&self) -> Result<Option<Stat>, sys::Error> {
        let look = || -> nix::Result<_> {
            let stat = self.stat()?;
            Ok(if stat.is_some() && self.boot_id != BootId::known()?.0 { None } else { stat })
        };
        look().on("look at", format_args!("process {}", self.pid))
    }

    fn stat(&self) -> nix::Result<Option<Stat>> {
        Ok(Stat::of(self.pid)?.filter(|stat| stat.start_time == self.start_time))
    }
}
