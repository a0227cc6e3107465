//! What a smaster of its own keeps beside the record of its container: `supervisor.json`, which it alone writes, and the
//! marks that commands leave for it.

use super::{Liveness, ProcessIdentity, StateDir};
use crate::sys::{Errno, On};
use anyhow::{Context, Result, bail};
use nix::sys::socket::SockType;
use nix::sys::stat::fstat;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

pub(super) const SUPERVISION: &str = "supervisor.json";
pub(super) const SOCKET: &str = "smaster.sock";
/// When the program was started.
pub(super) const STARTED: &str = "started";
/// A command is about to start it, and has not said yet what came of that.
pub(super) const BEING_STARTED: &str = "starting";
/// The container is not to be restarted.
pub(super) const STOP: &str = "stop";
/// The container is being deleted, by a command that has its lock.
pub(super) const DELETING: &str = "deleting";
/// When it was first seen that smaster is gone although the container had not ended.
pub(super) const UNSUPERVISED: &str = "unsupervised";

/// What smaster is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The container is there.
    Watching,
    /// It has ended and will be made anew.
    Restarting,
    /// It has ended, and what it held is being removed.
    Ending,
    /// It has ended for good.
    Ended,
}

/// How the container ended the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// RFC 3339.
    pub finished_at: String,
}

impl End {
    /// As shells and runtimes report it, where somebody saw it.
    pub fn code(&self) -> Option<i32> {
        self.exit_code.or(self.signal.map(|signal| 128 + signal))
    }
}

/// `supervisor.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Supervision<S> {
    /// Of this file's form.
    pub version: u32,
    pub smaster: ProcessIdentity,
    pub phase: Phase,
    /// RFC 3339, of the container and not of its latest restart.
    pub created_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    pub restarts: u32,
    /// What the health check says, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Bytes of output that could not be written down.
    #[serde(default)]
    pub output_lost: u64,
    /// Whether what the container held beside its state is removed.
    #[serde(default)]
    pub cleaned: bool,
    pub settings: S,
}

impl<S> Supervision<S> {
    pub const VERSION: u32 = 1;

    /// Whether smaster is there.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn is_watched(&self) -> Result<bool> {
        Ok(self.smaster.liveness()? == Liveness::Alive)
    }
}

/// Now, as RFC 3339.
pub fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

impl StateDir {
    /// What smaster says; `None` before it has said anything.
    ///
    /// # Errors
    /// Where it is damaged, or of another version.
    pub fn supervision<S: serde::de::DeserializeOwned>(&self) -> Result<Option<Supervision<S>>> {
        let bytes = match self.read(SUPERVISION) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other.on("read", format_args!("{}/{SUPERVISION}", self.id()))?,
        };
        let supervision: Supervision<S> = serde_json::from_slice(&bytes)
            .with_context(|| format!("the state of container {:?} is damaged: {SUPERVISION}", self.id()))?;
        if supervision.version != Supervision::<S>::VERSION {
            bail!("{SUPERVISION} of container {:?} is of version {}", self.id(), supervision.version);
        }
        Ok(Some(supervision))
    }

    /// Replaces what smaster says.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_supervision<S: Serialize>(&self, supervision: &Supervision<S>) -> Result<()> {
        self.replace(SUPERVISION, &serde_json::to_vec(supervision)?).map(drop)
    }

    /// Makes smaster's socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_supervisor_socket(&self) -> Result<OwnedFd> {
        let _ = unlinkat(self.as_fd(), SOCKET, UnlinkatFlags::NoRemoveDir);
        let path = self.short_path(SOCKET);
        Ok(crate::sys::socket::listener_of(&path, 32).on("listen on", format_args!("{}/{SOCKET}", self.id()))?)
    }

    /// Connects to smaster.
    ///
    /// # Errors
    /// `ENOENT`, `ECONNREFUSED` where there is none.
    pub fn dial_supervisor(&self) -> nix::Result<OwnedFd> {
        crate::sys::socket::dial(&self.short_path(SOCKET), SockType::SeqPacket)
    }

    /// When the program was started, if it was.
    pub fn started_at(&self) -> Option<String> {
        self.mark(STARTED)
    }

    /// Notes that the program is being started now, or that this has failed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_started(&self, started: bool) -> Result<()> {
        self.set_mark(STARTED, started)
    }

    /// Whether a command starts the program and has not said yet what came of that; one that was killed never will.
    pub fn is_being_started(&self) -> bool {
        self.mark(BEING_STARTED).is_some()
    }

    /// Notes that the program is being started, or that what came of it is among the events.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_being_started(&self, being_started: bool) -> Result<()> {
        self.set_mark(BEING_STARTED, being_started)
    }

    /// Whether the container is not to be restarted.
    pub fn is_to_stop(&self) -> bool {
        self.mark(STOP).is_some()
    }

    /// Notes that the container is not to be restarted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_to_stop(&self) -> Result<()> {
        self.set_mark(STOP, true)
    }

    /// Whether a command that has the lock is deleting the container, and waits for smaster to end.
    pub fn is_being_deleted(&self) -> bool {
        self.mark(DELETING).is_some()
    }

    /// Notes that the container is being deleted, and is not to be restarted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_being_deleted(&self) -> Result<()> {
        self.set_mark(STOP, true)?;
        self.set_mark(DELETING, true)
    }

    /// Since when the container is known to be without its smaster. `true` where it was seen just now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unsupervised_since(&self) -> Result<(String, bool)> {
        if let Some(since) = self.mark(UNSUPERVISED) {
            return Ok((since, false));
        }
        // Who may look but not write is told all the same.
        let written = self.set_mark(UNSUPERVISED, true).is_ok();
        Ok((self.mark(UNSUPERVISED).unwrap_or_else(now), written))
    }

    fn mark(&self, name: &str) -> Option<String> {
        self.read(name).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn set_mark(&self, name: &str, present: bool) -> Result<()> {
        if present {
            return self.replace(name, now().as_bytes()).map(drop);
        }
        match unlinkat(self.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).on("unlink", format_args!("{}/{name}", self.id()))?,
        }
    }

    /// A path of this directory that other calls than those at a descriptor take, for as long as this value lives.
    pub fn path(&self) -> PathBuf {
        self.short_path("")
    }

    /// Whether the directory still has its name.
    pub fn is_removed(&self) -> bool {
        fstat(self.as_fd()).is_ok_and(|stat| stat.st_nlink == 0)
    }
}
