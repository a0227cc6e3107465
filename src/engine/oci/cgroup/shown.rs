//! What a `cgroup` mount shows a container: the directories of the cgroups that it is in.

use std::path::PathBuf;

use anyhow::Result;

use super::hierarchy;
use super::placement::{Placement, Wanted, places};

/// One directory of the cgroup mount inside the container. config-linux.md, "Default Filesystems" of v1 hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMount {
    /// Its name below /sys/fs/cgroup: `cpu,cpuacct`, `systemd`, `unified`.
    pub name: String,
    /// The option that mounts the v1 hierarchy: `cpu,cpuacct`, `name=systemd`. Empty for cgroup v2.
    pub controllers: String,
    /// Symbolic links to `name` that programs expect: `cpu` and `cpuacct`.
    pub aliases: Vec<String>,
    /// Where the host has it mounted.
    pub mount: PathBuf,
    /// The container's cgroup below that mount.
    pub path: PathBuf,
}

/// The cgroups that a container is in: those that were made for it, and in a hierarchy where none could be made, as for
/// an ordinary user or with `--cgroup-manager disabled`, the one of this process.
///
/// # Errors
/// When the hierarchies cannot be read.
pub fn membership(made: Option<&Placement>) -> Result<Placement> {
    let made = made.map_or(&[][..], |placement| &placement.places);
    let mut places = places(&hierarchy::discover()?, &Wanted::Own);
    for place in &mut places {
        if let Some(made) = made.iter().find(|made| made.mount == place.mount) {
            place.clone_from(made);
        }
    }
    Ok(Placement { places, ..Placement::default() })
}

impl Placement {
    /// What a `cgroup` mount of the container shows, v1 hierarchies first. On a pure v2 host it is one entry.
    pub fn container_mounts(&self) -> Vec<ContainerMount> {
        let mounts = self.places.iter().map(|place| {
            let name = place.mount.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let parts = place.controllers.split(',').filter(|part| *part != name && !place.controllers.contains('='));
            let aliases = if place.controllers.contains(',') { parts.map(str::to_owned).collect() } else { Vec::new() };
            ContainerMount {
                name,
                controllers: place.controllers.clone(),
                aliases,
                mount: place.mount.clone(),
                path: place.path.clone(),
            }
        });
        mounts.collect()
    }
}
