//! What later commands do with a container that an earlier one made: each opens its record, asks its engine, and holds
//! its lock while it changes something.

use super::notify::NotifyProxy;
use super::spawn::Stage2;
use super::supervisor::view::tell;
use crate::engine::oci::hooks;
use crate::engine::{Container, EngineOperations, table};
use crate::rpc::client::BEFORE_EXEC;
use crate::rpc::operation::HookOperation;
use crate::state::{Brief, Line, Listing, NotFound, ProcessIdentity, Record, StateDir, Status};
use crate::sys::{Errno, On};
use crate::trace;
use anyhow::{Result, bail};
use oci_spec::runtime::Spec;
use serde_json::json;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long smaster is waited for that has to write down that the program has begun.
const START_TIMEOUT: Duration = Duration::from_secs(1);

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
        let record = match state.record()? {
            record if record.starting => settled(&state, record)?,
            record => record,
        };
        let engine = (table::find(&record.engine)?.make)();
        Ok(Self { container: Container::new(state, record), engine })
    }

    /// # Errors
    /// The kernel's.
    pub fn status(&self) -> Result<Status> {
        self.engine.status(&self.container)
    }
}

/// The record of a container that is starting. Its program may have begun: who has seen that is not to hear that the container
/// is being created.
fn settled(state: &StateDir, mut record: Record) -> Result<Record> {
    let deadline = Instant::now() + START_TIMEOUT;
    while record.starting && Instant::now() < deadline {
        if state.is_free().on("lock", state.id())? {
            record = state.record()?;
            // smaster was killed.
            record.complete |= record.starting;
            return Ok(record);
        }
        let init = record.init.as_ref().map_or(Ok(None), ProcessIdentity::look)?;
        if init.is_some_and(|init| init.command == BEFORE_EXEC.to_bytes()) {
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
        record = state.record()?;
    }
    Ok(record)
}

/// The status of a container of many, and its record, for which there is room in `line`. `None` where [`Live::open_listed`] is
/// needed for that.
///
/// # Errors
/// As there, and as [`Live::status`].
pub fn glance<'l>(listing: &Listing, id: &str, line: &'l mut Line) -> Result<Option<(Status, Brief<'l>)>> {
    check_id(id)?;
    let Some(glance) = listing.glance(id) else { return Ok(None) };
    let Some(record) = glance.brief(line).filter(|record| !record.supervised) else { return Ok(None) };
    let engine = (table::find(record.engine)?.make)();
    Ok(engine.glance(&record, &glance)?.map(|status| (status, record)))
}

/// An id that no container can have does not exist; nothing that contains a slash is ever looked up.
pub(super) fn check_id(id: &str) -> Result<()> {
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
/// waits for its creator has no barrier, and one that has begun by itself needs no start.
///
/// # Errors
/// Why the program could not be executed; where a poststart hook failed, the container has been killed.
pub fn start_created(
    container: &mut Container,
    engine: &mut dyn EngineOperations,
    stage2: Option<&mut Stage2>,
) -> Result<()> {
    let _mark = trace::span("start");
    match stage2.filter(|stage2| stage2.awaits_start || stage2.has_begun) {
        Some(stage2) if stage2.has_begun => {}
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

pub(super) fn poststop(hooks: &[HookOperation], record: &Record, directory: Option<&Path>) -> Result<()> {
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

pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<crate::sys::Error>().is_some_and(|error| error.errno == Errno::ESRCH)
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
