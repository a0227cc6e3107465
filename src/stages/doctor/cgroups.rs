//! Cgroups: which kind, which controllers, whether this user may make one, and systemd.

use super::{Check, Subject};
use crate::engine::oci::cgroup::{self, Placement, Request};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use std::path::{Path, PathBuf};

const AREA: &str = "cgroups";
/// What a container would be called of which nothing is made.
const ID: &str = "rtx-doctor";

/// By the name in version 2, and what needs it.
const CONTROLLERS: [(&str, &str); 7] = [
    ("memory", "/linux/resources/memory"),
    ("cpu", "/linux/resources/cpu"),
    ("cpuset", "/linux/resources/cpu/cpus"),
    ("pids", "/linux/resources/pids"),
    ("io", "/linux/resources/blockIO"),
    ("hugetlb", "/linux/resources/hugepageLimits"),
    ("rdma", "/linux/resources/rdma"),
];

pub fn examine(subject: &Subject<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    let plan = cgroup::plan(&Request {
        id: ID,
        cgroups_path: None,
        own_pids: true,
        resources: None,
        systemd: false,
        state: &subject.root.join(ID),
        annotations: None,
        rootless: true,
    });
    match plan {
        Ok(placement) if !placement.places.is_empty() => {
            checks.push(Check::ok(AREA, "layout", layout(&placement)));
            checks.extend(controllers(&placement));
            checks.push(permission(&placement, subject));
            checks.push(freezer(&placement));
        }
        other => {
            let found = other.err().map_or_else(|| "nothing is mounted".to_owned(), |error| format!("{error:#}"));
            let cost = "containers need --cgroup-manager disabled, and cannot be limited or paused";
            let mend = "mount -t cgroup2 cgroup2 /sys/fs/cgroup";
            checks.push(Check::missing(AREA, "layout", found, (cost, mend)));
        }
    }
    checks.push(match cgroup::plan_by_systemd(subject.root, ID, subject.rootless) {
        Ok(found) => Check::ok(AREA, "systemd", found),
        Err(error) => {
            let cost = "--systemd-cgroup, which Kubernetes and podman may ask for, is refused";
            let mend = "nothing, where callers use cgroupfs; otherwise run systemd with D-Bus, for a user in a session (XDG_RUNTIME_DIR)";
            Check::missing(AREA, "systemd", format!("{error:#}"), (cost, mend))
        }
    });
    checks
}

fn layout(placement: &Placement) -> String {
    let v1 = placement.places.iter().filter(|place| !place.is_unified()).count();
    match (v1, placement.unified()) {
        (0, _) => "version 2".to_owned(),
        (v1, None) => format!("version 1, {v1} hierarchies"),
        (v1, Some(place)) => format!("version 1, {v1} hierarchies, and version 2 at {}", place.mount.display()),
    }
}

fn controllers(placement: &Placement) -> Vec<Check> {
    let unified = placement
        .unified()
        .map(|place| std::fs::read_to_string(place.mount.join("cgroup.controllers")).unwrap_or_default());
    let in_v2 = |name: &str| unified.iter().any(|list| list.split_whitespace().any(|one| one == name));
    let check = |(name, property): (&'static str, &str)| {
        let old = if name == "io" { "blkio" } else { name };
        let title = format!("controller {name}");
        if let Some(place) = placement.v1(old) {
            return Check::ok(AREA, title, format!("version 1 at {}", place.mount.display()));
        }
        if in_v2(name) {
            return Check::ok(AREA, title, "version 2");
        }
        let cost = format!("{property} is refused");
        let mend = match placement.is_pure_v2() {
            true => format!(
                "boot a kernel with it and without cgroup_disable={name}; in a container of its own the outer runtime has to delegate it"
            ),
            false => format!(
                "boot a kernel with it and without cgroup_disable={name}, and mount it: mount -t cgroup -o {old} {old} /sys/fs/cgroup/{old}"
            ),
        };
        Check::missing(AREA, title, "in no hierarchy", (cost, mend))
    };
    CONTROLLERS.map(check).into_iter().collect()
}

/// Where the cgroup of a container without a cgroupsPath would be made.
fn permission(placement: &Placement, subject: &Subject<'_>) -> Check {
    let name = "making cgroups";
    let parent = |directory: PathBuf| directory.parent().map(Path::to_path_buf).unwrap_or(directory);
    let parents: Vec<PathBuf> = placement.places.iter().map(|place| parent(place.directory())).collect();
    let may = |directory: &&PathBuf| {
        let mode = AccessFlags::W_OK | AccessFlags::X_OK;
        faccessat(AT_FDCWD, directory.as_path(), mode, AtFlags::AT_EACCESS).is_err()
    };
    match parents.iter().find(may) {
        None => Check::ok(AREA, name, "allowed"),
        Some(directory) if subject.rootless => {
            let cost = "containers run without cgroups of their own: they cannot be limited, paused or counted";
            let mend = "have the cgroup delegated, as `systemd-run --user --scope -p Delegate=yes` does on cgroup v2";
            Check::missing(AREA, name, format!("{} is not this user's to write", directory.display()), (cost, mend))
        }
        Some(directory) => {
            let cost = "containers need --cgroup-manager disabled or a cgroupsPath elsewhere";
            let mend = "mount the hierarchy read-write: mount -o remount,rw on it; in a container the outer runtime has to allow it";
            Check::missing(AREA, name, format!("{} cannot be written to", directory.display()), (cost, mend))
        }
    }
}

fn freezer(placement: &Placement) -> Check {
    if placement.v1("freezer").is_some() || placement.unified().is_some() {
        return Check::ok(AREA, "freezer", "there");
    }
    let mend = "mount -t cgroup -o freezer freezer /sys/fs/cgroup/freezer";
    Check::missing(AREA, "freezer", "in no hierarchy", ("pause, resume and checkpoint are refused", mend))
}
