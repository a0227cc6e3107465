//! Where a container's cgroups go. Decided in stage1 without touching anything, kept in state.json, and used again by
//! every later command. Runtime spec, config-linux.md, "Cgroups path".

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::AT_FDCWD;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize, Serializer};

use super::hierarchy::{self, Hierarchy};
use super::limits::{self, Controllers};
use super::systemd::{self, Unit};
use super::{Cgroup, Created, devices, file, leaf};

/// What stage1 knows about the container.
pub struct Request<'a> {
    /// The container's id: its cgroup's name where the bundle gives no `cgroupsPath`.
    pub id: &'a str,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a Path>,
    /// The container has a pid namespace of its own: the end of its init is that of all its processes.
    pub own_pids: bool,
    /// `linux.resources`.
    pub resources: Option<&'a LinuxResources>,
    /// `--systemd-cgroup`.
    pub systemd: bool,
    /// The directory of the container's state, by which its scope is told from others.
    pub state: &'a Path,
    /// `annotations`, some of which are properties of the unit.
    pub annotations: Option<&'a HashMap<String, String>>,
    /// The caller has no privilege over the host's cgroups: its effective uid is not 0, or it is in a user namespace.
    pub rootless: bool,
}

/// One directory for the container in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "(String, PathBuf, PathBuf)")]
pub struct Place {
    /// The v1 controllers of the hierarchy, as in /proc/self/cgroup; empty for cgroup v2.
    pub controllers: String,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The container's cgroup below the mount point.
    pub path: PathBuf,
}

/// In the state a place is an array of its three fields: the file is read by every command.
impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        (&self.controllers, &self.mount, &self.path).serialize(serializer)
    }
}

impl From<(String, PathBuf, PathBuf)> for Place {
    fn from((controllers, mount, path): (String, PathBuf, PathBuf)) -> Self {
        Self { controllers, mount, path }
    }
}

impl Place {
    /// The directory's path on the host.
    pub fn directory(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    /// True for the cgroup v2 hierarchy.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// True if this v1 hierarchy has that controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }
}

/// Every directory of one container. Small, because it is part of state.json. `remove` finds all of them by it even if
/// the create was killed half-way: it names what was planned, whether or not it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// v1 hierarchies in joining order, `cpu` last among them, then cgroup v2.
    pub places: Vec<Place>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) rootless: bool,
    /// Directories of the places that were there before the container, and may be another's as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<PathBuf>,
    /// Those of v1 are being made, beside a first process that is to join them: nothing says yet which of them were there. It
    /// ends at the latest when the record names that process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsettled: bool,
    /// The path is the bundle's and does not name the container, as with `buildah --cgroup-parent`: others may be in it at
    /// the same time, and whoever is left in it when this container has ended is not this container's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) shared: bool,
    /// The scope of systemd's that the container is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
    /// The first limit that was asked for, by JSON pointer: what an unprivileged create fails for.
    #[serde(skip)]
    pub(super) first_limit: Option<String>,
    /// The path is the bundle's.
    #[serde(skip)]
    pub(super) is_named: bool,
    #[serde(skip)]
    pub(super) warnings: Vec<String>,
}

/// What a scope is made for.
pub struct StartUnit<'a> {
    pub id: &'a str,
    pub pid: i32,
    pub resources: &'a LinuxResources,
    pub annotations: Option<&'a HashMap<String, String>>,
}

/// Decides where the container's cgroups go and checks that every limit can be honoured here; reads /proc and
/// /sys/fs/cgroup, changes nothing. Errors name the property by its JSON pointer.
pub fn plan(request: &Request) -> Result<Placement> {
    let hierarchies = hierarchy::discover()?;
    let (unit, wanted) = if request.systemd {
        let (unit, path) = plan_unit(request, &hierarchies)?;
        (Some(unit), Wanted::Absolute(path))
    } else {
        (None, wanted_path(request.cgroups_path.filter(|path| !path.as_os_str().is_empty()), request.id)?)
    };
    let mut placement = Placement {
        places: places(&hierarchies, &wanted),
        rootless: request.rootless,
        is_named: !request.systemd && request.cgroups_path.is_some_and(|path| !path.as_os_str().is_empty()),
        shared: unit.is_none() && may_be_shared(request),
        unit,
        ..Placement::default()
    };
    if placement.places.is_empty() && !request.rootless {
        bail!("no cgroup file system is mounted; mount one at /sys/fs/cgroup");
    }
    if let Some(resources) = request.resources {
        let rules = devices::rules(resources)?;
        if placement.is_ruled_by_systemd() {
            placement.warnings.extend(systemd::device_warning(&rules)?);
        }
        if limits::any_limit(resources) {
            let settings = limits::settings(resources, &placement.controllers()?)?;
            placement.first_limit = settings.first().map(|setting| setting.pointer.to_string());
        }
    }
    if placement.shared
        && let Ok(pids @ [_, ..]) = placement.open().pids().as_deref()
    {
        let count = pids.len();
        placement.warnings.push(format!(
            "/linux/cgroupsPath: {count} process(es) of others are in that cgroup; its limits, and pause, hold for all together"
        ));
    }
    Ok(placement)
}

/// True if the cgroup is nobody's in particular. One that bears the container's id is its own: who is in there already was
/// left by another of that id. Without a pid namespace of its own a container's processes cannot be told from others'.
fn may_be_shared(request: &Request) -> bool {
    let Some(name) = request.cgroups_path.and_then(Path::file_name).and_then(OsStr::to_str) else { return false };
    let head = name.strip_suffix(".scope").unwrap_or(name).strip_suffix(request.id);
    let names_it = head.is_some_and(|head| !head.ends_with(char::is_alphanumeric));
    request.own_pids && !names_it
}

/// The scope of the request and its cgroup.
fn plan_unit(request: &Request, hierarchies: &[Hierarchy]) -> Result<(Unit, PathBuf)> {
    if request.rootless && !hierarchies.iter().all(Hierarchy::is_unified) {
        bail!(
            "--systemd-cgroup: an ordinary user needs a host with cgroup v2 alone for it, because systemd delegates no controller of cgroup v1; leave the flag out"
        );
    }
    let planned = systemd::plan(request.cgroups_path, request.id, request.state, request.rootless)?;
    request.annotations.map_or(Ok(Vec::new()), systemd::annotated)?;
    Ok(planned)
}

/// Where the path of the request starts from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The top of each hierarchy.
    Absolute(PathBuf),
    /// This process's own cgroup in each hierarchy.
    Relative(PathBuf),
    /// No path: this process's own cgroup.
    Own,
}

/// Cleans `cgroupsPath` as runc does: `..` cannot climb above its start. No path means one relative path, the id.
fn wanted_path(path: Option<&Path>, id: &str) -> Result<Wanted> {
    let path = path.unwrap_or(Path::new(id));
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean.as_os_str().is_empty() {
        bail!(
            "/linux/cgroupsPath: {} is a hierarchy's own root; give the container a directory below it",
            path.display()
        );
    }
    Ok(if path.is_absolute() { Wanted::Absolute(clean) } else { Wanted::Relative(clean) })
}

/// One place a hierarchy.
pub(super) fn places(hierarchies: &[Hierarchy], wanted: &Wanted) -> Vec<Place> {
    let pure_v2 = hierarchies.iter().all(Hierarchy::is_unified);
    let mut places: Vec<Place> = hierarchies
        .iter()
        .map(|hierarchy| {
            let own = hierarchy.own_below_mount();
            let path = match wanted {
                Wanted::Absolute(path) => path.clone(),
                // Beside this process's cgroup, not below it: that one holds processes, and cgroup v2 does not give
                // controllers to the children of such a one (cgroups(7), "no internal processes").
                Wanted::Relative(path) if pure_v2 => own.parent().unwrap_or(Path::new("")).join(path),
                Wanted::Relative(path) => leaf::above_leaf(own).join(path),
                Wanted::Own => own.to_path_buf(),
            };
            Place { controllers: hierarchy.controllers.clone(), mount: hierarchy.mount.clone(), path }
        })
        .collect();
    // Joining `cpu` last lets the set-up run at the caller's weight.
    places.sort_by_key(|place| (place.is_unified(), place.has("cpu")));
    places
}

impl Placement {
    /// Makes a directory in every hierarchy, with undo on drop until [`Created::commit`].
    pub fn create(&self) -> Result<Created> {
        Created::new(self)
    }

    /// Makes the directory of cgroup v2, with undo on drop until [`Created::commit`]; [`Created::go_on`] makes the others.
    pub fn begin(&self) -> Result<Created> {
        Created::begin(self)
    }

    /// The scope of systemd's that the container is, which can only be made around a process that exists.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Has systemd make the cgroup around the container's first process, with undo on drop until [`Created::commit`].
    pub fn start_unit(&self, start: &StartUnit) -> Result<Created> {
        Created::around(self, start)
    }

    /// Whether systemd writes the files of the v1 devices controller, too.
    pub fn is_ruled_by_systemd(&self) -> bool {
        self.unit.is_some() && self.v1("devices").is_some()
    }

    /// The container's cgroups, whether or not they exist.
    pub fn open(&self) -> Cgroup {
        Cgroup::new(self.clone())
    }

    /// True if other containers may be in the same cgroups.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Keeps other containers from removing the cgroups that they share with this one while it is on its way into them.
    /// Nobody is waited for for ever: whoever may read the directory may lock it.
    pub(super) fn hold(&self) -> Option<File> {
        let mount = &self.places.first().filter(|_| self.shared)?.mount;
        // Closing it gives the lock up, and cannot fail for want of anything.
        let dir = File::from(file::open_dir(AT_FDCWD, mount).ok()?);
        for _ in 0..200 {
            match dir.try_lock() {
                Ok(()) => return Some(dir),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(TryLockError::Error(_)) => return None,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// What was asked for and changes nothing, one sentence each, for the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The container's directory in the cgroup v2 hierarchy.
    pub fn unified(&self) -> Option<&Place> {
        self.places.iter().find(|place| place.is_unified())
    }

    /// The place that a v1 controller is in.
    pub fn v1(&self, controller: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.has(controller))
    }

    /// True where no v1 hierarchy is mounted.
    pub fn is_pure_v2(&self) -> bool {
        self.places.iter().all(Place::is_unified)
    }

    /// True where missing privileges may leave the container without cgroups of its own.
    pub(super) fn is_lenient(&self) -> bool {
        self.rootless && self.first_limit.is_none()
    }

    /// True where the bundle has asked for this cgroup. On a host with both versions that is said of the controllers', which
    /// are version 1's.
    pub(super) fn insists_on(&self, place: &Place) -> bool {
        self.is_named && (!place.is_unified() || self.is_pure_v2())
    }

    /// True where a cgroup that was planned need never have been made.
    pub fn may_lack_some(&self) -> bool {
        self.rootless
    }

    /// The controllers of this host.
    pub(super) fn controllers(&self) -> Result<Controllers> {
        let names = |text: &str, by: char| text.split(by).map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        let v1 =
            self.places.iter().filter(|place| !place.is_unified()).flat_map(|place| names(&place.controllers, ','));
        let mut controllers = Controllers { v1: v1.collect(), v2: Vec::new() };
        if let Some(place) = self.unified() {
            let available = file::open_dir(AT_FDCWD, &place.mount)
                .and_then(|root| file::read_line(root, "cgroup.controllers"))
                .with_context(|| format!("read {}/cgroup.controllers", place.mount.display()))?;
            controllers.v2 = names(available.trim(), ' ');
        }
        Ok(controllers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(controllers: &str, own: &str) -> Hierarchy {
        let mount = PathBuf::from("/sys/fs/cgroup").join(if controllers.is_empty() { "unified" } else { controllers });
        Hierarchy { controllers: controllers.into(), mount, root: "/".into(), own: own.into() }
    }

    fn directories(hierarchies: &[Hierarchy], path: Option<&str>) -> Vec<String> {
        let wanted = wanted_path(path.map(Path::new), "c1").unwrap();
        places(hierarchies, &wanted).iter().map(|place| place.directory().display().to_string()).collect()
    }

    #[test]
    fn absolute_from_the_root_relative_from_our_own() {
        let hierarchies = [hierarchy("cpu,cpuacct", "/a"), hierarchy("memory", "/m/n"), hierarchy("", "/u")];
        let expected =
            ["/sys/fs/cgroup/memory/m/n/c1", "/sys/fs/cgroup/cpu,cpuacct/a/c1", "/sys/fs/cgroup/unified/u/c1"];
        assert_eq!(directories(&hierarchies, None), expected);
        let expected = ["/sys/fs/cgroup/memory/x/y", "/sys/fs/cgroup/cpu,cpuacct/x/y", "/sys/fs/cgroup/unified/x/y"];
        assert_eq!(directories(&hierarchies, Some("/x/../../x//y/")), expected);
    }

    #[test]
    fn pure_v2_goes_beside_our_own() {
        assert_eq!(directories(&[hierarchy("", "/user/session")], Some("x")), ["/sys/fs/cgroup/unified/user/x"]);
        assert_eq!(directories(&[hierarchy("", "/")], None), ["/sys/fs/cgroup/unified/c1"]);
    }

    #[test]
    fn the_root_of_a_hierarchy_is_refused() {
        for path in ["/", "..", "/a/.."] {
            assert!(
                wanted_path(Some(Path::new(path)), "c1").unwrap_err().to_string().starts_with("/linux/cgroupsPath: ")
            );
        }
    }

    #[test]
    fn who_may_share() {
        let shared = |path: Option<&str>, own_pids: bool| {
            let cgroups_path = path.map(Path::new);
            let request = Request {
                id: "c1",
                cgroups_path,
                own_pids,
                resources: None,
                systemd: false,
                state: Path::new("/run/rtx/c1"),
                annotations: None,
                rootless: false,
            };
            may_be_shared(&request)
        };
        for path in [None, Some("/c1"), Some("/docker/c1"), Some("/parent/libpod-c1"), Some("/parent/crio-c1.scope")] {
            assert!(!shared(path, true), "{path:?}");
        }
        assert!(shared(Some("/parent"), true) && shared(Some("/parent/xc1"), true));
        assert!(!shared(Some("/parent"), false));
    }

    #[test]
    fn state_is_small_and_comes_back() {
        let hierarchies = [hierarchy("cpu", "/"), hierarchy("", "/")];
        let wanted = wanted_path(None, "c1").unwrap();
        let placement = Placement { places: places(&hierarchies, &wanted), ..Placement::default() };
        let json = serde_json::to_string(&placement).unwrap();
        let expected = r#"{"places":[["cpu","/sys/fs/cgroup/cpu","c1"],["","/sys/fs/cgroup/unified","c1"]]}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Placement>(&json).unwrap(), placement);
    }
}
