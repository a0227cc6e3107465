//! Where state is kept when nobody says where.

use crate::sys::{self, Errno};
use std::path::PathBuf;

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
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_ascii_whitespace();
    !(fields.next() == Some("0") && fields.next() == Some("0") && fields.next() == Some("4294967295"))
}

/// Says what can be done about a state directory that takes nothing more.
pub(super) fn with_advice<T>(result: Result<T, sys::Error>) -> anyhow::Result<T> {
    result.map_err(|error| match error.errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS => anyhow::Error::from(error)
            .context("the state directory takes nothing more: make room there, or choose another with --root"),
        _ => error.into(),
    })
}
