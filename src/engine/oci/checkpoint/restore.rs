//! `restore`: from images to a running container.

use super::external::{self, NULL};
use super::session::{self, Launch, Notification, Session, Version};
use super::{
    DESCRIPTORS, Directories, OLDEST, add_common, configuration_file, log, open_directory, owners, refuse_net_devices,
    refuse_rootless,
};
use crate::engine::checkpoint::{RestoreRequest, Restored};
use crate::engine::oci::engine::OciEngine;
use crate::engine::oci::hooks::CreationHooks;
use crate::engine::oci::{cgroup, cgroups};
use crate::engine::{Creation, InitProcess, live};
use crate::state::{ProcessIdentity, StateDir};
use crate::sys::process::pidfd_open;
use crate::sys::{On, errno_of, fd};
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use protobuf::MessageField;
use rust_criu::rust_criu_protobuf::rpc::{Cgroup_root, Criu_opts, Criu_req_type, Inherit_fd, Join_namespace};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const LOG: &str = "restore.log";
/// Where CRIU finds the root file system, in the state directory: it has to be a mount, on one that nothing covers.
const ROOT: &str = "criu-root";
/// The first that does not spoil what it is told of security modules.
const KEEPS_LABELS: Version = Version(3, 16);
/// Above the standard streams of whoever executes criu.
const FIRST: i32 = 10;

/// Makes the container from its images. It runs when this returns.
///
/// # Errors
/// Why it could not be made, in CRIU's own words.
pub fn restore(engine: &mut OciEngine, creation: &mut Creation<'_>, request: &RestoreRequest) -> Result<Restored> {
    refuse_rootless("restore")?;
    let criu = &request.criu;
    let version = session::version(&criu.program, OLDEST)?;
    if version < KEEPS_LABELS && (request.lsm_profile.is_some() || request.lsm_mount_context.is_some()) {
        bail!("CRIU {version} is too old for --lsm-profile and --lsm-mount-context: install {KEEPS_LABELS} or later");
    }
    let launch = creation.launch;
    let spec = &launch.bundle.spec;
    refuse_net_devices(spec)?;
    open_directory(&criu.images)?;
    owners::give(&criu.images, spec)?;
    external::make_mount_points(spec, &launch.bundle.directory, &launch.bundle.rootfs)?;
    let root = RootDirectory::make(&launch.root.join(&launch.id).join(ROOT))?;
    let mut options = Criu_opts::new();
    options.set_root(root.path.display().to_string());
    options.set_rst_sibling(true);
    options.set_evasive_devices(true);
    // The newer way of making mounts does not restore the devices, which are binds of one file system there.
    options.mntns_compat_mode = external::has_user_namespace(spec).then_some(true);
    options.lsm_profile.clone_from(&request.lsm_profile);
    options.lsm_mount_context.clone_from(&request.lsm_mount_context);
    options.config_file = configuration_file(spec);
    let mut keep = Vec::new();
    add_namespaces(&mut options, spec, &mut keep)?;
    add_streams(&mut options, &criu.images, &mut keep)?;
    // CRIU mounts something in its work directory, so that must be of its own mount namespace, too.
    let (directories, session) = session::with_mount(&launch.bundle.rootfs, &root.path, || {
        let directories = Directories::open(criu, LOG)?;
        Ok((directories, Session::start(&criu.program, Launch { keep, stdin: true })?))
    })?;
    add_common(&mut options, criu, &directories, LOG);
    make_cgroups(engine, creation, session.pid())?;
    add_cgroups(&mut options, engine, session.pid())?;
    add_mounts(&mut options, engine, creation)?;
    converse(session, options, engine, creation, &directories)
}

fn converse(
    session: Session,
    options: Criu_opts,
    engine: &OciEngine,
    creation: &mut Creation<'_>,
    directories: &Directories,
) -> Result<Restored> {
    let Some(plan) = &engine.plan else { bail!("the oci engine was not prepared") };
    let mut request = session::request(Criu_req_type::RESTORE);
    request.opts = MessageField::some(options);
    let mut console = None;
    let mut notify = |notification: Notification| heed(notification, &plan.hooks, creation, &mut console);
    let why =
        |printed: &str| format!("criu cannot restore the container: {}", log::last_words(&directories.log, printed));
    let response = session.serve(&request, &mut notify, &why)?;
    let pid = response.restore.pid();
    let pidfd = pidfd_open(pid).on("pidfd_open", pid)?;
    Ok(Restored { init: InitProcess { pid, pidfd }, console })
}

/// What has to be done at the moments that CRIU tells of.
fn heed(
    notification: Notification,
    hooks: &CreationHooks,
    creation: &mut Creation<'_>,
    console: &mut Option<OwnedFd>,
) -> Result<()> {
    let Notification { script, pid, mut fds } = notification;
    match script.as_str() {
        "setup-namespaces" => hooks.run_for(creation.record, pid, &creation.launch.bundle.directory),
        // Its processes are there and do not run yet. If this command ends now, `delete --force` has to know them.
        "post-restore" => {
            creation.record.init = Some(ProcessIdentity::of(pid).on("look at", format_args!("process {pid}"))?);
            creation.recording.add(creation.record)
        }
        "orphan-pts-master" => {
            *console = fds.pop();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An empty directory that is removed with this value. What is mounted there is so in criu's mount namespace alone.
struct RootDirectory {
    path: PathBuf,
}

impl RootDirectory {
    fn make(path: &Path) -> Result<Self> {
        std::fs::create_dir(path).map_err(|error| errno_of(&error)).on("mkdir", path.display())?;
        // CRIU compares it with what the kernel shows.
        let path = std::fs::canonicalize(path).map_err(|error| errno_of(&error)).on("resolve", path.display())?;
        Ok(Self { path })
    }
}

impl Drop for RootDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn add_namespaces(options: &mut Criu_opts, spec: &Spec, keep: &mut Vec<OwnedFd>) -> Result<()> {
    for (kind, path) in external::joined(spec) {
        if let Some((_, key)) = external::namespace_names(kind) {
            let namespace =
                open(&path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).on("open", path.display())?;
            inherit(options, keep, key, &namespace)?;
            continue;
        }
        let name = match kind {
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::Uts => "uts",
            LinuxNamespaceType::User => "user",
            LinuxNamespaceType::Mount => "mnt",
            LinuxNamespaceType::Time => "time",
            _ => bail!("CRIU does not restore into a {kind} namespace that is there already: {}", path.display()),
        };
        let mut join = Join_namespace::new();
        join.set_ns(name.to_owned());
        join.set_ns_file(path.display().to_string());
        options.join_ns.push(join);
    }
    Ok(())
}

/// The pipes that were init's standard streams become this command's streams.
fn add_streams(options: &mut Criu_opts, images: &Path, keep: &mut Vec<OwnedFd>) -> Result<()> {
    let path = images.join(DESCRIPTORS);
    let bytes = std::fs::read(&path).map_err(|error| errno_of(&error)).on("read", path.display());
    let bytes = bytes.context("these are not the images of a container's checkpoint")?;
    let streams: Vec<String> =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    let own = [std::io::stdin().as_raw_fd(), std::io::stdout().as_raw_fd(), std::io::stderr().as_raw_fd()];
    for (name, number) in streams.iter().zip(own).filter(|(name, _)| name.contains("pipe:")) {
        let stream = fd::inherited_duplicate(number).on("duplicate", format_args!("descriptor {number}"))?;
        inherit(options, keep, name, &stream)?;
    }
    Ok(())
}

fn inherit(options: &mut Criu_opts, keep: &mut Vec<OwnedFd>, key: &str, file: &OwnedFd) -> Result<()> {
    let copy = fd::duplicate_above(file, FIRST).on("duplicate", key)?;
    let mut entry = Inherit_fd::new();
    entry.set_key(key.to_owned());
    entry.set_fd(copy.as_raw_fd());
    options.inherit_fd.push(entry);
    keep.push(copy);
    Ok(())
}

fn add_mounts(options: &mut Criu_opts, engine: &OciEngine, creation: &Creation<'_>) -> Result<()> {
    let bundle = &creation.launch.bundle;
    let linux = bundle.spec.linux().as_ref();
    let membership = cgroup::membership(engine.cgroup.as_ref().map(cgroup::Created::placement))?;
    for mount in external::list(&bundle.spec, &bundle.directory, &bundle.rootfs, &membership)? {
        external::add(options, &mount.destination, &mount.source.display().to_string());
    }
    // Where the images have no such mount, nobody asks for this one.
    creation.state.make_notify_directory()?;
    let notify = StateDir::notify_directory(&creation.launch.root, &creation.launch.id)?;
    external::add(options, &external::notify_directory(&bundle.rootfs), &notify.display().to_string());
    if linux.is_some_and(|linux| linux.masked_paths().as_ref().is_some_and(|paths| !paths.is_empty())) {
        external::add(options, NULL, NULL);
    }
    Ok(())
}

/// Those of systemd's are made around a process: criu itself.
fn make_cgroups(engine: &mut OciEngine, creation: &mut Creation<'_>, pid: i32) -> Result<()> {
    let Some(plan) = &engine.plan else { bail!("the oci engine was not prepared") };
    if let Some(resctrl) = &plan.resctrl {
        resctrl.apply(pid)?;
    }
    let Some(placement) = &plan.placement else { return Ok(()) };
    if placement.unit().is_none() {
        let created = live::create_cgroups(placement, &mut creation.record.engine_state)?;
        engine.state.note_cgroups(&created);
        engine.cgroup = Some(created);
        creation.recording.add(creation.record)?;
    }
    cgroups::start_unit(placement, creation.launch, pid, &plan.resources, &mut engine.cgroup)?;
    let Some(created) = &engine.cgroup else { return Ok(()) };
    created.apply_device_rules(&plan.resources)?;
    cgroup::owner(&creation.launch.bundle.spec).map_or(Ok(()), |uid| created.delegate(uid))?;
    created.attach(pid)?;
    created.apply_limits(&plan.resources)
}

/// The processes are born in the cgroups that criu is in. In the images are those that they were in: CRIU is told which
/// are theirs now.
fn add_cgroups(options: &mut Criu_opts, engine: &OciEngine, pid: i32) -> Result<()> {
    let Some(created) = &engine.cgroup else { return Ok(()) };
    if created.placement().is_pure_v2() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/cgroup");
    let lines = std::fs::read_to_string(&path).map_err(|error| errno_of(&error)).on("read", &path)?;
    for line in lines.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        for controller in controllers.split(',') {
            let mut root = Cgroup_root::new();
            root.set_ctrl(controller.to_owned());
            root.set_path(path.to_owned());
            options.cg_root.push(root);
        }
    }
    Ok(())
}
