//! Where state is kept when nobody says where.

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
    let mut map = [0; 64];
    let map = crate::sys::fd::read_line("/proc/self/uid_map", &mut map).unwrap_or_default();
    let mut fields = std::str::from_utf8(map).unwrap_or_default().split_ascii_whitespace();
    !(fields.next() == Some("0") && fields.next() == Some("0") && fields.next() == Some("4294967295"))
}
