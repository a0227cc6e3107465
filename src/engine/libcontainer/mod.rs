//! The `libcontainer` engine: the bundle goes to the `libcontainer` crate's `ContainerBuilder` as it is. It is there to
//! compare with: whatever this engine and `oci` do differently is a mistake in one of them. It has no stage2, because
//! libcontainer forks its own processes. What libcontainer keeps lies in `libcontainer/` in the state directory.

mod executor;
mod refused;

use super::{
    Capabilities, Container, Creation, EngineOperations, ExecConfig, Execution, ExitStatus, InitProcess, LaunchConfig,
    LaunchOptions, Outcome, Provider, live,
};
use crate::state::{Liveness, ProcessIdentity, Status};
use crate::sys::{Errno, On, errno_of, process};
use ::libcontainer::config::YoukiConfig;
use ::libcontainer::container::builder::ContainerBuilder;
use ::libcontainer::container::{Container as Theirs, ContainerStatus};
use ::libcontainer::signal::Signal;
use ::libcontainer::syscall::syscall::SyscallType;
use anyhow::{Context, Result, bail};
use libcgroups::common::{CgroupConfig, CgroupManager, create_cgroup_manager};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub static PROVIDER: Provider = Provider {
    name: "libcontainer",
    about: "the libcontainer crate's ContainerBuilder, to compare with",
    capabilities: Capabilities {
        isolates: true,
        needs_privileges: false,
        exec: true,
        pause: true,
        update: false,
        stats: false,
        terminal: true,
    },
    make: || Box::new(LibcontainerEngine::default()),
    make_payload: None,
    unavailable: || None,
    schema: || serde_json::json!({ "type": "object", "additionalProperties": false }),
};

/// What the record of a container keeps for this engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EngineState {
    /// Where libcontainer keeps its containers, this one under its id.
    root: PathBuf,
}

#[derive(Default)]
pub struct LibcontainerEngine {
    /// Of the container that is being made.
    making: Option<PathBuf>,
}

impl EngineOperations for LibcontainerEngine {
    fn name(&self) -> &'static str {
        PROVIDER.name
    }

    fn prepare_config(&mut self, launch: &mut LaunchConfig) -> Result<()> {
        refused::check(&launch.id, &launch.bundle.spec, &launch.options)?;
        launch.warnings.extend(refused::warnings(&launch.bundle.spec));
        if launch.options.notify_socket.is_some() {
            launch.warnings.push(format!("engine {:?} does not pass NOTIFY_SOCKET on", PROVIDER.name));
        }
        let root = launch.root.join(&launch.id).join("libcontainer");
        launch.engine_state = Some(serde_json::value::to_raw_value(&EngineState { root })?);
        Ok(())
    }

    fn create_container(&mut self, creation: &mut Creation<'_>) -> Result<()> {
        let launch = creation.launch;
        let root = launch.root.join(&launch.id).join("libcontainer");
        self.making = Some(root.join(&launch.id));
        let container = builder(&launch.id, &root, &launch.options)?
            .as_init(&launch.bundle.directory)
            .with_systemd(launch.options.systemd_cgroup)
            .with_no_pivot(launch.options.no_pivot)
            .with_detach(true)
            .build()
            .context("libcontainer: create")?;
        // These two kinds are run for every engine; whoever starts or deletes must not run them again.
        let mut config = YoukiConfig::load(&container.root).context("libcontainer: load its configuration")?;
        if let Some(hooks) = &mut config.hooks {
            hooks.set_poststart(None).set_poststop(None);
            config.save(&container.root).context("libcontainer: save its configuration")?;
        }
        let Some(pid) = container.pid() else { bail!("libcontainer made a container without a process") };
        let pid = pid.as_raw();
        creation.record.init = Some(ProcessIdentity::of(pid).on("look at", format_args!("process {pid}"))?);
        Ok(())
    }

    fn commit_container(&mut self) {
        self.making = None;
    }

    fn monitor_container(&mut self, container: &Container, _init: Option<&InitProcess>) -> Result<ExitStatus> {
        let Some(init) = &container.record.init else { bail!("the container has no process") };
        // It is a child that nobody has waited for: its pid is still its own, even if it has ended.
        let pidfd = process::pidfd_open(init.pid).on("pidfd_open", init.pid)?;
        let init = InitProcess { pid: init.pid, pidfd };
        pass_signals_until_end(&init)?;
        live::wait_for(&init)
    }

    fn cleanup_container(&mut self, outcome: Outcome<'_>) -> Result<()> {
        let directory = match outcome {
            Outcome::NotCreated => self.making.take(),
            Outcome::Deleted { container, .. } => Some(directory(container)?),
        };
        // Where there is no directory, libcontainer has removed what it made.
        let Some(directory) = directory.filter(|directory| directory.exists()) else { return Ok(()) };
        Locked::open(directory)?.delete(true).context("libcontainer: delete")
    }

    fn start_container(&mut self, container: &mut Container) -> Result<()> {
        theirs(container)?.start().context("libcontainer: start")
    }

    fn status(&self, container: &Container) -> Result<Status> {
        let Some(init) = &container.record.init else { return Ok(Status::Creating) };
        if init.liveness()? != Liveness::Alive {
            return Ok(Status::Stopped);
        }
        if !container.record.complete {
            return Ok(Status::Creating);
        }
        Ok(match theirs(container)?.status() {
            ContainerStatus::Creating => Status::Creating,
            ContainerStatus::Created => Status::Created,
            ContainerStatus::Running => Status::Running,
            ContainerStatus::Stopped => Status::Stopped,
            ContainerStatus::Paused => Status::Paused,
        })
    }

    fn exec_directly(&mut self, container: &Container, exec: &mut ExecConfig) -> Result<Option<Execution>> {
        let spec = serde_json::from_slice(&container.state.config()?).context("read the container's configuration")?;
        refused::check_process(&exec.process, &spec, &exec.options)?;
        let sub_cgroup = match exec.sub_cgroups.as_slice() {
            [] => None,
            [path] if !path.contains(':') => Some(path.clone()),
            _ => return Err(self.unsupported("--cgroup for one controller")),
        };
        let state = engine_state(container)?;
        let file = state.root.join(format!("process-{}.json", std::process::id()));
        std::fs::write(&file, serde_json::to_vec(&exec.process)?)
            .map_err(|error| errno_of(&error))
            .on("write", file.display())?;
        let result = builder(&container.record.id, &state.root, &exec.options)?
            .as_tenant()
            .with_process(Some(&file))
            .with_ignore_paused(exec.ignore_paused)
            .with_sub_cgroup(sub_cgroup)
            .with_detach(true)
            .build();
        let _ = std::fs::remove_file(&file);
        if result.is_err() {
            reap_children();
        }
        let pid = result.context("libcontainer: exec")?.as_raw();
        let pidfd = process::pidfd_open(pid).on("pidfd_open", pid)?;
        Ok(Some(Execution::Process(InitProcess { pid, pidfd })))
    }

    fn kill(&mut self, container: &mut Container, signal: i32, all: bool) -> Result<()> {
        // libcontainer goes by the pid alone, which may be another process's by now.
        if !all
            && container
                .record
                .init
                .as_ref()
                .is_none_or(|init| init.liveness().is_ok_and(|liveness| liveness != Liveness::Alive))
        {
            Err(Errno::ESRCH).on("signal init of", &container.record.id)?;
        }
        if signal == 0 {
            return Ok(());
        }
        let signal = Signal::try_from(signal).map_err(|_| self.unsupported("signals from 32 upwards"))?;
        theirs(container)?.kill(signal, all).context("libcontainer: kill")
    }

    fn pause(&mut self, container: &mut Container) -> Result<()> {
        theirs(container)?.pause().context("libcontainer: pause")
    }

    fn resume(&mut self, container: &mut Container) -> Result<()> {
        let mut theirs = theirs(container)?;
        // A SIGKILL to a paused container has thawed it already.
        if theirs.status() != ContainerStatus::Paused {
            return Ok(());
        }
        theirs.resume().context("libcontainer: resume")
    }

    fn processes(&self, container: &Container) -> Result<Vec<i32>> {
        let theirs = theirs(container)?;
        let config = CgroupConfig {
            cgroup_path: theirs.spec().context("libcontainer: load its configuration")?.cgroup_path,
            systemd_cgroup: theirs.systemd(),
            container_name: theirs.id().to_owned(),
        };
        let manager = create_cgroup_manager(config).context("libcgroups: find the cgroup")?;
        let pids = manager.get_all_pids().context("libcgroups: list the processes")?;
        Ok(pids.into_iter().map(|pid| pid.as_raw()).collect())
    }
}

fn builder(id: &str, root: &Path, options: &LaunchOptions) -> Result<ContainerBuilder> {
    let descriptors = i32::try_from(options.preserve_fds + options.listen_fds).context("--preserve-fds")?;
    Ok(ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .validate_id()?
        .with_root_path(root)?
        .with_console_socket(options.console_socket.as_ref())
        .with_preserved_fds(descriptors)
        .with_executor(executor::CleanExecutor::new()))
}

/// libcontainer does not wait for the process of an exec that fails. As a zombie in the container's pid namespace it
/// would keep the container's init from ending.
fn reap_children() {
    for _ in 0..200 {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn engine_state(container: &Container) -> Result<EngineState> {
    let Some(state) = &container.record.engine_state else { bail!("the record does not say where libcontainer's is") };
    serde_json::from_str(state.get())
        .with_context(|| format!("the state of container {:?} is damaged", container.record.id))
}

fn directory(container: &Container) -> Result<PathBuf> {
    Ok(engine_state(container)?.root.join(&container.record.id))
}

fn theirs(container: &Container) -> Result<Locked> {
    Locked::open(directory(container)?)
}

/// A container as libcontainer has it. libcontainer writes its state in place: one command at a time, so that none reads a
/// file that another has just emptied.
struct Locked {
    theirs: Theirs,
    _directory: File,
}

impl Locked {
    fn open(path: PathBuf) -> Result<Self> {
        let directory = File::open(&path).map_err(|error| errno_of(&error)).on("open", path.display())?;
        crate::sys::retry(|| directory.lock().map_err(|error| errno_of(&error))).on("lock", path.display())?;
        let theirs = Theirs::load(path).context("libcontainer: load its state")?;
        Ok(Self { theirs, _directory: directory })
    }
}

impl Deref for Locked {
    type Target = Theirs;

    fn deref(&self) -> &Theirs {
        &self.theirs
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Theirs {
        &mut self.theirs
    }
}

/// What the caller blocks while it runs in the foreground goes to the process, until that has ended.
fn pass_signals_until_end(init: &InitProcess) -> Result<()> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&SigSet::all(), flags).on("signalfd", "")?;
    loop {
        let mut fds =
            [PollFd::new(init.pidfd.as_fd(), process::end_events()), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, process::end_timeout(PollTimeout::NONE)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).on("poll", "the container")?,
        }
        if process::has_ended(&init.pidfd, fds[0].revents()) {
            return Ok(());
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo as i32 != libc::SIGCHLD {
                let _ = process::pidfd_signal(&init.pidfd, signal.ssi_signo as i32);
            }
        }
    }
}
