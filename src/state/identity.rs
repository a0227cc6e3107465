//! Which process a pid means: pids are reused, so a pid in a file is worth nothing without the time the process was
//! started at and the boot it was started in.

use crate::sys::process::pidfd_open;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// Of this boot (random(4), `/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

impl BootId {
    pub fn current() -> Self {
        Self(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned())
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
        let (_, start_time) = stat(pid).ok_or(Errno::ESRCH)?;
        Ok(Self { pid, start_time, boot_id: BootId::current() })
    }

    /// What has become of it.
    pub fn liveness(&self) -> Liveness {
        match stat(self.pid) {
            Some((state, start)) if start == self.start_time => {
                if self.boot_id != BootId::current() {
                    Liveness::Gone
                } else if matches!(state, b'Z' | b'X') {
                    Liveness::Zombie
                } else {
                    Liveness::Alive
                }
            }
            _ => Liveness::Gone,
        }
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

/// State letter and start time of /proc/PID/stat.
fn stat(pid: i32) -> Option<(u8, u64)> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &[u8]) -> Option<(u8, u64)> {
    // The command in parentheses may hold anything, parentheses and spaces too: fields count from the last one.
    let end = line.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(line.get(end + 1..)?).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_cannot_forge_its_start_time() {
        let line = b"7 (a) Z 1 2 (b) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(line), Some((b'S', 4242)));
        assert_eq!(parse_stat(b"7 (a"), None);
    }
}
