//! `checkpoint` and `restore`: the engine saves what runs, or makes a container of what was saved. Around that are the
//! same steps as around every other container: the lock and the record, and that nothing is left of what failed.

use super::deletion;
use super::foreground::{self, Ended, Signals};
use super::lifecycle::Live;
use super::relay::Terminal;
use super::smaster::new_record;
use super::stage1::Prepared;
use crate::engine::{
    CheckpointRequest, Container, Creation, EngineOperations, LaunchConfig, Outcome, RestoreRequest, Restored,
};
use crate::state::{ProcessIdentity, Record, StateDir, Status};
use crate::sys::{On, process};
use anyhow::{Context, Result, bail};
use std::path::Path;

/// `checkpoint`: saves the container and, unless it is to run on, removes it. Returns what its poststop hooks failed with.
///
/// # Errors
/// Where the container is in another state; why it could not be saved. It runs on then.
pub fn checkpoint(root: &Path, id: &str, request: &CheckpointRequest) -> Result<Vec<String>> {
    let mut live = Live::open_locked(root, id)?;
    match live.status()? {
        Status::Running | Status::Paused => {}
        status => bail!("container cannot be checkpointed in {status} state"),
    }
    live.engine.checkpoint(&live.container, request)?;
    if request.leaves_running() {
        return Ok(Vec::new());
    }
    deletion::delete_open(live, true, None).context("the container is saved, but not removed")
}

/// A container that runs again.
pub struct Running {
    pub container: Container,
    pub engine: Box<dyn EngineOperations>,
    pub restored: Restored,
}

/// What `restore` wants beside the container.
pub struct RestoreOptions<'a> {
    pub request: &'a RestoreRequest,
    /// Does not become the parent of the container's orphans.
    pub no_subreaper: bool,
    /// Called when the container runs.
    pub announce: &'a mut dyn FnMut(&Restored) -> Result<()>,
}

/// `restore --detach`: leaves the container to the caller's subreaper.
///
/// # Errors
/// Whatever failed; nothing of the container is left then.
pub fn restore_detached(prepared: Prepared, options: RestoreOptions<'_>) -> Result<()> {
    announced(restore(prepared, options.request)?, options.announce).map(drop)
}

/// `restore`: stays until the container has ended, and removes it.
///
/// # Errors
/// As [`restore_detached`].
pub fn restore_foreground(prepared: Prepared, options: RestoreOptions<'_>) -> Result<Ended> {
    let terminal = match prepared.launch.oci_config.process.terminal {
        true => Some(Terminal::find()?),
        false => None,
    };
    if !options.no_subreaper {
        process::set_child_subreaper(true).on("prctl", "PR_SET_CHILD_SUBREAPER")?;
    }
    let signals = Signals::catch()?;
    let mut running = announced(restore(prepared, options.request)?, options.announce)?;
    running.container.state.unlock();
    let outcome = watch(&mut running, terminal, &signals);
    let removed = deletion::destroy_unlocked(running.container, running.engine);
    let status = outcome?;
    Ok(Ended { status, failed_hooks: removed.context("remove the container after its end")? })
}

fn watch(running: &mut Running, terminal: Option<Terminal>, signals: &Signals) -> Result<crate::engine::ExitStatus> {
    let Running { container, engine, restored } = running;
    let mut relay = foreground::relay(restored.console.take(), terminal)?;
    foreground::watch(&restored.init, relay.as_mut(), signals, None)?;
    engine.monitor_container(container, Some(&restored.init))
}

fn announced(running: Running, announce: &mut dyn FnMut(&Restored) -> Result<()>) -> Result<Running> {
    match announce(&running.restored) {
        Ok(()) => Ok(running),
        Err(error) => {
            let _ = deletion::destroy(running.container, running.engine);
            Err(error)
        }
    }
}

/// Makes the container. Where that fails, nothing of it is left.
fn restore(prepared: Prepared, request: &RestoreRequest) -> Result<Running> {
    let Prepared { launch, mut engine } = prepared;
    deletion::remove_abandoned(&launch.root, &launch.id)?;
    let state = StateDir::create(&launch.root, &launch.id, &launch.bundle.raw)?;
    let mut undo = Undo { engine: &mut *engine, state: Some(state), restored: None };
    let record = build(&mut undo, &launch, request)?;
    undo.engine.commit_container();
    let (state, restored) = (undo.state.take(), undo.restored.take());
    drop(undo);
    let state = state.context("the state directory of the container is gone")?;
    let restored = restored.context("the container has no process")?;
    Ok(Running { container: Container::new(state, record), engine, restored })
}

/// What a failed restore has to undo, in the order of `create`: the process, the engine's parts, the state. What has
/// been taken out of it is not undone.
struct Undo<'a> {
    engine: &'a mut dyn EngineOperations,
    state: Option<StateDir>,
    restored: Option<Restored>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(state) = self.state.take() else { return };
        if let Some(Restored { init, .. }) = self.restored.take() {
            let _ = process::pidfd_signal(&init.pidfd, libc::SIGKILL);
            let _ = process::wait(init.pid);
        }
        let _ = self.engine.cleanup_container(Outcome::NotCreated);
        let _ = state.remove();
    }
}

fn build(undo: &mut Undo<'_>, launch: &LaunchConfig, request: &RestoreRequest) -> Result<Record> {
    let Undo { engine, state: Some(state), restored } = undo else { bail!("there is no state directory") };
    let mut record = new_record(launch, engine.name(), state.owner());
    let mut recording = state.begin_record(&record)?;
    let mut creation =
        Creation { launch, record: &mut record, recording: &mut recording, state, stage2: None, warnings: Vec::new() };
    let made = restored.insert(engine.restore_container(&mut creation, request)?);
    let pid = made.init.pid;
    record.init = Some(ProcessIdentity::of(pid).on("look at", format_args!("process {pid}"))?);
    record.complete = true;
    recording.add(&record)?;
    Ok(record)
}
