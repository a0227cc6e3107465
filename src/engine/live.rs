//! What commands do to a container that exists, for every engine whose containers are processes in cgroups: its first
//! process is reached by its pidfd, all of them by their cgroup, a created one by its start barrier.

use super::oci::cgroup::leaf::{self, Leaf};
use super::oci::cgroup::{Cgroup, Created, OomWatch, Placement};
use super::oci::host_root::HostRoot;
use super::oci::network::{self, Returning};
use super::oci::{resctrl, resctrl_stats};
use super::{Container, ExitStatus, InitProcess, glance};
use crate::rpc::client;
use crate::state::{Brief, Liveness, Status};
use crate::sys::{Errno, On, process};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;

/// How long a process may take to end that has said that it will.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What the record of a container keeps for these engines.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineState {
    /// Absent where no cgroups were wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Placement>,
    /// Network devices of the host that come back when the container has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub net_devices: Vec<Returning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Groups>,
    /// Where the container has no mount namespace of its own but mounts of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_root: Option<HostRoot>,
    /// Its processes do not end with init, as those of a pid namespace of its own would.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared_pids: bool,
    /// The container was created with --no-new-keyring, which holds for what joins it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_new_keyring: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Makes the cgroups that were planned. What was there already is noted in `state`, which goes into the record.
///
/// # Errors
/// What could not be made, by name; nothing is left of it then.
pub fn create_cgroups(placement: &Placement, state: &mut Option<Box<RawValue>>) -> Result<Created> {
    let created = placement.create()?;
    let found = created.found();
    if !found.is_empty() {
        let mut cgroup = placement.clone();
        cgroup.found = found;
        let planned = state.as_deref().map(|state| serde_json::from_str(state.get())).transpose()?;
        let noted = EngineState { cgroup: Some(cgroup), ..planned.unwrap_or_default() };
        *state = Some(noted.raw()?);
    }
    Ok(created)
}

impl EngineState {
    /// As the record has it.
    ///
    /// # Errors
    /// None that can be expected.
    pub fn raw(&self) -> Result<Box<RawValue>> {
        Ok(serde_json::value::to_raw_value(self)?)
    }

    /// Notes which of the cgroups that were planned were there already, and whether some are yet to be made.
    pub fn note_cgroups(&mut self, created: &Created) {
        if let Some(cgroup) = &mut self.cgroup {
            (cgroup.found, cgroup.unsettled) = (created.found(), created.has_begun());
        }
    }
}

/// The engine's part of the record.
///
/// # Errors
/// Where it is damaged.
pub fn engine_state(container: &Container) -> Result<EngineState> {
    match &container.record.engine_state {
        Some(state) => serde_json::from_str(state.get()).with_context(|| damaged(&container.record.id)),
        None => Ok(EngineState::default()),
    }
}

pub(super) fn damaged(id: &str) -> String {
    format!("the state of container {id:?} is damaged")
}

fn cgroup(container: &Container) -> Result<Cgroup> {
    match engine_state(container)?.cgroup {
        Some(placement) => Ok(placement.open()),
        None => bail!(
            "container {:?} has no cgroup: it was created with --cgroup-manager disabled, and without a cgroup it cannot be \
             paused, limited or measured",
            container.record.id
        ),
    }
}

/// As [`cgroup`], where the one that was planned has been made.
fn existing(container: &Container) -> Result<Cgroup> {
    let cgroup = cgroup(container)?;
    if cgroup.placement().may_lack_some() && !cgroup.exists() {
        bail!(
            "container {:?} has no cgroup, since the user who created it may not make any, and without one it cannot be paused \
             or limited",
            container.record.id
        );
    }
    Ok(cgroup)
}

/// What has become of the container.
///
/// # Errors
/// Where its record is damaged; where that cannot be told.
pub fn status(container: &Container) -> Result<Status> {
    let Some(init) = &container.record.init else { return Ok(Status::Creating) };
    if init.liveness()? != Liveness::Alive {
        return Ok(Status::Stopped);
    }
    if !container.record.complete {
        return Ok(Status::Creating);
    }
    if glance::is_frozen(&Brief::from(&container.record), None)? {
        return Ok(Status::Paused);
    }
    Ok(if container.state.is_waiting()? { Status::Created } else { Status::Running })
}

/// Sends a signal to init, or to every process of the container: SIGKILL reaches all of them in any case.
///
/// # Errors
/// `ESRCH` where there is nothing to signal.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let state = engine_state(container)?;
    let all = all || (signal == libc::SIGKILL && state.shared_pids);
    match state.cgroup.filter(|_| all) {
        Some(placement) if placement.unsettled => signal_init(container, signal),
        // Who shares the cgroup is not meant, and the end of init is that of all its processes.
        Some(placement) if placement.is_shared() && signal == libc::SIGKILL => match &container.record.init {
            Some(init) if init.liveness()? == Liveness::Alive => signal_init(container, signal),
            _ => Ok(()),
        },
        Some(placement) => placement.open().kill_all(signal),
        None => signal_init(container, signal),
    }
}

/// Sends a signal to init, by its pidfd.
///
/// # Errors
/// `ESRCH` where it has ended.
pub fn signal_init(container: &Container, signal: i32) -> Result<()> {
    let Some(init) = &container.record.init else { bail!("container not running") };
    let pidfd = init.open().on("signal init of", &container.record.id)?;
    process::pidfd_signal(&pidfd, signal).on("signal init of", &container.record.id)?;
    Ok(())
}

/// Stops every process.
///
/// # Errors
/// The kernel's; where the container has no cgroup.
pub fn pause(container: &Container) -> Result<()> {
    existing(container)?.freeze()
}

/// Lets every process run on.
///
/// # Errors
/// As [`pause`].
pub fn resume(container: &Container) -> Result<()> {
    existing(container)?.thaw()
}

/// The pids of all processes; of init alone where there is no cgroup to find others by.
///
/// # Errors
/// The kernel's.
pub fn processes(container: &Container) -> Result<Vec<i32>> {
    match engine_state(container)?.cgroup {
        Some(placement) if !placement.may_lack_some() || placement.open().exists() => {
            Ok(placement.open().pids()?.into_iter().map(|pid| pid.as_raw()).collect())
        }
        _ => Ok(container.record.init.iter().map(|init| init.pid).collect()),
    }
}

/// The `data` of runc's stats event.
///
/// # Errors
/// As [`pause`].
pub fn stats(container: &Container) -> Result<serde_json::Value> {
    let mut stats = cgroup(container)?.stats()?;
    if let Some(groups) = engine_state(container)?.resctrl {
        stats.intel_rdt = resctrl_stats::read(&groups);
    }
    Ok(serde_json::to_value(stats)?)
}

/// What becomes readable when the container ran out of memory.
///
/// # Errors
/// As [`pause`].
pub fn out_of_memory_events(container: &Container) -> Result<OomWatch> {
    cgroup(container)?.watch_oom()
}

/// Changes limits.
///
/// What is returned takes it back.
///
/// # Errors
/// What the kernel refused, by file and value; nothing has changed then.
pub fn update(container: &Container, resources: &LinuxResources) -> Result<Box<dyn FnOnce()>> {
    let devices = || {
        let spec = container.spec()?;
        Ok(spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default())
    };
    cgroup(container)?.update(resources, devices)
}

/// Whether the container's swap has a limit of its own (cgroup v2), and not one together with its memory.
pub fn swap_is_apart(container: &Container) -> bool {
    let placement = engine_state(container).ok().and_then(|state| state.cgroup);
    placement.is_some_and(|placement| placement.v1("memory").is_none())
}

/// Changes what of the caches and of the memory's bandwidth the container may use. One that had no class of its own gets
/// one, which the record has before it is made.
///
/// # Errors
/// As [`update`]; where this host has no resctrl.
pub fn update_schemata(container: &mut Container, rdt: &LinuxIntelRdt) -> Result<()> {
    let state = engine_state(container)?;
    let pids = processes(container)?;
    if let Some(groups) = &state.resctrl {
        return groups.update(rdt, &pids);
    }
    let groups = resctrl::own(&container.record.id)?;
    let before = container.record.engine_state.clone();
    let state = EngineState { resctrl: Some(groups.clone()), ..state };
    container.record.engine_state = Some(serde_json::value::to_raw_value(&state)?);
    container.state.write_record(&container.record)?;
    let updated = groups.update(rdt, &pids);
    if updated.is_err() {
        container.record.engine_state = before;
        container.state.write_record(&container.record)?;
    }
    updated
}

/// Removes the cgroups with what still runs in them, and the groups of resctrl. Before the container had a first process,
/// what runs in a cgroup that was there before it is another's, and so is all that runs under the name of its scope outside
/// of a scope.
///
/// # Errors
/// What could not be removed, by name.
pub fn remove_groups(container: &Container, state: &EngineState) -> Result<()> {
    let removed = match &state.cgroup {
        Some(placement) if container.record.init.is_some() => placement.open().remove(|_| true),
        Some(placement) if placement.unsettled => placement.open().remove_unsettled(),
        Some(placement) => {
            placement.open().remove(|place| placement.unit().is_none() && !placement.found.contains(&place.directory()))
        }
        None => Ok(()),
    };
    removed.and(state.resctrl.as_ref().map_or(Ok(()), |groups| groups.remove()))
}

/// Moves this process, which is about to be smaster, into a cgroup of its own where that can be had.
pub fn enter_leaf(container: &Container) -> Leaf {
    let state = engine_state(container).unwrap_or_default();
    state.cgroup.map_or_else(Leaf::default, |placement| Leaf::enter(&placement))
}

/// Removes the cgroup of a smaster that has ended.
///
/// # Errors
/// Where it is not empty.
pub fn remove_leaf(container: &Container) -> Result<()> {
    engine_state(container)?.cgroup.map_or(Ok(()), |placement| leaf::remove(&placement))
}

/// Unmounts what a container without a mount namespace has on the host.
///
/// # Errors
/// The kernel's.
pub fn unmount_host_root(state: &EngineState) -> Result<()> {
    state.host_root.as_ref().map_or(Ok(()), |root| root.unmount())
}

/// Gives network devices that have come back their names again.
pub fn rename_net_devices(state: &EngineState) {
    if !state.net_devices.is_empty() {
        network::rename_returned(&state.net_devices);
    }
}

/// Waits for the container's init, which a stage2 became.
///
/// # Errors
/// Where there is none; the kernel's.
pub fn monitor(init: Option<&InitProcess>) -> Result<ExitStatus> {
    match init {
        Some(init) => wait_for(init),
        None => bail!("the container's init is not a child of this process"),
    }
}

/// Waits for a child, and reaps it. Until then its pid is nobody else's.
///
/// # Errors
/// `ECHILD` where it is no child of this process.
pub fn wait_for(init: &InitProcess) -> Result<ExitStatus> {
    Ok(process::wait(init.pid).on("wait for", "init")?.into())
}

/// Tells a stage2 that waits at its start barrier to go on, and waits until it has executed its program.
///
/// # Errors
/// Why the program could not be executed; where the container was started before, or has stopped.
pub fn start_through_barrier(container: &Container) -> Result<()> {
    let barrier = match container.state.dial_barrier() {
        Err(Errno::ENOENT) => bail!("cannot start an already running container"),
        Err(Errno::ECONNREFUSED) if status(container)? == Status::Stopped => {
            bail!("cannot start a container that has stopped")
        }
        Err(Errno::ECONNREFUSED) => bail!("cannot start an already running container"),
        other => other.on("connect to", format_args!("the start barrier of {}", container.record.id))?,
    };
    client::send_start(&barrier)?;
    let outcome = client::wait_executed(&barrier, || container.record.init.as_ref()?.stat().ok().flatten());
    container.state.remove_barrier();
    if let (Err(_), Some(init)) = (&outcome, &container.record.init) {
        // Callers delete what could not be started at once, and containerd refuses that of what has not ended yet.
        let _ = init.wait_for_end(END_TIMEOUT);
    }
    outcome
}
