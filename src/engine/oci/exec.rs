//! Joining a container: the namespaces and cgroups of its init, then the same last steps as for init itself.

use super::create::follow_move;
use super::engine::{OciEngine, namespace_flags};
use super::{process, resctrl, seccomp};
use crate::config::envelope::{OciConfig, Starter};
use crate::engine::join::{self, Entry};
use crate::engine::live::engine_state;
use crate::engine::{Container, ExecConfig, InitProcess, SpawnRequest};
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::{EnterRoot, Operation, RootOperation};
use crate::sys::On;
use anyhow::{Result, bail};
use oci_spec::runtime::Spec;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How a process joins.
pub struct Plan {
    init: OwnedFd,
    /// `CLONE_NEW*` that stage2 joins itself.
    namespaces: i32,
    /// init's root, where no mount namespace leads there.
    root: Option<String>,
    entry: Entry,
    /// For its seccomp profile, which is too large to be copied.
    spec: Arc<Spec>,
    resctrl: Option<resctrl::Groups>,
    /// The configuration names the processors that the process is to have before it joins, and none for after.
    keep_affinity: bool,
}

/// Decides how the process joins, and opens what it needs for that.
///
/// # Errors
/// Where the container's init has ended.
pub fn prepare(engine: &mut OciEngine, container: &Container, exec: &mut ExecConfig) -> Result<SpawnRequest> {
    let Some(identity) = &container.record.init else { bail!("cannot exec in a container that has no process") };
    let init = identity.open().on("open", format_args!("init of {}", container.record.id))?;
    let spec = container.spec()?;
    let state = engine_state(container)?;
    exec.options.no_new_keyring |= state.no_new_keyring;
    let keyring = format!("_ses.{}", container.record.id);
    let mut plan = process::plan(&exec.process, &exec.options, keyring)?;
    let linux = spec.linux().as_ref();
    // A session keyring is the container's; a process that joins takes part in it by name.
    if let Some(linux) = linux {
        process::add_linux(&mut plan, linux);
    }
    let (affinity, final_affinity) = process::exec_affinity(&exec.process);
    plan.affinity = final_affinity;
    plan.seccomp = seccomp::profile(spec).map(seccomp::plan);
    exec.oci_config = OciConfig { process: plan, start_container: Vec::new() };
    exec.starter = Starter {
        oom_score_adj: exec.process.oom_score_adj(),
        preserve_fds: exec.options.preserve_fds,
        listen_fds: exec.options.listen_fds,
        ..Starter::default()
    };
    let flags = namespace_flags(spec);
    let root = (flags & libc::CLONE_NEWNS == 0).then(|| format!("/proc/{}/root", identity.pid));
    let mut entry = match state.cgroup {
        Some(placement) => {
            let (init, rootless) = (Some(identity.pid), exec.options.rootless);
            join::entry(&placement.open(), init, &exec.sub_cgroups, rootless, &mut exec.warnings)?
        }
        None => Entry::default(),
    };
    let (cgroup, within) = (entry.unified.take().map(std::rc::Rc::new), entry.within.take());
    engine.exec = Some(Plan {
        init,
        namespaces: flags,
        root,
        entry,
        spec: Arc::clone(spec),
        resctrl: state.resctrl,
        keep_affinity: affinity.is_some(),
    });
    Ok(SpawnRequest { namespaces: 0, cgroup, within, affinity })
}

/// Asks stage2 to join.
///
/// # Errors
/// Whatever failed, here or in stage2.
pub fn enter(engine: &mut OciEngine, exec: &ExecConfig, init: &mut InitProcess, rpc: &mut RpcClient) -> Result<()> {
    let Some(plan) = engine.exec.take() else { bail!("the oci engine was not prepared for an exec") };
    plan.entry.attach(init.pid)?;
    if let Some(groups) = &plan.resctrl {
        groups.add(init.pid)?;
    }
    let mut batch = Batch::default();
    let tasks = plan.entry.open_tasks()?.into_iter().map(|file| batch.fd(file)).collect();
    batch.push(Operation::JoinCgroups { tasks, keep_affinity: plan.keep_affinity });
    let has_root = plan.root.is_some();
    if let Some(path) = plan.root {
        // Opened before the pidfd is used: had init ended and its pid become another's, joining would fail.
        let root = RootOperation { tree: None, path, propagation: 0, mount: false, on_host: false };
        batch.push(Operation::OpenRoot(root));
    }
    if plan.namespaces != 0 {
        let fd = batch.fd(plan.init);
        batch.push(Operation::JoinNamespace { fd, kind: plan.namespaces, path: "of the container's init".into() });
    }
    if has_root {
        batch.push(Operation::EnterRoot { how: EnterRoot::Chroot, propagation: None });
    }
    // What is born in the pid namespace before it has joined the others has the host's root, and whoever is there and has
    // CAP_SYS_PTRACE could go in by /proc/PID/root. Of whom that can be the configuration says nothing: an earlier exec may have
    // been given it, and a pid namespace may be shared.
    if plan.namespaces & libc::CLONE_NEWPID != 0 {
        batch.push(Operation::MoveToNamespaces { kinds: 0, without_proc: true });
        follow_move(std::mem::take(&mut batch), init, rpc)?;
    }
    if plan.namespaces & libc::CLONE_NEWUSER != 0 {
        batch.push(Operation::BecomeRoot);
    }
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
