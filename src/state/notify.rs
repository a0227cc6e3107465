//! The socket for sd_notify(3) in the state directory of a container, in a directory of its own that is bound into it.

use super::StateDir;
use crate::sys::socket::datagrams;
use crate::sys::{Errno, On, errno_of};
use anyhow::Result;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, unlinkat};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub(super) const NOTIFY: &str = "notify";
const NOTIFY_SOCKET: &str = "notify/notify.sock";

impl StateDir {
    /// Where the directory for the socket is, or will be.
    ///
    /// # Errors
    /// Where there is no working directory that a relative root could be below.
    pub fn notify_directory(root: &Path, id: &str) -> Result<PathBuf> {
        let path = root.join(id).join(NOTIFY);
        Ok(std::path::absolute(&path).map_err(|error| errno_of(&error)).on("resolve", path.display())?)
    }

    /// Whether the container was made for such a socket.
    pub fn has_notify_directory(&self) -> bool {
        faccessat(self.file(), NOTIFY, AccessFlags::F_OK, AtFlags::empty()).is_ok()
    }

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
