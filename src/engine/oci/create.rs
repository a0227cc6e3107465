//! Building a container: the order in which smaster makes what is planned and asks stage2 for it.

use super::cgroup::{self, Created, Placement};
use super::engine::OciEngine;
use super::hooks;
use super::host_root::HostRoot;
use super::idmap::UserNamespaces;
use super::plan::Plan;
use super::{cgroups, devices, mounts, network, process, seccomp, sources};
use crate::engine::live::EngineState;
use crate::engine::{Creation, InitProcess, LaunchConfig, SpawnRequest, launch::Stage2};
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::{EnterRoot, Operation, RootOperation};
use crate::state::{Record, Recording};
use crate::sys::On;
use crate::sys::mount::{Attributes, attr};
use crate::sys::process::{pidfd_open, wait};
use crate::trace;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use std::os::fd::OwnedFd;

const MS_REC: u64 = libc::MS_REC;

/// Makes the cgroup that the child is born in, and the others unless they are made while it is at work.
pub fn prepare_spawn(engine: &mut OciEngine, launch: &mut LaunchConfig) -> Result<SpawnRequest> {
    let Some(plan) = &engine.plan else { bail!("the oci engine was not prepared") };
    if let Some(placement) = plan.placement.as_ref().filter(|placement| placement.unit().is_none()) {
        let created = if plan.joins_late { placement.begin()? } else { placement.create()? };
        engine.state.note_cgroups(&created);
        engine.cgroup = Some(created);
    }
    if plan.on_host {
        let (root, tree) = HostRoot::new(&launch.bundle.rootfs)?;
        engine.state.host_root = Some(root.clone());
        (engine.host_root, engine.root_tree) = (Some(root), Some(tree));
    }
    launch.engine_state = Some(engine.state.raw()?);
    let cgroup = match &engine.cgroup {
        Some(created) => created.unified_directory()?,
        None => None,
    };
    Ok(SpawnRequest { namespaces: plan.namespaces.clone_flags(), cgroup, ..SpawnRequest::default() })
}

/// The whole construction, in order.
pub fn create(engine: &mut OciEngine, creation: &mut Creation<'_>) -> Result<()> {
    let Some(plan) = &engine.plan else { bail!("the oci engine was not prepared") };
    let Some(Stage2 { init, rpc }) = &mut creation.stage2 else { bail!("the oci engine needs a stage2") };
    let launch = creation.launch;
    if plan.notifies {
        creation.state.make_notify_directory()?;
    }
    if plan.namespaces.moves() {
        let mut batch = Batch::default();
        plan.namespaces.join(&mut batch)?;
        follow_move(batch, init, rpc)?;
    }
    if plan.namespaces.makes(libc::CLONE_NEWUSER) {
        plan.namespaces.write_id_maps(init.pid)?;
    }
    let mut batch = Batch::default();
    let mut around = surroundings(plan, launch, init.pid);
    let early = if plan.joins_late { plan.mounts_before_cgroups() } else { 0 };
    if !plan.joins_late {
        prepare_cgroups(plan, &mut engine.cgroup, launch, init.pid)?;
        join_cgroups(engine, &mut batch)?;
    }
    let mark = trace::span("ask for namespaces and mounts");
    enter_namespaces(plan, launch, &mut batch)?;
    open_root(plan, launch, &mut batch, engine.root_tree.take())?;
    plan.mounts[..early].iter().try_for_each(|mount| mount.add(&mut batch, rpc, &mut around))?;
    let has_dev = plan.joins_late && plan.mounts() && !plan.has_mounts_before_devices(early);
    if has_dev {
        prepare_dev(plan, &mut batch, rpc)?;
    }
    drop(mark);
    if plan.joins_late {
        // stage2 does that while the cgroups are made.
        rpc.send_ahead(std::mem::take(&mut batch))?;
        let _mark = trace::span("make the cgroups");
        settle_cgroups(plan, engine.cgroup.as_mut(), &mut engine.state, (creation.record, creation.recording))?;
        prepare_cgroups(plan, &mut engine.cgroup, launch, init.pid)?;
        join_cgroups(engine, &mut batch)?;
    }
    // It shows what its maker is in.
    plan.namespaces.make_of_cgroups(&mut batch);
    let devices = &plan.network.devices;
    if !devices.is_empty() && plan.namespaces.makes_late(libc::CLONE_NEWNET) {
        // stage2 makes it, and may not have come so far.
        rpc.send(std::mem::take(&mut batch))?;
        rpc.drain()?;
    }
    if !devices.is_empty() {
        engine.network = Some(network::Moved::new(devices, &plan.namespaces.network(init.pid))?);
    }
    let mark = trace::span("ask for more mounts and devices");
    around.show(&shown_cgroups(plan, engine)?);
    plan.mounts[early..].iter().try_for_each(|mount| mount.add(&mut batch, rpc, &mut around))?;
    if plan.mounts() && !has_dev {
        prepare_dev(plan, &mut batch, rpc)?;
    }
    add_console(plan, launch, &mut batch);
    let apply_limits = || match &engine.cgroup {
        Some(created) => {
            let _mark = trace::span("limits");
            created.apply_limits(&plan.resources)
        }
        None => Ok(()),
    };
    let state = if plan.hooks.create_container.is_empty() {
        String::new()
    } else {
        hooks::creation_state(creation.record, init_pid_in_container(plan))?
    };
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

/// Makes the cgroups of v1. Which of them were there before goes into the record at once where hooks are to run, which may take
/// their time; otherwise with the next that is known, the process, before long.
fn settle_cgroups(
    plan: &Plan,
    cgroup: Option<&mut Created>,
    state: &mut EngineState,
    (record, recording): (&mut Record, &mut Recording),
) -> Result<()> {
    let (Some(created), Some(placement)) = (cgroup, &plan.placement) else { return Ok(()) };
    if !created.has_begun() {
        return Ok(());
    }
    created.go_on(placement)?;
    state.note_cgroups(created);
    record.engine_state = Some(state.raw()?);
    if plan.hooks.has_any() { recording.add(record) } else { Ok(()) }
}

/// What has to be done with the cgroups before the first process joins; systemd makes those that it is to make around it.
fn prepare_cgroups(plan: &Plan, cgroup: &mut Option<Created>, launch: &LaunchConfig, init: i32) -> Result<()> {
    if let Some(resctrl) = &plan.resctrl {
        resctrl.apply(init)?;
    }
    if let Some(placement) = &plan.placement {
        cgroups::start_unit(placement, launch, init, &plan.resources, cgroup)?;
    }
    let Some(created) = cgroup else { return Ok(()) };
    created.apply_device_rules(&plan.resources)?;
    cgroup::owner(&launch.bundle.spec).map_or(Ok(()), |uid| created.delegate(uid))
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

fn enter_namespaces(plan: &Plan, launch: &LaunchConfig, batch: &mut Batch) -> Result<()> {
    if !plan.namespaces.moves() {
        plan.namespaces.join(batch)?;
    }
    plan.namespaces.make_of_clocks(batch);
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

fn join_cgroups(engine: &OciEngine, batch: &mut Batch) -> Result<()> {
    if let Some(created) = &engine.cgroup {
        let tasks = created.task_files()?.into_iter().map(|file| batch.fd(file)).collect();
        batch.push(Operation::JoinCgroups { tasks, keep_affinity: false });
    }
    Ok(())
}

fn open_root(plan: &Plan, launch: &LaunchConfig, batch: &mut Batch, host_tree: Option<OwnedFd>) -> Result<()> {
    let (mount, on_host) = (plan.mounts(), plan.on_host);
    if mount && !on_host {
        batch.push(Operation::Isolate { propagation: libc::MS_SLAVE | MS_REC });
    }
    // A slave hears of the host's later mounts and tells it nothing. Where the bundle asks for another propagation the
    // root starts without any, so that what is mounted in it while it is built stays in it.
    let root_propagation = match own_propagation(&launch.bundle.spec) {
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
    Ok(())
}

fn add_console(plan: &Plan, launch: &LaunchConfig, batch: &mut Batch) {
    if launch.oci_config.process.terminal {
        let size = launch.bundle.spec.process().as_ref().and_then(|process| process.console_size());
        batch.push(process::open_console(size, plan.mounts(), launch.options.relays()));
    }
}

fn surroundings(plan: &Plan, launch: &LaunchConfig, init: i32) -> mounts::Surroundings {
    mounts::Surroundings {
        privileged: plan.privileged,
        clones: plan.clones(),
        cgroup_namespace: plan.namespaces.has(libc::CLONE_NEWCGROUP),
        unified: mounts::Unified::new(&plan.namespaces, plan.privileged),
        // With a shared root the container's mounts are meant to reach the host where the host's are shared.
        propagation: match own_propagation(&launch.bundle.spec) {
            None => libc::MS_SLAVE,
            Some(libc::MS_SHARED) => 0,
            Some(wanted) => wanted,
        },
        cgroups: Vec::new(),
        pure_v2: false,
        user_namespaces: UserNamespaces::new(plan.namespaces.user_namespace(init)),
    }
}

/// The cgroups that the container's mounts show, if one of them shows any.
fn shown_cgroups(plan: &Plan, engine: &OciEngine) -> Result<Placement> {
    match plan.mounts.iter().any(mounts::Plan::is_cgroup) {
        true => cgroups::membership(plan.placement.as_ref(), engine),
        false => Ok(Placement::default()),
    }
}

fn prepare_dev(plan: &Plan, batch: &mut Batch, rpc: &mut RpcClient) -> Result<()> {
    let is_hosts = plan.mounts.iter().any(mounts::Plan::is_bind_on_dev);
    if !is_hosts {
        devices::add(&plan.devices, batch, rpc, plan.user_namespace() && plan.clones())?;
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

/// The same, of the root alone.
fn own_propagation(spec: &Spec) -> Option<u64> {
    propagation(spec).map(|flags| flags & !MS_REC)
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
    // After the hooks, which may mount what it is on, and bring the network's devices.
    let cwd = mounts::relative(std::path::Path::new(&launch.oci_config.process.cwd));
    if mount && !cwd.is_empty() {
        batch.push(Operation::Directory { path: cwd, mode: 0o755 });
    }
    let linux = spec.linux().as_ref();
    if let Some(sysctl) = linux.and_then(|linux| linux.sysctl().as_ref()).filter(|sysctl| !sysctl.is_empty()) {
        let entries = sysctl.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        batch.push(Operation::Sysctl { entries });
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
            let with_what_is_below = |path: String| {
                // A hook may mount whatever it likes.
                let is_lone = !plan.hooks.has_any() && mounts::has_none_below(&plan.mounts, &path);
                (path, is_lone)
            };
            batch.push(Operation::ReadonlyPaths { paths: paths.into_iter().map(with_what_is_below).collect() });
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
