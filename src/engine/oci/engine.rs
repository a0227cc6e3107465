//! The `oci` engine in stage1 and smaster: which file does what.

use super::cgroup::{Created, Placement};
use super::{create, exec, namespaces, stage2};
use crate::engine::{
    Capabilities, Container, Creation, EngineOperations, ExecConfig, ExitStatus, InitProcess, LaunchConfig, Outcome,
    Provider, SpawnRequest,
};
use crate::rpc::frame::{self, Kind};
use crate::rpc::{Failure, RpcClient};
use crate::state::{Liveness, Status};
use crate::sys::{Errno, On};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;

pub static PROVIDER: Provider = Provider {
    name: "oci",
    about: "Linux namespaces, cgroups, capabilities and seccomp; the default",
    capabilities: Capabilities {
        isolates: true,
        needs_privileges: false,
        exec: true,
        pause: true,
        update: true,
        stats: true,
        terminal: true,
    },
    make: || Box::new(OciEngine::default()),
    make_payload: Some(|request| Ok(Box::new(stage2::Payload::new(request)?))),
    unavailable: || {
        (!std::path::Path::new("/proc/self/ns/mnt").exists()).then(|| "the kernel has no mount namespaces".to_owned())
    },
    schema: || serde_json::json!({ "type": "object", "additionalProperties": false }),
};

/// What the record of a container keeps for this engine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineState {
    /// Absent where no cgroups were wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Placement>,
}

#[derive(Default)]
pub struct OciEngine {
    pub(super) plan: Option<create::Plan>,
    pub(super) cgroup: Option<Created>,
    pub(super) exec: Option<exec::Plan>,
}

/// This engine's part of the record.
pub(super) fn engine_state(container: &Container) -> Result<EngineState> {
    match &container.record.engine_state {
        Some(state) => serde_json::from_str(state.get())
            .with_context(|| format!("the state of container {:?} is damaged", container.record.id)),
        None => Ok(EngineState::default()),
    }
}

fn cgroup(container: &Container) -> Result<super::cgroup::Cgroup> {
    match engine_state(container)?.cgroup {
        Some(placement) => Ok(placement.open()),
        None => bail!("container {:?} has no cgroup", container.record.id),
    }
}

impl EngineOperations for OciEngine {
    fn name(&self) -> &'static str {
        PROVIDER.name
    }

    fn prepare_config(&mut self, launch: &mut LaunchConfig) -> Result<()> {
        let plan = create::Plan::new(launch)?;
        launch.engine_state = Some(serde_json::value::to_raw_value(&EngineState { cgroup: plan.placement.clone() })?);
        self.plan = Some(plan);
        Ok(())
    }

    fn prepare_spawn(&mut self, _launch: &LaunchConfig) -> Result<Option<SpawnRequest>> {
        create::prepare_spawn(self).map(Some)
    }

    fn create_container(&mut self, creation: &mut Creation<'_>) -> Result<()> {
        create::create(self, creation)
    }

    fn commit_container(&mut self) {
        if let Some(created) = self.cgroup.take() {
            created.commit();
        }
    }

    fn monitor_container(&mut self, _container: &Container, init: Option<&InitProcess>) -> Result<ExitStatus> {
        match init {
            Some(init) => wait_for(init),
            None => bail!("the container's init is not a child of this process"),
        }
    }

    fn cleanup_container(&mut self, outcome: Outcome<'_>) -> Result<()> {
        match outcome {
            Outcome::NotCreated => {
                if let Some(created) = self.cgroup.take() {
                    // Something in it may have outlived init: a hook's daemon, a process that init left.
                    let cgroup = created.placement().open();
                    let _ = cgroup.kill_all(Signal::SIGKILL);
                    let _ = cgroup.remove();
                }
                Ok(())
            }
            Outcome::Deleted { container } => match engine_state(container)?.cgroup {
                Some(placement) => placement.open().remove(),
                None => Ok(()),
            },
        }
    }

    fn start_container(&mut self, container: &mut Container) -> Result<()> {
        start_through_barrier(container)
    }

    fn status(&self, container: &Container) -> Result<Status> {
        let Some(init) = &container.record.init else { return Ok(Status::Creating) };
        if init.liveness() != Liveness::Alive {
            return Ok(Status::Stopped);
        }
        if !container.record.complete {
            return Ok(Status::Creating);
        }
        if engine_state(container)?.cgroup.is_some_and(|placement| placement.open().is_frozen().unwrap_or(false)) {
            return Ok(Status::Paused);
        }
        Ok(if container.state.has_barrier() { Status::Created } else { Status::Running })
    }

    fn prepare_exec(&mut self, container: &Container, exec: &mut ExecConfig) -> Result<SpawnRequest> {
        exec::prepare(self, container, exec)
    }

    fn enter_container(&mut self, exec: &ExecConfig, init: &mut InitProcess, rpc: &mut RpcClient) -> Result<()> {
        exec::enter(self, exec, init, rpc)
    }

    fn kill(&mut self, container: &mut Container, signal: i32, all: bool) -> Result<()> {
        if all {
            return kill_all(container, signal);
        }
        signal_init(container, signal)
    }

    fn pause(&mut self, container: &mut Container) -> Result<()> {
        cgroup(container)?.freeze()
    }

    fn resume(&mut self, container: &mut Container) -> Result<()> {
        cgroup(container)?.thaw()
    }

    fn processes(&self, container: &Container) -> Result<Vec<i32>> {
        match engine_state(container)?.cgroup {
            Some(placement) => Ok(placement.open().pids()?.into_iter().map(|pid| pid.as_raw()).collect()),
            None => Ok(container.record.init.iter().map(|init| init.pid).collect()),
        }
    }

    fn stats(&self, container: &Container) -> Result<serde_json::Value> {
        Ok(serde_json::to_value(cgroup(container)?.stats()?)?)
    }

    fn out_of_memory_events(&self, container: &Container) -> Result<super::cgroup::OomWatch> {
        cgroup(container)?.watch_oom()
    }

    fn update(&mut self, container: &mut Container, resources: &LinuxResources) -> Result<()> {
        cgroup(container)?.update(resources)
    }
}

/// Sends a signal to init, by its pidfd.
pub fn signal_init(container: &Container, signal: i32) -> Result<()> {
    let Some(init) = &container.record.init else { bail!("container not running") };
    let pidfd = init.open().on("signal init of", &container.record.id)?;
    crate::sys::process::pidfd_signal(&pidfd, signal).on("signal init of", &container.record.id)?;
    Ok(())
}

fn kill_all(container: &Container, signal: i32) -> Result<()> {
    match engine_state(container)?.cgroup {
        Some(placement) => {
            let signal = Signal::try_from(signal).on("signal", signal)?;
            placement.open().kill_all(signal)
        }
        None => signal_init(container, signal),
    }
}

/// Waits for a child, and reaps it.
pub fn wait_for(init: &InitProcess) -> Result<ExitStatus> {
    loop {
        match waitid(Id::PIDFd(init.pidfd.as_fd()), WaitPidFlag::WEXITED) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(ExitStatus::Exited(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(ExitStatus::Signaled(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).on("wait for", "init")?,
        }
    }
}

/// Tells a stage2 that waits at its start barrier to go on, and waits until it has executed its program.
pub fn start_through_barrier(container: &mut Container) -> Result<()> {
    let barrier = match container.state.dial_barrier() {
        Err(Errno::ENOENT) => bail!("cannot start an already running container"),
        Err(Errno::ECONNREFUSED) => bail!("cannot start a container that has stopped"),
        other => other.on("connect to", format_args!("the start barrier of {}", container.record.id))?,
    };
    frame::send(&barrier, Kind::Start, &(), &[])?;
    let answer = frame::receive(&barrier)?;
    container.state.remove_barrier();
    match answer {
        None => Ok(()),
        Some(answer) if answer.kind == Kind::Failed => Err(answer.parse::<Failure>()?.into()),
        Some(answer) => bail!("rtx expected the program to be executed and received {:?}", answer.kind),
    }
}

/// `CLONE_NEW*` of the namespaces that a configuration gives a container.
pub(super) fn namespace_flags(spec: &oci_spec::runtime::Spec) -> i32 {
    let linux = spec.linux().clone().unwrap_or_default();
    linux.namespaces().iter().flatten().fold(0, |flags, namespace| flags | namespaces::flag(namespace.typ()))
}
