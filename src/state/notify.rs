//! The socket for sd_notify(3) in the state directory of a container, in a directory of its own that is bound into it.

use super::StateDir;
use crate::sys::socket::datagrams;
use crate::sys::{Errno, On};
use anyhow::Result;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::os::fd::OwnedFd;

const NOTIFY: &str = "notify";
const NOTIFY_SOCKET: &str = "notify/notify.sock";

impl StateDir {
    /// Makes the directory for the socket that the container may notify of being ready. Every user of it may.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_notify_directory(&self) -> Result<()> {
        let mode = Mode::from_bits_truncate(0o755);
        mkdirat(self.file(), NOTIFY, mode).on("mkdir", format_args!("{}/{NOTIFY}", self.id()))?;
        // Whatever the caller's umask is.
        fchmodat(self.file(), NOTIFY, mode, FchmodatFlags::FollowSymlink)
            .on("chmod", format_args!("{}/{NOTIFY}", self.id()))?;
        Ok(())
    }

    /// Makes that socket; `None` where the container was not made for it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_notify_socket(&self) -> Result<Option<OwnedFd>> {
        // Of a start that was killed.
        let _ = unlinkat(self.file(), NOTIFY_SOCKET, UnlinkatFlags::NoRemoveDir);
        let socket = match datagrams(&self.short_path(NOTIFY_SOCKET)) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other.on("listen on", format_args!("{}/{NOTIFY_SOCKET}", self.id()))?,
        };
        fchmodat(self.file(), NOTIFY_SOCKET, Mode::from_bits_truncate(0o777), FchmodatFlags::FollowSymlink)
            .on("chmod", format_args!("{}/{NOTIFY_SOCKET}", self.id()))?;
        Ok(Some(socket))
    }
}
