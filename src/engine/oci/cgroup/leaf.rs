//! The cgroup of a smaster of its own: a leaf beside its container's. What ends, freezes or limits the cgroup of the command
//! that made the container then does so to both or to none of them, and the container's limits are not smaster's.
//!
//! Where it would be follows from the record of the container, so that it is found whoever was killed when. systemd's slices
//! are systemd's, and a cgroup that containers share has no name of theirs: there smaster stays in the command's cgroup, and
//! so it does where it has no right to leave that.

use super::placement::{Place, Placement};
use super::{file, hierarchy};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No id has such a sign in it.
const SUFFIX: &str = "@smaster";
/// The hierarchies of cgroup v1 by which processes are ended, held up or kept from memory; the time that smaster takes may
/// well be its caller's.
const V1: [&str; 4] = ["name=systemd", "memory", "pids", "freezer"];
/// How often a leaf is tried whose last process is just ending, with doubling pauses.
const ATTEMPTS: u32 = 12;

impl Placement {
    fn leaf(&self) -> Vec<PathBuf> {
        if self.unit.is_some() || self.shared {
            return Vec::new();
        }
        let wanted = |place: &&Place| place.is_unified() || V1.iter().any(|controller| place.has(controller));
        self.places.iter().filter(wanted).map(|place| beside(&place.directory())).collect()
    }
}

fn beside(directory: &Path) -> PathBuf {
    let mut leaf = directory.as_os_str().to_owned();
    leaf.push(SUFFIX);
    leaf.into()
}

/// The cgroup that stands for this process's own where others are made below that: what smaster starts is at its leaf, and
/// makes a container where the command made it.
pub(super) fn above_leaf(own: &Path) -> &Path {
    let is_leaf = own.file_name().is_some_and(|name| OsStr::as_bytes(name).ends_with(SUFFIX.as_bytes()));
    if is_leaf { own.parent().unwrap_or(own) } else { own }
}

/// The leaves that a process is in, and where it was before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Leaf(Vec<(PathBuf, PathBuf)>);

impl Leaf {
    /// Makes the leaves that can be made and moves this process there, which must have one thread.
    pub fn enter(placement: &Placement) -> Self {
        let wanted = placement.leaf();
        let hierarchies = if wanted.is_empty() { Vec::new() } else { hierarchy::discover().unwrap_or_default() };
        let enter = |leaf: PathBuf| {
            let own = hierarchies.iter().find(|hierarchy| leaf.starts_with(&hierarchy.mount))?;
            let own = own.mount.join(own.own_below_mount());
            match mkdirat(AT_FDCWD, &leaf, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(_) => return None,
            }
            if join(&leaf).is_err() {
                let _ = unlinkat(AT_FDCWD, &leaf, UnlinkatFlags::RemoveDir);
                return None;
            }
            Some((leaf, own))
        };
        Self(wanted.into_iter().filter_map(enter).collect())
    }

    /// Goes back and removes the leaves. Those that cannot be left, because there is no way back, `delete` removes.
    pub fn leave(self) {
        for (leaf, before) in self.0 {
            if join(&before).is_ok() {
                let _ = unlinkat(AT_FDCWD, &leaf, UnlinkatFlags::RemoveDir);
            }
        }
    }
}

/// By `tasks` where there is such a file: cgroup.procs of v1 waits for the other processors.
fn join(directory: &Path) -> nix::Result<()> {
    let dir = file::open_dir(AT_FDCWD, directory)?;
    match file::write(&dir, "tasks", "0") {
        Err(Errno::ENOENT) => file::write(&dir, "cgroup.procs", "0"),
        other => other,
    }
}

/// Removes what a smaster that has ended left. Nobody is ended for that.
///
/// # Errors
/// Where somebody is in it, or it is another's.
pub fn remove(placement: &Placement) -> Result<()> {
    for leaf in placement.leaf() {
        let mut attempt = 0;
        loop {
            match unlinkat(AT_FDCWD, &leaf, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => break,
                Err(Errno::EBUSY) if attempt < ATTEMPTS => {
                    std::thread::sleep(Duration::from_micros(500) * 2u32.pow(attempt));
                    attempt += 1;
                }
                Err(errno) => return Err(errno).with_context(|| format!("rmdir {}", leaf.display())),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_beside_its_container() {
        assert_eq!(beside(Path::new("/sys/fs/cgroup/a/c1")), Path::new("/sys/fs/cgroup/a/c1@smaster"));
        assert_eq!(above_leaf(Path::new("a/c1@smaster")), Path::new("a"));
        assert_eq!(above_leaf(Path::new("c1@smaster")), Path::new(""));
        assert_eq!(above_leaf(Path::new("a/c1")), Path::new("a/c1"));
    }
}
