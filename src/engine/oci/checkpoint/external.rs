//! What of a container is not in its images: mounts whose content is the host's, and namespaces that the container only
//! joined. CRIU is told of them by names that mean the same when the container is restored.

use crate::engine::oci::cgroup::Placement;
use crate::engine::oci::no_linux;
use crate::engine::oci::stage2::root::{Root, Target};
use crate::engine::oci::{devices, mounts, namespaces};
use crate::rpc::operation::RootOperation;
use anyhow::Result;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};
use rust_criu::rust_criu_protobuf::rpc::{Criu_opts, Ext_mount_map};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As the kernel has it for the symbolic links of one path (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// What hides a masked file, and the name of all such mounts.
pub const NULL: &str = "/dev/null";

/// A mount of the container whose content is the host's.
pub struct Mount {
    /// Where it is in the container, and its name.
    pub destination: String,
    pub source: PathBuf,
}

/// All of them: binds, what a cgroup mount shows where that is not a mount of the container's own, and devices, which are
/// binds in a user namespace.
pub fn list(spec: &Spec, bundle: &Path, rootfs: &Path, membership: &Placement) -> Result<Vec<Mount>> {
    let linux = spec.linux().clone().unwrap_or_else(no_linux);
    let mut list = Vec::new();
    for mount in plans(spec, bundle, rootfs)? {
        if let Some(source) = mount.bind_source() {
            let destination = mount_point(rootfs, &mount.destination);
            list.push(Mount { destination, source: source.to_owned() });
        } else if mount.is_cgroup() {
            let top = mount_point(rootfs, &mount.destination);
            let cgroups = cgroups(&mount, &linux, membership).into_iter();
            list.extend(cgroups.map(|(name, source)| Mount { destination: format!("{top}{name}"), source }));
        }
    }
    let configured = linux.devices().as_deref().unwrap_or_default();
    list.extend(devices::plan(configured).into_iter().map(|device| Mount {
        destination: format!("/{}", device.path),
        source: device.host_path.map_or_else(|| Path::new("/").join(&device.path), PathBuf::from),
    }));
    Ok(list)
}

fn plans(spec: &Spec, bundle: &Path, rootfs: &Path) -> Result<Vec<mounts::Plan>> {
    let linux = spec.linux().clone().unwrap_or_else(no_linux);
    mounts::plan(spec.mounts().as_deref().unwrap_or_default(), mounts::Places { bundle, rootfs }, &linux, true)
}

/// What of a cgroup mount is a bind of the host's: the hierarchies of v1 without a cgroup namespace, each below the mount, and v2 as
/// [`mounts::Plan::binds_unified`] has it, as a whole. Others are mounts of the container's own, which are in the images.
fn cgroups(mount: &mounts::Plan, linux: &Linux, membership: &Placement) -> Vec<(String, PathBuf)> {
    let shown = membership.container_mounts();
    if membership.is_pure_v2() || mount.is_version2() {
        let unified = mounts::Unified::new(&namespaces::Plan::new(linux), true);
        let place = shown.into_iter().find(|cgroup| cgroup.controllers.is_empty()).map(|cgroup| cgroup.mount);
        let place = place.or_else(|| membership.is_pure_v2().then(|| mounts::UNIFIED.into()));
        return place
            .filter(|_| mount.binds_unified(unified))
            .map(|place| (String::new(), place))
            .into_iter()
            .collect();
    }
    if has_namespace(linux, LinuxNamespaceType::Cgroup) {
        return Vec::new();
    }
    let hierarchies = shown.into_iter().filter(|cgroup| !cgroup.controllers.is_empty());
    hierarchies.map(|cgroup| (format!("/{}", cgroup.name), cgroup.mount.join(&cgroup.path))).collect()
}

/// Whether the container's root is not the host's.
pub fn has_user_namespace(spec: &Spec) -> bool {
    spec.linux().as_ref().is_some_and(|linux| has_namespace(linux, LinuxNamespaceType::User))
}

fn has_namespace(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind)
}

/// The namespaces that the configuration has by a path.
pub fn joined(spec: &Spec) -> Vec<(LinuxNamespaceType, PathBuf)> {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let path = |namespace: &oci_spec::runtime::LinuxNamespace| {
        namespace.path().clone().filter(|path| !path.as_os_str().is_empty())
    };
    namespaces.iter().filter_map(|namespace| Some((namespace.typ(), path(namespace)?))).collect()
}

/// CRIU's name for the kinds of joined namespaces that it keeps out of its images, and the name that such a one gets
/// there: runc's.
pub fn namespace_names(kind: LinuxNamespaceType) -> Option<(&'static str, &'static str)> {
    match kind {
        LinuxNamespaceType::Network => Some(("net", "extRootNetNS")),
        LinuxNamespaceType::Pid => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

/// Where the directory for sd_notify(3) is mounted, where there is one.
pub fn notify_directory(rootfs: &Path) -> String {
    mount_point(rootfs, mounts::NOTIFY)
}

/// Tells CRIU of an external mount.
pub fn add(options: &mut Criu_opts, key: &str, value: &str) {
    let mut entry = Ext_mount_map::new();
    entry.set_key(key.to_owned());
    entry.set_val(value.to_owned());
    options.ext_mnt.push(entry);
}

/// Makes the directories and files that the container's mounts go on, but for those that lie in a tmpfs, which is in the
/// images with all its content.
///
/// # Errors
/// The kernel's.
pub fn make_mount_points(spec: &Spec, bundle: &Path, rootfs: &Path) -> Result<()> {
    let plans = plans(spec, bundle, rootfs)?;
    let in_tmpfs = |path: &str| {
        plans.iter().filter(|plan| plan.is_tmpfs()).any(|plan| Path::new(path).starts_with(&plan.destination))
    };
    let path = rootfs.display().to_string();
    let root = Root::open(&RootOperation { tree: None, path, propagation: 0, mount: false, on_host: false }, None)?;
    for plan in plans.iter().filter(|plan| !plan.destination.is_empty()) {
        if in_tmpfs(&plan.destination) && !plan.is_tmpfs() {
            continue;
        }
        let is_file = plan.bind_source().is_some_and(|source| !source.is_dir());
        root.target(&plan.destination, if is_file { Target::File } else { Target::Directory })?;
    }
    Ok(())
}

/// Where a mount is as the kernel shows it in mountinfo: with every symbolic link of the root file system followed
/// inside it. What is not there is taken by its name.
fn mount_point(rootfs: &Path, destination: &str) -> String {
    let mut pending = components(Path::new(destination));
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        match std::fs::read_link(rootfs.join(&next)) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    done = PathBuf::new();
                }
                pending.extend(components(&target));
            }
            _ => done = next,
        }
    }
    format!("/{}", done.display())
}

/// The components in reverse order, ready to be popped.
fn components(path: &Path) -> Vec<OsString> {
    let wanted = |component: &Component| matches!(component, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(wanted).map(|component| component.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_the_image_stay_in_it() {
        let directory = std::env::temp_dir().join(format!("rtx-external-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("run/lock")).unwrap();
        std::os::unix::fs::symlink("/run", directory.join("var")).unwrap();
        std::os::unix::fs::symlink("../../../run/lock", directory.join("run/up")).unwrap();
        std::os::unix::fs::symlink("loop", directory.join("loop")).unwrap();
        let found = ["var/x", "var/up/y", "a/b", "loop"].map(|path| mount_point(&directory, path));
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found, ["/run/x", "/run/lock/y", "/a/b", "/loop"]);
    }
}
