//! The `oci` engine in stage1 and smaster: which file does what.

use super::cgroup::Created;
use super::host_root::HostRoot;
use super::network::Moved;
use super::plan::Plan;
use super::{checkpoint, create, exec, namespaces, stage2};
use crate::engine::glance;
use crate::engine::live::{self, EngineState};
use crate::engine::{
    Capabilities, CheckpointRequest, Container, Creation, EngineOperations, ExecConfig, ExitStatus, InitProcess,
    LaunchConfig, Outcome, Provider, RestoreRequest, Restored, SpawnRequest,
};
use crate::rpc::RpcClient;
use crate::state::{Brief, Glance, Status};
use anyhow::Result;
use oci_spec::runtime::{Linux, LinuxIntelRdt, LinuxResources};
use std::borrow::Cow;
use std::os::fd::OwnedFd;

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

#[derive(Default)]
pub struct OciEngine {
    pub(super) plan: Option<Plan>,
    /// What the record keeps for the container that is being made.
    pub(super) state: EngineState,
    pub(super) cgroup: Option<Created>,
    pub(super) network: Option<Moved>,
    pub(super) exec: Option<exec::Plan>,
    /// Undone when the container is not created.
    pub(super) host_root: Option<HostRoot>,
    /// The detached copy for it, until stage2 gets it.
    pub(super) root_tree: Option<OwnedFd>,
}

impl EngineOperations for OciEngine {
    fn name(&self) -> &'static str {
        PROVIDER.name
    }

    fn prepare_config(&mut self, launch: &mut LaunchConfig) -> Result<()> {
        let plan = Plan::new(launch)?;
        let state = EngineState {
            cgroup: plan.placement.clone(),
            net_devices: plan.network.returning.clone(),
            resctrl: plan.resctrl.as_ref().map(|plan| plan.groups.clone()),
            host_root: None,
            shared_pids: !plan.makes_pid_namespace(),
            no_new_keyring: launch.options.no_new_keyring,
        };
        launch.engine_state = Some(state.raw()?);
        (self.plan, self.state) = (Some(plan), state);
        Ok(())
    }

    fn prepare_spawn(&mut self, launch: &mut LaunchConfig) -> Result<Option<SpawnRequest>> {
        create::prepare_spawn(self, launch).map(Some)
    }

    fn create_container(&mut self, creation: &mut Creation<'_>) -> Result<()> {
        create::create(self, creation)
    }

    fn check_supervision(&self) -> Result<()> {
        Ok(())
    }

    fn commit_container(&mut self) {
        if let Some(created) = self.cgroup.take() {
            created.commit();
        }
        if let Some(moved) = self.network.take() {
            moved.commit();
        }
    }

    fn monitor_container(&mut self, _container: &Container, init: Option<&InitProcess>) -> Result<ExitStatus> {
        live::monitor(init)
    }

    fn cleanup_container(&mut self, outcome: Outcome<'_>) -> Result<()> {
        match outcome {
            Outcome::NotCreated => {
                self.network = None;
                if let Some(created) = self.cgroup.take() {
                    created.kill_left();
                }
                let unmounted = self.host_root.take().map_or(Ok(()), |root| root.unmount());
                unmounted.and(match self.plan.as_ref().and_then(|plan| plan.resctrl.as_ref()) {
                    Some(plan) => plan.groups.remove(),
                    None => Ok(()),
                })
            }
            Outcome::Deleted { container, .. } => {
                let read;
                let state = match self.plan {
                    // It is this one that has made the container.
                    Some(_) => &self.state,
                    None => {
                        read = live::engine_state(container)?;
                        &read
                    }
                };
                live::remove_groups(container, state)?;
                live::unmount_host_root(state)?;
                live::rename_net_devices(state);
                Ok(())
            }
        }
    }

    fn start_container(&mut self, container: &mut Container) -> Result<()> {
        live::start_through_barrier(container)
    }

    fn status(&self, container: &Container) -> Result<Status> {
        live::status(container)
    }

    fn glance(&self, record: &Brief, glance: &Glance) -> Result<Option<Status>> {
        glance::status(record, glance)
    }

    fn prepare_exec(&mut self, container: &Container, exec: &mut ExecConfig) -> Result<SpawnRequest> {
        exec::prepare(self, container, exec)
    }

    fn enter_container(&mut self, exec: &ExecConfig, init: &mut InitProcess, rpc: &mut RpcClient) -> Result<()> {
        exec::enter(self, exec, init, rpc)
    }

    fn kill(&mut self, container: &mut Container, signal: i32, all: bool) -> Result<()> {
        live::kill(container, signal, all)
    }

    fn pause(&mut self, container: &mut Container) -> Result<()> {
        live::pause(container)
    }

    fn resume(&mut self, container: &mut Container) -> Result<()> {
        live::resume(container)
    }

    fn processes(&self, container: &Container) -> Result<Vec<i32>> {
        live::processes(container)
    }

    fn stats(&self, container: &Container) -> Result<serde_json::Value> {
        live::stats(container)
    }

    fn out_of_memory_events(&self, container: &Container) -> Result<super::cgroup::OomWatch> {
        live::out_of_memory_events(container)
    }

    fn update(&mut self, container: &mut Container, resources: &LinuxResources) -> Result<Box<dyn FnOnce()>> {
        live::update(container, resources)
    }

    fn update_schemata(&mut self, container: &mut Container, rdt: &LinuxIntelRdt) -> Result<()> {
        live::update_schemata(container, rdt)
    }

    fn checkpoint(&mut self, container: &Container, request: &CheckpointRequest) -> Result<()> {
        checkpoint::checkpoint(container, request)
    }

    fn restore_container(&mut self, creation: &mut Creation<'_>, request: &RestoreRequest) -> Result<Restored> {
        checkpoint::restore(self, creation, request)
    }
}

/// `CLONE_NEW*` of the namespaces that a configuration gives a container.
pub(super) fn namespace_flags(spec: &oci_spec::runtime::Spec) -> i32 {
    let linux = spec.linux().as_ref().map_or_else(|| Cow::Owned(Linux::default()), Cow::Borrowed);
    linux.namespaces().iter().flatten().fold(0, |flags, namespace| flags | namespaces::flag(namespace.typ()))
}
