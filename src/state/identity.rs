//! Which process a pid means: pids are reused, so a pid in a file is worth nothing without the time the process was
//! started at and the boot it was started in.

use crate::sys::process::pidfd_open;
use crate::sys::stat::Stat;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Of this boot (random(4), `/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

impl BootId {
    pub fn current() -> Self {
        // 36 characters and the end of the line: one read gets them all, and there is nothing to ask a size of.
        let mut text = [0; 64];
        let read = File::open("/proc/sys/kernel/random/boot_id").and_then(|mut file| file.read(&mut text));
        Self(String::from_utf8_lossy(&text[..read.unwrap_or_default()]).trim().to_owned())
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
        let start_time = Stat::of(pid).ok_or(Errno::ESRCH)?.start_time;
        Ok(Self { pid, start_time, boot_id: BootId::current() })
    }

    /// What has become of it.
    pub fn liveness(&self) -> Liveness {
        match self.stat() {
            Some(stat) => {
                if self.boot_id != BootId::current() {
                    Liveness::Gone
                } else if stat.is_zombie() {
                    Liveness::Zombie
                } else {
                    Liveness::Alive
                }
            }
            None => Liveness::Gone,
        }
    }

    /// What /proc says about it; `None` where its pid is nobody's by now, or another process's.
    pub fn stat(&self) -> Option<Stat> {
        Stat::of(self.pid).filter(|stat| stat.start_time == self.start_time)
    }

    /// A descriptor of this very process. Signals go through it.
    ///
    /// # Errors
    /// `ESRCH` where it has ended, even if its pid belongs to another process now.
    pub fn open(&self) -> nix::Result<OwnedFd> {
        let pidfd = pidfd_open(self.pid)?;
        match self.liveness() {
            Liveness::Alive => Ok(pidfd),
            _ => Err(Errno::ESRCH),
        }
    }
}
