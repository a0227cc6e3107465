//! `checkpoint`: from a running container to images.

use super::external::{self, NULL};
use super::session::{self, Launch, Notification, Session, Version};
use super::{
    DESCRIPTORS, Directories, OLDEST, add_common, configuration_file, init_pid, log, refuse_net_devices,
    refuse_rootless,
};
use crate::engine::checkpoint::CheckpointRequest;
use crate::engine::live::engine_state;
use crate::engine::oci::cgroup::{self, Placement};
use crate::engine::{Container, live};
use crate::sys::{On, dir, errno_of};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use protobuf::MessageField;
use rust_criu::rust_criu_protobuf::rpc::{Criu_features, Criu_opts, Criu_page_server_info, Criu_req_type};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const LOG: &str = "dump.log";
/// The first that freezes a cgroup v2.
const FREEZES_V2: Version = Version(3, 14);

/// Saves the container.
///
/// # Errors
/// Why it could not be saved, in CRIU's own words. It runs on then.
pub fn checkpoint(container: &Container, request: &CheckpointRequest) -> Result<()> {
    refuse_rootless("checkpoint")?;
    let criu = &request.criu;
    let version = session::version(&criu.program, OLDEST)?;
    check_features(request)?;
    let spec = container.spec()?;
    refuse_net_devices(spec)?;
    let pid = init_pid(container)?;
    super::make_directory(&criu.images)?;
    let directories = Directories::open(criu, LOG)?;
    let mut options = Criu_opts::new();
    add_common(&mut options, criu, &directories, LOG);
    options.set_pid(pid);
    options.set_root(container.record.rootfs.display().to_string());
    options.set_leave_running(request.leave_running);
    options.set_link_remap(request.link_remap);
    options.set_tcp_skip_in_flight(request.tcp_skip_in_flight);
    options.config_file = configuration_file(spec);
    add_parent_and_pages(&mut options, request)?;
    add_namespaces(&mut options, spec)?;
    let placement = engine_state(container)?.cgroup;
    options.freeze_cgroup = placement.as_ref().and_then(|placement| freezer(placement, version));
    let kind = if request.pre_dump { Criu_req_type::PRE_DUMP } else { Criu_req_type::DUMP };
    if !request.pre_dump {
        add_mounts(&mut options, spec, container, placement.as_ref(), pid)?;
        save_descriptors(container, pid, &criu.images)?;
    }
    let mut criu_request = session::request(kind);
    criu_request.opts = MessageField::some(options);
    let why =
        |printed: &str| format!("criu cannot checkpoint the container: {}", log::last_words(&directories.log, printed));
    let mut notify = |notification: Notification| tell_status(&notification, request);
    Session::start(&criu.program, Launch::default())?.serve(&criu_request, &mut notify, &why).map(drop)
}

/// What a kernel may lack.
fn check_features(request: &CheckpointRequest) -> Result<()> {
    let mut asked = Criu_features::new();
    if request.pre_dump || request.parent.is_some() {
        asked.set_mem_track(true);
    }
    if request.criu.lazy_pages {
        asked.set_lazy_pages(true);
    }
    if asked == Criu_features::new() {
        return Ok(());
    }
    let found = session::features(&request.criu.program, asked.clone())?;
    if asked.mem_track() && !found.mem_track() {
        bail!(
            "this kernel does not track changes of memory (CONFIG_MEM_SOFT_DIRTY), which --pre-dump and --parent-path need"
        );
    }
    if asked.lazy_pages() && !found.lazy_pages() {
        bail!("this kernel's userfaultfd does not serve --lazy-pages, as criu says");
    }
    Ok(())
}

fn add_parent_and_pages(options: &mut Criu_opts, request: &CheckpointRequest) -> Result<()> {
    if let Some(parent) = &request.parent {
        let path = request.criu.images.join(parent);
        if !path.is_dir() {
            bail!("--parent-path: {} is not a directory of images", path.display());
        }
        options.set_parent_img(parent.display().to_string());
    }
    if request.pre_dump || request.parent.is_some() {
        options.set_track_mem(true);
    }
    if let Some((address, port)) = &request.page_server {
        let mut server = Criu_page_server_info::new();
        server.set_address(address.clone());
        server.set_port(i32::from(*port));
        options.ps = MessageField::some(server);
    }
    Ok(())
}

/// A joined network or pid namespace is not the container's to save.
fn add_namespaces(options: &mut Criu_opts, spec: &Spec) -> Result<()> {
    for (kind, path) in external::joined(spec) {
        if let Some((name, key)) = external::namespace_names(kind) {
            let inode = std::fs::metadata(&path).map_err(|error| errno_of(&error)).on("stat", path.display())?.ino();
            options.external.push(format!("{name}[{inode}]:{key}"));
        }
    }
    Ok(())
}

/// The directory by which CRIU stops the container; without one it stops each process by ptrace(2).
fn freezer(placement: &Placement, version: Version) -> Option<String> {
    let v2 = placement.unified().filter(|_| version >= FREEZES_V2);
    let place = placement.v1("freezer").or(v2)?;
    Some(place.directory().display().to_string())
}

fn add_mounts(
    options: &mut Criu_opts,
    spec: &Spec,
    container: &Container,
    placement: Option<&Placement>,
    pid: i32,
) -> Result<()> {
    let linux = spec.linux().as_ref();
    let membership = cgroup::membership(placement)?;
    let record = &container.record;
    for mount in external::list(spec, &record.bundle, &record.rootfs, &membership)? {
        external::add(options, &mount.destination, &mount.destination);
    }
    if container.state.has_notify_directory() {
        let notify = external::notify_directory(&record.rootfs);
        external::add(options, &notify, &notify);
    }
    let masked = linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
    for path in masked {
        let inside = format!("/proc/{pid}/root/{}", path.trim_start_matches('/'));
        // A masked directory has a tmpfs of its own.
        if std::fs::symlink_metadata(inside).is_ok_and(|found| !found.is_dir()) {
            external::add(options, path, NULL);
        }
    }
    Ok(())
}

/// Notes what init's standard streams are. Whoever restores it has other pipes.
fn save_descriptors(container: &Container, pid: i32, images: &Path) -> Result<()> {
    let streams: Vec<String> = (0..3)
        .map(|number| std::fs::read_link(format!("/proc/{pid}/fd/{number}")))
        .map(|link| link.map(|target| target.display().to_string()).unwrap_or_default())
        .collect();
    let inner = inner_pipes(&live::processes(container)?, &streams);
    let streams: Vec<&str> =
        streams.iter().map(|stream| if inner.contains(stream) { "" } else { stream.as_str() }).collect();
    let path = images.join(DESCRIPTORS);
    std::fs::write(&path, serde_json::to_vec(&streams)?)
        .map_err(|error| errno_of(&error))
        .on("write", path.display())
        .context("--image-path")
}

/// Those of the streams that are pipes between the container's own processes: both ends are in it.
fn inner_pipes(pids: &[i32], streams: &[String]) -> Vec<String> {
    const WRITE_ONLY: u32 = libc::O_WRONLY as u32;
    let mut ends: Vec<(String, bool)> = Vec::new();
    for pid in pids {
        let directory = PathBuf::from(format!("/proc/{pid}/fd"));
        for entry in dir::entries(&directory).unwrap_or_default() {
            let Ok(target) = std::fs::read_link(directory.join(&entry.name)) else { continue };
            let target = target.display().to_string();
            if !target.starts_with("pipe:") || !streams.contains(&target) {
                continue;
            }
            let info = format!("/proc/{pid}/fdinfo/{}", entry.name.display());
            let info = std::fs::read_to_string(info).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default().trim();
            let flags = u32::from_str_radix(flags, 8).unwrap_or_default();
            ends.push((target, flags & libc::O_ACCMODE as u32 == WRITE_ONLY));
        }
    }
    let has = |stream: &String, end: bool| ends.contains(&(stream.clone(), end));
    streams.iter().filter(|stream| has(stream, true) && has(stream, false)).cloned().collect()
}

/// `--status-fd`: whoever reads from it may now ask for the pages.
fn tell_status(notification: &Notification, request: &CheckpointRequest) -> Result<()> {
    if let (Some(status), "status-ready") = (&request.status, notification.script.as_str()) {
        nix::unistd::write(status, &[0]).on("write to", "--status-fd")?;
    }
    Ok(())
}
