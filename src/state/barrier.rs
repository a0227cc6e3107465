//! The start barrier: a socket in the state directory behind which a created container waits.

use super::StateDir;
use super::root::with_advice;
use crate::sys::socket::{dial, listener, probe};
use crate::sys::{Errno, On, dir};
use anyhow::Result;
use nix::fcntl::renameat;
use nix::sys::socket::SockType;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::os::fd::OwnedFd;

pub(super) const BARRIER: &str = "start.sock";
/// The start barrier from the moment that a `start` has found somebody behind it. What a killed `start` leaves under this
/// name does not say whether the program runs: whether somebody still listens does.
pub(super) const STARTING: &str = "starting.sock";

impl StateDir {
    /// Makes the start barrier. Its listening end is for stage2.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_barrier(&self) -> Result<OwnedFd> {
        with_advice(listener(&self.short_path(BARRIER)).on("listen on", format_args!("{}/{BARRIER}", self.id())))
    }

    /// Connects to the start barrier, of which [`Self::is_waiting`] then knows that a start has begun.
    ///
    /// # Errors
    /// `ENOENT` where the container was started before, `ECONNREFUSED` where nobody waits behind it any more.
    pub fn dial_barrier(&self) -> nix::Result<OwnedFd> {
        match dial(&self.short_path(BARRIER), SockType::SeqPacket) {
            Err(Errno::ENOENT) => dial(&self.short_path(STARTING), SockType::SeqPacket),
            Ok(socket) => {
                renameat(self.file(), BARRIER, self.file(), STARTING)?;
                Ok(socket)
            }
            refused => refused,
        }
    }

    /// Whether the container still waits to be started.
    ///
    /// # Errors
    /// Where that cannot be told: one that waits must not be taken for one that runs.
    pub fn is_waiting(&self) -> Result<bool> {
        let is_there = |name| dir::has(self.file(), name).on("look for", format_args!("{}/{name}", self.id()));
        if is_there(BARRIER)? {
            return Ok(true);
        }
        if !is_there(STARTING)? {
            return Ok(false);
        }
        match probe(&self.short_path(STARTING)) {
            // A full backlog has a listener as well.
            Ok(()) | Err(Errno::EAGAIN) => Ok(true),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno).on("connect to", format_args!("{}/{STARTING}", self.id()))?,
        }
    }

    /// Removes the start barrier: the container has been started.
    pub fn remove_barrier(&self) {
        // It has one name at a time.
        if unlinkat(self.file(), STARTING, UnlinkatFlags::NoRemoveDir).is_err() {
            let _ = unlinkat(self.file(), BARRIER, UnlinkatFlags::NoRemoveDir);
        }
    }
}
