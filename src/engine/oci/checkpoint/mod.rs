//! `checkpoint` and `restore`, through CRIU (criu(8)).
//!
//! CRIU is asked as runc asks it, by `criu swrk` over a socket: its command line takes the same options but hands over
//! neither a restored terminal nor the moments at which hooks run and the record is written. The messages are those of
//! the CRIU project's own crate; its conversation takes no callback with a state, so that is in `session.rs`.

mod dump;
mod external;
mod log;
mod owners;
mod restore;
mod session;

pub use dump::checkpoint;
pub use restore::restore;

use crate::engine::Container;
use crate::engine::checkpoint::{CgroupsMode, CriuOptions};
use crate::sys::{On, errno_of};
use anyhow::{Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;
use rust_criu::rust_criu_protobuf::rpc::{Criu_cg_mode, Criu_opts};
use session::Version;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The first with external network namespaces, 3.11 of 2018.
const OLDEST: Version = Version(3, 11);
/// What the standard streams of init were, so that `restore` can put the caller's in their place. runc's name and form.
const DESCRIPTORS: &str = "descriptors.json";
/// As runc names it: the file of this name says more to CRIU than a command line can.
const CONFIG_ANNOTATION: &str = "org.criu.config";
const CONFIG_FILE: &str = "/etc/criu/runc.conf";
/// CRIU's "debug": what went wrong is seldom in the lines of errors alone.
const LOG_LEVEL: i32 = 4;

/// What an operation has open while CRIU is at work.
struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    log: PathBuf,
}

impl Directories {
    fn open(criu: &CriuOptions, log: &str) -> Result<Self> {
        let images = open_directory(&criu.images)?;
        let work = match &criu.work {
            Some(path) => {
                make_directory(path)?;
                Some(open_directory(path)?)
            }
            None => None,
        };
        let log = criu.work.as_ref().unwrap_or(&criu.images).join(log);
        // That of an earlier attempt would be taken for this one's where CRIU fails before it has one.
        let _ = std::fs::remove_file(&log);
        Ok(Self { images, work, log })
    }
}

fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    Ok(made.map_err(|error| errno_of(&error)).on("mkdir", path.display())?)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(path, flags, Mode::empty()).on("open", path.display())?)
}

/// CRIU reads and writes what belongs to the whole machine.
fn refuse_rootless(what: &str) -> Result<()> {
    if crate::state::is_rootless() {
        bail!("{what} needs the host's root: CRIU saves and restores what a user namespace does not reach");
    }
    Ok(())
}

/// Which version of CRIU there is.
///
/// # Errors
/// Where it is not installed, or is too old.
pub fn criu_version(program: &Path) -> Result<String> {
    session::version(program, OLDEST).map(|version| version.to_string())
}

/// Those are the host's, and would have to be given to the container once more. Images that nobody can restore would be a
/// container that is lost.
fn refuse_net_devices(spec: &Spec) -> Result<()> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    if devices.is_some_and(|devices| !devices.is_empty()) {
        bail!("/linux/netDevices: CRIU neither saves nor restores network devices of the host");
    }
    Ok(())
}

/// Adds the options that both directions have.
fn add_common(options: &mut Criu_opts, criu: &CriuOptions, directories: &Directories, log: &str) {
    options.set_images_dir_fd(directories.images.as_raw_fd());
    if let Some(work) = &directories.work {
        options.set_work_dir_fd(work.as_raw_fd());
    }
    options.set_log_level(LOG_LEVEL);
    options.set_log_file(log.to_owned());
    options.set_notify_scripts(true);
    options.set_orphan_pts_master(true);
    options.set_manage_cgroups(true);
    if let Some(mode) = criu.cgroups_mode {
        options.set_manage_cgroups_mode(match mode {
            CgroupsMode::Soft => Criu_cg_mode::SOFT,
            CgroupsMode::Full => Criu_cg_mode::FULL,
            CgroupsMode::Strict => Criu_cg_mode::STRICT,
            CgroupsMode::Ignore => Criu_cg_mode::IGNORE,
        });
    }
    options.set_tcp_established(criu.tcp_established);
    options.set_ext_unix_sk(criu.ext_unix_sk);
    options.set_shell_job(criu.shell_job);
    options.set_file_locks(criu.file_locks);
    options.set_auto_dedup(criu.auto_dedup);
    options.set_lazy_pages(criu.lazy_pages);
    options.set_empty_ns(criu.empty_namespaces as u32);
}

/// CRIU's configuration file for this container: the annotation's, or the one that runc has for all.
fn configuration_file(spec: &Spec) -> Option<String> {
    let annotation = spec.annotations().as_ref().and_then(|annotations| annotations.get(CONFIG_ANNOTATION));
    match annotation {
        Some(path) => Some(path.clone()).filter(|path| !path.is_empty()),
        None => Path::new(CONFIG_FILE).exists().then(|| CONFIG_FILE.to_owned()),
    }
}

fn init_pid(container: &Container) -> Result<i32> {
    let Some(init) = &container.record.init else { bail!("container not running") };
    init.open().on("open", format_args!("init of {}", container.record.id))?;
    Ok(init.pid)
}
