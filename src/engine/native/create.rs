//! Making a plain process that waits to be started.

use super::NativeEngine;
use crate::config::envelope::{OciConfig, ProcessPlan, Starter};
use crate::engine::launch::Stage2;
use crate::engine::live;
use crate::engine::oci::cgroup::Placement;
use crate::engine::oci::hooks::{self, CreationHooks};
use crate::engine::oci::{cgroups, no_linux, process, resctrl, seccomp};
use crate::engine::{Creation, LaunchConfig, LaunchOptions, SpawnRequest};
use crate::rpc::client::Batch;
use crate::rpc::operation::Operation;
use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxResources, Process};
use std::borrow::Cow;

/// Everything that can be decided before the process exists.
pub struct Plan {
    pub placement: Option<Placement>,
    pub resctrl: Option<resctrl::Plan>,
    resources: LinuxResources,
    hooks: CreationHooks,
}

impl Plan {
    pub fn new(launch: &mut LaunchConfig) -> Result<Self> {
        let spec = launch.bundle.spec.clone();
        let linux = &*spec.linux().as_ref().map_or_else(|| Cow::Owned(no_linux()), Cow::Borrowed);
        let Some(process) = spec.process() else { bail!("process property must not be empty") };
        let mut plan = process_plan(process, &launch.options, &launch.id)?;
        process::add_linux(&mut plan, linux);
        plan.seccomp = linux.seccomp().as_ref().map(seccomp::plan);
        let start_container = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
        launch.oci_config = OciConfig { process: plan, start_container: hooks::operations(start_container) };
        launch.starter = starter(process, &launch.options);
        Ok(Self {
            placement: cgroups::plan(launch, linux)?,
            resctrl: resctrl::plan(linux.intel_rdt().as_ref(), &launch.id)?,
            resources: linux.resources().clone().unwrap_or_default(),
            hooks: CreationHooks::new(&spec),
        })
    }
}

/// As the oci engine has it, but that a plain process whose configuration says nothing of capabilities keeps those of
/// its user.
pub fn process_plan(process: &Process, options: &LaunchOptions, id: &str) -> Result<ProcessPlan> {
    let mut plan = process::plan(process, options, format!("_ses.{id}"))?;
    if process.capabilities().is_none() {
        plan.capabilities = None;
    }
    Ok(plan)
}

/// What stage2 needs before anything else.
pub fn starter(process: &Process, options: &LaunchOptions) -> Starter {
    Starter {
        oom_score_adj: process.oom_score_adj(),
        preserve_fds: options.preserve_fds,
        listen_fds: options.listen_fds,
        ..Starter::default()
    }
}

/// Makes the cgroups, because the child is born in one of them.
pub fn prepare_spawn(engine: &mut NativeEngine, launch: &mut LaunchConfig) -> Result<SpawnRequest> {
    let Some(plan) = &engine.plan else { bail!("the native engine was not prepared") };
    if let Some(placement) = plan.placement.as_ref().filter(|placement| placement.unit().is_none()) {
        engine.cgroup = Some(live::create_cgroups(placement, &mut launch.engine_state)?);
    }
    let cgroup = match &engine.cgroup {
        Some(created) => created.unified_directory()?,
        None => None,
    };
    Ok(SpawnRequest { cgroup, ..SpawnRequest::default() })
}

/// The whole construction, in order.
pub fn create(engine: &mut NativeEngine, creation: &mut Creation<'_>) -> Result<()> {
    let Some(plan) = &engine.plan else { bail!("the native engine was not prepared") };
    let launch = creation.launch;
    if let (Some(placement), Some(stage2)) = (&plan.placement, &creation.stage2) {
        cgroups::start_unit(placement, launch, stage2.init.pid, &plan.resources, &mut engine.cgroup)?;
    }
    if let (Some(resctrl), Some(stage2)) = (&plan.resctrl, &creation.stage2) {
        resctrl.apply(stage2.init.pid)?;
    }
    let mut batch = Batch::default();
    if let Some(created) = &engine.cgroup {
        created.apply_device_rules(&plan.resources)?;
        let tasks = created.task_files()?.into_iter().map(|file| batch.fd(file)).collect();
        batch.push(Operation::JoinCgroups { tasks, keep_affinity: false });
    }
    if launch.oci_config.process.terminal {
        let size = launch.bundle.spec.process().as_ref().and_then(|process| process.console_size());
        batch.push(process::open_console(size, false, launch.options.relays()));
    }
    send(creation, batch)?;
    if let Some(created) = &engine.cgroup {
        created.apply_limits(&plan.resources)?;
    }
    plan.hooks.run_at_runtime(creation)?;
    let mut batch = Batch::default();
    if !plan.hooks.create_container.is_empty() {
        let pid = creation.stage2.as_ref().map_or(0, |stage2| stage2.init.pid);
        let state = hooks::creation_state(creation.record, pid)?;
        let hooks = hooks::with_env(&plan.hooks.create_container, &launch.oci_config.process.env);
        let point = "createContainer".to_owned();
        batch.push(Operation::RunHooks { point, hooks, state });
    }
    if let Some(profile) = seccomp::profile(&launch.bundle.spec) {
        let seccomp::Program { file, length } = seccomp::program(profile, &launch.root)?;
        let fd = batch.fd(file);
        batch.push(Operation::SeccompProgram { fd, length });
    }
    send(creation, batch)
}

fn send(creation: &mut Creation<'_>, batch: Batch) -> Result<()> {
    match &mut creation.stage2 {
        Some(Stage2 { rpc, .. }) => rpc.send(batch),
        None => bail!("the native engine needs a stage2"),
    }
}
