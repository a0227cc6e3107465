//! Building a container: the order in which smaster makes what is planned and asks stage2 for it.

use super::cgroup::{self, Placement};
use super::engine::OciEngine;
use super::hooks;
use super::host_root::HostRoot;
use super::idmap::UserNamespaces;
use super::plan::Plan;
use super::{cgroups, devices, mounts, network, process, seccomp, sources};
use crate::engine::live;
use crate::engine::{Creation, InitProcess, LaunchConfig, SpawnRequest, launch::Stage2};
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::{EnterRoot, Operation, RootOperation};
use crate::sys::On;
use crate::sys::mount::{Attributes, attr};
use crate::sys::process::{pidfd_open, wait};
use crate::trace;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use std::os::fd::OwnedFd;

const MS_REC: u64 = libc::MS_REC;

/// Makes the cgroups, because the child is born in one of them.
pub fn prepare_spawn(engine: &mut OciEngine, launch: &mut LaunchConfig) -> Result<SpawnRequest> {
    let Some(plan) = &engine.plan else { bail!("the oci engine was not prepared") };
    if let Some(placement) = plan.placement.as_ref().filter(|placement| placement.unit().is_none()) {
        engine.cgroup = Some(live::create_cgroups(placement, &mut launch.engine_state)?);
    }
    if plan.on_host {
        let (root, tree) = HostRoot::new(&launch.bundle.rootfs)?;
        live::note(&mut launch.engine_state, |state| state.host_root = Some(root.clone()))?;
        (engine.host_root, engine.root_tree) = (Some(root), Some(tree));
    }
    let cgroup = match &engine.cgroup {
        Some(created) => created.unified_directory()?,
        None => None,
    };
    Ok(SpawnRequest { namespaces: plan.namespaces.clone_flags(), pid_namespace: None, cgroup, affinity: None })
}

/// The whole construction, in order.
pub fn create(engine: &mut OciEngine, creation: &mut Creation<'_>) -> Result<()> {
    let Some(plan) = &engine.plan else { bail!("the oci engine was not prepared") };
    let Some(Stage2 { init, rpc }) = &mut creation.stage2 else { bail!("the oci engine needs a stage2") };
    let launch = creation.launch;
    if plan.notifies {
        creation.state.make_notify_directory()?;
    }
    if let Some(placement) = &plan.placement {
        cgroups::start_unit(placement, launch, init.pid, &plan.resources, &mut engine.cgroup)?;
    }
    if let Some(resctrl) = &plan.resctrl {
        resctrl.apply(init.pid)?;
    }
    if let Some(created) = &engine.cgroup {
        created.apply_device_rules(&plan.resources)?;
        cgroup::owner(&launch.bundle.spec).map_or(Ok(()), |uid| created.delegate(uid))?;
    }
    if plan.namespaces.moves() {
        let mut batch = Batch::default();
        plan.namespaces.join(&mut batch)?;
        follow_move(batch, init, rpc)?;
    }
    if plan.namespaces.makes(libc::CLONE_NEWUSER) {
        plan.namespaces.write_id_maps(init.pid)?;
    }
    if !plan.network.devices.is_empty() {
        engine.network = Some(network::Moved::new(&plan.network.devices, &plan.namespaces.network(init.pid))?);
    }
    let mark = trace::span("ask for namespaces, mounts and devices");
    let mut batch = Batch::default();
    enter_namespaces(plan, engine, launch, &mut batch)?;
    let tree = engine.root_tree.take();
    prepare_root(plan, engine, launch, (&mut batch, &mut *rpc), tree, init.pid)?;
    let apply_limits = || match &engine.cgroup {
        Some(created) => {
            let _mark = trace::span("limits");
            created.apply_limits(&plan.resources)
        }
        None => Ok(()),
    };
    let state = hooks::creation_state(creation.record, init_pid_in_container(plan))?;
    // stage2 mounts while a filter is compiled. Where there is none, and no hook in between, one message says it all.
    if seccomp::profile(&launch.bundle.spec).is_none() && !plan.hooks.has_any_at_runtime() {
        enter_root(plan, launch, &mut batch, &state)?;
        rpc.send_ahead(batch)?;
        drop(mark);
        return apply_limits();
    }
    rpc.send(batch)?;
    drop(mark);
    apply_limits()?;
    plan.hooks.run_at_runtime(creation)?;
    let Some(Stage2 { rpc, .. }) = &mut creation.stage2 else { bail!("the oci engine needs a stage2") };
    let mut batch = Batch::default();
    enter_root(plan, launch, &mut batch, &state)?;
    rpc.send_ahead(batch)
}

/// Sends a batch that ends with a move, and follows: the process that goes on as stage2 is another one.
pub fn follow_move(batch: Batch, init: &mut InitProcess, rpc: &mut RpcClient) -> Result<()> {
    rpc.send(batch)?;
    let Some(pid) = rpc.wait_moved(&init.pidfd)?.moved_to else { bail!("stage2 did not say which process goes on") };
    let before = init.pid;
    init.pidfd = pidfd_open(pid).on("pidfd_open", pid)?;
    init.pid = pid;
    rpc.follow(pid);
    wait(before).on("wait for", before)?;
    Ok(())
}

fn enter_namespaces(plan: &Plan, engine: &OciEngine, launch: &LaunchConfig, batch: &mut Batch) -> Result<()> {
    if let Some(created) = &engine.cgroup {
        let tasks = created.task_files()?.into_iter().map(|file| batch.fd(file)).collect();
        batch.push(Operation::JoinCgroups { tasks, keep_affinity: false });
    }
    if !plan.namespaces.moves() {
        plan.namespaces.join(batch)?;
    }
    if plan.user_namespace() {
        batch.push(Operation::BecomeRoot);
    }
    plan.namespaces.make_late(batch);
    if plan.namespaces.makes(libc::CLONE_NEWNET) {
        batch.push(Operation::LoopbackUp);
    }
    let spec = &launch.bundle.spec;
    let is_given = |name: &String| !name.is_empty();
    let (host, domain) = (spec.hostname().clone().filter(is_given), spec.domainname().clone().filter(is_given));
    // The check has refused that already. What it might overlook would be the host's for good.
    if (host.is_some() || domain.is_some()) && !plan.namespaces.has(libc::CLONE_NEWUTS) {
        bail!("/hostname, /domainname: the container has no UTS namespace that they could be set in");
    }
    if let Some(name) = host {
        batch.push(Operation::Hostname { name });
    }
    if let Some(name) = domain {
        batch.push(Operation::Domainname { name });
    }
    Ok(())
}

fn prepare_root(
    plan: &Plan,
    engine: &OciEngine,
    launch: &LaunchConfig,
    (batch, rpc): (&mut Batch, &mut RpcClient),
    host_tree: Option<OwnedFd>,
    init: i32,
) -> Result<()> {
    let spec = &launch.bundle.spec;
    let (mount, on_host) = (plan.mounts(), plan.on_host);
    if mount && !on_host {
        batch.push(Operation::Isolate { propagation: libc::MS_SLAVE | MS_REC });
    }
    // A slave hears of the host's later mounts and tells it nothing. Where the bundle asks for another propagation the
    // root starts without any, so that what is mounted in it while it is built stays in it.
    let wanted = propagation(spec).map(|flags| flags & !MS_REC);
    let root_propagation = match wanted {
        None | Some(libc::MS_SLAVE) if !on_host => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    };
    let (tree, propagation) = match host_tree {
        None if mount && plan.clones() => {
            (Some(sources::clone_root(&launch.bundle.rootfs, root_propagation).context("invalid rootfs")?), 0)
        }
        tree => (tree, root_propagation),
    };
    let tree = tree.map(|tree| batch.fd(tree));
    let path = launch.bundle.rootfs.display().to_string();
    batch.push(Operation::OpenRoot(RootOperation { tree, path, propagation, mount, on_host }));
    if mount {
        add_mounts(plan, engine, batch, rpc, wanted, init)?;
        prepare_dev(plan, batch)?;
        let cwd = mounts::relative(std::path::Path::new(&launch.oci_config.process.cwd));
        if !cwd.is_empty() {
            batch.push(Operation::Directory { path: cwd, mode: 0o755 });
        }
    }
    if launch.oci_config.process.terminal {
        let size = spec.process().as_ref().and_then(|process| process.console_size());
        batch.push(process::open_console(size, mount, launch.options.relays()));
    }
    let linux = spec.linux().as_ref();
    if let Some(sysctl) = linux.and_then(|linux| linux.sysctl().as_ref()).filter(|sysctl| !sysctl.is_empty()) {
        let entries = sysctl.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        batch.push(Operation::Sysctl { entries });
    }
    Ok(())
}

fn add_mounts(
    plan: &Plan,
    engine: &OciEngine,
    batch: &mut Batch,
    rpc: &mut RpcClient,
    wanted: Option<u64>,
    init: i32,
) -> Result<()> {
    let membership = match plan.mounts.iter().any(mounts::Plan::is_cgroup) {
        true => cgroups::membership(plan.placement.as_ref(), engine)?,
        false => Placement::default(),
    };
    let cgroups = membership.container_mounts();
    let mut around = mounts::Surroundings {
        privileged: plan.privileged,
        clones: plan.clones(),
        cgroup_namespace: plan.namespaces.has(libc::CLONE_NEWCGROUP),
        mounts_unified: plan.namespaces.has(libc::CLONE_NEWCGROUP)
            || plan.privileged && !plan.namespaces.has(libc::CLONE_NEWUSER),
        // With a shared root the container's mounts are meant to reach the host where the host's are shared.
        propagation: wanted.map_or(libc::MS_SLAVE, |wanted| if wanted == libc::MS_SHARED { 0 } else { wanted }),
        cgroups: &cgroups,
        pure_v2: membership.is_pure_v2(),
        user_namespaces: UserNamespaces::new(plan.namespaces.user_namespace(init)),
    };
    for mount in &plan.mounts {
        mount.add(batch, rpc, &mut around)?;
    }
    Ok(())
}

fn prepare_dev(plan: &Plan, batch: &mut Batch) -> Result<()> {
    let is_hosts = plan.mounts.iter().any(mounts::Plan::is_bind_on_dev);
    if !is_hosts {
        devices::add(&plan.devices, batch, plan.user_namespace(), plan.clones())?;
        batch.push(Operation::StandardLinks);
    }
    Ok(())
}

/// `linux.rootfsPropagation` as `MS_*`.
fn propagation(spec: &Spec) -> Option<u64> {
    let name = spec.linux().as_ref()?.rootfs_propagation().clone()?;
    let flags = match name.as_str() {
        "shared" | "rshared" => libc::MS_SHARED | MS_REC,
        "slave" | "rslave" => libc::MS_SLAVE | MS_REC,
        "private" | "rprivate" => libc::MS_PRIVATE | MS_REC,
        "unbindable" | "runbindable" => libc::MS_UNBINDABLE | MS_REC,
        _ => return None,
    };
    Some(flags)
}

/// What a hook in the container's namespaces sees as init's pid.
fn init_pid_in_container(plan: &Plan) -> i32 {
    i32::from(plan.makes_pid_namespace())
}

fn enter_root(plan: &Plan, launch: &LaunchConfig, batch: &mut Batch, state: &str) -> Result<()> {
    let spec = &launch.bundle.spec;
    let (own, mount) = (plan.namespaces.has(libc::CLONE_NEWNS), plan.mounts());
    if !plan.hooks.create_container.is_empty() {
        let hooks = hooks::with_env(&plan.hooks.create_container, &launch.oci_config.process.env);
        let point = "createContainer".to_owned();
        batch.push(Operation::RunHooks { point, hooks, state: state.to_owned() });
    }
    let how = match (own, launch.options.no_pivot) {
        (false, _) => EnterRoot::Chroot,
        (true, true) => EnterRoot::Move,
        (true, false) => EnterRoot::Pivot,
    };
    batch.push(Operation::EnterRoot { how, propagation: propagation(spec).filter(|_| own) });
    let mut readonly: Vec<String> = plan.mounts.iter().filter_map(mounts::Plan::late_readonly).collect();
    if mount && spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)) {
        readonly.push(String::new());
    }
    if !readonly.is_empty() {
        let attributes = Attributes { set: attr::RDONLY, ..Attributes::default() };
        batch.push(Operation::MakeReadonly { paths: readonly, attributes });
    }
    if let Some(linux) = spec.linux() {
        let paths = |list: &Option<Vec<String>>| list.clone().filter(|paths| !paths.is_empty());
        if let Some(paths) = paths(linux.readonly_paths()) {
            batch.push(Operation::ReadonlyPaths { paths });
        }
        if let Some(paths) = paths(linux.masked_paths()) {
            let label = linux.mount_label().clone().filter(|label| !label.is_empty());
            batch.push(Operation::MaskPaths { paths, label });
        }
    }
    if let Some(profile) = seccomp::profile(&launch.bundle.spec) {
        let seccomp::Program { file, length } = seccomp::program(profile, &launch.root)?;
        let fd = batch.fd(file);
        batch.push(Operation::SeccompProgram { fd, length });
    }
    Ok(())
}
