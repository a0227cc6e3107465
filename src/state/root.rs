//! The directory of all state: where it is when nobody says where, and what is in it.

use super::StateDir;
use super::directory::{check_owner, open_directory};
use crate::sys::{self, Errno, On, describe, errno_of};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// `/run/rtx` for root; `$XDG_RUNTIME_DIR/rtx` for a user, and for root of a user namespace that is not the host's,
/// which is how rootless podman calls. An empty `XDG_RUNTIME_DIR` counts as unset.
pub fn default_root() -> PathBuf {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    match runtime_dir {
        Some(directory) if is_rootless() => PathBuf::from(directory).join("rtx"),
        _ if is_rootless() => PathBuf::from(format!("/tmp/rtx-{}", nix::unistd::geteuid())),
        _ => PathBuf::from("/run/rtx"),
    }
}

/// Whether this process lacks the host's root: another user, or a user namespace.
pub fn is_rootless() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    // The initial user namespace maps every id to itself.
    let mut map = [0; 64];
    let map = crate::sys::fd::read_line("/proc/self/uid_map", &mut map).unwrap_or_default();
    let mut fields = std::str::from_utf8(map).unwrap_or_default().split_ascii_whitespace();
    !(fields.next() == Some("0") && fields.next() == Some("0") && fields.next() == Some("4294967295"))
}

/// Whether state may be kept in a directory, as far as that can be told without making anything. One that is not there may
/// be made.
///
/// # Errors
/// Where it is another user's, or anybody's.
pub fn check_root(root: &Path) -> Result<()> {
    match open_directory(root) {
        Err(Errno::ENOENT) => Ok(()),
        directory => check_owner(&directory.on("open", root.display())?, root).map(drop),
    }
}

pub(super) fn make_root(root: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(root).map_err(|error| {
        let reason = describe(errno_of(&error));
        anyhow::anyhow!("make the directory of all state {}: {reason}; choose another with --root", root.display())
    })
}

/// Whether what is there is what a killed `create` left: nobody works on it, and it was never completed.
pub fn is_abandoned(root: &Path, id: &str) -> bool {
    StateDir::open(root, id).is_ok_and(|state| state.looks_abandoned())
}

/// Whether a container with this id is there.
pub fn exists(root: &Path, id: &str) -> bool {
    std::fs::symlink_metadata(root.join(id)).is_ok_and(|meta| meta.is_dir())
}

/// Says what can be done about a state directory that takes nothing more.
pub(super) fn with_advice<T>(result: Result<T, sys::Error>) -> anyhow::Result<T> {
    result.map_err(|error| match error.errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS => anyhow::Error::from(error)
            .context("the state directory takes nothing more: make room there, or choose another with --root"),
        _ => error.into(),
    })
}
