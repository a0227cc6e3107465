//! The `native` engine: an ordinary process of the host, without namespaces and without a root of its own. `args` and
//! `cwd` are the host's, and `root` is ignored. What a plain process can have of a configuration it gets: user, groups,
//! umask, environment, limits, capabilities, no_new_privs, seccomp, labels, cgroups, hooks, a terminal. Whatever would
//! need a namespace is refused. stage2 is the oci engine's, which does what it is asked for and nothing else.

mod create;
mod exec;
mod refused;

use super::oci::cgroup::{Created, OomWatch};
use super::oci::stage2;
use super::{glance, live};
use crate::engine::{
    Capabilities, Container, Creation, EngineOperations, ExecConfig, ExitStatus, InitProcess, LaunchConfig, Outcome,
    Provider, SpawnRequest,
};
use crate::rpc::RpcClient;
use crate::state::{Brief, Glance, Status};
use crate::sys::On;
use anyhow::Result;
use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};

pub static PROVIDER: Provider = Provider {
    name: "native",
    about: "an ordinary process of the host, in cgroups; isolates nothing and needs --allow-unconfined",
    capabilities: Capabilities {
        isolates: false,
        needs_privileges: false,
        exec: true,
        pause: true,
        update: true,
        stats: true,
        terminal: true,
    },
    make: || Box::new(NativeEngine::default()),
    make_payload: Some(|request| {
        // There is no root that stage2 enters and by that leaves the caller's directory.
        nix::unistd::chdir("/").on("chdir", "/")?;
        Ok(Box::new(stage2::Payload::new(request)?))
    }),
    unavailable: || None,
    schema: || serde_json::json!({ "type": "object", "additionalProperties": false }),
};

#[derive(Default)]
pub struct NativeEngine {
    plan: Option<create::Plan>,
    cgroup: Option<Created>,
    exec: Option<exec::Plan>,
}

impl EngineOperations for NativeEngine {
    fn name(&self) -> &'static str {
        PROVIDER.name
    }

    fn prepare_config(&mut self, launch: &mut LaunchConfig) -> Result<()> {
        refused::check(launch)?;
        if launch.options.notify_socket.is_some() {
            launch.warnings.push(format!("engine {:?} does not pass NOTIFY_SOCKET on", PROVIDER.name));
        }
        let plan = create::Plan::new(launch)?;
        let state = live::EngineState {
            cgroup: plan.placement.clone(),
            resctrl: plan.resctrl.as_ref().map(|plan| plan.groups.clone()),
            no_new_keyring: launch.options.no_new_keyring,
            shared_pids: true,
            ..Default::default()
        };
        launch.engine_state = Some(serde_json::value::to_raw_value(&state)?);
        self.plan = Some(plan);
        Ok(())
    }

    fn prepare_spawn(&mut self, launch: &mut LaunchConfig) -> Result<Option<SpawnRequest>> {
        create::prepare_spawn(self, launch).map(Some)
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
        live::monitor(init)
    }

    fn cleanup_container(&mut self, outcome: Outcome<'_>) -> Result<()> {
        match outcome {
            Outcome::NotCreated => {
                if let Some(created) = self.cgroup.take() {
                    created.kill_left();
                }
                match self.plan.as_ref().and_then(|plan| plan.resctrl.as_ref()) {
                    Some(plan) => plan.groups.remove(),
                    None => Ok(()),
                }
            }
            Outcome::Deleted { container, .. } => live::remove_groups(container, &live::engine_state(container)?),
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

    fn out_of_memory_events(&self, container: &Container) -> Result<OomWatch> {
        live::out_of_memory_events(container)
    }

    fn update(&mut self, container: &mut Container, resources: &LinuxResources) -> Result<Box<dyn FnOnce()>> {
        live::update(container, resources)
    }

    fn update_schemata(&mut self, container: &mut Container, rdt: &LinuxIntelRdt) -> Result<()> {
        live::update_schemata(container, rdt)
    }
}
