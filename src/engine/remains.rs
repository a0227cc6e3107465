//! What commands that were killed left of a container: where it is by the record, or without one by the configuration.

use super::live::EngineState;
use super::oci::cgroup::{self, Placement};
use crate::state::{Liveness, Record, is_rootless};
use anyhow::Result;
use std::fmt;
use std::path::{Path, PathBuf};

/// Something of a container that is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    Process(i32),
    Cgroup(PathBuf),
    Unit(String),
    Mount(PathBuf),
    Resctrl(PathBuf),
    State(PathBuf),
    File(PathBuf),
    Root(PathBuf),
    Program(PathBuf),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Unit(name) => write!(f, "scope {name} of systemd"),
            Self::Mount(path) => write!(f, "mount {}", path.display()),
            Self::Resctrl(path) => write!(f, "resctrl group {}", path.display()),
            Self::State(path) => write!(f, "state directory {}", path.display()),
            Self::Root(path) => write!(f, "directory {}", path.display()),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Program(path) => write!(f, "damaged seccomp program {}", path.display()),
        }
    }
}

/// What there is now of what a record names.
///
/// # Errors
/// Where it cannot be told whether the container's process is alive.
pub fn recorded(record: &Record) -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    let init = record.init.as_ref();
    if let Some(init) = init
        && init.liveness()? == Liveness::Alive
    {
        things.push(Thing::Process(init.pid));
    }
    // Another engine's part of the record is of another form, and lies in the state directory.
    let state = record.engine_state.as_deref().and_then(|state| serde_json::from_str::<EngineState>(state.get()).ok());
    let Some(EngineState { cgroup, resctrl, host_root, .. }) = state else { return Ok(things) };
    if let Some(placement) = cgroup {
        things.extend(placement.unit().map(|unit| Thing::Unit(unit.name.clone())));
        let is_own = |directory: &PathBuf| init.is_some() || !placement.found.contains(directory);
        let cgroup = placement.open();
        let directories = if placement.unsettled { cgroup.empty_directories() } else { cgroup.directories() };
        things.extend(directories.into_iter().filter(is_own).map(Thing::Cgroup));
    }
    things.extend(resctrl.into_iter().flat_map(|groups| groups.own_directories()).map(Thing::Resctrl));
    things.extend(host_root.filter(|root| root.is_attached()).map(|root| Thing::Mount(root.path().to_owned())));
    Ok(things)
}

/// Where the cgroups of a container without a record are: where its configuration would have them, or else where its id
/// would.
pub struct Unrecorded {
    plain: Placement,
    /// Directories that systemd did not make have outlived its scope.
    beside_scope: Option<Placement>,
    scopes: Result<Vec<Placement>>,
    /// The path may be meant for systemd alone; elsewhere there need not be a systemd that answers.
    is_units: bool,
}

impl Unrecorded {
    /// # Errors
    /// Where this host's hierarchies cannot be read.
    pub fn find(root: &Path, id: &str, config: Option<&[u8]>) -> Result<Self> {
        let state = root.join(id);
        let config: serde_json::Value =
            config.and_then(|config| serde_json::from_slice(config).ok()).unwrap_or_default();
        let path = config.pointer("/linux/cgroupsPath").and_then(|path| path.as_str()).filter(|path| !path.is_empty());
        let namespaces = config.pointer("/linux/namespaces").and_then(|list| list.as_array());
        let is_own_pid = |namespace: &serde_json::Value| {
            namespace["type"] == "pid" && namespace["path"].as_str().is_none_or(str::is_empty)
        };
        let own_pids = namespaces.into_iter().flatten().any(is_own_pid);
        let plan = |path: Option<&str>, systemd| {
            cgroup::plan(&cgroup::Request {
                id,
                cgroups_path: path.map(Path::new),
                own_pids,
                resources: None,
                systemd,
                state: &state,
                annotations: None,
                // Where there are no cgroups, there is nothing to remove.
                rootless: is_rootless() || !systemd,
            })
        };
        // A path that no container can have is damage as well.
        let plain = match plan(path, false) {
            Err(_) if path.is_some() => plan(None, false)?,
            other => other?,
        };
        Ok(Self {
            plain,
            beside_scope: plan(path, true).ok(),
            scopes: scopes(root, id),
            is_units: path.is_some_and(|path| path.split(':').count() == 3),
        })
    }

    /// What there is of it, if a `create` that was killed before it had a record made it: it had no process yet.
    pub fn things(&self) -> Vec<Thing> {
        let empty = |placement: &Placement| placement.open().empty_directories();
        let scopes = self.scopes.iter().flatten().filter_map(Placement::unit);
        let mut things: Vec<Thing> = scopes.map(|unit| Thing::Unit(unit.name.clone())).collect();
        things.extend(self.beside_scope.iter().flat_map(empty).chain(empty(&self.plain)).map(Thing::Cgroup));
        things.dedup();
        things
    }

    /// A process in the cgroup that has the container's name. What a `create` without a record leaves has none: either the
    /// record was lost, or it is another container's of the same name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn survivor(&self, id: &str) -> Result<Option<i32>> {
        let is_named = |place: &cgroup::Place| place.path.file_name().is_some_and(|name| name == id);
        if !self.plain.places.iter().any(is_named) {
            return Ok(None);
        }
        Ok(self.plain.open().pids()?.first().map(|pid| pid.as_raw()))
    }

    /// Removes the cgroups, and every scope of systemd's that says it is the container's. Had it a record once, what runs in
    /// the cgroups is killed. Otherwise what has a process is another container's.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(self, had_record: bool) -> Result<()> {
        let scopes = self.scopes.and_then(|scopes| scopes.iter().try_for_each(|scope| scope.open().remove(|_| true)));
        if let Some(placement) = self.beside_scope {
            placement.open().remove(|_| false)?;
        }
        self.plain.open().remove(|_| had_record)?;
        if had_record {
            cgroup::leaf::remove(&self.plain)?;
        }
        if self.is_units { scopes } else { Ok(()) }
    }
}

/// Ends every scope of systemd's that says it is this container's, whose record is lost.
///
/// # Errors
/// Where systemd does not answer; what could not be ended.
pub fn remove_scopes(root: &Path, id: &str) -> Result<()> {
    scopes(root, id)?.iter().try_for_each(|placement| placement.open().remove(|_| true))
}

fn scopes(root: &Path, id: &str) -> Result<Vec<Placement>> {
    cgroup::scopes(id, &root.join(id), is_rootless())
}
