//! What libcontainer 0.7 would leave out or do otherwise without a word. This engine says so instead.

use super::PROVIDER;
use crate::config::mount_options;
use crate::engine::{FeatureNotSupported, LaunchOptions};
use anyhow::Result;
use libcgroups::common::DEFAULT_CGROUP_ROOT;
use libcgroups::v1::util::list_supported_mount_points;
use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, Mount, Process, Spec};
use std::path::{Component, Path, PathBuf};

/// Options of a bind mount that it drops.
const DROPPED: &[&str] = &[
    "sync",
    "remount",
    "suid",
    "dev",
    "exec",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "unbindable",
    "runbindable",
];

/// What may be mounted over in /proc; libcontainer allows anything, and so a way around the masks (CVE-2019-16884).
const REPLACEABLE_IN_PROC: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Refuses a configuration that libcontainer would not do as it says.
///
/// # Errors
/// Everything that is refused, by its JSON pointer.
pub fn check(id: &str, spec: &Spec, options: &LaunchOptions) -> Result<()> {
    let mut refused = Vec::new();
    if options.no_cgroup {
        refused.push("containers without cgroups".to_owned());
    }
    let cgroup = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    refused.extend(unsafe_cgroup(&cgroup.unwrap_or_else(|| format!(":youki:{id}").into())));
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        refused
            .extend(dropped_options(mount).map(|option| format!("/mounts/{index}/options {option:?} of a bind mount")));
        refused.extend(own_mounts(mount).map(|what| format!("/mounts/{index}: {what}")));
        in_mount(index, mount, &mut refused);
    }
    if let Some(linux) = spec.linux() {
        in_linux(linux, &mut refused);
    }
    if let Some(process) = spec.process() {
        in_process(process, options, &mut refused);
        let seccomp = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        if seccomp && process.no_new_privileges() == Some(false) {
            refused.push("/process/noNewPrivileges false with /linux/seccomp: leave it out".to_owned());
        }
    }
    refuse(&refused)
}

/// The same for a process that joins the container that `spec` describes. libcontainer lets it out of the container's
/// seccomp filter and leaves it in the caller's user namespace.
///
/// # Errors
/// As [`check`].
pub fn check_process(process: &Process, spec: &Spec, options: &LaunchOptions) -> Result<()> {
    let mut refused = Vec::new();
    in_process(process, options, &mut refused);
    if let Some(linux) = spec.linux() {
        if linux.seccomp().is_some() {
            refused.push("exec where there is /linux/seccomp".to_owned());
        }
        let namespaces = linux.namespaces().iter().flatten();
        if namespaces.clone().any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
            refused.push("exec where /linux/namespaces has a user namespace".to_owned());
        }
    }
    refuse(&refused)
}

/// What is done otherwise than the configuration says, and in which no harm lies for those who know.
pub fn warnings(spec: &Spec) -> Vec<String> {
    let cgroup_v1 = !list_supported_mount_points().unwrap_or_default().is_empty();
    let read_only = |mount: &Mount| mount.options().iter().flatten().any(|option| option == "ro");
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts
        .filter(|(_, mount)| cgroup_v1 && mount.typ().as_deref() == Some("cgroup") && read_only(mount))
        .map(|(index, _)| {
            format!("/mounts/{index}: libcontainer leaves the cgroup v1 hierarchies in it writable, and the whole one of systemd visible")
        })
        .collect()
}

/// libcontainer kills every process of the container's cgroups before it removes them, when it deletes and when a
/// creation fails, and never asks whose they are. With no path it takes the caller's own cgroups for the container's; with
/// `..` it leaves the hierarchy. So there must be a directory below the hierarchy's root, and nobody in it.
fn unsafe_cgroup(path: &Path) -> Option<String> {
    let below: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if below.as_os_str().is_empty() || path.components().any(|part| part == Component::ParentDir) {
        return Some(format!(
            "/linux/cgroupsPath {:?}: name a directory below the hierarchy's root, without \"..\"",
            path
        ));
    }
    let mut hierarchies = list_supported_mount_points().unwrap_or_default().into_values().collect::<Vec<_>>();
    hierarchies.push(DEFAULT_CGROUP_ROOT.into());
    let in_use = hierarchies.into_iter().map(|mount| mount.join(&below)).find(|directory| {
        std::fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|processes| !processes.is_empty())
    })?;
    Some(format!("/linux/cgroupsPath: {} has processes, which libcontainer would kill", in_use.display()))
}

fn refuse(refused: &[String]) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    Err(FeatureNotSupported { engine: PROVIDER.name, feature: refused.join(", ").into() }.into())
}

/// What only rtx's own mounts can: maps for the ids of a mount, and crun's options for symbolic links.
fn own_mounts(mount: &Mount) -> Option<&'static str> {
    let options = mount_options::parse(mount.options().iter().flatten().map(String::as_str));
    let maps = mount.uid_mappings().iter().chain(mount.gid_mappings()).any(|maps| !maps.is_empty());
    let links = options.copy_symlink || options.src_nofollow || options.dest_nofollow;
    match (maps || options.idmap.is_some(), links) {
        (true, _) => Some("an idmapped mount"),
        (_, true) => Some("copy-symlink, src-nofollow and dest-nofollow"),
        _ => None,
    }
}

fn dropped_options(mount: &Mount) -> impl Iterator<Item = &String> {
    let options = mount.options().iter().flatten();
    let is_bind = options.clone().any(|option| option == "bind" || option == "rbind");
    options.filter(move |option| is_bind && DROPPED.contains(&option.as_str()))
}

fn in_mount(index: usize, mount: &Mount, refused: &mut Vec<String>) {
    let mut clean = PathBuf::new();
    for part in mount.destination().components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let below_proc = clean.strip_prefix("proc").ok();
    let is_proc = mount.typ().as_deref() == Some("proc");
    if let Some(below) = below_proc.filter(|below| {
        let replaceable = REPLACEABLE_IN_PROC.iter().any(|file| below == &Path::new(file));
        !(replaceable || is_proc && below.as_os_str().is_empty())
    }) {
        refused.push(format!("/mounts/{index}/destination: a mount over {}", Path::new("/proc").join(below).display()));
    }
    // It makes the device nodes after the mount, and so leaves out "ro".
    if clean == Path::new("dev") && mount.options().iter().flatten().any(|option| option == "ro") {
        refused.push(format!("/mounts/{index}/options \"ro\" of /dev"));
    }
}

fn in_linux(linux: &Linux, refused: &mut Vec<String>) {
    let memory = linux.resources().as_ref().and_then(|resources| resources.memory().as_ref());
    if memory.is_some_and(|memory| memory.disable_oom_killer() == Some(true)) {
        refused.push("/linux/resources/memory/disableOOMKiller".to_owned());
    }
    // Without a rule for all devices at the start, those that no rule names stay allowed, as they are in a new cgroup.
    let devices = linux.resources().as_ref().and_then(|resources| resources.devices().as_ref());
    if !devices.and_then(|rules| rules.first()).is_some_and(is_for_all_devices) {
        refused.push(
            "/linux/resources/devices without a first rule for all devices, as {\"allow\": false, \"access\": \"rwm\"}"
                .to_owned(),
        );
    }
    let pids = linux.resources().as_ref().and_then(|resources| resources.pids().as_ref());
    if pids.is_some_and(|pids| pids.limit() == 0) {
        refused.push("/linux/resources/pids/limit 0".to_owned());
    }
    if let Some(propagation) =
        linux.rootfs_propagation().as_deref().filter(|p| ["rshared", "rslave", "rprivate"].contains(p))
    {
        refused.push(format!("/linux/rootfsPropagation {propagation:?}: leave out the \"r\""));
    }
    // It moves devices one by one and leaves those that it has moved where they are when another cannot be.
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        refused.push("/linux/netDevices".to_owned());
    }
    for (pointer, maps) in [("uidMappings", linux.uid_mappings()), ("gidMappings", linux.gid_mappings())] {
        // These it leaves to newuidmap and newgidmap, whose failure it does not look at.
        if maps.as_ref().is_some_and(|maps| maps.len() > 1) {
            refused.push(format!("/linux/{pointer} with more than one range"));
        }
    }
}

fn is_for_all_devices(rule: &LinuxDeviceCgroup) -> bool {
    let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
    let access = rule.access().as_deref().unwrap_or("rwm");
    matches!(rule.typ(), None | Some(LinuxDeviceType::A))
        && any(rule.major())
        && any(rule.minor())
        && "rwm".chars().all(|kind| access.contains(kind))
}

fn in_process(process: &Process, options: &LaunchOptions, refused: &mut Vec<String>) {
    let terminal = process.terminal().unwrap_or(false);
    if terminal && options.foreground {
        refused.push("a terminal in the foreground: give --console-socket".to_owned());
    }
    if terminal && process.console_size().is_some_and(|size| size.height() != 0 || size.width() != 0) {
        refused.push("/process/consoleSize".to_owned());
    }
    // It would keep every capability.
    if process.capabilities().is_none() {
        refused.push("an absent /process/capabilities: name the sets, empty ones too".to_owned());
    }
    if process.selinux_label().as_ref().is_some_and(|label| !label.is_empty()) {
        refused.push("/process/selinuxLabel".to_owned());
    }
}
