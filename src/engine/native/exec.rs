//! A further process in the cgroups of a plain process.

use super::NativeEngine;
use super::create::{process_plan, starter};
use crate::config::envelope::OciConfig;
use crate::engine::join::{self, Entry};
use crate::engine::live::engine_state;
use crate::engine::oci::{process, resctrl, seccomp};
use crate::engine::{Container, ExecConfig, InitProcess, SpawnRequest};
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::Operation;
use crate::sys::On;
use anyhow::{Result, bail};
use oci_spec::runtime::Spec;
use std::sync::Arc;

/// How a process joins.
pub struct Plan {
    entry: Entry,
    spec: Arc<Spec>,
    resctrl: Option<resctrl::Groups>,
    /// The configuration names the processors that the process is to have before it joins, and none for after.
    keep_affinity: bool,
}

/// Decides how the process joins, and opens what it needs for that.
///
/// # Errors
/// Where the container's init has ended.
pub fn prepare(engine: &mut NativeEngine, container: &Container, exec: &mut ExecConfig) -> Result<SpawnRequest> {
    let Some(identity) = &container.record.init else { bail!("cannot exec in a container that has no process") };
    identity.open().on("open", format_args!("init of {}", container.record.id))?;
    let spec = container.spec()?;
    let linux = spec.linux().as_ref();
    let state = engine_state(container)?;
    exec.options.no_new_keyring |= state.no_new_keyring;
    let mut plan = process_plan(&exec.process, &exec.options, &container.record.id)?;
    if let Some(linux) = linux {
        process::add_linux(&mut plan, linux);
    }
    let (affinity, final_affinity) = process::exec_affinity(&exec.process);
    plan.affinity = final_affinity;
    plan.seccomp = seccomp::profile(spec).map(seccomp::plan);
    exec.oci_config = OciConfig { process: plan, start_container: Vec::new() };
    exec.starter = starter(&exec.process, &exec.options);
    let mut entry = match state.cgroup {
        Some(placement) => {
            let (init, rootless) = (container.record.init.as_ref().map(|init| init.pid), exec.options.rootless);
            join::entry(&placement.open(), init, &exec.sub_cgroups, rootless, &mut exec.warnings)?
        }
        None => Entry::default(),
    };
    let (cgroup, within) = (entry.unified.take().map(std::rc::Rc::new), entry.within.take());
    engine.exec =
        Some(Plan { entry, spec: Arc::clone(spec), resctrl: state.resctrl, keep_affinity: affinity.is_some() });
    Ok(SpawnRequest { cgroup, within, affinity, ..SpawnRequest::default() })
}

/// Asks stage2 to join.
///
/// # Errors
/// Whatever failed, here or in stage2.
pub fn enter(engine: &mut NativeEngine, exec: &ExecConfig, init: &InitProcess, rpc: &mut RpcClient) -> Result<()> {
    let Some(plan) = engine.exec.take() else { bail!("the native engine was not prepared for an exec") };
    plan.entry.attach(init.pid)?;
    if let Some(groups) = &plan.resctrl {
        groups.add(init.pid)?;
    }
    let mut batch = Batch::default();
    let tasks = plan.entry.open_tasks()?.into_iter().map(|file| batch.fd(file)).collect();
    batch.push(Operation::JoinCgroups { tasks, keep_affinity: plan.keep_affinity });
    if exec.oci_config.process.terminal {
        batch.push(process::open_console(exec.process.console_size(), false, exec.options.foreground));
    }
    if let Some(profile) = seccomp::profile(&plan.spec) {
        let seccomp::Program { file, length } = seccomp::program(profile, &exec.root)?;
        let fd = batch.fd(file);
        batch.push(Operation::SeccompProgram { fd, length });
    }
    rpc.send(batch)
}
