//! What can be decided about a container before anything of it exists.

use super::cgroup::Placement;
use super::hooks::{self, CreationHooks};
use super::{cgroups, devices, mounts, namespaces, network, process, resctrl, seccomp};
use crate::config::envelope::{OciConfig, Starter};
use crate::engine::LaunchConfig;
use crate::rpc::operation::DeviceOperation;
use crate::state::StateDir;
use crate::sys::caps;
use anyhow::{Result, bail};
use oci_spec::runtime::{Linux, LinuxResources};
use std::borrow::Cow;

/// All that is to be made and done.
pub struct Plan {
    pub(super) namespaces: namespaces::Plan,
    pub(super) placement: Option<Placement>,
    pub(super) resctrl: Option<resctrl::Plan>,
    pub(super) resources: LinuxResources,
    pub(super) mounts: Vec<mounts::Plan>,
    pub(super) devices: Vec<DeviceOperation>,
    pub(super) network: network::Plan,
    pub(super) hooks: CreationHooks,
    pub(super) privileged: bool,
    /// What is mounted is on the host.
    pub(super) on_host: bool,
    /// stage2 begins before the cgroups of v1 are made, and joins them then.
    pub(super) joins_late: bool,
    /// The container gets a socket for sd_notify(3).
    pub(super) notifies: bool,
}

/// Where a container finds its socket for sd_notify(3), as runc has it.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

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
            is_mapped_by_user: namespaces.maps_as_user(),
            oom_score_adj: process.oom_score_adj(),
            preserve_fds: launch.options.preserve_fds,
            listen_fds: launch.options.listen_fds,
            ..Starter::default()
        };
        let placement = cgroups::plan(launch, linux)?;
        // A process that has become another user than smaster's cannot join by what that has opened, unless that is the host's
        // root (`__cgroup1_procs_write` of the kernel); and systemd makes its cgroups around a process.
        let joins_late = placement.as_ref().is_some_and(|placement| placement.unit().is_none())
            && !(namespaces.has(libc::CLONE_NEWUSER) && crate::state::is_rootless());
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
            joins_late,
            notifies,
        })
    }

    /// Whether smaster hands stage2 clones of the host's mounts. Where it may not, or there are no detached mounts, stage2
    /// is told the paths.
    pub(super) fn clones(&self) -> bool {
        self.privileged && !crate::sys::mount::is_classic()
    }

    /// Whether anything can be mounted.
    pub(super) fn mounts(&self) -> bool {
        self.on_host || self.namespaces.has(libc::CLONE_NEWNS)
    }

    /// How many of the mounts may be made before the cgroups are.
    pub(super) fn mounts_before_cgroups(&self) -> usize {
        let places = self.placement.as_ref().map_or(&[][..], |placement| &placement.places);
        self.mounts.iter().take_while(|mount| mount.is_independent_of_cgroups(places)).count()
    }

    /// Whether one of the mounts from `first` on has to be there before the devices are made.
    pub(super) fn has_mounts_before_devices(&self, first: usize) -> bool {
        !self.mounts[first..].iter().all(|mount| mount.is_apart_from(&self.devices))
    }

    pub fn makes_pid_namespace(&self) -> bool {
        self.namespaces.makes(libc::CLONE_NEWPID)
    }

    pub(super) fn user_namespace(&self) -> bool {
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
