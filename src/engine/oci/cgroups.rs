//! The cgroups of a container in the course of its creation: planned, made by systemd where that is asked for, shown.

use super::cgroup::{self, Created, Placement, StartUnit};
use super::engine::OciEngine;
use crate::engine::LaunchConfig;
use anyhow::Result;
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, LinuxResources};

/// Where the container's cgroups will be; `None` where none are wanted.
///
/// # Errors
/// A path that cannot be a container's.
pub fn plan(launch: &mut LaunchConfig, linux: &Linux) -> Result<Option<Placement>> {
    if launch.options.no_cgroup {
        return Ok(None);
    }
    let is_own_pid = |namespace: &LinuxNamespace| {
        let joined = namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        namespace.typ() == LinuxNamespaceType::Pid && !joined
    };
    let placement = cgroup::plan(&cgroup::Request {
        id: &launch.id,
        cgroups_path: linux.cgroups_path().as_deref(),
        own_pids: linux.namespaces().iter().flatten().any(is_own_pid),
        resources: linux.resources().as_ref(),
        systemd: launch.options.systemd_cgroup,
        state: &launch.root.join(&launch.id),
        annotations: launch.bundle.spec.annotations().as_ref(),
        rootless: launch.options.rootless,
    })?;
    launch.warnings.extend(placement.warnings().iter().cloned());
    Ok(Some(placement))
}

/// Has systemd make the cgroups, where it is to, around the container's first process.
///
/// # Errors
/// What systemd refused; where a directory beside those of systemd's could not be made.
pub fn start_unit(
    placement: &Placement,
    launch: &LaunchConfig,
    pid: i32,
    resources: &LinuxResources,
    cgroup: &mut Option<Created>,
) -> Result<()> {
    if placement.unit().is_some() {
        let annotations = launch.bundle.spec.annotations().as_ref();
        *cgroup = Some(placement.start_unit(&StartUnit { id: &launch.id, pid, resources, annotations })?);
    }
    Ok(())
}

/// The cgroups that a cgroup mount shows. They are looked up anew only where not all that were planned could be made.
///
/// # Errors
/// When the hierarchies cannot be read.
pub fn membership(planned: Option<&Placement>, engine: &OciEngine) -> Result<Placement> {
    let made = engine.cgroup.as_ref().map(Created::placement);
    match (made, planned) {
        (Some(made), Some(planned)) if !made.places.is_empty() && made.places.len() == planned.places.len() => {
            Ok(made.clone())
        }
        (made, _) => cgroup::membership(made),
    }
}
