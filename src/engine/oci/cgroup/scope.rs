//! A container's cgroups as systemd makes them: all at once, around a process. On cgroup v1 those of the controllers that
//! systemd leaves alone are made beside them.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::create::OpenPlace;
use super::placement::{Place, Placement, StartUnit, Wanted, places};
use super::{Created, devices, file, hierarchy, limits, systemd};

impl Created {
    /// The scope that systemd makes around a process, and its open directories.
    pub(super) fn around(placement: &Placement, start: &StartUnit) -> Result<Self> {
        let Some(unit) = &placement.unit else { bail!("the container is no unit of systemd's") };
        let settings = match limits::any_limit(start.resources) {
            true => limits::settings(start.resources, &placement.controllers()?)?,
            false => Vec::new(),
        };
        let rules = placement.is_ruled_by_systemd().then(|| devices::rules(start.resources)).transpose()?;
        let annotated = start.annotations.map_or(Ok(Vec::new()), systemd::annotated)?;
        let pid = u32::try_from(start.pid).context("the pid of init")?;
        // From here on an error ends the scope, unless it is another container's.
        let mut created = Created::nothing(placement, false);
        let (settings, devices, annotated) = (&settings, rules.as_deref(), &annotated);
        unit.start(&systemd::Start { id: start.id, pid, settings, devices, annotated })?;
        for place in &placement.places {
            created.take(place, start.pid)?;
        }
        created.check_not_frozen()?;
        Ok(created)
    }

    /// Opens one directory of the scope. One that systemd made holds the process already; from one that a killed rtx left,
    /// of a controller that systemd leaves alone, a process that is still in there must not be taken for the container's.
    fn take(&mut self, place: &Place, pid: i32) -> Result<()> {
        let (dir, existed) = self.open_directory(place, Some(pid))?;
        if let Some(dir) = dir.as_ref().filter(|_| place.is_unified() && !existed) {
            // systemd does not track processes in this hierarchy, and init joins only those of v1 by itself.
            file::write(dir, "cgroup.procs", &pid.to_string())
                .with_context(|| format!("write {pid} to {}/cgroup.procs", place.directory().display()))?;
        }
        self.open.push(OpenPlace::new(place.clone(), dir));
        Ok(())
    }
}

impl Place {
    /// Whether systemd keeps track of processes by this hierarchy.
    pub(super) fn is_tracked(&self) -> bool {
        self.is_unified() || self.controllers == "name=systemd"
    }
}

/// Which cgroup systemd would put a container in. Asks systemd, changes nothing.
///
/// # Errors
/// Where systemd does not run or does not answer.
pub fn plan_by_systemd(root: &Path, id: &str, rootless: bool) -> Result<String> {
    let (unit, path) = systemd::plan(None, id, &root.join(id), rootless)?;
    Ok(format!("it answers, and would make {} at {}", unit.name, path.display()))
}

/// What systemd has of a container whose record is lost, where it runs: each scope with its cgroups. For a container of
/// that id whose state was in that directory.
///
/// # Errors
/// Where systemd does not answer.
pub fn scopes(id: &str, state: &Path, rootless: bool) -> Result<Vec<Placement>> {
    if !systemd::is_running() {
        return Ok(Vec::new());
    }
    let hierarchies = hierarchy::discover()?;
    let found = systemd::scopes(id, state, rootless)?.into_iter().map(|(unit, path)| {
        let places = places(&hierarchies, &Wanted::Absolute(path));
        Placement { places, rootless, unit: Some(unit), ..Placement::default() }
    });
    Ok(found.collect())
}

/// The scopes of containers whose state was in a directory below `root` and is gone, by their ids.
///
/// # Errors
/// Where systemd does not answer.
pub fn orphans(root: &Path, rootless: bool) -> Result<Vec<(String, Placement)>> {
    if !systemd::is_running() {
        return Ok(Vec::new());
    }
    let hierarchies = hierarchy::discover()?;
    let found = systemd::orphans(root, rootless)?.into_iter().map(|(id, unit, path)| {
        let places = places(&hierarchies, &Wanted::Absolute(path));
        (id, Placement { places, rootless, unit: Some(unit), ..Placement::default() })
    });
    Ok(found.collect())
}
