//! Building a container: what stage1 decides, and the order in which smaster asks stage2 for it.

use super::cgroup::{self, Placement};
use super::engine::OciEngine;
use super::hooks::{self, CreationHooks};
use super::host_root::HostRoot;
use super::idmap::UserNamespaces;
use super::{cgroups, devices, mounts, namespaces, network, process, resctrl, seccomp, sources};
use crate::config::envelope::{OciConfig, Starter};
use crate::engine::live;
use crate::engine::{Creation, InitProcess, LaunchConfig, SpawnRequest, launch::Stage2};
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::{DeviceOperation, EnterRoot, Operation, RootOperation};
use crate::state::StateDir;
use crate::sys::mount::{Attributes, attr};
use crate::sys::process::{pidfd_open, wait};
use crate::sys::{On, caps};
use crate::trace;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Linux, LinuxResources, LinuxSeccomp, Spec};
use std::borrow::Cow;
use std::os::fd::OwnedFd;

/// Everything about one container that can be decided before anything of it exists.
pub struct Plan {
    namespaces: namespaces::Plan,
    pub placement: Option<Placement>,
    pub resctrl: Option<resctrl::Plan>,
    pub(super) resources: LinuxResources,
    mounts: Vec<mounts::Plan>,
    devices: Vec<DeviceOperation>,
    pub network: network::Plan,
    pub(super) hooks: CreationHooks,
    privileged: bool,
    /// What is mounted is on the host.
    on_host: bool,
    /// The container gets a socket for sd_notify(3).
    notifies: bool,
}

/// Where a container finds its socket for sd_notify(3), as runc has it.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

const MS_REC: u64 = libc::MS_REC;

impl Plan {
    pub fn new(launch: &mut LaunchConfig) -> Result<Self> {
        let spec = launch.bundle.spec.clone();
        let linux = &*spec.linux().as_ref().map_or_else(|| Cow::Owned(no_linux()), Cow::Borrowed);
        let namespaces = namespaces::Plan::new(linux);
        let privileged = caps::has_sys_admin();
        let on_host = mounts_on_host(launch, linux, &namespaces, privileged)?;
        let Some(process) = spec.process() else { bail!("process property must not be empty") };
        let keyring = format!("_ses.{}", launch.id);
        let mut plan = process::plan(process, &launch.options, keyring)?;
        process::add_linux(&mut plan, linux);
        plan.seccomp = linux.seccomp().as_ref().map(seccomp::plan);
        let places = mounts::Places { bundle: &launch.bundle.directory, rootfs: &launch.bundle.rootfs };
        let mut mounts = mounts::plan(spec.mounts().as_deref().unwrap_or_default(), places, linux, privileged)?;
        let notifies = launch.options.notify_socket.is_some() && namespaces.has(libc::CLONE_NEWNS);
        if notifies {
            plan.env.push(NOTIFY_SOCKET.to_owned());
            mounts.push(mounts::notify_directory(StateDir::notify_directory(&launch.root, &launch.id)?));
        } else if launch.options.notify_socket.is_some() {
            launch.warnings.push("without a mount namespace NOTIFY_SOCKET is not passed on".to_owned());
        }
        let start_container = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
        launch.oci_config = OciConfig { process: plan, start_container: hooks::operations(start_container) };
        launch.starter = Starter {
            new_user_namespace: namespaces.makes(libc::CLONE_NEWUSER),
            oom_score_adj: process.oom_score_adj(),
            preserve_fds: launch.options.preserve_fds,
            listen_fds: launch.options.listen_fds,
            ..Starter::default()
        };
        let placement = cgroups::plan(launch, linux)?;
        let network = network::Plan::new(linux, &namespaces, &launch.options)?;
        Ok(Self {
            network,
            namespaces,
            placement,
            resctrl: resctrl::plan(linux.intel_rdt().as_ref(), &launch.id)?,
            resources: linux.resources().clone().unwrap_or_default(),
            mounts,
            devices: devices::plan(linux.devices().as_deref().unwrap_or_default()),
            hooks: CreationHooks::new(&spec),
            privileged,
            on_host,
            notifies,
        })
    }

    /// Whether smaster hands stage2 clones of the host's mounts. Where it may not, or there are no detached mounts, stage2
    /// is told the paths.
    fn clones(&self) -> bool {
        self.privileged && !crate::sys::mount::is_classic()
    }

    /// Whether anything can be mounted.
    fn mounts(&self) -> bool {
        self.on_host || self.namespaces.has(libc::CLONE_NEWNS)
    }

    pub fn makes_pid_namespace(&self) -> bool {
        self.namespaces.makes(libc::CLONE_NEWPID)
    }

    fn user_namespace(&self) -> bool {
        self.namespaces.has(libc::CLONE_NEWUSER)
    }
}

/// A configuration without `linux` asks for nothing that `linux` could say; oci-spec's default asks for much.
pub fn no_linux() -> Linux {
    serde_json::from_str("{}").unwrap_or_default()
}

/// Whether a container mounts something but has no mount namespace of its own.
fn mounts_on_host(
    launch: &LaunchConfig,
    linux: &Linux,
    namespaces: &namespaces::Plan,
    privileged: bool,
) -> Result<bool> {
    if namespaces.has(libc::CLONE_NEWNS) {
        return Ok(false);
    }
    let spec = &launch.bundle.spec;
    let has = |list: Option<usize>| list.is_some_and(|length| length > 0);
    let wanted = [
        ("/mounts", has(spec.mounts().as_ref().map(Vec::len))),
        ("/linux/maskedPaths", has(linux.masked_paths().as_ref().map(Vec::len))),
        ("/linux/readonlyPaths", has(linux.readonly_paths().as_ref().map(Vec::len))),
        ("/linux/devices", has(linux.devices().as_ref().map(Vec::len))),
        ("/root/readonly", spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false))),
    ];
    let Some((pointer, _)) = wanted.iter().find(|(_, wanted)| *wanted) else { return Ok(false) };
    let why_not = if !privileged || namespaces.has(libc::CLONE_NEWUSER) {
        "only the host's root mounts anything on the host"
    } else if launch.bundle.rootfs == std::path::Path::new("/") {
        "what is made for it would cover the root of the host"
    } else {
        return Ok(true);
    };
    bail!("{pointer} needs a mount namespace, as {why_not}: add {{\"type\": \"mount\"}} to /linux/namespaces")
}

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
    if profile(launch).is_none() && !plan.hooks.has_any_at_runtime() {
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
    if let Some(name) = spec.hostname().clone().filter(|name| !name.is_empty()) {
        batch.push(Operation::Hostname { name });
    }
    if let Some(name) = spec.domainname().clone().filter(|name| !name.is_empty()) {
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

fn profile(launch: &LaunchConfig) -> Option<&LinuxSeccomp> {
    launch.bundle.spec.linux().as_ref()?.seccomp().as_ref()
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
    if let Some(profile) = profile(launch) {
        let seccomp::Program { file, length } = seccomp::program(profile, &launch.root)?;
        let fd = batch.fd(file);
        batch.push(Operation::SeccompProgram { fd, length });
    }
    Ok(())
}
