//! Whether an unprivileged caller may put a process into a cgroup v2 directory. cgroups(7), "Cgroup delegation:
//! containment rules".

use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::hierarchy::{self, Hierarchy};
use super::placement::Place;

/// Checks that a child of this process may be born in the cgroup: the nearest cgroup above both has to be the caller's
/// to write. clone3 would say EACCES, and not about what. A cgroup that exists has to be writable, too.
///
/// # Errors
/// `EACCES` with the file; where the own cgroup cannot be found out.
pub fn check(place: &Place) -> Result<()> {
    let hierarchies = hierarchy::discover()?;
    let Some(own) = hierarchies.iter().find(|hierarchy| hierarchy.is_unified()) else { return Ok(()) };
    let common: PathBuf = common_path(own, place);
    for directory in [place.mount.join(common), place.directory()] {
        let file = directory.join("cgroup.procs");
        match faccessat(AT_FDCWD, &file, AccessFlags::W_OK, AtFlags::AT_EACCESS) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                return Err(errno).with_context(|| {
                    format!(
                        "move a process from {} to {}: write {}",
                        own.own.display(),
                        place.path.display(),
                        file.display()
                    )
                });
            }
        }
    }
    Ok(())
}

fn common_path(own: &Hierarchy, place: &Place) -> PathBuf {
    let pairs = own.own_below_mount().components().zip(place.path.components());
    pairs.take_while(|(ours, theirs)| ours == theirs).map(|(ours, _)| ours).collect()
}
