//! The mounts of a configuration (runtime-spec config.md, Mounts), as smaster sees them: options become numbers in
//! stage1; sources, which are paths of the host, become detached trees before stage2 hears of them. How each is then
//! attached stands in `stage2/mounts.rs`.

mod adding;

pub use adding::{Surroundings, UNIFIED, Unified};

use super::cgroup::Place;
use super::idmap::{IdMap, Maps};
use super::sources::Source;
use crate::config::idmap_option;
use crate::config::mount_options::{self, MountOptions};
use crate::rpc::operation::DeviceOperation;
use crate::sys::mount::attr;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Linux, Mount};
use std::path::{Path, PathBuf};

/// One mount, decided.
#[derive(Debug, Clone)]
pub struct Plan {
    pointer: String,
    /// Relative to the root.
    pub destination: String,
    kind: Kind,
    options: MountOptions,
    /// SELinux context of a new file system.
    label: Option<String>,
}

#[derive(Debug, Clone)]
enum Kind {
    Bind(Source),
    Remount,
    /// `version2` where it is that and not whatever the host has.
    Cgroup {
        version2: bool,
        /// Later mounts, or devices, lie in it.
        holds_others: bool,
    },
    New {
        kind: String,
        source: Option<String>,
    },
}

/// What paths of the host are relative to, and what is below the container's root.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
}

/// Decides all mounts, in order.
///
/// # Errors
/// Maps that cannot be taken apart; a mount that needs privileges that this process does not have.
pub fn plan(mounts: &[Mount], places: Places<'_>, linux: &Linux, privileged: bool) -> Result<Vec<Plan>> {
    let mut plans: Vec<Plan> = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.iter().enumerate() {
        let mut plan = plan_one(index, mount, places, linux).with_context(|| format!("/mounts/{index}"))?;
        if !privileged && plan.is_idmapped() {
            bail!(
                "/mounts/{index}: an idmapped mount needs CAP_SYS_ADMIN on the host: run rtx as root, or remove the maps"
            );
        }
        if let Kind::Bind(source) = &mut plan.kind {
            source.inside = mounted_before(source, places.rootfs, &plans);
        }
        note_held(&mut plans, &plan.destination);
        plans.push(plan);
    }
    for device in linux.devices().iter().flatten() {
        note_held(&mut plans, &relative(device.path()));
    }
    Ok(plans)
}

/// Only of cgroups is it asked: each mount with each earlier one would be many.
fn note_held(plans: &mut [Plan], path: &str) {
    for plan in plans {
        if let Kind::Cgroup { holds_others, .. } = &mut plan.kind {
            *holds_others |= Path::new(path).starts_with(&plan.destination);
        }
    }
}

/// Where in the root a source lies that earlier mounts of the same container change, by its path on the host.
fn mounted_before(source: &Source, rootfs: &Path, earlier: &[Plan]) -> Option<String> {
    let inside = Path::new(&relative(source.path.strip_prefix(rootfs).ok()?)).to_owned();
    let changes = |plan: &Plan| {
        let destination = Path::new(&plan.destination);
        inside.starts_with(destination) || (source.recursive && destination.starts_with(&inside))
    };
    earlier.iter().any(changes).then(|| inside.to_string_lossy().into_owned())
}

/// Whether it can be told that nothing is mounted below a path: in a new proc or sysfs, where the container mounts nothing.
pub fn has_none_below(plans: &[Plan], path: &str) -> bool {
    let path = Path::new(path.trim_start_matches('/'));
    let is_new = |plan: &Plan| matches!(&plan.kind, Kind::New { kind, .. } if kind == "proc" || kind == "sysfs");
    let above = plans.iter().rfind(|plan| path.starts_with(&plan.destination));
    above.is_some_and(is_new)
        && path.components().all(|part| matches!(part, std::path::Component::Normal(_)))
        && !plans.iter().any(|plan| Path::new(&plan.destination).starts_with(path))
}

/// Where a container finds its socket for sd_notify(3), as runc has it.
pub const NOTIFY: &str = "run/notify";

/// The directory of the container's socket for sd_notify(3), where it looks for it.
pub fn notify_directory(source: PathBuf) -> Plan {
    Plan {
        pointer: "NOTIFY_SOCKET".into(),
        destination: NOTIFY.into(),
        kind: Kind::Bind(Source { recursive: false, ..Source::plain(&source) }),
        options: mount_options::parse(["bind", "nosuid", "noexec", "nodev", "ro"]),
        label: None,
    }
}

fn plan_one(index: usize, mount: &Mount, places: Places<'_>, linux: &Linux) -> Result<Plan> {
    let options = mount_options::parse(mount.options().iter().flatten().map(String::as_str));
    let kind = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().clone();
    let kind = if options.remount {
        Kind::Remount
    } else if options.bind.is_some() || kind == "bind" {
        Kind::Bind(Source {
            path: places.bundle.join(source.unwrap_or_default()),
            recursive: options.bind.as_ref().is_some_and(|bind| bind.recursive),
            nofollow: options.src_nofollow,
            idmap: idmap(mount, &options, linux)?,
            inside: None,
        })
    } else if kind == "cgroup" || kind == "cgroup2" {
        Kind::Cgroup { version2: kind == "cgroup2", holds_others: false }
    } else {
        Kind::New { kind: kind.to_owned(), source: source.map(|source| source.to_string_lossy().into_owned()) }
    };
    Ok(Plan {
        pointer: format!("/mounts/{index}"),
        // As runc has it, the host's path of a place in the root names this place.
        destination: relative(mount.destination().strip_prefix(places.rootfs).unwrap_or(mount.destination())),
        kind,
        options,
        label: linux.mount_label().clone().filter(|label| !label.is_empty()),
    })
}

/// The maps of a mount: its own, those of `idmap=`, or with the bare option the container's.
fn idmap(mount: &Mount, options: &MountOptions, linux: &Linux) -> Result<Option<IdMap>> {
    let (uids, gids) =
        (mount.uid_mappings().clone().unwrap_or_default(), mount.gid_mappings().clone().unwrap_or_default());
    let recursive = options.idmap.unwrap_or(false);
    let maps = match &options.idmap_ranges {
        _ if !uids.is_empty() => Maps::Own { uids, gids },
        Some(ranges) => {
            let container = |maps: &Option<_>| maps.clone().unwrap_or_default();
            let maps = idmap_option::parse(ranges, &container(linux.uid_mappings()), &container(linux.gid_mappings()));
            let idmap_option::Maps { uids, gids } = maps.map_err(|wrong| anyhow::anyhow!("idmap={ranges}: {wrong}"))?;
            Maps::Own { uids, gids }
        }
        None if options.idmap.is_some() => Maps::Container,
        None => return Ok(None),
    };
    Ok(Some(IdMap { maps, recursive }))
}

/// A path of the container, relative to its root and without `.`, empty components and `..`, which takes away what
/// is before it.
pub fn relative(path: &Path) -> String {
    let path = path.to_string_lossy();
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Plan {
    /// Whether this is a bind onto `/dev`: then the host's devices are there, and none are made.
    pub fn is_bind_on_dev(&self) -> bool {
        self.destination == "dev" && matches!(self.kind, Kind::Bind(_))
    }

    fn is_idmapped(&self) -> bool {
        matches!(&self.kind, Kind::Bind(Source { idmap: Some(_), .. }))
    }

    /// What of the host is bound.
    pub fn bind_source(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Bind(bind) => Some(&bind.path),
            Kind::Remount | Kind::Cgroup { .. } | Kind::New { .. } => None,
        }
    }

    /// Whether this is a tmpfs of the container's own.
    pub fn is_tmpfs(&self) -> bool {
        matches!(&self.kind, Kind::New { kind, .. } if kind == "tmpfs")
    }

    /// Whether this mount shows the container its cgroups.
    pub fn is_cgroup(&self) -> bool {
        matches!(self.kind, Kind::Cgroup { .. })
    }

    /// Whether this mount shows cgroups and no device lies in it, so that it does not matter which of the two is first.
    pub fn is_apart_from(&self, devices: &[DeviceOperation]) -> bool {
        let is_above = |path: &str| Path::new(path).starts_with(&self.destination);
        self.is_cgroup()
            && !is_above("dev")
            && !Path::new(&self.destination).starts_with("dev")
            && !devices.iter().any(|device| is_above(&device.path))
    }

    /// Whether this is cgroup v2, whatever the host has beside it.
    pub fn is_version2(&self) -> bool {
        matches!(self.kind, Kind::Cgroup { version2: true, .. })
    }

    /// Whether this mount may be made before its process is in the container's cgroups, and these are there: it does not show
    /// them, by a source in their hierarchy either, and fills no memory that they limit.
    pub fn is_independent_of_cgroups(&self, places: &[Place]) -> bool {
        let is_below = |source: &Path| places.iter().any(|place| source.starts_with(&place.mount));
        !self.is_cgroup() && !self.options.tmpcopyup && !self.bind_source().is_some_and(is_below)
    }

    /// Whether the mount may become read-only only when the devices have been made.
    fn is_late_readonly(&self) -> bool {
        let writable_until_late = match &self.kind {
            Kind::New { kind, .. } => kind == "tmpfs" || self.destination == "dev",
            Kind::Cgroup { holds_others, .. } => *holds_others,
            Kind::Bind(_) | Kind::Remount => false,
        };
        writable_until_late && self.options.attr_set & attr::RDONLY != 0
    }

    /// The destination, if the mount has to be made read-only at the end.
    pub fn late_readonly(&self) -> Option<String> {
        self.is_late_readonly().then(|| self.destination.clone())
    }
}
