//! What later commands do with a container that an earlier one made: each opens its record, asks its engine, and holds
//! its lock while it changes something.

use super::notify::NotifyProxy;
use super::spawn::Stage2;
use super::supervisor::view::{end_smaster, known, tell};
use crate::engine::oci::hooks;
use crate::engine::remains::{self, Unrecorded};
use crate::engine::{Container, EngineOperations, Outcome, table};
use crate::rpc::operation::HookOperation;
use crate::state::{Busy, Listing, NotFound, Phase, ProcessIdentity, Record, StateDir, Status};
use crate::sys::{Errno, On, process};
use crate::trace;
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollTimeout, poll};
use oci_spec::runtime::Spec;
use serde_json::json;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// A container and the engine that made it.
pub struct Live {
    pub container: Container,
    pub engine: Box<dyn EngineOperations>,
}

impl Live {
    /// Opens a container to look at it.
    ///
    /// # Errors
    /// [`NotFound`]; a damaged record.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        Self::with(check_id(id).and_then(|()| StateDir::open(root, id))?)
    }

    /// As [`Self::open`], one of many.
    ///
    /// # Errors
    /// As there.
    pub fn open_listed(listing: &Listing, id: &str) -> Result<Self> {
        Self::with(check_id(id).and_then(|()| listing.open(id))?)
    }

    /// Opens a container to change it, after every other command that does.
    ///
    /// # Errors
    /// [`NotFound`]; a damaged record.
    pub fn open_locked(root: &Path, id: &str) -> Result<Self> {
        Self::with(check_id(id).and_then(|()| StateDir::open_locked(root, id))?)
    }

    /// # Errors
    /// A damaged record.
    pub(super) fn with(state: StateDir) -> Result<Self> {
        let record = state.record()?;
        let engine = (table::find(&record.engine)?.make)();
        Ok(Self { container: Container::new(state, record), engine })
    }

    /// # Errors
    /// The kernel's.
    pub fn status(&self) -> Result<Status> {
        self.engine.status(&self.container)
    }
}

/// An id that no container can have does not exist; nothing that contains a slash is ever looked up.
fn check_id(id: &str) -> Result<()> {
    match crate::config::id::validate(id) {
        Ok(()) => Ok(()),
        Err(error) if id.is_empty() => Err(error),
        Err(_) => Err(NotFound { id: id.to_owned() }.into()),
    }
}

/// `start`: lets a created container run its program, and runs the poststart hooks.
///
/// # Errors
/// Where the container is in another state; why the program could not be executed.
pub fn start(root: &Path, id: &str, notify_socket: Option<&OsStr>) -> Result<()> {
    let mut live = Live::open_locked(root, id)?;
    match live.status()? {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        Status::Creating => bail!("cannot start a container that is still being created"),
        Status::Paused => bail!("cannot start a paused container: resume it first"),
    }
    start_and_notify(&mut live.container, &mut *live.engine, None, notify_socket)
}

/// The start of a container that this command then leaves alone: with a NOTIFY_SOCKET not before it is ready.
///
/// # Errors
/// As [`start_created`]; where the service manager cannot be told.
pub fn start_and_notify(
    container: &mut Container,
    engine: &mut dyn EngineOperations,
    stage2: Option<&mut Stage2>,
    notify_socket: Option<&OsStr>,
) -> Result<()> {
    let Some(proxy) = NotifyProxy::bind(&container.state, notify_socket)? else {
        return start_created(container, engine, stage2);
    };
    let Some(init) = container.record.init.clone() else { return start_created(container, engine, stage2) };
    let pidfd = init.open().on("open", format_args!("init of {}", container.record.id))?;
    start_created(container, engine, stage2)?;
    container.state.unlock();
    proxy.wait(pidfd.as_fd(), init.pid)
}

/// The start itself, for a container whose state is known. `stage2` is there where this command has made it: one that
/// waits for its creator has no barrier.
///
/// # Errors
/// Why the program could not be executed; where a poststart hook failed, the container has been killed.
pub fn start_created(
    container: &mut Container,
    engine: &mut dyn EngineOperations,
    stage2: Option<&mut Stage2>,
) -> Result<()> {
    let _mark = trace::span("start");
    match stage2.filter(|stage2| stage2.awaits_start) {
        Some(stage2) => stage2.start()?,
        None if container.record.supervised => start_supervised(container, engine)?,
        None => engine.start_container(container)?,
    }
    let hooks = hooks::operations(container.hooks()?.poststart().as_ref());
    if hooks.is_empty() {
        return Ok(());
    }
    let pid = container.record.init.as_ref().map_or(0, |init| init.pid);
    let state = serde_json::to_string(&container.record.oci_state(Status::Running, pid))?;
    let outcome = hooks::run("poststart", &hooks, &state, Some(&container.record.bundle));
    if outcome.is_err() {
        let _ = engine.kill(container, libc::SIGKILL, true);
    }
    outcome
}

/// The program may have ended before this command has said that it was started, and that is to be told first: smaster waits
/// for it.
fn start_supervised(container: &mut Container, engine: &mut dyn EngineOperations) -> Result<()> {
    container.state.set_being_started(true)?;
    container.state.set_started(true)?;
    let outcome = engine.start_container(container);
    match &outcome {
        Ok(()) => tell(container, "started", json!({ "pid": container.record.init.as_ref().map(|init| init.pid) })),
        Err(error) => {
            container.state.set_started(false)?;
            tell(container, "failed_to_start", json!({ "error": format!("{error:#}") }));
        }
    }
    container.state.set_being_started(false)?;
    outcome
}

/// Runs the poststop hooks of a configuration.
///
/// # Errors
/// Which hook failed; the spec has it logged, and the others run all the same.
pub fn run_poststop(spec: &Spec, record: &Record) -> Result<()> {
    let hooks = hooks::operations(spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref()));
    poststop(&hooks, record, Some(&record.bundle))
}

fn poststop(hooks: &[HookOperation], record: &Record, directory: Option<&Path>) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_string(&record.oci_state(Status::Stopped, 0))?;
    hooks::run_all("poststop", hooks, &state, directory)
}

/// `kill`: sends a signal to init, or to every process of the container.
///
/// # Errors
/// `container not running` where there is nothing to signal, except that `all` of a stopped container is no error: its
/// other processes may still be there.
pub fn kill(root: &Path, id: &str, signal: i32, all: bool) -> Result<()> {
    let mut live = Live::open(root, id)?;
    let status = live.status()?;
    if all {
        return live.engine.kill(&mut live.container, signal, true);
    }
    match status {
        Status::Created | Status::Running | Status::Paused | Status::Creating => {}
        // Without a pid namespace of its own, what init started may have outlived it.
        Status::Stopped
            if signal == libc::SIGKILL && live.engine.processes(&live.container).is_ok_and(|pids| !pids.is_empty()) =>
        {
            return live.engine.kill(&mut live.container, signal, true);
        }
        Status::Stopped => bail!("container not running"),
    }
    match live.engine.kill(&mut live.container, signal, false) {
        Err(error) if is_gone(&error) => bail!("container not running"),
        other => other,
    }?;
    // A signal does not reach a frozen process of cgroup v1; SIGKILL has to.
    if status == Status::Paused && signal == libc::SIGKILL {
        live.engine.resume(&mut live.container)?;
    }
    Ok(())
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<crate::sys::Error>().is_some_and(|error| error.errno == Errno::ESRCH)
}

/// How long `delete --force` waits for a killed init.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a command waits for another that is at work on the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a create waits for others that have seen the same remains of a killed one, and do not know yet who removes them.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How long `delete --force` lets such a command finish before it ends it.
const FORCE_AFTER: Duration = Duration::from_secs(1);

/// `delete`: removes a stopped container; with `force` any, and what a killed command left of one. Returns what failed
/// without leaving anything behind: poststop hooks, which the specification has logged.
///
/// # Errors
/// [`NotFound`], but not with `force`; a container that is not stopped, without it.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<Vec<String>> {
    match lock_to_delete(root, id, force) {
        // Of what may never have been, systemd need not be there to be asked.
        Err(error) if force && error.is::<NotFound>() => {
            if crate::config::id::validate(id).is_ok() {
                let _ = remains::remove_scopes(root, id);
            }
            Ok(Vec::new())
        }
        state => delete_locked(root, state?, force, None),
    }
}

/// As [`delete`], for a container that this command has locked. Its poststop hooks run in `directory`.
pub(super) fn delete_locked(
    root: &Path,
    state: StateDir,
    force: bool,
    directory: Option<&Path>,
) -> Result<Vec<String>> {
    let record = match state.record() {
        Err(error) if force && error.is::<NotFound>() => return remove_remains(root, state),
        // Where it could not be read for want of memory, say, it is not damaged.
        Err(_) if force && state.record().is_err() => return remove_damaged(root, state, None),
        other => other?,
    };
    let engine = match table::find(&record.engine) {
        Err(_) if force => return remove_damaged(root, state, Some(&record)),
        other => (other?.make)(),
    };
    let live = Live { container: Container::new(state, record), engine };
    match live.status() {
        Err(error) if force && error.is::<serde_json::Error>() => {
            let Container { state, record, .. } = live.container;
            return remove_damaged(root, state, Some(&record));
        }
        status if force => drop(status),
        status => match status? {
            Status::Stopped if is_restarting(&live)? => bail!(
                "cannot delete container {} that is not stopped: it is about to be restarted (see `rtx stop`)",
                live.container.record.id
            ),
            Status::Stopped | Status::Created => {}
            Status::Creating if live.container.record.init.is_none() => {}
            status => bail!("cannot delete container {} that is not stopped: {status}", live.container.record.id),
        },
    }
    delete_open(live, directory)
}

fn is_restarting(live: &Live) -> Result<bool> {
    let known = if live.container.record.supervised { known(&live.container.state)? } else { None };
    Ok(known.is_some_and(|(supervision, watched)| watched && supervision.phase == Phase::Restarting))
}

/// Opens a container to delete it. Another command that holds it, with a hook that hangs, is given some time, and with
/// `force` it is ended then: what it made dies with it or is found by its record.
fn lock_to_delete(root: &Path, id: &str, force: bool) -> Result<StateDir> {
    check_id(id)?;
    let patience = if force { FORCE_AFTER } else { LOCK_TIMEOUT };
    match StateDir::open_locked_within(root, id, patience) {
        Err(error) if force => {
            let Some(Busy { holder: Some(holder), .. }) = error.downcast_ref::<Busy>() else { return Err(error) };
            let _ = process::pidfd_open(*holder).and_then(|pidfd| process::pidfd_signal(pidfd, libc::SIGKILL));
            StateDir::open_locked_within(root, id, LOCK_TIMEOUT)
        }
        other => other,
    }
}

/// Removes what a killed `create` left under this id, so that the id can be used again. Looked at and removed under one
/// lock: between two of them another create could come, whose container is nobody's to remove.
///
/// # Errors
/// What could not be removed.
pub fn remove_abandoned(root: &Path, id: &str) -> Result<()> {
    if !crate::state::exists(root, id) {
        return Ok(());
    }
    match StateDir::open_locked_within(root, id, LOOK_PATIENCE) {
        Ok(state) if state.is_abandoned() => delete_locked(root, state, true, None).map(drop),
        Err(error) if !error.is::<NotFound>() && !error.is::<Busy>() => Err(error),
        _ => Ok(()),
    }
}

/// Removes a container that is open, killing what still runs. Poststop hooks run in `directory`, by default in the
/// caller's; what they failed with is returned.
///
/// # Errors
/// What could not be removed.
pub fn delete_open(mut live: Live, directory: Option<&Path>) -> Result<Vec<String>> {
    let hooks = live.container.hooks().map(|hooks| hooks::operations(hooks.poststop().as_ref())).unwrap_or_default();
    let supervised = live.container.record.supervised;
    if supervised {
        live.container.state.set_being_deleted()?;
    }
    let status = live.status();
    if !matches!(status, Ok(Status::Stopped)) {
        kill_and_wait(&mut live, status.ok())?;
    }
    if !supervised || !end_smaster(&live.container)? {
        live.engine.cleanup_container(Outcome::Deleted { container: &live.container })?;
    }
    tell(&live.container, "deleted", json!({}));
    let Live { container: Container { state, record, .. }, .. } = live;
    state.remove()?;
    Ok(poststop(&hooks, &record, directory).err().map(|error| format!("{error:#}")).into_iter().collect())
}

/// `status` is absent where it could not be told: the container may be paused then.
fn kill_and_wait(live: &mut Live, status: Option<Status>) -> Result<()> {
    match live.engine.kill(&mut live.container, libc::SIGKILL, false) {
        Err(error) if !is_gone(&error) && live.container.record.init.is_some() => return Err(error),
        _ => {}
    }
    match status {
        Some(Status::Paused) => live.engine.resume(&mut live.container)?,
        None => drop(live.engine.resume(&mut live.container)),
        _ => {}
    }
    live.container.record.init.as_ref().map_or(Ok(()), |init| wait_for_end(&live.container.record.id, init))
}

fn wait_for_end(id: &str, init: &ProcessIdentity) -> Result<()> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    let pidfd = match init.open() {
        Err(Errno::ESRCH) => return Ok(()),
        other => other.on("open", format_args!("init of {id}"))?,
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd.as_fd(), process::end_events())];
        let failed = crate::sys::retry(|| poll(&mut fds, process::end_timeout(timeout))).is_err();
        if failed || process::has_ended(&pidfd, fds[0].revents()) {
            return Ok(());
        }
        if left == 0 {
            bail!("init of container {id:?} does not die (process {})", init.pid);
        }
    }
}

/// What is left where there is no record: what a killed create made before it had a process.
fn remove_remains(root: &Path, state: StateDir) -> Result<Vec<String>> {
    match state.config() {
        Ok(config) => Unrecorded::find(root, state.id(), Some(&config))?.remove(false)?,
        // It had not come to its cgroups, unless the configuration was lost.
        Err(_) => drop(remains::remove_scopes(root, state.id())),
    }
    state.remove()?;
    Ok(Vec::new())
}

/// A record that cannot be read, or of which this rtx cannot read what its engine has kept, does not say where the
/// container's cgroups are: the saved configuration does, or else the id. What still runs in them is the container.
fn remove_damaged(root: &Path, state: StateDir, record: Option<&Record>) -> Result<Vec<String>> {
    let id = state.id();
    if let Some(init) = record.and_then(|record| record.init.as_ref()) {
        match init.open().and_then(|pidfd| process::pidfd_signal(pidfd, libc::SIGKILL)) {
            Ok(()) | Err(Errno::ESRCH) => {}
            other => other.on("kill", format_args!("init of {id}"))?,
        }
    }
    Unrecorded::find(root, id, state.config().ok().as_deref())
        .and_then(|cgroups| cgroups.remove(true))
        .with_context(|| format!("the state of container {id:?} is damaged, and its processes may still run"))?;
    record.and_then(|record| record.init.as_ref()).map_or(Ok(()), |init| wait_for_end(id, init))?;
    state.remove()?;
    Ok(Vec::new())
}

/// `pause`.
///
/// # Errors
/// Where the container does not run.
pub fn pause(root: &Path, id: &str) -> Result<()> {
    let mut live = Live::open_locked(root, id)?;
    match live.status()? {
        Status::Running | Status::Created => live.engine.pause(&mut live.container)?,
        status => bail!("container not running: it is {status}"),
    }
    tell(&live.container, "paused", json!({}));
    Ok(())
}

/// `resume`.
///
/// # Errors
/// Where the container is not paused.
pub fn resume(root: &Path, id: &str) -> Result<()> {
    let mut live = Live::open_locked(root, id)?;
    match live.status()? {
        Status::Paused => live.engine.resume(&mut live.container)?,
        status => bail!("container not paused: it is {status}"),
    }
    tell(&live.container, "resumed", json!({}));
    Ok(())
}

/// Removes a container that this command made and let others change since. Where one of them has removed it, its id may
/// be a new container's, and there is nothing left to do.
///
/// # Errors
/// What could not be removed.
pub fn destroy_unlocked(container: Container, engine: Box<dyn EngineOperations>) -> Result<Vec<String>> {
    container.lock_again()?.map_or(Ok(Vec::new()), |container| destroy(container, engine))
}

/// Removes a container that this command made. Returns what its poststop hooks failed with.
///
/// # Errors
/// What could not be removed.
pub fn destroy(container: Container, engine: Box<dyn EngineOperations>) -> Result<Vec<String>> {
    let _mark = trace::span("clean up");
    let bundle = container.record.bundle.clone();
    delete_open(Live { container, engine }, Some(&bundle))
}
