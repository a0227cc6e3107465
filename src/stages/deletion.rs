//! The removal of a container: of one that has ended, by force of any, and of what a killed command left of one.

use super::lifecycle::{Live, check_id, is_gone, poststop};
use super::supervisor::view::{end_smaster, known, tell};
use crate::engine::oci::hooks;
use crate::engine::remains::{self, Unrecorded};
use crate::engine::{Container, EngineOperations, Outcome, table};
use crate::state::{Busy, NotFound, Phase, ProcessIdentity, Record, StateDir, Status};
use crate::sys::{Errno, On, process};
use crate::trace;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// How long `delete --force` waits for a killed init.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// By when nearly every process has ended that was killed.
const SOON: Duration = Duration::from_millis(200);

/// How long a command waits for another that is at work on the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a create waits for others that have seen the same remains of a killed one, and do not know yet who removes them.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// What a killed create of runc leaves; who has changed from one runtime to the other is to get rid of that.
const FIFO_OF_RUNC: &str = "exec.fifo";
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
            crate::config::id::validate(id)?;
            let _ = remains::remove_scopes(root, id);
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
    delete_open(live, force, directory)
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
            let _ = process::pidfd_signal(&holder.pidfd, libc::SIGKILL);
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
        Ok(state) if state.has_lost_record()? => {
            let advice = state.forced_deletion();
            bail!("the record of container {id:?} is lost, and it may still run: {advice} removes it")
        }
        // With a root or an id that was mistaken: the directory is there, which is what `create` says of it.
        Ok(state) if state.others(&[])?.is_some() => Ok(()),
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
pub fn delete_open(mut live: Live, force: bool, directory: Option<&Path>) -> Result<Vec<String>> {
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
        live.engine.cleanup_container(Outcome::Deleted { container: &live.container, force })?;
    }
    if supervised {
        crate::engine::live::remove_leaf(&live.container)?;
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
    let Live { container, engine } = live;
    let Some(init) = container.record.init.clone() else { return Ok(()) };
    // In a cgroup of its own that it froze itself it does not die: all that is in them is thawed then.
    if matches!(init.wait_for_end(SOON), Ok(true)) {
        return Ok(());
    }
    let _ = engine.kill(container, libc::SIGKILL, true);
    wait_for_end(&container.record.id, &init)
}

fn wait_for_end(id: &str, init: &ProcessIdentity) -> Result<()> {
    if !init.wait_for_end(KILL_TIMEOUT).on("open", format_args!("init of {id}"))? {
        bail!("init of container {id:?} does not die (process {})", init.pid);
    }
    Ok(())
}

/// What is left where there is no record: what a killed create made before it had a process.
fn remove_remains(root: &Path, state: StateDir) -> Result<Vec<String>> {
    if let Some(why) = state.others(&[FIFO_OF_RUNC])? {
        bail!("{:?} is no container, and its directory below {root:?} {why}: is this the --root you mean?", state.id());
    }
    match state.config() {
        Ok(config) => {
            let id = state.id();
            if state.has_lost_record()? {
                return remove_damaged(root, state, None);
            }
            let left = Unrecorded::find(root, id, Some(&config))?;
            if let Some(pid) = left.survivor(id)? {
                bail!(
                    "the record of container {id:?} is lost, and nothing says whether process {pid} in a cgroup of that name \
                     is its program: end it if it is, and delete the container again"
                );
            }
            left.remove(false)?;
        }
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
    // It would go on to write down, restart and remove what it cannot read either.
    if let Ok(Some((supervision, true))) = known(&state) {
        let smaster = &supervision.smaster;
        let _ = smaster.open().and_then(|pidfd| process::pidfd_signal(pidfd, libc::SIGKILL));
        smaster.wait_for_end(KILL_TIMEOUT).on("open", format_args!("smaster of {id}"))?;
    }
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
    delete_open(Live { container, engine }, true, Some(&bundle))
}
