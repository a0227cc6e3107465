//! What a process needs to join a container, whatever the engine: the configuration that was saved, and the way into the
//! cgroups.

use super::Container;
use super::oci::cgroup::Cgroup;
use crate::sys::On;
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;
use std::os::fd::OwnedFd;

/// The configuration that the container was created with.
///
/// # Errors
/// Where it is damaged.
pub fn saved_spec(container: &Container) -> Result<Spec> {
    let mut value = serde_json::from_slice(&container.state.config()?)
        .with_context(|| format!("the configuration of container {:?} is damaged", container.record.id))?;
    crate::config::check::normalise(&mut value);
    serde_json::from_value(value)
        .with_context(|| format!("the configuration of container {:?} is damaged", container.record.id))
}

/// What a process joins the container's cgroups by: a `tasks` file for each v1 hierarchy, the v2 directory. A sub-cgroup
/// is a path below the container's, for all hierarchies or as `controller:path`.
///
/// # Errors
/// Where a sub-cgroup is not there; the kernel's.
pub fn join_files(cgroup: &Cgroup, sub_cgroups: &[String]) -> Result<(Vec<OwnedFd>, Option<OwnedFd>)> {
    let mut tasks = Vec::new();
    let mut unified = None;
    let places = &cgroup.placement().places;
    for sub in sub_cgroups {
        // Otherwise the process would be where its caller did not want it.
        let controllers = sub.split_once(':').map_or("", |(controllers, _)| controllers);
        let known = |name: &&str| places.iter().any(|place| place.has(name) || place.controllers == *name);
        if let Some(unknown) = controllers.split(',').find(|name| !name.is_empty() && !known(name)) {
            bail!("--cgroup {sub}: unknown controller {unknown}: the container has no cgroup of it");
        }
    }
    for place in places {
        let mut directory = place.directory();
        if let Some(sub) = sub_cgroup(sub_cgroups, |controllers| {
            controllers.split(',').any(|name| place.has(name) || place.controllers == name)
        })? {
            directory.push(sub);
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = match nix::fcntl::open(&directory, flags, Mode::empty()) {
            // A rootless container may have no cgroup in this hierarchy.
            Err(nix::errno::Errno::ENOENT) if sub_cgroups.is_empty() => continue,
            other => other.on("open the cgroup", directory.display())?,
        };
        if place.is_unified() {
            unified = Some(open);
        } else {
            let file = openat(&open, "tasks", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
            tasks.push(file.on("open", format_args!("{}/tasks", directory.display()))?);
        }
    }
    Ok((tasks, unified))
}

fn sub_cgroup(sub_cgroups: &[String], is_for: impl Fn(&str) -> bool) -> Result<Option<String>> {
    for sub in sub_cgroups {
        let path = match sub.split_once(':') {
            Some((controllers, path)) if is_for(controllers) => path,
            Some(_) => continue,
            None => sub,
        };
        let path = path.trim_start_matches('/');
        if path.split('/').any(|part| part == "..") {
            bail!("--cgroup {sub}: a sub-cgroup is below the container's own");
        }
        return Ok(Some(path.to_owned()));
    }
    Ok(None)
}
